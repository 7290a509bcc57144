"""The size and the cost of a network: weights, and multiply-accumulates for one image."""

import math
from collections.abc import Iterable

import keras

from models.fast_cifar import WhiteningConv2D


def count_weights(variables: Iterable[keras.Variable]) -> int:
    """Counts the numbers that variables hold."""
    return sum(math.prod(variable.shape) for variable in variables)


def count_macs(layer: keras.layers.Layer) -> int:
    """Counts the multiply-accumulates of all convolutions and dense layers for one image.

    Biases, normalisation, activations and pooling are left out, as is usual.

    Args:
        layer: A network, or a layer of one, built for images of a known size.

    Returns:
        Multiply-accumulates of one forward pass over one image.
    """
    if isinstance(layer, keras.Model):
        return sum(map(count_macs, layer.layers))
    if isinstance(layer, keras.layers.Conv2D | WhiteningConv2D):
        _, height, width, _ = layer.output.shape
        return math.prod(layer.kernel.shape) * height * width
    if isinstance(layer, keras.layers.Dense):
        return math.prod(layer.kernel.shape)
    return 0
