"""The depthwise convolution and its gradients are Keras' own, in bfloat16 as near as the format allows."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from models.depthwise import DepthwiseConv2D


def gradients(cls, policy, images, strides, padding, kernel):
    layer = cls(5, strides, padding=padding, activation="relu", dtype=policy)
    layer.build(images.shape)
    layer.trainable_weights[0].assign(kernel)
    inputs = tf.cast(images, layer.compute_dtype)
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        outputs = layer(inputs)
        loss = tf.reduce_sum(tf.cast(outputs, "float32") ** 2)
    of_inputs, of_kernel = tape.gradient(loss, [inputs, layer.trainable_weights[0].value])
    return [np.asarray(tf.cast(value, "float32")) for value in (outputs, of_inputs, of_kernel)]


@pytest.mark.parametrize("padding", ["same", "valid"])
@pytest.mark.parametrize("strides", [1, 2])
def test_bfloat16_is_near_float32(bfloat16, strides, padding):
    random = np.random.RandomState(0)
    # Numbers that bfloat16 holds exactly, so that only the sums round.
    images = random.randint(-4, 5, (3, 9, 8, 16)).astype("float32") / 4
    kernel = random.randint(-4, 5, (5, 5, 16, 1)).astype("float32") / 8
    settings = images, strides, padding, kernel
    ours = gradients(DepthwiseConv2D, "mixed_bfloat16", *settings)
    exact = gradients(keras.layers.DepthwiseConv2D, "float32", *settings)
    for value, expected in zip(ours, exact, strict=True):
        assert value.shape == expected.shape
        assert np.abs(value - expected).max() <= 0.02 * np.abs(expected).max()


def test_float32_is_keras_own():
    random = np.random.RandomState(1)
    images = random.standard_normal((2, 8, 8, 4)).astype("float32")
    kernel = random.standard_normal((5, 5, 4, 1)).astype("float32")
    ours = gradients(DepthwiseConv2D, "float32", images, 2, "same", kernel)
    keras_own = gradients(keras.layers.DepthwiseConv2D, "float32", images, 2, "same", kernel)
    for value, expected in zip(ours, keras_own, strict=True):
        np.testing.assert_array_equal(value, expected)
