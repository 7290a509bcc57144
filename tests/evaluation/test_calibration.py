"""Temperature and threshold, against searches that try everything."""

import numpy as np
import pytest

from app.evaluation.calibration import (
    SURE_PRECISION,
    TEMPERATURES,
    calibrate,
    calibrated_metrics,
    fit_temperature,
    least_sure_probability,
)
from app.evaluation.metrics import negative_log_likelihood, probabilities


def drawn(temperature, images=20_000, classes=5, seed=0):
    """Labels drawn with the probabilities of logits that are then multiplied by a temperature."""
    generator = np.random.default_rng(seed)
    logits = 2.0 * generator.normal(size=(images, classes))
    labels = [generator.choice(classes, p=row) for row in probabilities(logits)]
    return np.array(labels), (temperature * logits).astype(np.float32)


def loss(labels, logits, temperature):
    scaled = logits.astype(np.float64) / temperature
    return np.mean(np.log(np.exp(scaled).sum(-1)) - scaled[np.arange(len(labels)), labels])


@pytest.mark.parametrize("temperature", [0.4, 1.0, 3.0])
def test_the_temperature_of_a_grid_search_and_of_the_labels(temperature):
    labels, logits = drawn(temperature)
    grid = np.linspace(0.8, 1.25, 451) * temperature
    best = grid[np.argmin([loss(labels, logits, each) for each in grid])]
    found, remark = fit_temperature(labels, logits)
    assert found == pytest.approx(best, rel=0.002) and remark is None
    assert found == pytest.approx(temperature, rel=0.05)
    content = calibrate(labels, logits)
    assert content["loss_before"] == pytest.approx(loss(labels, logits, 1.0))
    assert content["loss"] == pytest.approx(loss(labels, logits, found))
    assert content["loss"] <= content["loss_before"]
    if temperature != 1.0:
        assert content["expected_calibration_error"] < 0.02 < content["expected_calibration_error_before"]


@pytest.mark.parametrize("scale", [1.0, 100.0])
def test_where_all_is_correct_the_probabilities_stay(scale):
    logits = scale * np.random.default_rng(0).normal(size=(50, 3))
    found, remark = fit_temperature(logits.argmax(-1), logits)
    assert found == 1.0 and "No temperature fits" in remark
    assert calibrate(logits.argmax(-1), logits)["unsure_below"] == probabilities(logits).max(-1).min()


def test_losses_of_logits_that_are_far_apart_are_whole():
    labels, logits = np.array([1, 0, 0]), np.array([[1e4, 0], [1e4, 0], [1e4, 0]], np.float32)
    content = calibrated_metrics(labels, logits, 2.0, 0.5)
    assert content["loss_before"] == pytest.approx(1e4 / 3) and content["loss"] == pytest.approx(5e3 / 3)
    assert negative_log_likelihood(labels, logits) == content["loss_before"]


def test_the_greatest_temperature_is_remarked():
    logits = np.random.default_rng(0).normal(size=(50, 3))
    found, remark = fit_temperature(logits.argmin(-1), logits)
    assert found == TEMPERATURES[1] and "greatest that is allowed" in remark
    content = calibrate(logits.argmin(-1), logits)
    assert content["unsure_below"] == 1.0 and content["sure_fraction"] == 0.0
    assert content["sure_precision"] is None
    assert "greatest that is allowed" in content["remark"] and "No probability reaches" in content["remark"]


def test_the_smallest_temperature_is_remarked():
    """Logits that are nearly the same say much once they are told apart, and some are wrong."""
    labels, logits = drawn(1.0, images=500)
    found, remark = fit_temperature(labels, logits / 1000)
    assert found == TEMPERATURES[0] and "smallest that is allowed" in remark
    assert fit_temperature(logits.argmax(-1), logits / 1000)[0] == 1.0  # all right


@pytest.mark.parametrize("labels", [[0], [1], [0, 0], [0, 1, 1]])
def test_few_images_of_two_classes(labels):
    """One image of a class, one image at all, the same logits for every class."""
    for logits in ([[2.0, 0.0]] * len(labels), [[0.0, 0.0]] * len(labels), [[1e4, -1e4]] * len(labels)):
        content = calibrate(np.array(labels), np.array(logits, np.float32))
        assert TEMPERATURES[0] <= content["temperature"] <= TEMPERATURES[1]
        assert 0.0 <= content["unsure_below"] <= 1.0
        assert np.isfinite([content["loss"], content["loss_before"]]).all()
    assert fit_temperature(np.array(labels), np.zeros((len(labels), 2))) == (1.0, None)


def test_huge_logits_do_not_overflow():
    labels, logits = drawn(1.0, images=500)
    found, _ = fit_temperature(labels, 2e3 * logits)
    assert found == TEMPERATURES[1]


def test_logits_that_are_not_finite_have_no_calibration():
    assert calibrate(np.array([0, 1]), np.array([[0.0, np.nan], [1.0, 2.0]])) is None
    assert calibrate(np.array([0, 1]), np.array([[0.0, np.inf], [1.0, 2.0]])) is None


@pytest.mark.parametrize("seed", range(20))
def test_the_threshold_of_a_search_through_all_probabilities(seed):
    generator = np.random.default_rng(seed)
    images = int(generator.integers(1, 300))
    steps = generator.integers(50, 101, images) / 100  # many images of the same probability
    labels = (generator.random(images) < steps**0.3).astype(int)
    softmax = np.stack([1 - steps, steps], axis=-1)
    softmax[steps == 0.5] = 0.4, 0.6
    confidence, right = softmax.max(-1), labels == 1
    reached = [
        each for each in np.unique(confidence) if right[confidence >= each].mean() >= SURE_PRECISION
    ]  # fmt: skip
    assert least_sure_probability(labels, softmax) == (min(reached) if reached else 1.0)


def test_sure_images_are_those_from_the_threshold_on():
    labels, softmax = np.array([0, 1, 0, 0]), np.array([[0.9, 0.1], [0.8, 0.2], [0.6, 0.4], [0.3, 0.7]])
    found = calibrated_metrics(labels, np.log(softmax), 1.0, 0.75)
    assert found["sure_fraction"] == 0.5 and found["sure_precision"] == 0.5
    scaled = calibrated_metrics(labels, 2 * np.log(softmax), 2.0, 0.65)
    assert scaled["sure_fraction"] == 0.75 and scaled["sure_precision"] == pytest.approx(1 / 3)
    assert scaled["loss"] == pytest.approx(-np.log([0.9, 0.2, 0.6, 0.3]).mean())
    assert calibrated_metrics(labels, np.zeros((4, 2)), 1.0, 0.5)["sure_fraction"] == 1.0
