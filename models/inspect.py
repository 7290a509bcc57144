"""Looks into a network: its layers by name, its size and cost, and the calls of its layers as they happen."""

import contextlib
import functools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import keras

Call = Callable[..., Any]  # a layer's bound `call`


def named_layers(model: keras.Model, path: str = "") -> Iterator[tuple[str, keras.layers.Layer]]:
    """Yield every layer that is not itself made of layers, under its attributes' names, in their order."""
    for name, value in vars(model).items():
        items = enumerate(value) if isinstance(value, list | tuple) else [(None, value)]
        for number, layer in items if not name.startswith("_") else []:
            here = f"{path}{name}" + ("" if number is None else f"[{number}]")
            if isinstance(layer, keras.Model):
                yield from named_layers(layer, f"{here}.")
            elif isinstance(layer, keras.layers.Layer):
                yield here, layer


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
    places = math.prod(layer.output.shape[1:3]) if len(kernel.shape) == 4 else 1  # of a convolution
    return math.prod(kernel.shape) * places


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
