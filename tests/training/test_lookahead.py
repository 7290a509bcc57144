"""Weight averaging: what it computes, and that a run with it resumes to the same bits."""

import io
import os
import subprocess
import sys

import numpy as np
import pytest

import app.training.train as runner
from app.config import load_experiment
from app.errors import UserError
from app.reading import read_json
from app.training.setup import prepare
from tests.conftest import on_jax
from tests.training.stopped_runs import ROOT, assert_same_bits, stopped_run
from tests.training.test_averaging import Watch, values

FAST = """\
# What fast_cifar10 is made of, in small.
seed: 3
dataset: {name: digits, image_size: [16, 16]}
augmentation: [alternating_flip, {random_crop: {padding_pixels: 2, fill: mirror}}]
model: {name: fast_cifar10, widths: [8, 8, 8]}
optimizer:
  name: sgd
  learning_rate: {schedule: one_cycle, start: 0.1, peak: 0.5, peak_epoch: 0.5}
  rate_multipliers: {"*/beta": 16}
  momentum: 0.85
  nesterov: true
  gradient_accumulation_steps: 2
training:
  epochs: 2
  batch_size: 256
  precision: bfloat16
  loss: {label_smoothing: 0.2}
  lookahead: {every_steps: 3, decay: 0.9, power: 2}
evaluation: {test_time_views: flip_and_shift}
"""


@pytest.fixture
def fast(home, bfloat16):
    (home / "experiments" / "fast.yaml").write_text(FAST)
    return home


def test_weights_become_their_average_every_few_steps(fast):
    job = prepare(load_experiment("fast"))
    total = 2 * job.steps_per_epoch
    start, before, after = values(job.classifier.network.weights), Watch(), Watch()
    callbacks = [before, *job.step_callbacks(0), after]
    job.classifier.fit(
        job.batches(),
        steps_per_epoch=job.steps_per_epoch,
        epochs=2,
        shuffle=False,
        verbose=0,
        callbacks=callbacks,
    )
    averages = start
    for step in range(1, total + 1):
        fast_weights, expected = before.seen[step - 1], before.seen[step - 1]
        if step % 3 == 0:
            kept = 0.9 * (step / total) ** 2
            averages = [kept * a + (1 - kept) * w for a, w in zip(averages, fast_weights, strict=True)]
        if step % 3 == 0 or step == total:
            expected = averages
        for ours, theirs in zip(after.seen[step - 1], expected, strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=1e-7)
    assert total % 3  # so that the last step is a case of its own


def test_average_that_would_never_be_updated_is_refused(fast):
    with pytest.raises(UserError, match="every_steps: received 15, but the whole training has 14 steps"):
        prepare(load_experiment("fast", ["training.lookahead.every_steps=15"]))


def test_network_computes_in_the_precision_asked_for(fast):
    job = prepare(load_experiment("fast", ["optimizer.gradient_accumulation_steps=4"]))
    network = job.classifier.network
    assert network.blocks[0].conv1.compute_dtype == "bfloat16" and network.head.compute_dtype == "float32"
    assert {str(weight.dtype) for weight in network.weights} == {"float32"}
    assert list(job.warnings()) == [
        "the last 2 of 14 steps are not applied: gradient_accumulation_steps is 4"
    ]


def test_whitening_kernel_comes_from_the_training_images(fast):
    kernels = [
        values([prepare(load_experiment("fast", [f"seed={seed}"])).classifier.network.stem.kernel])[0]
        for seed in (3, 4)
    ]
    np.testing.assert_allclose(*kernels, atol=0.05)  # other images of the same kind; Glorot's would differ
    assert np.abs(kernels[0]).max() > 1


@pytest.mark.slow
def test_run_with_all_pieces_resumes_to_the_same_bits(fast):
    straight = runner.train(load_experiment("fast"), out=io.StringIO())
    views = read_json(straight.metrics)["test_time_views"]
    assert views["views"] == "flip_and_shift" and 0 <= views["val_accuracy"] <= 1
    run = stopped_run(load_experiment("fast"), 5)  # in the middle of an accumulation
    assert_same_bits(straight, runner.resume(run, out=io.StringIO()))


@pytest.mark.slow
def test_pieces_train_on_jax(fast):
    pytest.importorskip("jax")
    environment = os.environ | on_jax(fast / "jax")
    done = subprocess.run(
        [sys.executable, "-m", "app", "train", "fast"],
        cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "with test-time views" in done.stdout
