"""The two networks published in PyTorch give PyTorch's outputs on the same weights."""

from pathlib import Path

import keras
import numpy as np
import pytest

from models import build_model
from tests.models.golden_values import Values, images
from tests.models.zoo import leaves

GOLDENS = Path(__file__).with_name("torch_goldens.npz")


def fill(network: keras.Model, values: Values, last_map: tuple[int, int, int]) -> None:
    """Sets all weights; `last_map` is what the head sees, (height, width, channels), before flattening."""
    for layer in leaves(network):
        if isinstance(layer, keras.layers.Conv2D):
            height, width, inputs, outputs = layer.kernel.shape
            layer.kernel.assign(values.kernel(outputs, inputs, height, width).transpose(2, 3, 1, 0))
            if layer.use_bias:
                layer.bias.assign(values.bias(outputs))
        elif isinstance(layer, keras.layers.BatchNormalization):
            layer.set_weights(values.normalization(layer.gamma.shape[0]))
        elif isinstance(layer, keras.layers.Dense):
            inputs, outputs = layer.kernel.shape
            height, width, channels = last_map
            kernel = values.kernel(outputs, inputs).reshape(outputs, channels, height, width)
            layer.kernel.assign(kernel.transpose(2, 3, 1, 0).reshape(inputs, outputs))
            layer.bias.assign(values.bias(outputs))


@pytest.mark.parametrize(
    ("name", "pixels", "num_classes", "last_map"),
    [
        ("resnet18_d2l", 71, 10, (1, 1, 512)),
        ("resnet18_d2l", 96, 10, (1, 1, 512)),
        ("resnet50", 96, 4, (7, 7, 2048)),
        pytest.param("resnet50", 224, 4, (7, 7, 2048), marks=pytest.mark.slow),
    ],
)
def test_outputs_equal_pytorchs(name, pixels, num_classes, last_map):
    network = build_model(name, (pixels, pixels, 3), num_classes)
    fill(network, Values(seed=1), last_map)
    batch = images(pixels)
    with np.load(GOLDENS) as goldens:
        for mode in ("inference", "training"):
            expected = goldens[f"{name}_{pixels}_{mode}"]
            logits = keras.ops.convert_to_numpy(network(batch, training=mode == "training"))
            # In units of how far different images lie apart. Rounding gives up to 3e-4 (training mode, 50
            # layers), one pixel of wrong padding more than 0.3.
            difference = np.abs(logits - expected).max() / expected.std(axis=0).mean()
            assert difference < 1e-3, mode
