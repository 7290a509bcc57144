import keras
import numpy as np
import pytest

from models.normalization import Normalization

IMAGES = np.random.default_rng(0).integers(0, 256, (3, 4, 5, 3), dtype="uint8")


@pytest.mark.parametrize(
    ("mean", "deviation"),
    [
        (0.0, 1 / 255),
        (0.5, 0.5),
        ([0.49, 0.48, 0.45], [0.25, 0.24, 0.26]),
        (0.47, np.random.default_rng(1).uniform(0.1, 0.3, (4, 5, 3))),
    ],
    ids=["raw", "symmetric", "per_channel", "per_pixel"],
)
def test_equals_numpy_and_survives_its_config(mean, deviation):
    layer = Normalization(mean, deviation)
    expected = (IMAGES / 255.0 - np.asarray(mean)) / np.asarray(deviation)
    np.testing.assert_allclose(layer(IMAGES), expected, rtol=1e-5, atol=1e-5)
    twin = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(layer))
    np.testing.assert_array_equal(twin(IMAGES), layer(IMAGES))
    assert layer.weights == []


def test_computes_in_float32_under_a_low_precision_policy():
    layer = Normalization(0.5, 0.25, dtype="mixed_bfloat16")
    result = layer(IMAGES.astype("float32"))
    assert keras.backend.standardize_dtype(result.dtype) == "bfloat16"
    exact = keras.ops.cast(Normalization(0.5, 0.25)(IMAGES), "bfloat16")
    np.testing.assert_array_equal(keras.ops.cast(result, "float32"), keras.ops.cast(exact, "float32"))


@pytest.mark.parametrize(
    "arguments", [{"deviation": [1.0, 0.0]}, {"deviation": -1.0}, {"mean": float("nan")}]
)
def test_refuses_constants_that_cannot_normalise(arguments):
    with pytest.raises(ValueError, match="Received"):
        Normalization(**arguments)
