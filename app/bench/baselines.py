"""Baselines, each in a process of its own: the same network in plain Keras, or in PyTorch, in a plain loop.

The kinds are keras (with the same oneDNN kernels as ours), keras_default (with those that TensorFlow chooses
by itself) and torch. All take normalised float32 images from memory and augment nothing, which favours them.
"""

import contextlib
import importlib.util
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from app.bench.json_worker import JsonWorker, steps_asked
from app.config import Experiment, load_experiment
from app.errors import UserError
from app.wording import install_extra

BATCHES_IN_MEMORY = 8
ONEDNN = "TF_ENABLE_ONEDNN_OPTS"
BY_ITSELF = ""  # neither on nor off: TensorFlow chooses, and nobody else, as the variable is set
# The twins of torch_networks.py, named without torch, each with the arguments that change its layers.
_PLAIN = (
    "baseline", "lenet5", "alexnet8", "vgg16", "inception10", "resnet18", "shallow_res", "minimodel",
    "resnet50", "resnet18_d2l",
)  # fmt: skip
TORCH_NETWORKS: dict[str, tuple[str, ...]] = dict.fromkeys(_PLAIN, ()) | {
    "fast_cifar10": ("widths", "whitening"),
    "resnet": ("depth", "stem", "stride_on"),
    "cifar_resnet": ("depth", "shortcuts", "preactivation"),
    "vgg": ("depth",),
}
FREE_ARGUMENTS = ("head_l2", "bn_momentum", "bn_epsilon", "stem_bn_epsilon", "dropout", "partial_identity")
Shape = tuple[int, int, int]  # height, width, channels
Times = Callable[[int], list[float]]


def require(kind: str, experiment: Experiment) -> None:
    """Raise a UserError where this baseline cannot run the experiment, without importing it."""
    if experiment.optimizer.name == "muon":
        raise UserError(
            f"AGAINST={kind}: optimizer.name: received muon, which the baselines do not have; compare "
            "another, such as SET='\"optimizer={name: sgd, learning_rate: 0.1}\"'"
        )
    if experiment.model.freeze:
        raise UserError(
            f"AGAINST={kind}: model.freeze: the baselines train all layers; leave it out, or bench without"
        )
    if kind != "torch":
        return
    name, optimizer = experiment.model.name, experiment.optimizer.name
    if name not in TORCH_NETWORKS:
        raise UserError(
            f"AGAINST=torch: model.name: {name} has no twin in PyTorch; there are {', '.join(TORCH_NETWORKS)}"
        )
    known, given = (*TORCH_NETWORKS[name], *FREE_ARGUMENTS), experiment.model.arguments
    if unknown := [f"{key}={value}" for key, value in given.items() if key not in known]:
        raise UserError(
            f"AGAINST=torch: model: the twin of {name} in PyTorch does not take {', '.join(unknown)}; "
            "leave it out, or bench without torch"
        )
    if optimizer not in ("sgd", "adam"):
        raise UserError(
            f"AGAINST=torch: optimizer.name: received {optimizer}; the PyTorch loop knows sgd and adam, such "
            "as SET='\"optimizer={name: sgd, learning_rate: 0.1}\"'"
        )
    if experiment.training.precision == "float16":
        raise UserError(
            "AGAINST=torch: training.precision: received float16; the PyTorch loop knows float32 and bfloat16"
        )
    if importlib.util.find_spec("torch") is None:
        raise UserError(f"AGAINST=torch: PyTorch is not installed: {install_extra('torch')}")


def onednn_kernels() -> dict[str, bool] | None:
    """Return whether TensorFlow uses its oneDNN kernels `here`, and whether it would `by_itself`.

    None where it is not the backend. TensorFlow is asked, in a process of its own for the second.
    """
    import keras

    if keras.backend.backend() != "tensorflow":
        return None
    with tempfile.TemporaryDirectory() as name:
        arguments, folder = ("oneDNN", "app.bench.baselines", "onednn"), Path(name)
        with contextlib.closing(JsonWorker(*arguments, folder=folder, **{ONEDNN: BY_ITSELF})) as worker:
            return {"here": _uses_onednn(), "by_itself": worker.answer()}


def _uses_onednn() -> bool:
    from app import backend  # noqa: F401, I001 - first: it keeps TensorFlow quiet while it comes up
    from tensorflow.python.util import _pywrap_util_port

    return bool(_pywrap_util_port.IsMklEnabled())


def _keras(experiment: Experiment, shape: Shape, classes: int) -> tuple[dict[str, Any], Times]:
    from app.training import startup

    training = experiment.training
    startup.configure(seed=0, precision=training.precision, devices=training.devices, determinism="fast")
    import keras
    import numpy as np

    from app.bench.timers import timed_fit
    from models import build_model
    from models.inspect import count_weights
    from models.layers import jit_compile, stock_layers

    network = build_model(experiment.model.name, shape, classes, **experiment.model.arguments)
    rate = {"learning_rate": experiment.scaled_optimizer.learning_rate.peak}
    config = {"class_name": experiment.optimizer.name, "config": rate | experiment.optimizer.arguments}
    network.compile(
        keras.optimizers.get(config),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        jit_compile=jit_compile(),
    )
    random = np.random.default_rng(0)
    count = BATCHES_IN_MEMORY * training.batch_size
    images = random.standard_normal((count, *shape)).astype("float32")
    labels = random.integers(0, classes, count)

    def seconds(steps: int) -> list[float]:
        wanted = (steps + 1) * training.batch_size
        arrays = [np.resize(array, (wanted, *array.shape[1:])) for array in (images, labels)]
        with stock_layers():
            return timed_fit(network, steps, *arrays, batch_size=training.batch_size)

    trainable = count_weights(network.trainable_weights)
    return {"version": f"Keras {keras.__version__}", "trainable": trainable}, seconds


def _torch(experiment: Experiment, shape: Shape, classes: int) -> tuple[dict[str, Any], Times]:
    import torch
    from torch.nn import functional

    from app.bench import torch_networks

    training, arguments = experiment.training, experiment.optimizer.arguments
    device = "cuda" if torch.cuda.is_available() and training.devices != "cpu" else "cpu"
    torch.manual_seed(0)
    model = experiment.model
    sizes = {key: value for key, value in model.arguments.items() if key not in FREE_ARGUMENTS}
    network = torch_networks.build(model.name, shape, classes, **sizes).to(device)
    trained = [weight for weight in network.parameters() if weight.requires_grad]
    rate = experiment.scaled_optimizer.learning_rate.peak
    if experiment.optimizer.name == "adam":
        optimizer: torch.optim.Optimizer = torch.optim.Adam(trained, lr=rate)
    else:
        momentum, nesterov = arguments.get("momentum", 0.0), bool(arguments.get("nesterov", False))
        optimizer = torch.optim.SGD(trained, rate, momentum, nesterov=nesterov, weight_decay=1e-4)
    step = torch.compile(network) if device == "cuda" else network
    count = BATCHES_IN_MEMORY * training.batch_size
    height, width, channels = shape
    images = torch.randn(count, channels, height, width).to(device, memory_format=torch.channels_last)
    labels = torch.randint(0, classes, (count,), device=device)
    low = training.precision == "bfloat16"

    def seconds(steps: int) -> list[float]:
        ends = []
        for _ in range(steps + 1):
            chosen = torch.randint(0, count, (training.batch_size,), device=device)
            with torch.autocast(device, dtype=torch.bfloat16, enabled=low):
                logits = step(images[chosen])
            loss = functional.cross_entropy(logits.float(), labels[chosen])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            loss.item()  # a GPU is waited for here
            ends.append(time.perf_counter())
        return [later - earlier for earlier, later in zip(ends, ends[1:], strict=False)]

    trainable = sum(weight.numel() for weight in trained)
    return {"version": f"PyTorch {torch.__version__}", "trainable": trainable}, seconds


def answers(kind: str, *rest: Any) -> Iterator[Any]:
    """Be the baseline: say what it is once it is warm, then serve numbers of steps."""
    if kind == "onednn":
        yield _uses_onednn()
        return
    file, shape, classes = rest
    prepare = {"keras": _keras, "keras_default": _keras, "torch": _torch}[kind]
    description, seconds = prepare(load_experiment(Path(file)), tuple(shape), classes)
    seconds(1)  # until all is warm
    yield description
    yield from map(seconds, steps_asked())
