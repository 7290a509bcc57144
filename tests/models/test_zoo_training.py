"""Every network learns, saves and runs in bfloat16. The rows are in zoo.py."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from models import build_model
from models.inspect import count_macs
from models.network import MODELS
from models.registry import model_arguments
from tests.models.zoo import TRAINED, leaves

TAKE_MANY_STEPS = ("lenet5", "alexnet8")
trained_row = pytest.mark.parametrize("row", TRAINED, ids=lambda row: row.label)


def small(row):
    """Returns pixels for a quick training."""
    return MODELS[row.name].pixels_from(32)


def build_small(row):
    """Builds the network for small images, without dropout, seeded."""
    keras.utils.set_random_seed(0)
    dropout = {"dropout": 0.0} if "dropout" in model_arguments(row.name) else {}
    shape = (small(row), small(row), 3)
    return build_model(row.name, shape, row.num_classes, **row.arguments, **dropout)


def small_batch(row, size=8):
    random = np.random.RandomState(0)
    images = random.standard_normal((size, small(row), small(row), 3)).astype("float32")
    return images, np.arange(size) % row.num_classes


def cross_entropy(labels, logits):
    return tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits))


@pytest.mark.slow
@trained_row
def test_every_variable_gets_a_gradient_and_the_saved_network_gives_the_same_bits(row, tmp_path):
    network = build_small(row)
    images, labels = small_batch(row)
    with tf.GradientTape() as tape:  # and moving statistics other than the initial ones
        loss = cross_entropy(labels, network(images, training=True))
    weights = network.trainable_variables
    before = [weight.numpy() for weight in weights]
    gradients = tape.gradient(loss, [weight.value for weight in weights])
    for weight, gradient in zip(weights, gradients, strict=True):
        assert gradient is not None and np.all(np.isfinite(gradient)), weight.path
        assert np.any(gradient), weight.path
    keras.optimizers.Adam(1e-3).apply(gradients, weights)
    for weight, old in zip(weights, before, strict=True):
        assert np.any(weight.numpy() != old), weight.path

    network.save(tmp_path / "network.keras")
    loaded = keras.saving.load_model(tmp_path / "network.keras", safe_mode=True)
    np.testing.assert_array_equal(loaded(images).numpy(), network(images).numpy())
    assert loaded.get_config() == network.get_config()
    assert count_macs(loaded) == count_macs(network)


@pytest.mark.parametrize(
    "row",
    [pytest.param(row, marks=[pytest.mark.slow] if row.total > 1e6 else [], id=row.label) for row in TRAINED],
)
def test_training_reaches_every_layer_of_a_network_called_past_keras(row):
    """On JAX and in exports Keras calls the outermost `call` itself, with no `training` for its layers."""
    network = build_small(row)
    states = network.trainable_variables, network.non_trainable_variables
    _, after = network.stateless_call(*states, small_batch(row, 2)[0], training=True)
    for variable, new in zip(network.non_trainable_variables, after, strict=True):
        if not variable.path.endswith("kernel"):  # the whitening of fast_cifar10
            assert np.any(np.asarray(new) != variable.numpy()), variable.path


@pytest.mark.slow
@trained_row
def test_bfloat16_gives_finite_float32_logits(row, bfloat16):
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        network = build_small(row)
    finally:
        keras.config.set_dtype_policy(before)
    for training in (False, True):
        logits = network(small_batch(row)[0], training=training)
        assert logits.dtype == "float32"
        assert np.all(np.isfinite(logits))


@pytest.mark.slow
@trained_row
def test_overfits_one_small_batch(row):
    if row.name in ("resnet50", "vgg16"):
        pytest.skip("tens of slow steps; its gradients are tested above, its training in test_experiments.py")
    network = build_small(row)
    images, labels = small_batch(row)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    # Most networks need a few steps only, fewer than tracing them takes as long as.
    network.compile(keras.optimizers.Adam(2e-3), loss, run_eagerly=row.name not in TAKE_MANY_STEPS)
    first = float(network.train_on_batch(images, labels))
    later = (float(network.train_on_batch(images, labels)) for _ in range(400))
    assert any(loss < 0.2 * first for loss in later)


def test_precision_is_saved_with_the_network(tmp_path, bfloat16):
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        network = build_model("cifar_resnet", (16, 16, 3), 10, depth=8)
    finally:
        keras.config.set_dtype_policy(before)
    images = np.random.RandomState(0).standard_normal((4, 16, 16, 3)).astype("float32")
    network.save(tmp_path / "network.keras")
    loaded = keras.saving.load_model(tmp_path / "network.keras")
    assert {layer.compute_dtype for layer in leaves(loaded)} == {"bfloat16", "float32"}
    np.testing.assert_array_equal(loaded(images).numpy(), network(images).numpy())
    assert keras.config.dtype_policy() == before
