"""Gradients and branches against plain training steps and networks changed by hand."""

import keras
import numpy as np
import pytest

from app.errors import UserError
from app.inference.gradient_flow import gradient_norms, residual_sizes
from models import ImageClassifier, Normalization, build_model

IMAGES = np.random.default_rng(0).integers(0, 256, (6, 16, 16, 3), np.uint8)
LABELS = np.array([0, 1, 2, 0, 1, 2], np.int32)


def classifier_of(name, pixels=16, **arguments):
    keras.utils.set_random_seed(0)
    network = build_model(name, (pixels, pixels, 3), 3, **arguments)
    classifier = ImageClassifier(network, ["a", "b", "c"], Normalization())
    classifier.build((None, pixels, pixels, 3))
    return classifier


def weights(classifier):
    return [keras.ops.convert_to_numpy(variable) for variable in classifier.variables]


def test_gradients_are_those_of_a_training_step():
    classifier = classifier_of("cifar_resnet", depth=8, shortcuts=False)
    before = weights(classifier)
    norms = gradient_norms(classifier, IMAGES, LABELS)
    assert len(norms) == 7
    for old, new in zip(before, weights(classifier), strict=True):
        np.testing.assert_array_equal(old, new)
    units = classifier.network.units
    layers = [classifier.network.stem_conv, *(conv for unit in units for conv in (unit.conv1, unit.conv2))]
    kernels = [keras.ops.convert_to_numpy(layer.kernel) for layer in layers]
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    classifier.compile(keras.optimizers.SGD(1.0), loss)  # one step then moves weights by the gradient
    classifier.train_on_batch(IMAGES, LABELS)
    moved = [keras.ops.convert_to_numpy(layer.kernel) for layer in layers]
    expected = [np.linalg.norm(old - new) for old, new in zip(kernels, moved, strict=True)]
    np.testing.assert_allclose(norms, expected, rtol=1e-3)


def test_branches_are_what_the_last_convolutions_add():
    classifier = classifier_of("cifar_resnet", depth=8, preactivation=True)
    before = weights(classifier)
    branches, shortcuts = residual_sizes(classifier, IMAGES)
    assert branches.shape == shortcuts.shape == (3,) and (branches > 0).all() and (shortcuts > 0).all()
    for old, new in zip(before, weights(classifier), strict=True):
        np.testing.assert_array_equal(old, new)
    kernel = classifier.network.units[0].conv2.kernel
    kernel.assign(2 * kernel)
    doubled, unmoved = residual_sizes(classifier, IMAGES)
    assert doubled[0] == pytest.approx(2 * branches[0], rel=1e-5)
    assert unmoved[0] == pytest.approx(shortcuts[0], rel=1e-5) and unmoved[1] > shortcuts[1]


def test_without_branches_the_shortcut_carries_the_input_on():
    classifier = classifier_of("cifar_resnet", depth=14, preactivation=True)
    for unit in classifier.network.units:
        unit.conv2.kernel.assign(0 * unit.conv2.kernel)
    branches, shortcuts = residual_sizes(classifier, IMAGES)
    assert not branches.any()
    assert shortcuts[0] == shortcuts[1]  # the same map; the second stage has other pixels and channels
    assert shortcuts[2] == shortcuts[3] != shortcuts[1]


def test_what_drop_path_leaves_of_a_branch_is_the_branch():
    classifier = classifier_of("cifar_resnet", depth=14, preactivation=True, drop_path=0.99)
    plain = classifier_of("cifar_resnet", depth=14, preactivation=True)
    plain.network.set_weights(classifier.network.get_weights())
    (_, shortcuts), (_, expected) = (residual_sizes(each, IMAGES) for each in (classifier, plain))
    assert shortcuts[0] == pytest.approx(expected[0], rel=1e-5)


def test_minimodel_has_twelve_units():
    images = np.random.default_rng(1).integers(0, 256, (2, 32, 32, 3), np.uint8)
    branches, shortcuts = residual_sizes(classifier_of("minimodel", 32), images)
    assert len(branches) == len(shortcuts) == 12 and np.isfinite(branches).all()


@pytest.mark.parametrize(
    ("name", "pixels", "arguments"),
    [
        ("lenet5", 32, {}),
        ("cifar_resnet", 16, {"depth": 8}),
        ("cifar_resnet", 16, {"depth": 8, "shortcuts": False, "preactivation": True}),
    ],
)
def test_networks_without_such_units_are_refused(name, pixels, arguments):
    with pytest.raises(UserError, match="not made of pre-activation units"):
        residual_sizes(classifier_of(name, pixels, **arguments), IMAGES)
