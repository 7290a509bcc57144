"""Every network: shapes, counts, cost and settings. The rows are in zoo.py."""

import math

import keras
import numpy as np
import pytest

from app.config.optimizer import OptimizerConfig
from app.config.schedules import ConstantSchedule
from app.reports.networks import build_published
from app.training.optimizers.variables import fitting
from models import build_model
from models.inspect import count_macs, count_weights
from models.network import MODELS
from models.registry import model_arguments
from tests.models.zoo import ROWS, bottleneck_macs, bottleneck_rows, cifar_counts, cifar_rows, leaves

RATE = ConstantSchedule(peak=0.1)
NORM_AND_BIAS = OptimizerConfig(name="sgd", learning_rate=RATE, no_decay="norm_and_bias").no_decay_patterns
every_row = pytest.mark.parametrize("row", ROWS, ids=lambda row: row.label)


@every_row
def test_shape_counts_cost_and_settings(row):
    network = build_published(row)
    logits = network.head.output
    assert (logits.shape, logits.dtype) == ((None, row.num_classes), "float32")
    assert network.count_params() == row.total
    assert count_weights(network.trainable_weights) == row.trainable
    assert count_weights(network.non_trainable_weights) == row.total - row.trainable
    assert count_macs(network) == row.macs
    # Weight decay leaves out every vector of it, and nothing else.
    left_out = [fitting(pattern, network.trainable_weights, {}) for pattern in NORM_AND_BIAS]
    assert {*map(id, sum(left_out, []))} == {id(v) for v in network.trainable_weights if len(v.shape) < 2}

    norms = [layer for layer in leaves(network) if isinstance(layer, keras.layers.BatchNormalization)]
    if row.norms is None:
        assert not norms
    else:
        number, momentum, epsilon = row.norms
        epsilons = {norm.epsilon for norm in norms}
        assert len(norms) == number
        assert {norm.momentum for norm in norms} == {momentum}
        assert epsilons == ({epsilon, 1e-3} if row.name == "resnet18_d2l" else {epsilon})

    config = network.get_config()
    assert set(model_arguments(row.name)) < set(config)
    again = type(network).from_config(config)
    assert again.get_config() == config


def test_table_covers_the_registry():
    missing = set(MODELS) - {row.name for row in ROWS}
    assert not missing, f"give {missing} what its source says of its size: `published`, as in lenet.py"


def test_published_sizes_of_the_cifar_resnets():
    for row in cifar_rows():
        assert (row.total, row.trainable, row.macs) == cifar_counts(row.arguments["depth"])
    millions = {row.arguments["depth"]: round(row.trainable / 1e6, 2) for row in cifar_rows()}
    assert (millions[20], millions[56]) == (0.27, 0.85)
    assert math.floor(10 * millions[110]) / 10 == 1.7


def test_costs_of_the_two_kinds_of_bottlenecks():
    """The paper's 3.8, 7.6 and 11.3 billion; torchvision prints 4.09, 7.80 and 11.51."""
    billions = {}
    for row in bottleneck_rows():
        assert row.macs == bottleneck_macs(**row.arguments)
        billions[*row.arguments.values()] = round(row.macs / 1e9, 2)
    assert billions == {
        (50,): 3.86, (101,): 7.57, (152,): 11.28,
        (50, "middle"): 4.09, (101, "middle"): 7.8, (152, "middle"): 11.51,
    }  # fmt: skip


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


@pytest.mark.parametrize(
    ("name", "convolutions", "pools", "dropouts"), SETTINGS, ids=[row[0] for row in SETTINGS]
)
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
