"""The networks by name: one dict, and the function that builds one of them.

To add a network, write its file, add its line here, its source's size in sources.py, give it an experiment,
and a line in tests/models/zoo.py.
"""

import difflib
import inspect
from collections.abc import Iterable
from typing import Any

from models.alexnet import AlexNet8
from models.baseline import Baseline
from models.cifar_resnet import CifarResNet
from models.fast_cifar import FastCifar10
from models.inception import Inception10
from models.lenet import LeNet5
from models.minimodel import MiniModel
from models.network import Network
from models.resnet import ResNet
from models.resnet18 import ResNet18
from models.resnet18_d2l import ResNet18D2L
from models.resnet50 import ResNet50
from models.shallow_res import ShallowRes
from models.vgg import VGG
from models.vgg16 import VGG16

MODELS: dict[str, type[Network]] = {
    # The ten networks of the sources.
    "baseline": Baseline,
    "lenet5": LeNet5,
    "alexnet8": AlexNet8,
    "vgg16": VGG16,
    "inception10": Inception10,
    "resnet18": ResNet18,
    "shallow_res": ShallowRes,
    "minimodel": MiniModel,
    "resnet50": ResNet50,
    "resnet18_d2l": ResNet18D2L,
    # The quickest to 90 % on a CPU.
    "fast_cifar10": FastCifar10,
    # Families of the papers, by `depth`.
    "resnet": ResNet,
    "cifar_resnet": CifarResNet,
    "vgg": VGG,
}


def list_models() -> list[str]:
    """Return the names that `build_model` knows, in the registry's order."""
    return list(MODELS)


def model_arguments(name: str) -> dict[str, Any]:
    """Return the arguments of a network besides `num_classes`, each with its default.

    Args:
        name: A name from `list_models()`.

    Raises:
        ValueError: If there is no such network.
    """
    _check_known("network", name, MODELS)
    parameters = inspect.signature(MODELS[name].__init__).parameters.values()
    return {p.name: p.default for p in parameters if p.name not in ("self", "num_classes", "kwargs")}


def build_model(name: str, input_shape: tuple[int, int, int], num_classes: int, **arguments: Any) -> Network:
    """Make a network with its weights, ready for `summary()`, for training and for loading weights.

    Args:
        name: A name from `list_models()`.
        input_shape: (height, width, channels) of the images; the batch size stays open.
        num_classes: Number of logits.
        **arguments: The network's further arguments, see `model_arguments`.

    Returns:
        The built network: float images (batch, height, width, channels) in, logits (batch, num_classes) out.

    Raises:
        ValueError: If the name or an argument is unknown, or the images are too small for the network.
    """
    known = model_arguments(name)
    for argument in arguments:
        _check_known(f"argument of {name}", argument, known)
    network = MODELS[name](num_classes=num_classes, name=name, **arguments)
    network.build((None, *input_shape))
    return network


def _check_known(kind: str, name: str, known: Iterable[str]) -> None:
    known = list(known)
    if name not in known:
        nearest = difflib.get_close_matches(name, known, n=1, cutoff=0.0)
        hint = f"Did you mean {nearest[0]!r}? " if nearest else ""
        raise ValueError(f"Unknown {kind}. {hint}Known are: {', '.join(known) or 'none'}. Received: {name!r}")
