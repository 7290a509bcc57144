"""An ablation from end to end, killed in between."""

import csv
import subprocess
import time

import numpy as np
import pytest
from PIL import Image

from app import cli
from app.paths import module_command
from app.reading import read_record
from app.records import MetricsRecord
from app.runs import list_runs, load_run_experiment
from tests.conftest import set_project

EXPERIMENT = """\
# A small network on digits.
seed: 5
dataset: {name: digits, validation: 0.5}
model: {name: baseline}
optimizer: {name: sgd, learning_rate: 0.05, momentum: 0.9, nesterov: true}
training: {epochs: 1, batch_size: 64}
"""
ARGUMENTS = ("small", "--seeds", "2", "--without", "optimizer.nesterov optimizer.learning_rate.peak=1e30")


@pytest.fixture
def home(tmp_path, monkeypatch):
    set_project(monkeypatch, tmp_path, small=EXPERIMENT)
    return tmp_path


def test_nothing_is_written_where_a_piece_is_no_piece(home, capsys):
    assert cli.main(["ablate", "small", "--without", "training.em"]) == 2
    assert "training.em: no such layer or key" in capsys.readouterr().err
    assert cli.main(["ablate", "small", "--seeds", "1"]) == 2
    assert "at least 2" in capsys.readouterr().err
    assert not (home / "runs").exists()


@pytest.mark.slow
def test_a_killed_ablation_goes_on_and_compares_what_its_runs_say(home, capsys):
    command, environment = module_command("app", "ablate", *ARGUMENTS)
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 240
    try:
        while len(list_runs("small.ablation")) < 2:  # the second variant of the first seed
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.05)
    finally:
        process.kill()
        process.wait()
    begun = list_runs("small.ablation")  # a third one where this process had to wait
    first, done = begun[0], sum(run.finished or run.failure.is_file() for run in begun)
    assert first.finished

    assert cli.main(["ablate", *ARGUMENTS]) == 0
    said = capsys.readouterr().out
    assert f"3 variants with 2 seeds are 6 runs, {done} of them done; the others take about" in said
    assert f"seed 5 (1 of 2), whole recipe: {first.name} is finished" in said
    runs = [run for run in list_runs("small.ablation") if run.experiment.is_file()]
    experiments = [load_run_experiment(run) for run in runs]
    # Seed by seed; none was trained twice.
    assert [each.seed for each in experiments] == [5, 5, 5, 6, 6, 6]
    assert [each.optimizer.arguments["nesterov"] for each in experiments] == [True, False, True] * 2
    assert [run.finished for run in runs] == [True, True, False] * 2

    with open(home / "runs" / "small.ablation" / "ablation.csv", newline="") as file:
        whole, without, failed = csv.DictReader(file)
    accuracies = [
        read_record(run.metrics, MetricsRecord).headline.val_accuracy for run in runs if run.finished
    ]
    assert [float(whole["seed_5"]), float(without["seed_5"])] == accuracies[:2]
    assert float(without["mean"]) == pytest.approx(np.mean(accuracies[1::2]))
    assert float(without["difference"]) == pytest.approx(float(without["mean"]) - float(whole["mean"]))
    assert failed["seed_5"] == failed["mean"] == failed["p_value"] == ""
    assert "0, 2 failed" in said and "the loss is" in said
    with Image.open(home / "runs" / "small.ablation" / "ablation.png") as image:
        assert image.width > 800 and len(np.unique(np.asarray(image))) > 50

    runs[0].report.unlink()  # as of one stopped before it
    assert cli.main(["ablate", *ARGUMENTS]) == 0  # all is there: nothing is trained
    assert "6 runs, 6 of them done" in capsys.readouterr().out
    assert [run.name for run in list_runs("small.ablation")][-1] == runs[-1].name
    assert runs[0].report.is_file()
