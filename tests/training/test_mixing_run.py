"""A run that mixes images: it resumes to the same bits, and says what its training metrics are."""

import io
import os
import subprocess
import sys

import numpy as np
import pytest
from matplotlib.axes import Axes

import app.training.train as runner
from app.config import load_experiment
from app.reading import read_history
from app.reports.report import write_report
from app.runs import list_runs
from tests.conftest import on_jax
from tests.training.stopped_runs import ROOT, assert_same_bits, stopped_run

MIXING = """\
# mixup and CutMix, with accumulated gradients in bfloat16.
seed: 3
dataset: {name: digits, image_size: [16, 16]}
augmentation: [random_crop, mixup: {alpha: 0.4, probability: 0.5}, cutmix: {probability: 0.4}]
model: {name: baseline}
optimizer: {name: sgd, learning_rate: 0.1, momentum: 0.9, gradient_accumulation_steps: 2}
training:
  epochs: 2
  batch_size: 256
  precision: bfloat16
  class_weight: balanced
  loss: {label_smoothing: 0.1}
"""


@pytest.fixture
def mixed(home):
    (home / "experiments" / "mixed.yaml").write_text(MIXING)
    return home


@pytest.mark.slow
def test_a_run_resumes_to_the_same_bits_and_says_what_it_measured(mixed, bfloat16, monkeypatch):
    labels = set()
    plot = Axes.plot

    def labelled(axes, *values, **more):
        labels.add(more.get("label"))
        return plot(axes, *values, **more)

    monkeypatch.setattr(Axes, "plot", labelled)
    straight = runner.train(load_experiment("mixed"), out=io.StringIO())
    assert {"Training Loss (mixed)", "Validation Loss"} <= labels
    assert "those of mixed images" in write_report(straight).read_text()
    run = stopped_run(load_experiment("mixed"), 5)  # in the middle of an accumulation
    assert_same_bits(straight, runner.resume(run, out=io.StringIO()))


def test_other_runs_do_not_speak_of_mixing(digits_run):
    assert "mixed images" not in digits_run.report.read_text()


@pytest.mark.slow
def test_it_trains_on_jax(mixed):
    pytest.importorskip("jax")
    done = subprocess.run(
        [sys.executable, "-m", "app", "train", "mixed", "--set", "training.precision=float32"],
        cwd=ROOT, env=os.environ | on_jax(mixed / "jax"), capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (run,) = list_runs("mixed")
    rows = read_history(run.history)
    assert len(rows) == 2 and np.isfinite([row["loss"] for row in rows]).all()
