"""Building by name: mistakes and images of a wrong size are named."""

import re

import numpy as np
import pytest

from models import build_model
from models.network import MODELS, Network, network
from models.networks.lenet import LeNet5


@pytest.mark.parametrize(
    ("name", "pixels", "message"),
    [
        ("lenet5", 15, "LeNet5 takes images of at least 16 pixels a side. Received: height=15, width=15"),
        ("alexnet8", 20, "at least 21 pixels"),
        ("vgg", 31, "at least 32 pixels"),
        ("resnet50", 36, "at least 37 pixels"),
        ("minimodel", 33, "at least 32 pixels a side, both sides multiples of 8. Received: height=33"),
        ("resnet18_d2l", 167, "at least 71 pixels a side and at most 166. Received: height=167"),
    ],
)
def test_images_of_a_wrong_size_are_refused(name, pixels, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        build_model(name, (pixels, pixels, 3), 10)


@pytest.mark.parametrize(
    ("name", "pixels"),
    [("lenet5", 16), ("alexnet8", 21), ("resnet50", 37), ("resnet18", 1), ("resnet18_d2l", 166)],
)
def test_the_named_limit_is_the_limit(name, pixels):
    network = build_model(name, (pixels, pixels, 1), 3)
    images = np.zeros((2, pixels, pixels, 1), "float32")
    assert network.predict_on_batch(images).shape == (2, 3)  # compiled: some layers fail there only


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("resnet8", {}, "Unknown network. Did you mean 'resnet18'? Known are: baseline, lenet5, "),
        ("resnet18", {"bn_momentun": 0.9}, "Unknown argument of resnet18. Did you mean 'bn_momentum'? "),
        ("lenet5", {"dropout": 0.5}, "Unknown argument of lenet5. Known are: none. Received: 'dropout'"),
        ("resnet", {"depth": 20}, "one of 18, 34, 50, 101, 152. Received: depth=20"),
        (
            "resnet",
            {"depth": 34, "stride_on": "middle"},
            "must be first at depth 18 and 34, whose units have two convolutions. "
            "Received: stride_on='middle', depth=34",
        ),
        ("resnet", {"stride_on": "last"}, "must be one of first, middle. Received: stride_on='last'"),
        ("resnet", {"stem": "small"}, "one of imagenet, cifar. Received: stem='small'"),
        (
            "cifar_resnet",
            {"depth": 18},
            "must be 6n + 2: 20, 32, 44, 56 and 110 in the paper. Received: depth=18",
        ),
        (
            "cifar_resnet",
            {"depth": 8, "shortcuts": False, "drop_path": 0.1},
            "CifarResNet's drop_path must be 0 in the plain network, where a branch is all there is. "
            "Received: drop_path=0.1",
        ),
        ("cifar_resnet", {"depth": 2}, "CifarResNet's depth must be at least 8. Received: depth=2"),
        ("resnet18", {"bn_epsilon": 0.0}, "ResNet18's bn_epsilon must be above 0. Received: bn_epsilon=0.0"),
        ("resnet18", {"head_l2": -1}, "ResNet18's head_l2 must be at least 0. Received: head_l2=-1"),
        ("vgg16", {"dropout": 1.0}, "VGG16's dropout must be at least 0 and below 1. Received: dropout=1.0"),
        ("vgg16", {"dropout": "a"}, "VGG16's dropout must be at least 0 and below 1. Received: dropout='a'"),
        ("vgg", {"depth": 11}, "one of 16, 19. Received: depth=11"),
    ],
)
def test_mistakes_are_named(name, arguments, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        build_model(name, (32, 32, 3), 10, **arguments)


def test_an_argument_is_checked_however_the_network_is_made():
    with pytest.raises(ValueError, match="ResNet's depth must be one of 18, 34"):
        MODELS["resnet"](depth=20)


def test_a_name_is_given_once():
    with pytest.raises(
        ValueError, match="Two networks have one name. Received: 'lenet5' in models.networks.lenet and "
    ):

        @network("lenet5")
        class Another(Network):
            pass

    assert MODELS["lenet5"] is LeNet5
