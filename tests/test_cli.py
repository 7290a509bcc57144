import errno
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import tensorflow as tf

from app import cli, runs
from app.commands.options import COMMANDS, Exp, overrides_from
from app.config import load_experiment
from app.machine import check_backend
from tests.conftest import TINY, copied
from tests.training.stopped_runs import assert_same_bits

ROOT = Path(__file__).resolve().parents[1]


def test_quick_commands_import_no_backend():
    program = (
        "import sys, app.__main__, app.sweep.page; from app.cli import main\n"
        "for command in (['list'], ['check', 'quickstart'], ['check', 'quickstart', '--show']):\n"
        "    assert main(command) == 0\n"
        "heavy = {'tensorflow', 'keras', 'jax', 'matplotlib', 'sklearn'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    command = [sys.executable, "-c", program]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert "quickstart" in result.stdout and "no error" in result.stdout


def test_an_output_that_is_full_is_one_message():
    with open("/dev/full", "w") as full:
        command = [sys.executable, "-m", "app", "list"]
        done = subprocess.run(command, cwd=ROOT, stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 2 and "No space left on device" in done.stderr
    assert done.stderr.count("\n") == 1


def test_check_shows_an_experiment_that_loads_again(home, capsys):
    overrides = ["seed=7", "training.batch_size=9"]
    assert cli.main(["check", "tiny", "--show", "--set", *overrides[:1], "--set", *overrides[1:]]) == 0
    (home / "experiments" / "again.yaml").write_text(capsys.readouterr().out)
    shown, expected = load_experiment("again"), load_experiment("tiny", overrides)
    assert shown.model_dump(exclude={"name"}) == expected.model_dump(exclude={"name"})
    assert cli.main(["check", "--show"]) == 2
    assert "name it (EXP=)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["train", "tinny"], "Did you mean 'tiny'"),
        (["train", "tiny", "--set", "model.weights=imagnet"], "did you mean imagenet? Weights are a run's"),
        (["train", "tiny", "--set", "training.epohcs=2"], "did you mean 'epochs'"),
        (["train", "tiny", "--set", "a='"], "write KEY=VALUE pairs"),
        (["train", "tiny", "--from", "tiny/latest"], "received both EXP and FROM"),
        (["train", "--from", "tiny/latest"], "no run folder of that name"),
        (["train", "../tiny"], "../tiny"),
        (["resume"], "name an experiment (EXP=) or one of its runs (RUN=)"),
        (["resume", "tiny"], "no unfinished run"),
        (["resume", "tinny"], "Did you mean 'tiny'"),
        (["curves", "--run", "tiny/20200101-000000"], "no run folder of that name"),
        (["train", "tiny", "--seeds", "0"], "SEEDS=0; train once at least"),
        (["sweep", "tiny", "--space", "training.batch_size=[32,4096]"], "take this value out of the space"),
        (
            "sweep tiny --space optimizer.beta_1=[0.8,0.9] --storage postgresql://me:secret/db".split(),
            "STORAGE: must be postgresql://user:password@host/database",
        ),
        (
            ["train", "tiny", "--seed", "4294967295", "--seeds", "2"],
            "the last of 2 seeds would be above 4294967295",
        ),
        (["doctor", "--run", "tiny/latest", "--set", "seed=1"], "SET and DATA_DIR go with EXP="),
        (["preview", "tinny"], "Did you mean 'tiny'"),
        (["evaluate"], "name an experiment (EXP=) or one of its runs (RUN=)"),
        (["report", "tiny"], "no finished run"),
        (["predict", "tinny", "--images", "x.png"], "Did you mean 'tiny'"),
        (["predict", "tiny"], "predict: name the images"),
        (["export", "tiny", "--format", "keras"], "no finished run"),
        (["export", "tiny"], "export: name a format"),
        (["check", "tinny"], "Did you mean 'tiny'"),
        (["train", "tiny", "--sedes", "3"], "unrecognized arguments: --sedes"),
        (["check", "tiny", "--set", "a=1", "--set", "b=2", "c"], "quotes keep several values"),
        (["train", "tiny", "--epochs", "100001"], "training.epochs: must be a whole number from 1 to 100000"),
        (
            ["train", "tiny", "--epochs", "0"],
            "training.epochs: must be a whole number from 1 to 100000, or 'auto'; got 0",
        ),
        (["train", "tiny", "--seed", "x"], "seed: must be a whole number; got 'x'"),
        (
            ["check", "tiny", "--set", "training.epochs=0"],
            "must be a whole number from 1 to 100000, or 'auto'; got 0",
        ),
        (["check", "tiny", "--data-dir", "nowhere"], "nowhere does not exist"),
        (
            ["train", "tiny", "--set", "model.weights=tiny/latest"],
            "model.weights: tiny/latest: no run folder",
        ),
        (["evaluate", "tiny", "--split", "tset"], "invalid choice: 'tset'"),
        (["export", "tiny", "--format", "onx"], "did you mean 'onnx'?"),
        (["doctor", "tiny", "--data-dir", "nowhere"], "nowhere does not exist"),
        (
            ["train", "tiny", "--set", "dataset.name=image_folder", "--data-dir", "no such: folder"],
            "no such: folder",
        ),
    ],
)
def test_wrong_use_is_one_message_and_exit_code_2(home, capsys, arguments, words):
    assert cli.main(arguments) == 2
    message = capsys.readouterr().err
    assert words in message and "Traceback" not in message
    assert not (home / "runs").exists()


@pytest.mark.slow
def test_train_from_a_run_repeats_its_experiment(home, straight, capsys):
    first = copied(straight, home)
    (home / "experiments" / "tiny.yaml").unlink()
    assert cli.main(["train", "--from", first.name]) == 0
    (second,) = (run for run in runs.list_runs("tiny") if run.name != first.name)
    assert f"curves {second.curves}" in capsys.readouterr().out
    assert second.experiment.read_text() == first.experiment.read_text()
    assert_same_bits(second, first)

    before = first.curves.read_bytes()
    first.curves.unlink()
    assert cli.main(["curves", "--run", first.name]) == 0
    assert first.curves.read_bytes() == before


def test_a_folder_of_images_may_have_any_name(tmp_path):
    for name in ("Fotos \U0001f4f7", "my 'own' \"photos\" #1: α", "\U00020000"):
        (change,) = overrides_from((), str(tmp_path / name))
        experiment = load_experiment("finetune_folder", [change])
        assert experiment.dataset.data_dir == str(tmp_path / name)


def test_full_disk_is_one_message(home, capsys, monkeypatch):
    def full(exp: Exp = None):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(home / "runs" / "x.csv"))

    monkeypatch.setitem(COMMANDS, "train", full)
    assert cli.main(["train", "tiny"]) == 2
    assert "x.csv: cannot be read or written (No space left on device)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(errno.EIO, os.strerror(errno.EIO), "a.csv"), "a.csv: Input/output error"),
        (
            FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), "b.csv"),
            "b.csv: No such file or directory",
        ),
        (
            MemoryError("Unable to allocate 9 GiB"),
            "not enough memory (MemoryError: Unable to allocate 9 GiB)",
        ),
        (
            tf.errors.ResourceExhaustedError(None, None, "at\nOOM when allocating x\nThe end."),
            "not enough memory (ResourceExhaustedError: OOM when allocating x",
        ),
        (RuntimeError("RESOURCE_EXHAUSTED: Out of memory"), "not enough memory (RuntimeError: RESOURCE"),
        (RuntimeError("failed. Status: out of memory"), "not enough memory (RuntimeError: failed."),
        (TimeoutError("timed out"), "the system refused something: timed out"),
        (ModuleNotFoundError("No module named 'keras'", name="keras"), "No module named 'keras'"),
        (
            ImportError("Traceback (most recent call last):\n  File x\nno libtensorflow.so"),
            "no libtensorflow.so",
        ),
    ],
    ids=repr,
)
def test_errors_of_system_and_installation_are_one_message(home, capsys, monkeypatch, error, words):
    def fail(exp: Exp = None):
        raise error

    monkeypatch.setitem(COMMANDS, "train", fail)
    assert cli.main(["train", "tiny"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(words) and ("make" in line) == (not isinstance(error, OSError))


def test_a_fault_of_the_program_is_no_fault_of_the_installation(home, monkeypatch):
    def fail(exp: Exp = None):
        raise ImportError("cannot import name 'x'", name="app.runs")

    monkeypatch.setitem(COMMANDS, "train", fail)
    with pytest.raises(ImportError):
        cli.main(["train", "tiny"])


def test_a_python_without_the_libraries_is_told_which_one_has_them():
    result = subprocess.run(
        [sys.executable, "-S", "-m", "app", "list"], cwd=ROOT, capture_output=True, text=True
    )
    (line,) = result.stderr.splitlines()
    assert result.returncode == 2 and "No module named" in line and "make" in line


def test_ctrl_c_while_the_command_line_is_imported_is_one_word(tmp_path):
    (tmp_path / "cli.py").write_text("raise KeyboardInterrupt")
    program = (
        "import app, runpy, sys; app.__path__[:0] = sys.argv[1:]; runpy.run_module('app', None, '__main__')"
    )
    command = [sys.executable, "-c", program, str(tmp_path)]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert (result.returncode, result.stdout, result.stderr) == (130, "", "\nstopped\n")


def test_ctrl_c_while_a_command_ends_changes_nothing(home, capsys, monkeypatch):
    monkeypatch.setattr(cli.gc, "collect", lambda: os.kill(os.getpid(), signal.SIGINT))
    assert cli.main(["list"]) == 0
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_mistake_that_all_experiments_get_is_said_once(home, capsys):
    (home / "experiments" / "second.yaml").write_text(TINY.replace("batch_size", "batch_sise"))
    assert cli.main(["check", "--set", "training.epoch=3"]) == 2
    said = capsys.readouterr().err
    assert said.count("unknown key; did you mean 'epochs'?") == 1 and "did you mean 'batch_size'?" in said


@pytest.mark.parametrize("name", ["no such folder", "experiments/tiny.yaml"])
def test_a_home_that_is_no_folder(home, capsys, monkeypatch, name):
    monkeypatch.setenv("TRAINER_HOME", str(home / name))
    for command in ("list", "check", "train"):
        assert cli.main([command]) == 2
        assert "TRAINER_HOME: " in capsys.readouterr().err


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_before_training_unwinds(home, capsys, monkeypatch, number):
    """Temporary files are removed on the way; make sends SIGTERM again, the shell SIGHUP."""
    unwound = []

    def decode(exp: Exp = None):
        try:
            os.kill(os.getpid(), number)
            time.sleep(60)
        finally:
            os.kill(os.getpid(), number)
            unwound.append(number)

    monkeypatch.setitem(COMMANDS, "train", decode)
    before = signal.getsignal(number)
    assert cli.main(["train", "tiny"]) == 128 + number
    assert capsys.readouterr().err == "\nstopped\n" and unwound == [number]
    assert signal.getsignal(number) == before == signal.SIG_DFL


def test_a_signal_that_is_ignored_stays_so(home, monkeypatch):
    def train(exp: Exp = None):
        os.kill(os.getpid(), signal.SIGHUP)
        return 0

    monkeypatch.setitem(COMMANDS, "train", train)
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        assert cli.main(["train", "tiny"]) == 0
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_streams_that_are_closed_from_the_start_are_no_files_of_a_run(tmp_path):
    program = (
        "import sys; from app.process import open_standard_streams; open_standard_streams()\n"
        "file = open(sys.argv[1], 'w')\n"
        "assert file.fileno() > 2, file.fileno()\n"
        "print('out'); print('err', file=sys.stderr); sys.stdin.read(); sys.stdout.flush()\n"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "file")]
    done = subprocess.run(["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", *command], cwd=ROOT)
    assert done.returncode == 0 and (tmp_path / "file").read_text() == ""


def test_a_quick_command_ends_silently_where_nobody_reads_it(home, capsys, monkeypatch):
    reading, writing = os.pipe()
    os.close(reading)
    with open(writing, "w", buffering=1) as out:
        monkeypatch.setattr(sys, "stdout", out)
        assert cli.main(["list"]) == 0
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        (
            "KERAS_BACKEND",
            "torch",
            "must be one of tensorflow, jax, on which this program trains; got 'torch'",
        ),
        ("KERAS_BACKEND", "tensorflw", "did you mean 'tensorflow'?"),
        ("KERAS_BACKEND", "jax", "jax is not installed here"),
        ("TF_NUM_INTRAOP_THREADS", "many", "must be a whole number; got 'many'"),
        ("OMP_NUM_THREADS", "-1", "must be a whole number from 1 on; got '-1'"),
        ("KERAS_MAX_EPOCHS", "few", "leave it out"),
        ("SLURM_STEP_NUM_TASKS", "two", "must be a whole number; got 'two'"),
    ],
)
def test_environment_that_keras_would_trip_over(home, capsys, monkeypatch, name, value, words):
    original = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *more: None if name == "jax" else original(name, *more)
    )
    monkeypatch.setenv("SLURM_PROCID", "0")
    monkeypatch.setenv(name, value)
    assert cli.main(["train", "tiny"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"{name}: ") and words in line
    assert not (home / "runs").exists()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"floatx": "float31"}, "floatx: must be one of float16, float32, float64; got 'float31'"),
        ({"backend": "theano"}, "backend: must be one of tensorflow, jax"),
        ({"image_data_format": None}, "image_data_format: must be one of channels_last"),
        ({"epsilon": "small"}, "epsilon: must be a number"),
        ([1], "must be a mapping of keys"),
        ("{", "cannot be read"),
    ],
    ids=str,
)
def test_settings_of_keras_that_it_would_trip_over(home, capsys, monkeypatch, content, words):
    file = home / "keras.json"
    file.write_text(content if isinstance(content, str) else json.dumps(content))
    monkeypatch.setenv("KERAS_HOME", str(home))
    monkeypatch.delenv("KERAS_BACKEND", raising=False)
    assert cli.main(["train", "tiny"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"{file}: ") and words in line


def test_a_user_without_a_home_can_train(monkeypatch):
    def nobody(_):
        raise KeyError("no such user")

    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setattr("pwd.getpwuid", nobody)
    check_backend({})


@pytest.mark.parametrize(("file", "better"), [("my exp.yaml", "my_exp"), ("b.yml", "b"), ("a+b.yaml", "a_b")])
def test_files_that_are_no_experiments_by_their_name_say_what_to_rename(home, capsys, file, better):
    (home / "experiments" / file).write_text(TINY)
    rule = f"rename it, such as to {better}.yaml"
    assert cli.main(["list"]) == 0
    out = capsys.readouterr().out
    assert "tiny " in out and f"{file}'" in out and rule in out
    for arguments in (["check"], ["train", file], ["train", file.rpartition(".")[0]]):
        assert cli.main(arguments) == 2
        assert rule in capsys.readouterr().err


def test_a_name_may_have_letters_of_any_script(home, capsys):
    (home / "experiments" / "blüten.yaml").write_text(TINY)
    assert cli.main(["check", "blüten"]) == 0
    assert cli.main(["list"]) == 0
    assert "blüten" in capsys.readouterr().out


def test_with_more_epochs_an_experiment_stands_for_its_newest_run(home, capsys):
    for stamp in ("20260101-000000", "20260102-000000"):
        folder = home / "runs" / "tiny" / stamp
        folder.mkdir(parents=True)
        shutil.copy(home / "experiments" / "tiny.yaml", folder / "experiment.yaml")
    (home / "runs" / "tiny" / "20260101-000000" / "metrics.json").write_text("{}")
    assert cli.main(["resume", "tiny", "--schedule", "keep"]) == 2
    assert "SCHEDULE=keep: says what becomes of the schedule with EPOCHS" in capsys.readouterr().err
    assert cli.main(["resume", "tiny", "--epochs", "2"]) == 2
    assert "EPOCHS=2: tiny/20260102-000000 is planned for 2 epochs" in capsys.readouterr().err


def test_what_is_wrong_with_runs_and_data_is_found_before_tensorflow_comes_up(home):
    run = home / "runs" / "tiny" / "20260101-000000"
    run.mkdir(parents=True)
    (home / "bad" / "a").mkdir(parents=True)
    (home / "bad" / "a" / "1.png").write_bytes(b"no image")
    folder = TINY.replace("name: digits", "name: image_folder, data_dir: bad")
    (home / "experiments" / "folder.yaml").write_text(folder)
    (run / "experiment.yaml").write_text(folder)
    (run / "metrics.json").write_text("{}")
    (run / "dataset.json").write_text('{"fingerprint": "0"}')
    name = "tiny/20260101-000000"
    commands = {
        "train folder": "one class only",
        "train folder --data-dir nowhere": "nowhere does not exist",
        f"train tiny --set model.weights={name}": f"model.weights: {name} has no best.keras yet",
        "train tiny --set training.batch_size=5000": "only 1618 training images",
        "preview folder --data-dir nowhere": "nowhere does not exist",
        "bench folder --data-dir nowhere": "nowhere does not exist",
        "bench tiny --beside training.precision=bfloat16": "holds for a whole process",
        "bench tiny --beside training.ema.decay=2": "must be below 1",
        "bench tiny --workers 2 --beside seed=1": "received both WORKERS and BESIDE",
        f"resume --run {name}": "this run is finished",
        f"resume --run {name} --epochs 2": "is planned for 2 epochs",
        f"predict --run {name} --images no.jpg": "IMAGES=no.jpg: no such file or folder",
        f"explain --run {name} --images no/*.jpg": "this pattern finds no file that is an image",
        f"export --run {name} --format onx": "did you mean 'onnx'?",
    }
    program = (
        "import sys; from app.cli import main\n"
        "for command in sys.argv[1:]:\n"
        "    assert main(command.split()) == 2, command\n"
        "    assert not {'tensorflow', 'keras', 'jax'} & set(sys.modules), command\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", program, *commands], cwd=ROOT, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    for line, words in zip(result.stderr.splitlines(), commands.values(), strict=True):
        assert words in line
