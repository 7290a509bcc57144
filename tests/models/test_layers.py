"""The quick layers equal Keras' own; the PyTorch-style layers start and pad as PyTorch's do."""

import os
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from models import build_model, processor
from models.layers import BatchNormalization, Conv2D, Gelu, quick_inference, stock_layers
from models.torch_layers import TorchConv2D, TorchDense, torch_kernel_initializer
from tests.conftest import on_jax

STATISTICS = np.random.RandomState(0).uniform(0.5, 1.5, (4, 16)).astype("float32")


@pytest.fixture
def policy(request):
    if processor.is_barred(request.param.removeprefix("mixed_")):
        pytest.skip("TensorFlow cannot compute in this format under the limit set for oneDNN")
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(request.param)
    yield request.param
    keras.config.set_dtype_policy(before)


def pair(**arguments):
    """Returns Keras' layer and ours with equal weights."""
    layers = keras.layers.BatchNormalization(**arguments), BatchNormalization(**arguments)
    for layer in layers:
        layer.build((None, 5, 7, 16))
        layer.set_weights(STATISTICS)
    return layers


def step(layer, inputs, training):
    """Returns outputs, gradients of inputs, gamma and beta, and the moving statistics afterwards."""
    inputs = tf.Variable(inputs)
    with tf.GradientTape() as tape:
        outputs = layer(inputs, training=training)
        loss = tf.reduce_sum(tf.sin(tf.cast(outputs, "float32")))
    gradients = tape.gradient(loss, [inputs, layer.gamma.value, layer.beta.value])
    values = [outputs, *gradients, layer.moving_mean, layer.moving_variance]
    return [np.array(keras.ops.convert_to_numpy(keras.ops.cast(value, "float32"))) for value in values]


def test_stock_layers_are_keras_own():
    stock, fused = pair(momentum=0.8, epsilon=1e-5)
    with stock_layers():
        for training in (True, False):
            np.testing.assert_array_equal(
                fused(batch(), training=training), stock(batch(), training=training)
            )
        x = tf.linspace(-3.0, 3.0, 100)
        np.testing.assert_array_equal(Gelu()(x, training=True), keras.ops.gelu(x, approximate=False))
    before = stock(batch(), training=True).numpy()
    assert (fused(batch(), training=True).numpy() != before).any()  # outside, the kernel rounds otherwise


def batch(size=8, dtype="float32"):
    return tf.cast(3.0 + 2.0 * np.random.RandomState(1).standard_normal((size, 5, 7, 16)), dtype)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("size", [1, 8])
@pytest.mark.parametrize("policy", ["float32"], indirect=True)
def test_fused_equals_keras(policy, training, size):
    stock, fused = pair(momentum=0.8, epsilon=1e-5)
    for expected, actual in zip(
        step(stock, batch(size), training), step(fused, batch(size), training), strict=True
    ):
        # Gradients of the parameters are sums, in which large terms may cancel.
        np.testing.assert_allclose(actual, expected, rtol=2e-5, atol=2e-5 + 1e-6 * np.abs(expected).max())


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize(
    ("policy", "rounding"), [("mixed_bfloat16", 2**-8), ("mixed_float16", 2**-11)], indirect=["policy"]
)
def test_fused_equals_keras_in_mixed_precision(policy, rounding, training):
    stock, fused = pair()
    inputs = batch(dtype=keras.config.dtype_policy().compute_dtype)
    assert fused(inputs).dtype == inputs.dtype
    expected, actual = step(stock, inputs, training), step(fused, inputs, training)
    # Outputs and gradients of the inputs are rounded to the low precision once on each side; gradients of the
    # parameters are sums of such; the moving statistics stay float32.
    np.testing.assert_allclose(actual[0], expected[0], rtol=2 * rounding, atol=2 * rounding)
    for i in (1, 2, 3):
        np.testing.assert_allclose(actual[i], expected[i], atol=4 * rounding * np.abs(expected[i]).max())
    for i in (4, 5):
        np.testing.assert_allclose(actual[i], expected[i], rtol=2e-5)


@pytest.mark.parametrize("policy", ["mixed_bfloat16"], indirect=True)
def test_odd_channels_in_bfloat16_take_keras_path(policy):
    layers = keras.layers.BatchNormalization(), BatchNormalization()
    inputs = batch(dtype="bfloat16")[..., :6]
    np.testing.assert_array_equal(*(tf.cast(layer(inputs, training=True), "float32") for layer in layers))


def test_frozen_layer_uses_and_keeps_the_moving_statistics():
    _, fused = pair()
    fused.trainable = False
    outputs = fused(batch(), training=True)
    np.testing.assert_array_equal(outputs, fused(batch(), training=False))
    np.testing.assert_array_equal(fused.moving_mean, STATISTICS[2])


@pytest.mark.parametrize(
    "arguments", [{"scale": False}, {"center": False}, {"scale": False, "center": False}]
)
def test_fused_equals_keras_without_scale_or_centre(arguments):
    layers = keras.layers.BatchNormalization(**arguments), BatchNormalization(**arguments)
    for training in (True, False):  # the second sees what the first left in the moving statistics
        expected, actual = (layer(batch(), training=training) for layer in layers)
        np.testing.assert_allclose(actual, expected, rtol=2e-5, atol=2e-5)


def test_synchronised_layer_alone_keeps_a_small_variance_beside_a_large_mean():
    """So does a network that several replicas trained, where one alone trains it further."""
    images = np.random.RandomState(0).normal(1000.0, 0.1, (8, 5, 7, 16)).astype("float32")
    layer = BatchNormalization(synchronized=True, momentum=0.0)
    layer(images, training=True)
    np.testing.assert_allclose(layer.moving_variance, images.astype("float64").var((0, 1, 2)), rtol=1e-3)


@pytest.mark.parametrize("arguments", [{"axis": 1}, {"renorm": True}])
def test_other_arguments_take_keras_path(arguments):
    layers = keras.layers.BatchNormalization(**arguments), BatchNormalization(**arguments)
    expected, actual = (layer(batch(), training=True) for layer in layers)
    np.testing.assert_array_equal(actual, expected)


def test_other_ranks_take_keras_path():
    stock, fused = keras.layers.BatchNormalization(), BatchNormalization()
    inputs = tf.reshape(batch(), (-1, 16))
    np.testing.assert_array_equal(fused(inputs, training=True), stock(inputs, training=True))


def test_exported_layer_gives_the_same(tmp_path):
    model = keras.Sequential([keras.Input((5, 7, 16)), BatchNormalization(momentum=0.8), Gelu()])
    model.layers[0].set_weights(STATISTICS)
    model.export(tmp_path / "exported", verbose=False)
    exported = tf.saved_model.load(tmp_path / "exported")
    np.testing.assert_array_equal(exported.serve(batch()), model(batch()))
    operations = {op.type for op in exported.signatures["serving_default"].graph.get_operations()}
    assert not any("Xla" in name for name in operations)  # which other runtimes do not know


def gradient(layer, inputs, variables=()):
    """Returns outputs and gradients in training, inside a graph as when a model is trained."""

    @tf.function
    def run(inputs):
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            outputs = layer(inputs, training=True) if isinstance(layer, Gelu) else layer(inputs)
            loss = tf.reduce_sum(tf.sin(tf.cast(outputs, "float32")))
        return outputs, *tape.gradient(loss, [inputs, *variables])

    return [np.array(tf.cast(value, "float32")) for value in run(inputs)]


@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16"], indirect=True)
def test_compiled_gelu_equals_kerass(policy):
    x = tf.cast(tf.linspace(-9.0, 9.0, 4000), keras.config.dtype_policy().compute_dtype)
    exact = tf.cast(x, "float32")
    with tf.GradientTape() as tape:
        tape.watch(exact)
        expected = keras.ops.gelu(exact, approximate=False)
        loss = tf.reduce_sum(tf.sin(expected))
    slope = tape.gradient(loss, exact)
    outputs, gradients = gradient(Gelu(), x)
    rounding = 2e-6 if policy == "float32" else 2**-7
    np.testing.assert_allclose(outputs, expected, rtol=rounding, atol=1e-6)
    np.testing.assert_allclose(gradients, slope, rtol=rounding, atol=rounding)
    np.testing.assert_array_equal(Gelu()(x, training=False), keras.ops.gelu(x, approximate=False))
    with quick_inference():
        np.testing.assert_array_equal(Gelu()(x, training=False), outputs)


def float64_gradients(inputs, kernel, upstream):
    """Returns what flows back through a convolution to inputs and kernel, of which each number is exact."""
    inputs, kernel, upstream = (tf.cast(values, "float64") for values in (inputs, kernel, upstream))
    with tf.GradientTape() as tape:
        tape.watch([inputs, kernel])
        outputs = tf.nn.conv2d(inputs, kernel, 1, "SAME")
    return tape.gradient(outputs, [inputs, kernel], output_gradients=upstream)


@pytest.mark.parametrize("policy", ["mixed_bfloat16"], indirect=True)
@pytest.mark.parametrize(("size", "kernel"), [((8, 8), 3), ((3, 5), 3), ((4, 4), (1, 5))])
def test_gradients_of_small_maps_are_as_exact_as_kerass(policy, size, kernel, monkeypatch):
    """On processors without instructions for bfloat16 TensorFlow's own are off by 1.7e-2 of the largest."""
    used = []
    import models.layers

    plain = models.layers._small_map_convolution()
    monkeypatch.setattr(models.layers, "_small_map_convolution", lambda: used.append(1) or plain)
    draw = np.random.RandomState(0)
    inputs, upstream = (tf.cast(draw.standard_normal((4, *size, 256)), "bfloat16") for _ in range(2))
    errors = []
    for kind in (keras.layers.Conv2D, Conv2D):
        layer = kind(256, kernel, padding="same", use_bias=False)
        layer.build(inputs.shape)
        if not errors:
            weights = tf.cast(tf.cast(layer.kernel, "bfloat16"), "float32")
            exact = float64_gradients(inputs, weights, upstream)
        layer.set_weights([weights])
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            outputs = layer(inputs)
        found = tape.gradient(outputs, [inputs, layer.kernel.value], output_gradients=upstream)
        differences = [np.abs(tf.cast(a, "float64") - b) for a, b in zip(found, exact, strict=True)]
        errors.append([each.max() / np.abs(b).max() for each, b in zip(differences, exact, strict=True)])
    assert used
    theirs, ours = errors
    # A bfloat16 has eight bits: rounded once, a number is off by up to 2**-9 of itself. Sums may be rounded
    # on the way, by Keras' gradient far more often.
    assert ours[1] < min(2**-7, theirs[1] + 2**-8)
    assert ours[0] <= theirs[0] + 2**-8  # of the inputs: the same operation


@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16"], indirect=True)
@pytest.mark.parametrize(
    ("arguments", "shape"),
    [
        ({"filters": 256, "kernel_size": 3}, (4, 8, 8, 256)),
        ({"filters": 256, "kernel_size": 3, "padding": "same", "strides": 2}, (4, 8, 8, 256)),
        ({"filters": 8, "kernel_size": 3, "padding": "same"}, (4, 8, 8, 256)),
        ({"filters": 256, "kernel_size": 3, "padding": "same"}, (2, 9, 9, 256)),
        ({"filters": 256, "kernel_size": 2, "padding": "same"}, (4, 4, 4, 256)),
    ],
)
def test_other_convolutions_take_keras_path(policy, arguments, shape, monkeypatch):
    monkeypatch.setattr("models.layers._small_map_convolution", lambda: pytest.fail("not for these"))
    assert Conv2D(**arguments)(np.ones(shape)).shape[-1] == arguments["filters"]


@pytest.mark.parametrize("policy", ["float32"], indirect=True)
def test_float32_takes_keras_path(policy, monkeypatch):
    monkeypatch.setattr("models.layers._small_map_convolution", lambda: pytest.fail("not in float32"))
    Conv2D(filters=256, kernel_size=3, padding="same")(np.ones((4, 8, 8, 256)))


def test_padding_is_even():
    layer = TorchConv2D(1, 3, strides=2, use_bias=False)
    image = np.arange(16, dtype="float32").reshape(1, 4, 4, 1)
    layer.build(image.shape)
    layer.kernel.assign(np.array([1.0, 0, 0, 0, 0, 0, 0, 0, 0]).reshape(3, 3, 1, 1))
    # The kernel picks the upper left neighbour of pixels 0 and 2: padding in row and column 0, pixel (1, 1).
    np.testing.assert_array_equal(layer(image)[0, :, :, 0], [[0, 0], [0, 5]])


@pytest.mark.parametrize("arguments", [(2, 3, 1), (2, 3, 2), (2, 7, 2, 0), (2, 1, 2), (2, 2, 1)])
def test_convolution_knows_its_output_shape(arguments):
    layer = TorchConv2D(*arguments)
    assert layer.compute_output_shape((4, 9, 10, 3)) == tuple(layer(np.zeros((4, 9, 10, 3))).shape)


@pytest.mark.parametrize(
    ("layer", "inputs", "fan_in"),
    [
        (TorchConv2D(512, 3, kernel_initializer=torch_kernel_initializer()), np.zeros((1, 4, 4, 8)), 72),
        (TorchDense(512, kernel_initializer=torch_kernel_initializer()), np.zeros((1, 72)), 72),
    ],
)
def test_initial_weights_are_uniform_over_fan_in(layer, inputs, fan_in):
    keras.utils.set_random_seed(0)
    layer(inputs)
    for weight in (layer.kernel, layer.bias):
        values = keras.ops.convert_to_numpy(weight)
        assert 0.97 * fan_in**-0.5 < np.abs(values).max() <= fan_in**-0.5
        assert np.abs(values.mean()) < 0.1 * fan_in**-0.5
        assert values.std() == pytest.approx((3 * fan_in) ** -0.5, rel=0.05)  # uniform, not normal


TWO_REPLICAS = """
import numpy as np, keras, tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
from models.layers import BatchNormalization
images = (3 + 2 * np.random.RandomState(0).standard_normal((16, 5, 7, 6))).astype("float32")
labels = np.arange(16) % 2
results = []
for norm in (keras.layers.BatchNormalization, BatchNormalization):
    keras.utils.set_random_seed(0)
    with tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]).scope():
        model = keras.Sequential([norm(), keras.layers.Flatten(), keras.layers.Dense(2)])
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(keras.optimizers.SGD(0.1), loss)
        dataset = tf.data.Dataset.from_tensor_slices((images, labels)).batch(8)
        losses = model.fit(dataset, epochs=3, verbose=0, shuffle=False).history["loss"]
    results.append([losses, *model.get_weights(), model.predict(images, verbose=0)])
for expected, actual in zip(*results, strict=True):
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-5)
"""


@pytest.mark.slow
def test_fused_equals_keras_on_two_replicas():
    subprocess.run([sys.executable, "-c", TWO_REPLICAS], check=True, timeout=300)


OTHER_BACKEND = """
import sys, keras, numpy as np, models
for folder in sys.argv[1:]:
    network = keras.saving.load_model(folder + "/network.keras")
    images = np.load(folder + "/images.npy")
    outputs = [keras.ops.convert_to_numpy(network(images, training=training)) for training in (False, True)]
    np.save(folder + "/outputs.npy", [*outputs, keras.ops.convert_to_numpy(network(images))])
assert keras.backend.backend() == "jax"
"""
# Our own layers, and PyTorch's padding; what else the networks are made of is Keras' own.
ON_JAX = [
    ("inception10", 32, {}),
    ("resnet18_d2l", 71, {}),
    ("cifar_resnet", 32, {"depth": 8}),
    ("fast_cifar10", 32, {"widths": [16, 16, 16]}),
]


@pytest.mark.slow
def test_networks_give_the_same_on_jax(tmp_path):
    pytest.importorskip("jax")
    expected = {}
    for name, pixels, arguments in ON_JAX:
        keras.utils.set_random_seed(0)
        network = build_model(name, (pixels, pixels, 3), 4, **arguments)
        images = np.random.RandomState(0).standard_normal((8, pixels, pixels, 3)).astype("float32")
        network(images, training=True)  # moving statistics other than the initial ones
        folder = tmp_path / name
        folder.mkdir()
        network.save(folder / "network.keras")
        np.save(folder / "images.npy", images)
        # Inference, training, and inference after the training call has moved the statistics.
        expected[folder] = [network(images, training=training).numpy() for training in (False, True, False)]
    command = [sys.executable, "-c", OTHER_BACKEND, *map(str, expected)]
    subprocess.run(command, check=True, env=os.environ | on_jax(tmp_path / "jax"), timeout=600)
    for folder, outputs in expected.items():
        found = np.load(folder / "outputs.npy")
        np.testing.assert_allclose(found, outputs, rtol=1e-3, atol=1e-3, err_msg=folder.name)


def test_variance_beside_a_large_mean_is_kept_by_xla():
    """The kernel's, as XLA computes it, would be a difference of two numbers of a million."""
    random = np.random.RandomState(2)
    inputs = tf.constant(1000 + 0.1 * random.standard_normal((64, 4, 4, 16)), "float32")
    layer = BatchNormalization(momentum=0.0)
    layer.build(inputs.shape)
    tf.function(lambda: layer(inputs, training=True), jit_compile=True)()
    expected = np.var(inputs.numpy().astype(np.float64), axis=(0, 1, 2))
    np.testing.assert_allclose(layer.moving_variance, expected, rtol=1e-2)
