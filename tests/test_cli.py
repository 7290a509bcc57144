import errno
import os
import subprocess
import sys

import pytest

from app import cli, runs, verbs
from app.paths import project_root

EXPERIMENT = """\
# A small experiment.
dataset: {name: digits, image_size: [16, 16]}
model: {name: baseline}
optimizer: {name: adam, learning_rate: 0.001}
training: {epochs: 1, batch_size: 512}
"""


@pytest.fixture
def home(tmp_path, monkeypatch):
    (tmp_path / "experiments").mkdir()
    (tmp_path / "experiments" / "tiny.yaml").write_text(EXPERIMENT)
    monkeypatch.setenv("TRAINER_HOME", str(tmp_path))
    return tmp_path


def test_quick_verbs_import_no_backend():
    program = (
        "import sys; from app.cli import main\n"
        "for verb in (['list'], ['check']):\n"
        "    assert main(verb) == 0\n"
        "heavy = {'tensorflow', 'keras', 'jax', 'matplotlib', 'sklearn'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    command = [sys.executable, "-c", program]
    result = subprocess.run(command, cwd=project_root(), capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert "quickstart" in result.stdout and "no error" in result.stdout


def test_unknown_experiment_names_the_nearest_and_makes_nothing(home, capsys):
    assert cli.main(["train", "tinny"]) == 2
    message = capsys.readouterr().err
    assert "tinny" in message and "Did you mean 'tiny'" in message and "Traceback" not in message
    assert not (home / "runs").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
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
        (["preview", "tinny"], "Did you mean 'tiny'"),
        (["evaluate"], "name an experiment (EXP=) or one of its runs (RUN=)"),
        (["report", "tiny"], "no finished run"),
        (["predict", "tinny", "--images", "x.png"], "Did you mean 'tiny'"),
        (["predict", "tiny"], "predict: name the images"),
        (["export", "tiny", "--format", "keras"], "no finished run"),
        (["export", "tiny"], "export: name a format"),
        (["check", "tinny"], "Did you mean 'tiny'"),
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
def test_train_from_a_run_repeats_its_experiment(home, capsys):
    assert cli.main(["train", "tiny", "--set", "seed=7 training.batch_size=400"]) == 0
    (first,) = runs.list_runs("tiny")
    assert f"curves {first.curves}" in capsys.readouterr().out
    (home / "experiments" / "tiny.yaml").unlink()
    assert cli.main(["train", "--from", first.name]) == 0
    second = runs.list_runs("tiny")[1]
    assert second.experiment.read_text() == first.experiment.read_text()
    columns = runs.HISTORY_COLUMNS[:-2]
    a, b = (runs.read_history(run.history)[0] for run in (first, second))
    assert [a[name] for name in columns] == [b[name] for name in columns]

    before = first.curves.read_bytes()
    first.curves.unlink()
    assert cli.main(["curves", "--run", first.name]) == 0
    assert first.curves.read_bytes() == before
    assert cli.main(["resume", "--run", first.name]) == 2
    assert "is finished" in capsys.readouterr().err


def test_full_disk_is_one_message(home, capsys, monkeypatch):
    def full(*arguments, **options):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(home / "runs" / "x.csv"))

    monkeypatch.setattr(verbs, "train", full)
    assert cli.main(["train", "tiny"]) == 2
    assert "x.csv: cannot be read or written (No space left on device)" in capsys.readouterr().err
