"""A competitor in a process of its own: the same network in plain Keras, or in PyTorch, in a plain loop.

`python -m app.bench.rival keras|torch EXPERIMENT.yaml HEIGHT WIDTH CHANNELS CLASSES` prints a line of JSON
once it is ready, then reads numbers of steps, one a line, and answers each with the seconds of every step.
Both take normalised float32 images from memory and augment nothing, which favours them.
"""

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from app.config import Experiment, load_experiment
from app.errors import UserError
from app.paths import module_command

BATCHES_IN_MEMORY = 8
FREE_ARGUMENTS = {"head_l2", "bn_momentum", "bn_epsilon", "dropout"}  # they change no layer's size
TORCH_NETWORKS = ("resnet18", "minimodel", "fast_cifar10")  # those of torch_networks.py, named without torch
Shape = tuple[int, int, int]  # height, width, channels
Times = Callable[[int], list[float]]


class Rival:
    """The parent's side: starts the process, asks it for steps, and ends it."""

    def __init__(self, kind: str, file: Path, image_shape: Shape, classes: int):
        """Start the competitor and wait until it is warm.

        Args:
            kind: keras or torch.
            file: The experiment's: network, batch size, precision and optimizer.
            image_shape: Height, width and channels.
            classes: Number of classes.

        Raises:
            UserError: The competitor does not start.
        """
        arguments = [kind, str(file), *map(str, image_shape), str(classes)]
        command, environment = module_command("app.bench.rival", *arguments)
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(
            command, env=environment, stdin=pipe, stdout=pipe, stderr=pipe, text=True
        )
        self.kind = kind
        self.facts: dict[str, Any] = self._answer()

    def seconds(self, steps: int) -> list[float]:
        """Return the seconds of each of so many steps."""
        assert self.process.stdin
        self.process.stdin.write(f"{steps}\n")
        self.process.stdin.flush()
        return self._answer()

    def close(self) -> None:
        """End the process."""
        self.process.kill()
        self.process.communicate()

    def _answer(self) -> Any:
        assert self.process.stdout
        line = self.process.stdout.readline()
        if not line:
            _, errors = self.process.communicate()
            last = (errors.strip().splitlines() or ["it said nothing"])[-1]
            raise UserError(f"AGAINST={self.kind}: the process ended before it answered: {last}")
        return json.loads(line)


def require(kind: str, experiment: Experiment) -> None:
    """Raise a UserError where this competitor cannot run the experiment."""
    import importlib.util

    if kind != "torch":
        return
    if importlib.util.find_spec("torch") is None:
        raise UserError("AGAINST=torch: PyTorch is not installed; `pip install torch`, or the extra 'torch'")
    name = experiment.model.name
    arguments = {k: v for k, v in experiment.model.arguments.items() if k not in FREE_ARGUMENTS}
    if name not in TORCH_NETWORKS or arguments:
        raise UserError(
            f"AGAINST=torch: twins in PyTorch are {', '.join(TORCH_NETWORKS)} by default arguments; "
            f"received {name} {arguments or ''}".rstrip()
        )
    if experiment.optimizer.name not in ("sgd", "adam") or experiment.training.precision == "float16":
        raise UserError("AGAINST=torch: the PyTorch loop knows sgd and adam, in float32 and bfloat16")


def _keras(experiment: Experiment, shape: Shape, classes: int) -> tuple[dict[str, Any], Times]:
    from app.training import startup

    startup.configure(seed=0, precision=experiment.training.precision, devices="auto", determinism="fast")
    import keras
    import numpy as np

    from app.bench.ours import timed_fit
    from models import build_model
    from models.layers import stock_layers
    from models.macs import count_weights

    training = experiment.training
    network = build_model(experiment.model.name, shape, classes, **experiment.model.arguments)
    rate = {"learning_rate": experiment.optimizer.learning_rate.peak}
    config = {"class_name": experiment.optimizer.name, "config": rate | experiment.optimizer.arguments}
    network.compile(
        keras.optimizers.get(config),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
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

    seconds(1)
    facts = {"version": f"Keras {keras.__version__}", "trainable": count_weights(network.trainable_weights)}
    return facts, seconds


def _torch(experiment: Experiment, shape: Shape, classes: int) -> tuple[dict[str, Any], Times]:
    import torch
    from torch.nn import functional

    from app.bench import torch_networks

    training, arguments = experiment.training, experiment.optimizer.arguments
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.manual_seed(0)
    network = torch_networks.build(experiment.model.name, classes).to(device)
    trained = [weight for weight in network.parameters() if weight.requires_grad]
    rate = experiment.optimizer.learning_rate.peak
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

    seconds(1)
    trainable = sum(weight.numel() for weight in trained)
    facts = {"version": f"PyTorch {torch.__version__}", "trainable": trainable}
    return facts, seconds


def main(arguments: list[str]) -> None:
    """Be the competitor."""
    kind, file, *numbers = arguments
    height, width, channels, classes = map(int, numbers)
    answers, sys.stdout = sys.stdout, sys.stderr  # nothing but answers may reach the parent
    compete = {"keras": _keras, "torch": _torch}[kind]
    facts, seconds = compete(load_experiment(Path(file)), (height, width, channels), classes)
    print(json.dumps(facts), file=answers, flush=True)
    for line in sys.stdin:
        print(json.dumps(seconds(int(line))), file=answers, flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
