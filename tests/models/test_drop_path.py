"""Stochastic depth of the residual networks: who has it, what it does to a branch, and nothing by default."""

import keras
import numpy as np
import pytest

from app.distributed.replicas import _layers
from models import ImageClassifier, Normalization, build_model
from models.network import MODELS, stochastic_depth
from tests.models.zoo import leaves

NETWORKS = [  # with the units that have a shortcut, counted from 1
    ("resnet", {"depth": 18, "stem": "cifar"}, 8, range(1, 9)),
    ("cifar_resnet", {"depth": 20}, 8, range(1, 10)),
    ("cifar_resnet", {"depth": 8, "preactivation": True}, 8, range(1, 4)),
    ("resnet18", {}, 8, range(1, 9)),
    ("shallow_res", {}, 32, range(1, 5)),
    ("resnet50", {}, 37, range(1, 17)),
    ("resnet18_d2l", {}, 71, range(1, 9)),
    ("minimodel", {"dropout": 0.0}, 32, range(1, 13)),
    ("efficientnet_lite0", {"dropout": 0.0}, 32, [3, 5, 7, 8, 10, 11, 13, 14, 15]),
]
NUM_UNITS = {"efficientnet_lite0": 16}  # of others the last unit has a shortcut


def dropouts(network):
    return [layer for layer in leaves(network) if layer.name == "drop_path"]


@pytest.mark.parametrize(("name", "arguments", "pixels", "units"), NETWORKS)
def test_nothing_by_default_and_in_inference_else_rising_linearly(name, arguments, pixels, units):
    shape = (pixels, pixels, 3)
    images = np.random.RandomState(0).standard_normal((3, *shape)).astype("float32")
    plain = build_model(name, shape, 4, **arguments)
    assert not dropouts(plain)
    assert not any("drop_path" in variable.path for variable in plain.variables)
    config = plain.get_config()
    assert config.pop("drop_path") == 0.0
    older = MODELS[name].from_config(config)  # of a file saved before there was such an argument
    assert older.get_config()["drop_path"] == 0.0

    network = build_model(name, shape, 4, drop_path=0.9, **arguments)
    rates = [layer.rate for layer in dropouts(network)]
    np.testing.assert_allclose(rates, 0.9 * np.array(units) / NUM_UNITS.get(name, units[-1]))
    network.set_weights(plain.get_weights())
    logits = [keras.ops.convert_to_numpy(each(images, training=False)) for each in (plain, network)]
    np.testing.assert_array_equal(*logits)
    network.trainable = plain.trainable = False  # batch normalisation then acts the same in both modes
    assert np.abs(keras.ops.convert_to_numpy(network(images, training=True)) - logits[0]).max() > 1e-4


def test_a_branch_is_left_out_for_an_image_as_one_and_scaled_where_it_stays():
    drop = stochastic_depth(0.4, 4, 10)  # 0.2 for the fifth of ten units
    drop.dtype_policy = "float32"
    branch = np.random.RandomState(0).uniform(1, 2, (5000, 2, 3, 4)).astype("float32")
    ratios = keras.ops.convert_to_numpy(drop(branch, training=True)) / branch
    ratios = ratios.reshape(5000, -1)
    stays = ratios[:, 0] > 0
    np.testing.assert_allclose(ratios, np.where(stays, 1 / 0.8, 0)[:, None].repeat(24, 1), rtol=1e-6)
    assert abs(stays.mean() - 0.8) < 0.03  # more than five standard deviations
    again = keras.ops.convert_to_numpy(drop(branch, training=True))[:, 0, 0, 0] > 0
    assert (again != stays).any()


def test_small_probabilities_are_kept_in_bfloat16():
    """Whose random numbers on TensorFlow are multiples of 1 / 128."""
    drop = stochastic_depth(0.1, 3, 16)
    drop.dtype_policy = "mixed_bfloat16"
    outputs = drop(keras.ops.ones((200_000, 1, 1, 1), "bfloat16"), training=True)
    assert outputs.dtype == keras.ops.ones(1, "bfloat16").dtype
    left_out = keras.ops.convert_to_numpy(keras.ops.cast(outputs, "float32")) == 0
    assert abs(left_out.mean() - 0.025) < 0.002  # more than five standard deviations


def test_draws_are_state_of_the_model_and_known_to_the_replicas():
    """Saved with the variables, so that a run resumes exactly; each replica has a stream of its own."""
    network = build_model("cifar_resnet", (8, 8, 3), 4, depth=8, drop_path=0.3)
    states = [layer.seed_generator.state for layer in dropouts(network)]
    classifier = ImageClassifier(network, "abcd", Normalization())
    classifier.build((None, 8, 8, 3))
    assert {id(state) for state in states} <= {id(variable) for variable in classifier.variables}
    generators = [generator for layer in _layers(classifier) for generator in layer._seed_generators]
    assert {id(state) for state in states} <= {id(generator.state) for generator in generators}
    before = keras.ops.convert_to_numpy(states[0]).copy()
    classifier(np.zeros((2, 8, 8, 3), "uint8"), training=True)
    assert (keras.ops.convert_to_numpy(states[0]) != before).any()
