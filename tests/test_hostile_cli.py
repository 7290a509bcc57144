"""Broken experiment files through the command line: one message, exit code 2, nothing written."""

import os
import re

import pytest

from app import cli
from tests.config.conftest import BOMB
from tests.conftest import SHIPPED, set_project, shipped_experiments

FILES = [SHIPPED / f"{name}.yaml" for name in shipped_experiments()]
# What is done to the text of a shipped experiment; none of it can be right. More of it is in tests/config/.
BREAK = {
    "alias_bomb": lambda text: text + "\n" + BOMB,
    "escape": lambda text: text + '\nx: "\\Uffffffff"\n',
    "line_break_in_key": lambda text: text + '\n"no\\nerror": 1\n',
    "utf_16": lambda text: text.encode("utf-16"),
    "thousands_of_keys": lambda text: text + "\n" + "".join(f"key{i}: {i}\n" for i in range(5_000)),
}
LINE = re.compile(r"experiments/broken\.yaml(:[0-9]+:[0-9]+)?: .{1,1500}")


@pytest.fixture(params=BREAK)
def command(request, tmp_path, monkeypatch):
    """A command that meets a broken file; the verbs and the shipped experiments take turns."""
    number = list(BREAK).index(request.param)
    content = BREAK[request.param](FILES[number % len(FILES)].read_text())
    folder = tmp_path / "experiments"
    folder.mkdir()
    for shipped in FILES:
        (folder / shipped.name).write_text(shipped.read_text())
    (folder / "broken.yaml").write_bytes(content if isinstance(content, bytes) else content.encode())
    monkeypatch.setenv("TRAINER_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    yield [("check", "train")[number % 2], "broken"]
    assert os.listdir(tmp_path) == ["experiments"] and len(os.listdir(folder)) == len(FILES) + 1


def test_a_broken_file_is_refused(command, capsys):
    assert cli.main(command) == 2
    out, err = capsys.readouterr()
    assert out == "" and all(LINE.fullmatch(line) for line in err.rstrip("\n").split("\n")), err


@pytest.mark.parametrize("name", ["a" * 5000, "a\0b", "..", "a\nb", "~nobody-of-this-name/x"])
@pytest.mark.parametrize(
    "arguments",
    [
        ["curves", "--run"],
        ["train", "--from"],
        ["curves"],
        ["compare", "--runs"],
        ["train", "quickstart", "--data-dir"],
    ],
    ids=" ".join,
)
def test_names_that_cannot_be(arguments, name, tmp_path, monkeypatch, capsys):
    set_project(monkeypatch, tmp_path, quickstart=(SHIPPED / "quickstart.yaml").read_text())
    assert cli.main([*arguments, name]) == 2
    assert capsys.readouterr().out == "" and os.listdir(tmp_path) == ["experiments"]
