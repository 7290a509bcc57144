"""Depthwise convolution with a quicker gradient where a CPU computes in bfloat16."""

import functools
from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from models.layers import computes_quickly, sees_gpu


class DepthwiseConv2D(keras.layers.DepthwiseConv2D):
    """Keras' depthwise convolution, its gradients computed in float32 where a CPU computes in bfloat16.

    Arguments and weights are those of `keras.layers.DepthwiseConv2D`. TensorFlow's own bfloat16 gradients
    took up to 30 times as long on a CPU (5x5 kernels at stride 2); see `make bench`.
    """

    def call(self, inputs: Any) -> Any:
        """Convolve each channel of (batch, height, width, channels) with its own kernel."""
        plain = isinstance(inputs, keras.KerasTensor) or self.dilation_rate != (1, 1)
        if plain or self.compute_dtype != "bfloat16" or not computes_quickly() or sees_gpu():
            return super().call(inputs)
        kernel = ops.cast(self.kernel, inputs.dtype)
        outputs = _convolution(self.strides, self.padding.upper())(inputs, kernel)
        return self.activation(
            ops.add(outputs, ops.cast(self.bias, outputs.dtype)) if self.use_bias else outputs
        )


@functools.cache
def _convolution(strides: tuple[int, int], padding: str) -> Callable[[Any, Any], Any]:
    """Return the convolution with its own gradient."""
    import tensorflow as tf  # here, because other backends may run without TensorFlow

    settings = {"strides": [1, *strides, 1], "padding": padding}

    @tf.custom_gradient
    def convolve(images: Any, kernel: Any) -> Any:
        def gradients(upstream: Any) -> tuple[Any, Any]:
            exact = {"out_backprop": tf.cast(upstream, "float32"), **settings}
            of_images = tf.raw_ops.DepthwiseConv2dNativeBackpropInput(
                input_sizes=tf.shape(images), filter=tf.cast(kernel, "float32"), **exact
            )
            of_kernel = tf.raw_ops.DepthwiseConv2dNativeBackpropFilter(
                input=tf.cast(images, "float32"), filter_sizes=tf.shape(kernel), **exact
            )
            return tf.cast(of_images, images.dtype), tf.cast(of_kernel, kernel.dtype)

        return tf.nn.depthwise_conv2d(images, kernel, **settings), gradients

    return convolve
