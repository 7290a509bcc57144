"""The size and the cost of a network: weights, and multiply-accumulates for one image."""

import math
from collections.abc import Iterable

import keras


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
