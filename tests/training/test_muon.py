"""Muon: each step against plain NumPy. That runs with it resume to the same bits shows test_prove.py."""

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

from app.config import dump_experiment, load_experiment
from app.config.optimizer import OptimizerConfig, OtherOptimizer
from app.config.schedules import ConstantSchedule, OneCycleSchedule
from app.errors import UserError
from app.runs import create_run
from app.training.optimizers import LearningRate, build_optimizer
from app.training.optimizers.muon import KernelSteps, kernels_of, orthogonalized
from app.training.resume import longer
from app.training.setup import prepare
from tests.conftest import on_jax
from tests.training.stopped_runs import ROOT

RATE = OneCycleSchedule(start=0.24, peak=0.24, end=0.02, peak_epoch=0.01)
STEPS, EPOCHS = 3, 4
MUON = """\
# Muon in small: wide and tall kernels, biases, offsets of normalisations, a head.
seed: 3
dataset: {name: digits, image_size: [16, 16]}
augmentation: [random_crop: {padding_pixels: 1}]
model: {name: fast_cifar10, widths: [8, 8, 8]}
optimizer:
  name: muon
  learning_rate: {schedule: one_cycle, start: 0.1, peak: 0.1, peak_epoch: 0.1}
  rate_multipliers: {"*/beta": 8}
  no_decay: norm_and_bias
  others: {name: sgd, learning_rate: 2.0, momentum: 0.85, nesterov: true, weight_decay: 0.01}
training: {epochs: 2, batch_size: 256}
"""


@pytest.fixture
def small(home):
    (home / "experiments" / "small.yaml").write_text(MUON)
    return home


def layers():
    """Returns built layers whose kernels are wide, tall, depthwise and the head's."""
    made = [
        (keras.layers.Conv2D(5, 3, name="wide"), (None, 8, 8, 4)),  # 5 filters of 36 values
        (keras.layers.Conv2D(7, 1, name="tall"), (None, 8, 8, 2)),
        (keras.layers.DepthwiseConv2D(3, name="depthwise"), (None, 8, 8, 6)),
        (keras.layers.Dense(3, name="dense"), (None, 6)),
        (keras.layers.BatchNormalization(name="norm"), (None, 3)),
        (keras.layers.Dense(2, name="head"), (None, 3)),
    ]
    for layer, shape in made:
        layer.build(shape)
    return [layer for layer, _ in made]


def filters_first(kernel):
    """A kernel as PyTorch has it: (filters, height, width, inputs) or (filters, inputs)."""
    if kernel.ndim == 4 and kernel.shape[3] == 1:  # depthwise
        return kernel.transpose(2, 3, 0, 1)
    return np.moveaxis(kernel, -1, 0)


def filters_last(kernel, shape):
    return kernel.transpose(2, 3, 0, 1) if len(shape) == 4 and shape[3] == 1 else np.moveaxis(kernel, 0, -1)


def newton_schulz(matrix, steps):
    x = matrix / (np.linalg.norm(matrix) + 1e-7)
    if len(x) > len(x[0]):
        x = x.T
    for _ in range(steps):
        a = x @ x.T
        x = 3.4445 * x + (-4.7750 * a + 2.0315 * a @ a) @ x
    return x.T if len(matrix) > len(matrix[0]) else x


def muon(weight, gradients, rates, momentum, nesterov, steps):
    """The loop of airbench94_muon.py for one kernel, in float64 and with filters first."""
    p, shape = filters_first(weight.astype("float64")), weight.shape
    buffer = np.zeros_like(p)
    for gradient, rate in zip(gradients, rates, strict=True):
        g = filters_first(gradient.astype("float64"))
        buffer = momentum * buffer + g
        g = g + momentum * buffer if nesterov else buffer
        p = p * (len(p) ** 0.5 / np.linalg.norm(p))
        p = p - rate * newton_schulz(g.reshape(len(g), -1), steps).reshape(g.shape)
    return filters_last(p, shape)


def sgd(weight, gradients, rate, momentum, decay, factor=1.0):
    """Keras' SGD with Nesterov's momentum and decoupled weight decay, in float64."""
    weight, velocity = weight.astype("float64"), 0.0
    for gradient in gradients:
        weight = weight - rate * decay * weight
        velocity = momentum * velocity - factor * rate * gradient
        weight = weight + momentum * velocity - factor * rate * gradient
    return weight


@pytest.mark.parametrize("accumulated", [None, 2])
@pytest.mark.parametrize(
    "steps", [KernelSteps(), KernelSteps(momentum=0.95, nesterov=False, newton_schulz_steps=5)]
)
def test_steps_of_kernels_are_the_sources_and_of_everything_else_the_other_optimizers(steps, accumulated):
    variables = [variable for layer in layers() for variable in layer.trainable_variables]
    others = OtherOptimizer(
        name="sgd",
        learning_rate=ConstantSchedule(peak=0.1),
        **{"momentum": 0.85, "nesterov": True, "weight_decay": 0.3},
    )
    config = OptimizerConfig(
        name="muon",
        learning_rate=RATE,
        others=others,
        rate_multipliers={"*/beta": 4.0, "dense/kernel": 0.5},
        no_decay=("*/gamma",),
        gradient_accumulation_steps=accumulated,
        **dataclasses.asdict(steps),
    )
    optimizer = build_optimizer(config, STEPS, EPOCHS)
    optimizer.build(variables)
    start = {v.path: keras.ops.convert_to_numpy(v).copy() for v in variables}
    rng = np.random.default_rng(1)
    gradients = [
        {path: rng.normal(size=value.shape).astype("float32") for path, value in start.items()}
        for _ in range(STEPS * EPOCHS)
    ]
    for step in gradients:
        optimizer.apply([keras.ops.convert_to_tensor(each) for each in step.values()], variables)

    rates = [LearningRate(RATE, STEPS, EPOCHS).at(step) for step in range(STEPS * EPOCHS)]
    if accumulated:
        rates = rates[1::2]
        pairs = zip(gradients[::2], gradients[1::2], strict=True)
        gradients = [{path: (one[path] + other[path]) / 2 for path in one} for one, other in pairs]
    kernels = [v.path for v in kernels_of(variables)]
    assert kernels == ["wide/kernel", "tall/kernel", "depthwise/kernel", "dense/kernel"]
    for variable in variables:
        path, of_steps = variable.path, [step[variable.path] for step in gradients]
        if path in kernels:
            factor = 0.5 if path == "dense/kernel" else 1.0
            arguments = (steps.momentum, steps.nesterov, steps.newton_schulz_steps)
            expected = muon(start[path], of_steps, [factor * rate for rate in rates], *arguments)
        else:
            factor, decay = (4.0 if path == "norm/beta" else 1.0), (0.0 if path == "norm/gamma" else 0.3)
            expected = sgd(start[path], of_steps, 0.1, 0.85, decay, factor)
        ours = keras.ops.convert_to_numpy(variable)
        np.testing.assert_allclose(ours, expected, rtol=2e-4, atol=2e-5, err_msg=path)


def test_no_variable_of_the_optimizer_is_idle():
    variables = [variable for layer in layers() for variable in layer.trainable_variables]
    others = OtherOptimizer(name="adam", learning_rate=ConstantSchedule(peak=0.1))
    config = OptimizerConfig(name="muon", learning_rate=RATE, others=others)
    optimizer = build_optimizer(config, STEPS, EPOCHS)
    optimizer.build(variables)
    before = [keras.ops.convert_to_numpy(variable).copy() for variable in optimizer.variables]
    optimizer.apply([keras.ops.ones(variable.shape) for variable in variables], variables)
    for variable, value in zip(optimizer.variables, before, strict=True):
        changed = (keras.ops.convert_to_numpy(variable) != value).any()
        assert changed or variable.path.endswith("learning_rate"), variable.path


@pytest.mark.parametrize("shape", [(3, 40), (40, 3), (6, 6)])
def test_singular_values_come_near_one(shape):
    matrix = np.random.default_rng(0).normal(size=shape).astype("float32")
    u, _, v = np.linalg.svd(matrix, full_matrices=False)
    ours = keras.ops.convert_to_numpy(orthogonalized(keras.ops.convert_to_tensor(1e4 * matrix), 5))
    values = np.diag(u.T @ ours @ v.T)
    assert np.all((0.5 < values) & (values < 1.4))  # what the source says of its coefficients
    np.testing.assert_allclose(u @ np.diag(values) @ v, ours, atol=1e-4)


def test_gradient_and_kernel_of_zeros_stay_finite():
    assert not keras.ops.convert_to_numpy(orthogonalized(keras.ops.zeros((3, 4)), 3)).any()
    with keras.name_scope("net"):
        variables = [keras.Variable(np.zeros((2, 2)), name="kernel") for _ in range(2)]
    others = OtherOptimizer(name="sgd", learning_rate=ConstantSchedule(peak=0.1))
    optimizer = build_optimizer(OptimizerConfig(name="muon", learning_rate=RATE, others=others), 1, 9)
    optimizer.build(variables)
    optimizer.apply([keras.ops.ones((2, 2))] * 2, variables)
    assert all(np.isfinite(keras.ops.convert_to_numpy(variable)).all() for variable in variables)


@pytest.mark.parametrize(
    "precision", ["float32", *(pytest.param(low, marks=pytest.mark.slow) for low in ("bfloat16", "float16"))]
)
def test_loss_falls_in_every_precision(small, precision, request):
    if precision == "bfloat16":
        request.getfixturevalue("bfloat16")
    job = prepare(load_experiment("small", [f"training.precision={precision}"]))
    history = job.classifier.fit(
        job.batches(), steps_per_epoch=job.steps_per_epoch, epochs=2, shuffle=False, verbose=0
    )
    first, last = history.history["loss"]
    assert last < 0.95 * first


def test_what_becomes_of_the_two_schedules_with_more_epochs_is_asked_once(small):
    experiment = load_experiment("small", ["optimizer.others.learning_rate={schedule: cosine, peak: 2.0}"])
    run = create_run("small")
    run.experiment.write_text(dump_experiment(experiment))
    with pytest.raises(UserError, match="follows a one_cycle over 2 epochs"):
        longer(run, 4, None)
    for fate, span in (("keep", 2), ("stretch", None)):
        optimizer = longer(run, 4, fate).optimizer
        assert optimizer.learning_rate.span_epochs == optimizer.others.learning_rate.span_epochs == span


@pytest.mark.slow
def test_optimizers_of_our_own_pass_their_tests_on_jax(tmp_path):
    pytest.importorskip("jax")
    here = Path(__file__).parent
    files = [str(here / name) for name in ("test_muon.py", "test_weight_decay.py")]
    command = [sys.executable, "-m", "pytest", "-q", "-n", "0", "-m", "not slow", *files]
    environment = os.environ | on_jax(tmp_path)
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout[-3000:]
