"""Learning rates and weight decay of parts of a network: by names, and by the distance from the head."""

import keras
import numpy as np
import pytest

from app.config.optimizer import OptimizerConfig
from app.errors import UserError
from app.training.optimizers import build_optimizer
from models import build_model
from models.inspect import distances_from_head, matches, variable_names, weighted_layers

RATE = {"schedule": "constant", "peak": 0.5}


@pytest.fixture(scope="module")
def network():
    return build_model("resnet18", input_shape=(32, 32, 3), num_classes=10)


def changes(network, gradient, **config):
    """What an update with equal gradients subtracts from variables that are all 1, by dotted name."""
    variables = network.trainable_variables
    for variable in variables:
        variable.assign(np.ones(variable.shape))
    made = build_optimizer(OptimizerConfig(learning_rate=RATE, **config), 4, 2, network)
    made.build(variables)
    made.apply([keras.ops.full(variable.shape, gradient) for variable in variables], variables)
    names = variable_names(network)
    return {names[id(each)]: 1 - keras.ops.convert_to_numpy(each).flat[0] for each in variables}


def test_factors_by_names_of_layers_and_blocks(network):
    multipliers = {"head.bias": 3.0, "head.*": 2.0, "blocks.1": 0.5, "*/gamma": 0.0}
    found = changes(network, 0.1, name="sgd", rate_multipliers=multipliers)
    assert found["head.bias"] == pytest.approx(0.15, rel=1e-5)
    assert found["head.kernel"] == pytest.approx(0.10, rel=1e-5)
    assert found["blocks.1.conv2.kernel"] == found["blocks.1.norm1.gamma"] == pytest.approx(0.025, rel=1e-5)
    assert found["blocks.0.norm1.gamma"] == found["stem_norm.gamma"] == 0
    assert found["blocks.0.conv1.kernel"] == pytest.approx(0.05, rel=1e-5)


def test_pattern_that_fits_paths_is_not_one_of_names(network):
    """As before there were names: what a pattern of paths means must not change."""
    paths = [variable.path for variable in network.trainable_variables]
    assert not all("conv" in path for path in paths) and any("conv" in path for path in paths)
    found = changes(network, 0.1, name="sgd", rate_multipliers={"*conv*": 0.0})
    names = {id(each): each.path for each in network.trainable_variables}
    by_name = {variable_names(network)[key]: path for key, path in names.items()}
    assert all((found[name] == 0) == ("conv" in path) for name, path in by_name.items())


def test_factor_that_fits_nothing_is_refused(network):
    for pattern in ("blocks.9.*", "*/gain"):
        with pytest.raises(UserError, match="optimizer.rate_multipliers: .* fits no variable; ") as error:
            changes(network, 0.1, name="sgd", rate_multipliers={pattern: 2.0})
        assert f"{pattern!r} fits" in str(error.value) and "the nearest names are " in str(error.value)


EXPECTED = {
    "head.kernel": 1,
    "blocks.7.conv1.kernel": 0.5,
    "blocks.6.norm2.beta": 0.25,
    "stem_conv.kernel": 0.5**9,
}


def test_rates_fall_with_the_distance_from_the_head(network):
    found = changes(network, 0.1, name="sgd", layer_decay=0.5, rate_multipliers={"head.*": 4.0})
    for name, factor in EXPECTED.items():
        factor *= 4 if name.startswith("head") else 1
        assert found[name] == pytest.approx(0.05 * factor, rel=1e-2)
    assert found["stem_norm.gamma"] == found["stem_conv.kernel"]


@pytest.mark.parametrize("decoupled", [True, False])
def test_weight_decay_follows_the_rate_of_its_layer(network, decoupled):
    """As in PyTorch, where a group of parameters has a rate of its own; the gradients here are 0."""
    decay = {"weight_decay": 0.1, "decoupled": decoupled}
    found = changes(network, 0.0, name="sgd", layer_decay=0.5, no_decay=("blocks.6",), **decay)
    for name, factor in EXPECTED.items():
        expected = 0 if name.startswith("blocks.6") else 0.05 * factor
        assert found[name] == pytest.approx(expected, rel=1e-2), name
    multiplied = changes(network, 0.0, name="sgd", rate_multipliers={"head.*": 4.0}, **decay)
    assert multiplied["head.kernel"] == pytest.approx(0.05 if decoupled else 0.2, rel=1e-5)


def test_kernels_of_muon_take_the_rates_of_their_layers(network):
    """Beside what their scaling to a norm changes, which has no rate."""
    muon, name = {"name": "muon", "others": {"name": "sgd", "learning_rate": RATE}}, "blocks.6.conv1.kernel"
    scaled = changes(network, 0.1, rate_multipliers={"blocks.6.*": 0.0}, **muon)
    plain, decayed = (changes(network, 0.1, layer_decay=decay, **muon) for decay in (None, 0.5))
    assert plain["blocks.7.norm1.beta"] == pytest.approx(2 * decayed["blocks.7.norm1.beta"], rel=1e-4)
    step = plain[name] - scaled[name]
    assert abs(step) > 1e-4 and step == pytest.approx(4 * (decayed[name] - scaled[name]), rel=1e-2)


def test_names_fit_from_end_to_end_and_with_what_they_are_in():
    assert matches("units.3.conv", "units.3") and matches("units.3.conv", "*.conv")
    assert not matches("units.13.conv", "units.3") and not matches("units.3.conv", "conv")


@pytest.mark.parametrize(
    ("name", "arguments", "pixels", "last"),
    [
        ("vgg", {"depth": 16}, 32, {"head": 0, "hidden1": 2, "stages.4.2": 3, "stages.0.0": 15}),
        ("minimodel", {}, 32, {"head": 0, "norm": 1, "units.11.conv2": 1, "stem": 13}),
        ("baseline", {}, 16, {"head": 0, "hidden": 1, "norm": 2, "conv": 2}),
    ],
)
def test_parts_of_networks(name, arguments, pixels, last):
    made = build_model(name, input_shape=(pixels, pixels, 3), num_classes=10, **arguments)
    layers, distances = weighted_layers(made), distances_from_head(made)
    assert {id(each) for layer in layers.values() for each in layer.weights} == {*map(id, made.weights)}
    assert {name: distances[id(layers[name].weights[0])] for name in last} == last
