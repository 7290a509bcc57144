"""Looks into a network: its layers by name, its size and cost, and the calls of its layers as they happen."""

import contextlib
import fnmatch
import functools
import itertools
import math
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import keras

SUMMARY_COLUMNS = 110
Call = Callable[..., Any]  # a layer's bound `call`


def summary_of(network: keras.Model) -> str:
    """Return Keras' table of the layers, shapes and parameter counts, whole on a terminal of any width."""
    lines: list[str] = []
    before = os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = str(SUMMARY_COLUMNS)  # where rich, which draws the table, would cut it
    try:
        network.summary(
            expand_nested=True, line_length=SUMMARY_COLUMNS, print_fn=lambda line, **_: lines.append(line)
        )
    finally:
        os.environ.pop("COLUMNS")
        os.environ.update({} if before is None else {"COLUMNS": before})
    return "\n".join(lines) + "\n"


def named_layers(model: keras.Model, path: str = "") -> Iterator[tuple[str, keras.layers.Layer]]:
    """Yield the layers that are not made of layers themselves, by dotted names such as `units.3.conv`."""
    for name, value in vars(model).items():
        if not name.startswith("_"):
            yield from _layers_in(value, f"{path}{name}")


def _layers_in(value: Any, path: str) -> Iterator[tuple[str, keras.layers.Layer]]:
    if isinstance(value, list | tuple):
        for number, item in enumerate(value):
            yield from _layers_in(item, f"{path}.{number}")
    elif isinstance(value, keras.Model):
        yield from named_layers(value, f"{path}.")
    elif isinstance(value, keras.layers.Layer):
        yield path, value


def weighted_layers(model: keras.Model) -> dict[str, keras.layers.Layer]:
    """Return the layers with weights by their dotted names; the last one is the head."""
    return {path: layer for path, layer in named_layers(model) if layer.weights}


def matches(name: str, pattern: str) -> bool:
    """Return whether a shell pattern fits a dotted name or what it is a part of: `units.3` fits all in it."""
    return any(fnmatch.fnmatchcase(part, pattern) for part in enclosing(name))


def enclosing(name: str) -> Iterator[str]:
    """Yield what a dotted name is a part of, from the outermost on, and the name: `a`, `a.b`, `a.b.c`."""
    return itertools.accumulate(name.split("."), "{}.{}".format)


def variable_names(model: keras.Model) -> dict[int, str]:
    """Return dotted names such as `units.3.conv.kernel` by the identities of variables."""
    layers = weighted_layers(model).items()
    return {id(variable): f"{name}.{variable.name}" for name, layer in layers for variable in layer.weights}


def distances_from_head(model: keras.Model) -> dict[int, int]:
    """Return by the identities of variables how many parts lie from theirs to the head, whose own is at 0.

    Parts are the blocks and layers that the network itself consists of, in their order; normalisations belong
    to the part before them.
    """
    parts: dict[str, list[keras.layers.Layer]] = {}
    for name, layer in weighted_layers(model).items():
        first, *rest = name.split(".")
        numbers = itertools.takewhile(str.isdecimal, rest)
        parts.setdefault(".".join([first, *numbers]), []).append(layer)
    positions: dict[int, int] = {}
    position = -1
    for layers in parts.values():
        is_norm = all(isinstance(each, keras.layers.BatchNormalization) for each in layers)
        position += position < 0 or not is_norm
        positions |= {id(variable): position for layer in layers for variable in layer.weights}
    return {variable: position - each for variable, each in positions.items()}


def count_weights(variables: Iterable[keras.Variable]) -> int:
    """Count the numbers that variables hold."""
    return sum(math.prod(variable.shape) for variable in variables)


def count_macs(layer: keras.layers.Layer) -> int:
    """Count the multiply-accumulates of all convolutions and dense layers for one image.

    Biases, normalisation, activations and pooling are left out, as is usual.

    Args:
        layer: A network, or a layer of one, built for images of a known size.

    Returns:
        Multiply-accumulates of one forward pass over one image.
    """
    if isinstance(layer, keras.Model):
        return sum(map(count_macs, layer.layers))
    kernel = getattr(layer, "kernel", None)
    if kernel is None:
        return 0
    return math.prod(kernel.shape) * math.prod(layer.output.shape[1:-1])  # at each place of the map


@contextlib.contextmanager
def intercepted(layers: Sequence[keras.layers.Layer], handle: Callable[..., Any]) -> Iterator[None]:
    """Let `handle(layer, call, *args, **kwargs)` answer for each layer's `call` while the block runs."""
    for layer in layers:
        # Not by setattr: Keras and TensorFlow track what is set that way as state of the layer.
        vars(layer)["call"] = functools.partial(handle, layer, layer.call)
    try:
        yield
    finally:
        for layer in layers:
            vars(layer).pop("call", None)


@contextlib.contextmanager
def left_as_it_was(classifier: keras.Model) -> Iterator[None]:
    """Restore what a training pass changes, moving statistics and random state, when the block ends."""
    variables = classifier.non_trainable_variables
    values = [keras.ops.convert_to_numpy(variable) for variable in variables]
    try:
        yield
    finally:
        for variable, value in zip(variables, values, strict=True):
            variable.assign(value)
