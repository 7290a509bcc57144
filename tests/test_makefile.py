"""The Makefile hands what a user passes to the program, word for word, and refuses what nobody takes."""

import inspect
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from app.commands.options import COMMANDS, GIVEN, parse
from app.errors import UserError

ROOT = Path(__file__).resolve().parents[1]
pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="there is no make here")


@pytest.fixture
def make(tmp_path):
    """Call make in a folder that looks like an installation; its Python is a script, `program`."""
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path)
    binaries = tmp_path / ".venv" / "bin"
    binaries.mkdir(parents=True)
    for stamp in (".installed", ".installed-dev"):
        (tmp_path / ".venv" / stamp).touch()

    def call(*arguments, program, **variables):
        python = binaries / "python"
        python.write_text(f"#!/bin/sh\n{program}\n")
        python.chmod(0o755)
        return subprocess.run(
            ["make", *arguments],
            cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": str(ROOT)} | variables,
            capture_output=True,
            text=True,
        )

    return call


@pytest.fixture
def python(tmp_path, make):
    """Write stand-ins for Pythons: they log `calls`, run code as a version, and `-m venv` copies them."""
    for stamp in (".installed", ".installed-dev"):
        (tmp_path / ".venv" / stamp).unlink()

    def write(name, version):
        path, own = tmp_path / name, shlex.quote(sys.executable)
        path.write_text(f"""#!/bin/sh
echo "{version} $*" >>calls
case "$1 $2" in
-c*) exec {own} -c "import sys; sys.version_info = {version}; sys.modules['pip'] = sys; $2";;
"-m venv") sleep 1; cp "$0" .venv/bin/python;;
esac
""")
        path.chmod(0o755)
        return f"PYTHON={path}"

    return write


def test_values_arrive_word_for_word_whatever_they_hold(make):
    value = """it's "a" `b` $HOME $(shell touch made) #c \\ * =;&|"""
    result = make("train", f"SET={value}", "exp=x", program='printf "%s\\n" "$*" "$SET" "$GIVEN"')
    words, told, given = result.stdout.splitlines()
    assert (words, told, set(given.split())) == ("-m app --from-make train", value, {"SET", "exp"})
    environment = make("train", program='printf "%s" "$SET"', SET=value)
    assert environment.stdout == value


def test_targets_refuse_variables_that_they_do_not_take(make):
    run = f'exec {shlex.quote(sys.executable)} "$@"'
    result = make("check", "exp=quickstart", program=run)
    assert result.returncode == 2 and "takes no variable exp (did you mean EXP?); it takes" in result.stderr
    result = make("test", "EXP=x", "PYTHON=python3", program="echo ran")
    assert result.returncode == 2 and "make test: takes no variable EXP; it takes ARGS" in result.stderr
    assert "ran" not in result.stdout
    assert make("test", "ARGS=x", program="echo ran").stdout == "ran\n"


@pytest.mark.parametrize("word", ["resnet18_cifar10", "experiments/x.yaml"])
def test_a_word_that_is_no_target_is_refused_before_anything_runs(make, tmp_path, word):
    """Also the name of a file that is there, which make takes for a target that is made already."""
    (tmp_path / "experiments").mkdir()
    (tmp_path / "experiments" / "x.yaml").touch()
    result = make("train", word, program="echo ran")
    assert result.returncode == 2 and f"no target {word}; " in result.stderr
    assert "EXP=" in result.stderr and result.stdout == ""


def test_installation_without_its_python_is_one_message(make):
    result = make("list", "BIN=nowhere", program="echo ran")
    assert result.returncode == 2 and result.stdout == ""
    assert result.stderr.startswith(".venv is not whole. `make clean install` makes it anew\n")


@pytest.mark.skipif(shutil.which("flock") is None, reason="there is no flock here, so make locks nothing")
def test_of_two_that_would_install_the_second_one_waits(tmp_path, python):
    command = ["make", "list", python("python3.11", (3, 11)), """A=it's "a" $HOME $(shell touch made) \\ *"""]
    both = [subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    told = [process.communicate(timeout=60)[0] for process in both]
    calls = (tmp_path / "calls").read_text()
    assert [process.returncode for process in both] == [0, 0]
    assert "".join(told).count("installing into .venv") == 1
    assert calls.count("-m venv") == 1 and calls.count("-m app --from-make list") == 2
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize(
    ("there", "given", "kept"),
    [((3, 10), (3, 12), False), ((3, 11), (3, 10), True), ((3, 10), (3, 10), None)],
)
def test_an_environment_is_made_anew_where_its_own_python_does_not_fit(tmp_path, python, there, given, kept):
    """Not where the one that would make it does not: that one is only asked where it is needed."""
    python(".venv/bin/python", there)
    result = subprocess.run(
        ["make", "install", python("another", given)], cwd=tmp_path, capture_output=True, text=True
    )
    made = [call for call in (tmp_path / "calls").read_text().splitlines() if "-m venv --clear .venv" in call]
    assert made == ([f"{given} -m venv --clear .venv"] if kept is False else [])
    assert result.returncode == (2 if kept is None else 0)
    assert ("Python 3.11, 3.12 or 3.13 is needed" in result.stdout) == (kept is None)


@pytest.mark.parametrize(
    ("name", "given", "words"),
    [
        ("train", {"epochs": "2"}, r"takes no variable epochs \(did you mean EPOCHS\?\)"),
        ("train", {"training.epochs": "2"}, r'with SET="training.epochs=..."'),
        ("check", {"RUN": "x"}, "make check: takes no variable RUN.*it takes DATA_DIR, EXP, SET, SHOW$"),
        ("list", {"EXP": "x"}, "takes no variable EXP; it takes none$"),
        ("train", {"EXP": "", "SEEDS": "3"}, "make train: EXP= is empty; give it a value or leave it out"),
        ("evaluate", {"RUN": ""}, "make evaluate: RUN= is empty"),
        ("resume", {"EPOCHS": "two"}, "make resume: EPOCHS=two: must be a whole number"),
        ("predict", {"UNSURE": "80%"}, "make predict: UNSURE=80%: must be a number"),
        ("evaluate", {"SPLIT": "val"}, "make evaluate: SPLIT=val: must be one of validation, test"),
    ],
)
def test_refused_variables(name, given, words):
    with pytest.raises(UserError, match=words):
        parse(["--from-make", name], {GIVEN: " ".join(given)} | given)


def test_variables_become_the_options_of_the_same_name():
    def options(name, **variables):
        return parse(["--from-make", name], {GIVEN: " ".join(variables)} | variables)[1]

    train = options("train", EXP="-x", SET="a=1 b=2", DATA_DIR="my images", SEEDS="3", EPOCHS="2")
    assert (train["exp"], train["set_"], train["data_dir"]) == ("-x", ["a=1 b=2"], "my images")
    assert (train["seeds"], train["epochs"], train["from_"]) == (3, "2", None)
    assert options("train", SET="")["set_"] == []
    assert options("resume", RUN="a/b", FORCE="1")["force"] is True
    assert options("resume", RUN="a/b", FORCE="0")["force"] is False
    assert options("resume", RUN="a/b", FORCE="off")["force"] is False
    with pytest.raises(UserError, match="FORCE=never: must be 1 or 0"):
        options("resume", RUN="a/b", FORCE="never")
    assert options("models", NETWORK="resnet18") == {"network": "resnet18"}
    assert parse(["--from-make", "list"], {"EXP": "x"})[1] == {}  # in the environment, not given to make


def test_options_left_out_have_the_defaults_of_the_signature():
    for name, function in COMMANDS.items():
        defaults = {key: each.default for key, each in inspect.signature(function).parameters.items()}
        given = parse([name], {})[1]
        assert {key: () if value == [] else value for key, value in given.items()} == defaults


def test_the_makefile_has_a_target_with_help_for_each_command():
    text = (ROOT / "Makefile").read_text()
    assert set(re.findall(r"^([a-z-]+):.*## ", text, re.MULTILINE)) >= set(COMMANDS)
