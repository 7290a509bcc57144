"""Runs that end on the way, and what the resumed ones must equal."""

import io
import os
import signal
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

import app.training.train as runner
from app.config import load_experiment
from app.errors import Interrupted
from app.reading import HISTORY_COLUMNS, read_history, read_json
from app.training.callbacks import Recorder
from app.training.checkpoint import load_state

ROOT = Path(__file__).resolve().parents[2]  # the checkout, where `python -m app` finds the program

EVERYTHING = """\
# All that a recipe can have at once.
seed: 3
dataset: {name: digits, image_size: [16, 16], sampler: square_root}
augmentation:
  - random_resized_crop: {area: [0.5, 1.0]}
  - random_zoom: {scale: [0.8, 1.2]}
  - random_shear: {horizontal_degrees: 10}
  - random_perspective: {distortion: 0.2}
  - trivial_augment
  - rand_augment: {num_ops: 2, magnitude: 5}
  - random_erasing
  - mixup: {alpha: 0.2, probability: 0.4}
  - cutmix: {alpha: 1.0, probability: 0.4}
normalization: per_channel
model: {name: cifar_resnet, depth: 8, drop_path: 0.2, freeze: ["stem*"], unfreeze_epoch: 2}
optimizer:
  name: muon
  learning_rate: {schedule: cosine, peak: 0.05, warmup_epochs: 1, per_images: 256}
  no_decay: norm_and_bias
  others:
    name: sgd
    learning_rate: {schedule: reduce_on_plateau, peak: 0.05, factor: 0.5, patience_epochs: 1}
    momentum: 0.9
    weight_decay: 1e-3
    decoupled: false
training:
  epochs: 2
  batch_size: 128
  class_weight: balanced
  loss: {label_smoothing: 0.1, focal_gamma: 1.0}
  ema: {decay: 0.9}
evaluation: {test_time_views: flip, views_below: 0.7}
"""


class Killed(BaseException):
    """Stands for SIGKILL: nothing is written any more."""


def after_each(patch, action, hook="on_train_batch_end"):
    """Do `action(recorder)` after each step, or behind another hook, until `patch` is undone."""
    original = getattr(Recorder, hook)

    def hooked(self, *args, **kwargs):
        original(self, *args, **kwargs)
        action(self)

    patch.setattr(Recorder, hook, hooked)


def stopped_run(experiment, call, hook="on_train_batch_end", *, kill=False):
    """Train until a hook was called so often, by steps over all epochs; there SIGTERM arrives, or SIGKILL."""
    calls = []

    def stop(recorder):
        calls.append(recorder.run)
        if len(calls) == call:
            if kill:
                raise Killed
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.MonkeyPatch.context() as patch:
        after_each(patch, stop, hook)
        with pytest.raises(Killed if kill else Interrupted):
            runner.train(experiment, out=io.StringIO())
    return calls[0]


def comparable_history(run):
    """All columns but the last two, which are clock times."""
    return [tuple(row[name] for name in HISTORY_COLUMNS[:-2]) for row in read_history(run.history)]


def assert_same_bits(one, other):
    assert comparable_history(one) == comparable_history(other)
    states = [load_state(run)[0] for run in (one, other)]
    assert states[0].path.name == states[1].path.name
    for name in ("model", "optimizer", "metrics"):
        for a, b in zip(states[0].values[name], states[1].values[name], strict=True):
            assert a.tobytes() == b.tobytes(), name
    with np.load(one.predictions) as a, np.load(other.predictions) as b:
        assert sorted(a.files) == ["best_logits", "labels", "last_logits"]
        for name in a.files:
            assert a[name].tobytes() == b[name].tobytes(), name


def assert_resumes_on_jax(home, overrides, call, hook="on_train_batch_end"):
    """Train `tiny` in a process on JAX, straight and stopped: equal numbers, equal bits are not promised."""
    from tests.conftest import on_jax  # here: its import changes the environment, which the process needs

    pytest.importorskip("jax")
    program = f"from tests.training.stopped_runs import compare; compare({overrides!r}, {call}, {hook!r})"
    environment = os.environ | on_jax(home / "jax")
    subprocess.run([sys.executable, "-c", program], env=environment, check=True, cwd=ROOT)


def compare(overrides, call, hook="on_train_batch_end", backend="jax", replicas=1):
    """Compare a run that was never stopped with one that was."""
    experiment = load_experiment("tiny", overrides)
    run = runner.train(experiment, out=io.StringIO())
    assert (keras.backend.backend(), read_json(run.environment)["replicas"]) == (backend, replicas)
    straight = load_state(run)[0]
    run = stopped_run(experiment, call, hook)
    runner.resume(run, out=io.StringIO())
    resumed = load_state(run)[0]
    assert resumed.path.name == straight.path.name
    for name in ("model", "optimizer"):
        for path, a, b in zip(straight.paths[name], straight.values[name], resumed.values[name], strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6, err_msg=path)
    for a, b in zip(straight.progress.rows, resumed.progress.rows, strict=True):
        np.testing.assert_allclose(list(a.values())[:-2], list(b.values())[:-2], rtol=1e-5)
