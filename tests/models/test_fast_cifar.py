"""What is special about the network that learns CIFAR-10 in ten epochs: its first layer and how it starts."""

import keras
import numpy as np
import pytest

from models import build_model
from models.networks.fast_cifar import PartialIdentity, WhiteningConv2D


@pytest.fixture
def images():
    """Neighbouring pixels and channels depend on each other, as in photographs."""
    noise = np.random.RandomState(0).standard_normal((700, 12, 12, 3)).astype("float32")
    smooth = noise + np.roll(noise, 1, axis=1) + np.roll(noise, 1, axis=2)
    return smooth @ np.array([[1, 0.9, 0.8], [0, 0.3, 0.2], [0, 0, 0.1]], "float32")


def test_whitened_patches_are_uncorrelated_and_of_unit_size(images):
    layer = WhiteningConv2D(2, epsilon=1e-9)
    outputs = layer(images)
    assert outputs.shape == (700, 11, 11, 24)
    layer.adapt(images)
    outputs = keras.ops.convert_to_numpy(layer(images)).reshape(-1, 24).astype("float64")
    np.testing.assert_allclose(outputs[:, :12].T @ outputs[:, :12] / len(outputs), np.eye(12), atol=1e-3)
    np.testing.assert_allclose(outputs[:, 12:], -outputs[:, :12], atol=1e-5)


def test_small_components_are_not_blown_up(images):
    layer = WhiteningConv2D(2, epsilon=0.5)
    layer(images)
    layer.adapt(images)
    assert np.abs(keras.ops.convert_to_numpy(layer.kernel)).max() <= 0.5**-0.5


def test_kernel_is_not_trained_and_comes_from_the_images_alone(images):
    layers = WhiteningConv2D(2), WhiteningConv2D(2)
    for layer in layers:
        layer(images)
        layer.adapt(images)
    assert [weight.name for weight in layers[0].trainable_weights] == ["bias"]
    np.testing.assert_array_equal(layers[0].kernel, layers[1].kernel)


@pytest.mark.parametrize(("inputs", "outputs"), [(3, 8), (8, 8), (8, 3)])
def test_convolution_starts_by_passing_its_inputs_on(inputs, outputs):
    layer = keras.layers.Conv2D(
        outputs, 3, padding="same", use_bias=False, kernel_initializer=PartialIdentity()
    )
    image = np.random.RandomState(0).standard_normal((1, 5, 5, inputs)).astype("float32")
    same = min(inputs, outputs)
    result = keras.ops.convert_to_numpy(layer(image))
    np.testing.assert_allclose(result[..., :same], image[..., :same], rtol=1e-6)
    others = keras.ops.convert_to_numpy(layer.kernel)[..., inputs:]
    assert (others != 0).all() and (np.abs(others) <= (9 * inputs) ** -0.5).all()


def test_pieces_can_be_left_out():
    network = build_model("fast_cifar10", (32, 32, 3), 10, whitening=False, partial_identity=False)
    network.adapt(np.zeros((4, 32, 32, 3), "float32"))  # has nothing to adapt
    assert network.count_params() == 1_973_944
    assert network.stem.kernel.trainable and network.blocks[0].conv1.kernel.shape == (3, 3, 24, 64)
    centre = keras.ops.convert_to_numpy(network.blocks[0].conv1.kernel)[1, 1]
    assert (np.diag(centre[:, :24]) != 1).all()
    alike = network.blocks[2]  # both of its kernels have one shape
    assert not np.array_equal(alike.conv1.kernel, alike.conv2.kernel)
    assert type(network).from_config(network.get_config()).get_config() == network.get_config()


def test_logits_are_a_ninth_of_the_head():
    network = build_model("fast_cifar10", (32, 32, 3), 10)
    image = np.random.RandomState(0).standard_normal((2, 32, 32, 3)).astype("float32")
    before = network(image).numpy()
    network.head.kernel.assign(9.0 * network.head.kernel)
    after = network(image)
    np.testing.assert_allclose(after, 9.0 * before, rtol=1e-5, atol=1e-6)  # a logit near zero is rounding
