"""Every network: shapes, counts, cost, settings, saving, learning. One row a network, one more to add one."""

import math
import re
from typing import NamedTuple

import keras
import numpy as np
import pytest
import tensorflow as tf

from models import build_model, list_models
from models.macs import count_macs
from models.registry import MODELS, model_arguments


class Row(NamedTuple):
    name: str
    pixels: int
    num_classes: int
    total: int
    trainable: int
    macs: int
    bn: tuple[int, float, float] | None  # number of normalisations, momentum, epsilon
    arguments: dict = {}  # noqa: RUF012
    small: int = 32  # pixels for the tests that train

    @property
    def id(self):
        return "-".join([self.name, *(f"{key}={value}" for key, value in self.arguments.items())])


KERAS_BN = (0.99, 1e-3)
TORCH_BN = (0.9, 1e-5)
# Total and trainable weights and multiply-accumulates: ten networks as their sources print or imply them.
SOURCES = [
    Row("baseline", 32, 10, 198_506, 198_494, 658_688, (1, *KERAS_BN)),
    Row("lenet5", 32, 10, 62_006, 62_006, 651_720, None),
    Row("alexnet8", 32, 10, 9_639_178, 9_638_474, 117_909_632, (2, *KERAS_BN)),
    Row("vgg16", 32, 10, 15_262_026, 15_253_578, 313_725_952, (13, *KERAS_BN)),
    Row("inception10", 32, 10, 121_418, 120_234, 12_240_128, (25, *KERAS_BN)),
    Row("resnet18", 32, 10, 11_183_562, 11_173_962, 555_422_720, (20, *KERAS_BN)),
    Row("shallow_res", 128, 10, 4_919_562, 4_913_802, 290_198_528, (12, *KERAS_BN)),
    Row("minimodel", 32, 10, 4_374_538, 4_368_714, 214_796_800, (25, *KERAS_BN)),
    Row("resnet50", 224, 4, 23_989_124, 23_936_004, 3_832_684_544, (53, *TORCH_BN)),
    Row("resnet18_d2l", 96, 10, 11_188_618, 11_180_810, 323_552_960, (17, *TORCH_BN), small=71),
]
# Trainable weights as published; the cost agrees with the papers' 1.8, 3.6, 3.8, 7.6, 11.3 and 15.5, 19.6 billion.
FAMILIES = [
    Row("resnet", 224, 1000, 11_699_112, 11_689_512, 1_814_073_344, (20, *TORCH_BN), {"depth": 18}),
    Row("resnet", 224, 1000, 21_814_696, 21_797_672, 3_663_761_408, (36, *TORCH_BN), {"depth": 34}),
    Row("resnet", 224, 1000, 25_610_152, 25_557_032, 3_857_973_248, (53, *TORCH_BN), {"depth": 50}),
    Row("resnet", 224, 1000, 44_654_504, 44_549_160, 7_570_194_432, (104, *TORCH_BN), {"depth": 101}),
    Row("resnet", 224, 1000, 60_344_232, 60_192_808, 11_282_415_616, (155, *TORCH_BN), {"depth": 152}),
    # The lecture notes' ResNet18 is this one with other padding and normalisation settings.
    Row("resnet", 32, 10, 11_183_562, 11_173_962, 555_422_720, (20, *TORCH_BN), {"depth": 18, "stem": "cifar"}),
    Row("vgg", 224, 1000, 138_357_544, 138_357_544, 15_470_264_320, None, {"depth": 16}),
    Row("vgg", 224, 1000, 143_667_240, 143_667_240, 19_632_062_464, None, {"depth": 19}),
]


def cifar_rows():
    for depth in (20, 32, 44, 56, 110):
        n = (depth - 2) // 6
        # Stem, 2n convolutions a stage less the narrower input of stages 2 and 3, head; then the normalisations.
        kernels = 9 * (3 * 16 + 2 * n * (16**2 + 32**2 + 64**2) - 32 * 16 - 64 * 32) + 65 * 10
        channels = 16 + 2 * n * (16 + 32 + 64)
        pixels = 9 * (3 * 16 + 2 * n * 16**2) * 32**2  # stem and stage 1
        pixels += 9 * (2 * n * 32**2 - 32 * 16) * 16**2 + 9 * (2 * n * 64**2 - 64 * 32) * 8**2
        counts = (kernels + 4 * channels, kernels + 2 * channels, pixels + 640)
        for variant in ({}, {"shortcuts": False}, {"preactivation": True}):
            if depth in (20, 56) or not variant:
                row = Row("cifar_resnet", 32, 10, *counts, (6 * n + 1, *TORCH_BN), {"depth": depth, **variant})
                yield row


ROWS = [*SOURCES, *FAMILIES, *cifar_rows()]
# Families: the deepest members take seconds to build, and train as the shallow ones do.
DEEP = [row for row in ROWS if row.name == "vgg" or row.arguments.get("depth") in (44, 101, 110, 152)]
TRAINED = [row for row in ROWS if row not in DEEP]
every_row = pytest.mark.parametrize(
    "row",
    [pytest.param(row, marks=[pytest.mark.slow] if row in DEEP else [], id=row.id) for row in ROWS],
)
trained_row = pytest.mark.parametrize("row", TRAINED, ids=lambda row: row.id)


def leaves(model):
    for layer in model.layers:
        yield from leaves(layer) if isinstance(layer, keras.Model) else [layer]


def build(row, pixels=None, **arguments):
    pixels = pixels or row.pixels
    return build_model(row.name, (pixels, pixels, 3), row.num_classes, **{**row.arguments, **arguments})


def build_small(row):
    """Builds the network for small images, without dropout, seeded."""
    keras.utils.set_random_seed(0)
    dropout = {"dropout": 0.0} if "dropout" in model_arguments(row.name) else {}
    return build(row, row.small, **dropout)


def small_batch(row, size=8):
    random = np.random.RandomState(0)
    images = random.standard_normal((size, row.small, row.small, 3)).astype("float32")
    return images, np.arange(size) % row.num_classes


def cross_entropy(labels, logits):
    return tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits))


def num_weights(weights):
    return sum(math.prod(weight.shape) for weight in weights)


@every_row
def test_shape_counts_cost_and_settings(row):
    network = build(row)
    logits = network.head.output
    assert (logits.shape, logits.dtype) == ((None, row.num_classes), "float32")
    assert network.count_params() == row.total
    assert num_weights(network.trainable_weights) == row.trainable
    assert num_weights(network.non_trainable_weights) == row.total - row.trainable
    assert count_macs(network) == row.macs

    norms = [layer for layer in leaves(network) if isinstance(layer, keras.layers.BatchNormalization)]
    if row.bn is None:
        assert not norms
    else:
        number, momentum, epsilon = row.bn
        epsilons = {norm.epsilon for norm in norms}
        assert len(norms) == number
        assert {norm.momentum for norm in norms} == {momentum}
        assert epsilons == ({epsilon, 1e-3} if row.name == "resnet18_d2l" else {epsilon})

    config = network.get_config()
    assert set(model_arguments(row.name)) < set(config)
    again = type(network).from_config(config)
    assert again.get_config() == config


def test_table_covers_the_registry():
    assert {row.name for row in ROWS} == set(list_models())


def test_networks_are_keras_models():
    assert tf.keras.Model is keras.Model
    assert all(issubclass(network, tf.keras.Model) for network in MODELS.values())


def test_published_sizes_of_the_cifar_resnets():
    millions = {row.arguments["depth"]: round(row.trainable / 1e6, 2) for row in cifar_rows()}
    assert (millions[20], millions[56]) == (0.27, 0.85)
    assert math.floor(10 * millions[110]) / 10 == 1.7


@pytest.mark.parametrize("name", ["resnet18", "minimodel", "inception10"])
def test_summary_shows_every_shape(name):
    lines = []
    network = build_model(name, (64, 64, 3), 10)
    network.summary(expand_nested=True, print_fn=lambda text, **_: lines.append(text))
    assert "?" not in "".join(lines)
    assert "(None, 64, 64, " in "".join(lines)


SETTINGS = [
    ("baseline", ["same"], ["same"], [0.2, 0.2]),
    ("lenet5", ["valid"] * 2, ["valid"] * 2, []),
    ("alexnet8", ["valid"] * 2 + ["same"] * 3, ["valid"] * 3, [0.5, 0.5]),
    ("vgg16", ["same"] * 13, ["same"] * 5, [0.2] * 7),
    ("inception10", ["same"] * 25, ["same"] * 4, []),
    ("resnet18", ["same"] * 20, [], []),
    ("shallow_res", ["same"] * 12, ["same"], []),
    ("minimodel", ["same"] * 28, ["valid"] * 3, [0.25]),
]


@pytest.mark.parametrize(("name", "convolutions", "pools", "dropouts"), SETTINGS, ids=[row[0] for row in SETTINGS])
def test_padding_dropout_and_bias(name, convolutions, pools, dropouts):
    found = list(leaves(build_model(name, (32, 32, 3), 10)))
    convs = [layer for layer in found if isinstance(layer, keras.layers.Conv2D)]
    assert [layer.padding for layer in convs] == convolutions
    assert [layer.padding for layer in found if isinstance(layer, keras.layers.MaxPooling2D)] == pools
    assert [layer.rate for layer in found if isinstance(layer, keras.layers.Dropout)] == dropouts
    assert {layer.use_bias for layer in convs} == {name != "resnet18"}
    for layer in convs:
        assert isinstance(layer.kernel_initializer, keras.initializers.GlorotUniform)


def test_resnet18_penalises_the_head_as_its_source_does():
    network = build_model("resnet18", (8, 8, 3), 10)
    kernel = network.head.kernel.numpy()
    assert len(network.losses) == 1
    assert float(network.losses[0]) == pytest.approx(0.01 * float((kernel**2).sum()), rel=1e-5)
    assert build_model("resnet18", (8, 8, 3), 10, head_l2=0.0).losses == []


@pytest.mark.parametrize("name", ["baseline", "alexnet8", "vgg16", "minimodel"])
def test_dropout_acts_in_training_only(name):
    network = build_model(name, (32, 32, 3), 10)
    network.trainable = False  # batch normalisation then acts the same in both modes
    images = np.random.RandomState(0).standard_normal((2, 32, 32, 3)).astype("float32")
    inference = network(images, training=False).numpy()
    np.testing.assert_array_equal(network(images).numpy(), inference)
    assert np.abs(network(images, training=True).numpy() - inference).max() > 1e-3


@pytest.mark.parametrize(
    ("name", "pixels", "message"),
    [
        ("lenet5", 15, "LeNet5 takes images of at least 16 pixels a side. Received: height=15, width=15"),
        ("alexnet8", 20, "at least 21 pixels"),
        ("vgg", 31, "at least 32 pixels"),
        ("resnet50", 4, "at least 5 pixels"),
        ("minimodel", 33, "at least 32 pixels a side, both sides multiples of 8. Received: height=33"),
        ("resnet18_d2l", 167, "at least 71 pixels a side and at most 166. Received: height=167"),
    ],
)
def test_images_of_a_wrong_size_are_refused(name, pixels, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        build_model(name, (pixels, pixels, 3), 10)


@pytest.mark.parametrize(
    ("name", "pixels"), [("lenet5", 16), ("alexnet8", 21), ("resnet50", 5), ("resnet18", 1), ("resnet18_d2l", 166)]
)
def test_the_named_limit_is_the_limit(name, pixels):
    network = build_model(name, (pixels, pixels, 1), 3)
    assert network.head.output.shape == (None, 3)


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("resnet8", {}, "Unknown network. Did you mean 'resnet18'? Known are: baseline, lenet5, "),
        ("resnet18", {"bn_momentun": 0.9}, "Unknown argument of resnet18. Did you mean 'bn_momentum'? "),
        ("lenet5", {"dropout": 0.5}, "Unknown argument of lenet5. Known are: none. Received: 'dropout'"),
        ("resnet", {"depth": 20}, "one of [18, 34, 50, 101, 152]. Received: depth=20"),
        ("resnet", {"stem": "small"}, "one of imagenet, cifar. Received: stem='small'"),
        ("cifar_resnet", {"depth": 18}, "must be 6n + 2: 20, 32, 44, 56 and 110 in the paper. Received: depth=18"),
        ("vgg", {"depth": 11}, "one of [16, 19]. Received: depth=11"),
    ],
)
def test_mistakes_are_named(name, arguments, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        build_model(name, (32, 32, 3), 10, **arguments)


def test_plain_network_has_no_shortcuts():
    """With all kernels zero, a residual network still hands the stem on, a plain one does not."""
    reached = {}
    for shortcuts in (True, False):
        network = build_model("cifar_resnet", (8, 8, 3), 2, depth=8, shortcuts=shortcuts)
        for unit in network.units:
            for conv in (unit.conv1, unit.conv2):
                conv.kernel.assign(np.zeros(conv.kernel.shape))
        logits = network(np.random.RandomState(0).standard_normal((4, 8, 8, 3)).astype("float32"))
        reached[shortcuts] = float(np.std(logits.numpy(), axis=0).max()) > 1e-4
    assert reached == {True: True, False: False}


def test_precision_is_saved_with_the_network(tmp_path):
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


@pytest.mark.slow
@trained_row
def test_every_variable_gets_a_gradient(row):
    network = build_small(row)
    images, labels = small_batch(row)
    with tf.GradientTape() as tape:
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


@pytest.mark.slow
@trained_row
def test_saved_network_gives_the_same_bits(row, tmp_path):
    network = build_small(row)
    images, _ = small_batch(row)
    network(images, training=True)  # moving statistics other than the initial ones
    network.save(tmp_path / "network.keras")
    loaded = keras.saving.load_model(tmp_path / "network.keras", safe_mode=True)
    np.testing.assert_array_equal(loaded(images).numpy(), network(images).numpy())
    assert loaded.get_config() == network.get_config()
    assert count_macs(loaded) == count_macs(network)


@pytest.mark.slow
@trained_row
def test_bfloat16_gives_finite_float32_logits(row):
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
    network = build_small(row)
    images, labels = small_batch(row)
    network.compile(keras.optimizers.Adam(2e-3), lambda y, logits: cross_entropy(tf.reshape(y, [-1]), logits))
    losses = [float(network.train_on_batch(images, labels)) for _ in range(60)]
    assert losses[-1] < 0.1 * losses[0]
