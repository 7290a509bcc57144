"""The networks by name, as `@network` registered them when this package was imported."""

import difflib
import inspect
from collections.abc import Iterable
from typing import Any

from models.network import MODELS, Network, Published


def published_networks() -> list[Published]:
    """Return what the sources say of their networks' size, in the registry's order."""
    rows = []
    for name, cls in MODELS.items():
        members = (cls.published,) if isinstance(cls.published, Published) else cls.published
        rows += [published._replace(name=name) for published in members]
    return rows


def model_arguments(name: str) -> dict[str, Any]:
    """Return the arguments of a network besides `num_classes`, each with its default.

    Args:
        name: A name in `MODELS`.

    Raises:
        ValueError: If there is no such network.
    """
    _check_known("network", name, MODELS)
    parameters = inspect.signature(MODELS[name].__init__).parameters.values()
    return {p.name: p.default for p in parameters if p.name not in ("self", "num_classes", "kwargs")}


def build_model(name: str, input_shape: tuple[int, int, int], num_classes: int, **arguments: Any) -> Network:
    """Make a network with its weights, ready for `summary()`, for training and for loading weights.

    Args:
        name: A name in `MODELS`.
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
