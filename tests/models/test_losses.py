import math

import keras
import numpy as np
import pytest

from models.losses import SparseCrossentropy

RNG = np.random.default_rng(0)
LABELS = RNG.integers(0, 5, 16)
LOGITS = RNG.normal(0, 4, (16, 5)).astype("float32")


def in_training(**arguments):
    loss = SparseCrossentropy(**arguments)
    loss.training = True
    return loss


@pytest.mark.parametrize(
    "labels", [LABELS, LABELS[:, None], LABELS.astype("uint8")], ids=["flat", "column", "uint8"]
)
def test_plain_loss_equals_keras(labels):
    expected = keras.losses.SparseCategoricalCrossentropy(from_logits=True)(labels, LOGITS)
    np.testing.assert_allclose(in_training()(labels, LOGITS), expected, rtol=1e-6)


def test_smoothing_equals_keras_in_training_and_is_absent_elsewhere():
    one_hot = np.eye(5, dtype="float32")[LABELS]
    expected = keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=0.1)(one_hot, LOGITS)
    np.testing.assert_allclose(in_training(label_smoothing=0.1)(LABELS, LOGITS), expected, rtol=1e-6)
    assert float(SparseCrossentropy(label_smoothing=0.1)(LABELS, LOGITS)) == float(
        in_training()(LABELS, LOGITS)
    )


def test_class_weights_equal_sample_weights_in_training_and_are_absent_elsewhere():
    weights = [0.5, 2.0, 1.0, 0.0, 3.0]
    expected = in_training()(LABELS, LOGITS, sample_weight=np.asarray(weights, "float32")[LABELS])
    np.testing.assert_allclose(in_training(class_weight=weights)(LABELS, LOGITS), expected, rtol=1e-6)
    assert float(SparseCrossentropy(class_weight=weights)(LABELS, LOGITS)) == float(
        in_training()(LABELS, LOGITS)
    )


@pytest.mark.parametrize("training", [True, False])
def test_softmax_before_loss_has_the_floor_of_the_source(training):
    loss = SparseCrossentropy(softmax_before_loss=True)
    loss.training = training
    perfect = 100.0 * np.eye(4, dtype="float32")
    value = float(loss(np.arange(4), perfect))
    assert value == pytest.approx(-math.log(math.e / (math.e + 3)), rel=1e-6)
    assert value == pytest.approx(0.7437, abs=5e-5)


def test_stays_finite_and_float32_for_extreme_or_half_precision_logits():
    far = np.array([[1e30, -1e30, 0.0]], "float32")
    assert np.isfinite(float(in_training(label_smoothing=0.1)(np.array([1]), far)))
    half = keras.ops.cast(LOGITS, "bfloat16")
    assert keras.backend.standardize_dtype(SparseCrossentropy()(LABELS, half).dtype) == "float32"


@pytest.mark.parametrize("gamma", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_focal_loss_is_that_of_its_paper_and_absent_elsewhere(gamma, smoothing):
    powers = np.exp(LOGITS.astype("float64"))
    p = powers / powers.sum(axis=1, keepdims=True)
    targets = np.eye(5)[LABELS] * (1 - smoothing) + smoothing / 5
    weights = np.array([0.5, 2.0, 1.0, 0.0, 3.0])
    expected = weights[LABELS] * (-targets * (1 - p) ** gamma * np.log(p)).sum(axis=1)
    arguments = {"focal_gamma": gamma, "label_smoothing": smoothing, "class_weight": weights.tolist()}
    loss = in_training(**arguments)
    np.testing.assert_allclose(loss.call(LABELS, LOGITS), expected, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(loss(LABELS, LOGITS), expected.mean(), rtol=1e-5)
    assert float(SparseCrossentropy(**arguments)(LABELS, LOGITS)) == float(in_training()(LABELS, LOGITS))


@pytest.mark.parametrize("gamma", [0.5, 1.0, 2.0])
def test_gradient_of_the_focal_loss_is_finite_where_the_softmax_is_saturated(gamma):
    """Right beyond doubt, wrong beyond doubt, and undecided: nothing to learn, the most, and some."""
    logits = keras.ops.convert_to_tensor(np.array([[1e4, 0, 0], [0, 1e4, 0], [0, 0, 0]], "float32"))
    loss = in_training(focal_gamma=gamma)
    gradients = gradient(lambda values: keras.ops.sum(loss.call(np.zeros(3, "int32"), values)), logits)
    assert np.isfinite(gradients).all()
    np.testing.assert_allclose(gradients[0], 0, atol=1e-3)
    np.testing.assert_allclose(gradients[1], [-1, 1, 0], atol=1e-6)  # as of the plain cross-entropy
    assert gradients[2][0] < 0 < gradients[2][1]


def gradient(function, values):
    """The gradient on the backend that runs."""
    if keras.backend.backend() == "jax":
        import jax

        return np.asarray(jax.grad(function)(values))
    import tensorflow as tf

    with tf.GradientTape() as tape:
        tape.watch(values)
        result = function(values)
    return tape.gradient(result, values).numpy()
