"""Convolution and dense layer with PyTorch's conventions, for the networks that were published in PyTorch."""

from typing import Any

import keras
from keras import ops

from models.layers import Conv2D


class TorchConv2D(Conv2D):
    """Convolution with even zero padding and PyTorch's initial biases.

    Keras' `same` puts the odd row of padding at the bottom and right, so at stride 2 it computes something
    else.

    Args:
        filters: Number of output channels.
        kernel_size: Side of the square kernel.
        strides: Stride in both directions.
        padding_pixels: Zeros on each side; by default half the kernel, which keeps the map at stride 1.
    """

    def __init__(
        self,
        filters: int,
        kernel_size: int,
        strides: int = 1,
        padding_pixels: int | None = None,
        **kwargs: Any,
    ) -> None:
        # At stride 1 `same` is even, and one operation instead of two.
        same = padding_pixels is None and strides == 1 and kernel_size % 2 == 1
        super().__init__(filters, kernel_size, strides=strides, padding="same" if same else "valid", **kwargs)
        self.zeros = 0 if same else kernel_size // 2 if padding_pixels is None else padding_pixels

    def build(self, input_shape: tuple[int, ...]) -> None:
        """Make kernel and bias for maps (batch, height, width, channels)."""
        self.bias_initializer = _fan_in_uniform(self.kernel_size[0] * self.kernel_size[1] * input_shape[-1])
        super().build(input_shape)

    def call(self, inputs: Any) -> Any:
        """Pad and convolve."""
        if self.zeros:
            sides = (self.zeros, self.zeros)
            inputs = ops.pad(inputs, ((0, 0), sides, sides, (0, 0)))
        return super().call(inputs)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Return the shape after padding and convolution."""
        batch, *sides, channels = input_shape
        padded = [None if side is None else side + 2 * self.zeros for side in sides]
        return super().compute_output_shape((batch, *padded, channels))


class TorchDense(keras.layers.Dense):
    """Dense layer with PyTorch's initial biases."""

    def build(self, input_shape: tuple[int, ...]) -> None:
        """Make kernel and bias for vectors (batch, channels)."""
        self.bias_initializer = _fan_in_uniform(input_shape[-1])
        super().build(input_shape)


def torch_kernel_initializer() -> keras.initializers.Initializer:
    """Return PyTorch's default for kernels: uniform within 1 / sqrt(fan_in) of zero."""
    return keras.initializers.VarianceScaling(1 / 3, "fan_in", "uniform")


def _fan_in_uniform(fan_in: int) -> keras.initializers.Initializer:
    bound = fan_in**-0.5
    return keras.initializers.RandomUniform(-bound, bound)
