"""Figures of a classifier, against values worked out by hand."""

import json

import numpy as np
import pytest

from app.evaluation.metrics import (
    classification_metrics,
    mcnemar,
    p_words,
    probabilities,
    reliability,
)
from app.evaluation.records import EvaluationRecord
from app.files import write_json
from app.reading import read_record


def logits_of(shares):
    return np.log(np.asarray(shares, np.float32))


LABELS = np.array([0, 0, 1, 1, 2])
SHARES = [[0.8, 0.1, 0.1], [0.3, 0.6, 0.1], [0.2, 0.7, 0.1], [0.1, 0.8, 0.1], [0.1, 0.2, 0.7]]


def test_figures_worked_out_by_hand():
    found = classification_metrics(LABELS, logits_of(SHARES), ["ant", "bee", "cow"])
    assert found["images"] == 5
    assert found["accuracy"] == pytest.approx(4 / 5)
    assert found["loss"] == pytest.approx(-np.log([0.8, 0.3, 0.7, 0.8, 0.7]).mean(), rel=1e-6)
    cells = {"true_class": [0, 0, 1, 2], "predicted_class": [0, 1, 1, 2], "images": [1, 1, 2, 1]}
    assert found["confusion"] == cells
    ant, bee, cow = found["classes"]
    assert ant == {"name": "ant", "images": 2, "precision": 1.0, "recall": 0.5, "f1": pytest.approx(2 / 3)}
    assert bee["precision"] == pytest.approx(2 / 3) and bee["recall"] == 1.0
    assert bee["f1"] == pytest.approx(0.8) and cow["f1"] == 1.0
    assert found["macro_f1"] == pytest.approx((2 / 3 + 0.8 + 1) / 3)
    assert found["top5_accuracy"] is None


def test_top_five_needs_more_than_five_classes():
    logits = np.tile(np.arange(7.0), (3, 1))  # the classes 6, 5, 4, 3, 2 are the first five
    found = classification_metrics(np.array([6, 2, 1]), logits, list("abcdefg"))
    assert found["top5_accuracy"] == pytest.approx(2 / 3) and found["accuracy"] == pytest.approx(1 / 3)
    equal = classification_metrics(np.array([0, 4, 5]), np.zeros((3, 7)), list("abcdefg"))
    assert equal["top5_accuracy"] == pytest.approx(2 / 3) and equal["accuracy"] == pytest.approx(1 / 3)


def test_a_class_that_never_occurs_or_is_never_guessed_has_shares_of_zero():
    found = classification_metrics(np.array([0, 0]), logits_of([[0.9, 0.1], [0.6, 0.4]]), ["ant", "bee"])
    assert found["classes"][1] == {"name": "bee", "images": 0, "precision": 0.0, "recall": 0.0, "f1": 0.0}


def test_mean_f1_is_of_the_classes_that_occur():
    logits = 9.0 * np.eye(6)[[0, 1, 2]]
    assert classification_metrics(np.array([0, 1, 2]), logits, list("abcdef"))["macro_f1"] == 1.0
    wrong = 9.0 * np.eye(6)[[0, 1, 5]]
    assert classification_metrics(np.array([0, 1, 2]), wrong, list("abcdef"))["macro_f1"] == 0.5


def test_calibration_error_is_the_mean_distance_of_confidence_and_accuracy():
    # Four images at 0.9, three of them right; one at 0.6, right: |0.9 - 0.75| and |0.6 - 1|.
    shares = np.array([[0.9, 0.1]] * 4 + [[0.6, 0.4]])
    labels = np.array([0, 0, 0, 1, 0])
    found = classification_metrics(labels, logits_of(shares), ["ant", "bee"])
    assert found["expected_calibration_error"] == pytest.approx((4 * 0.15 + 0.4) / 5, rel=1e-5)
    bins = [each for each in reliability(labels, shares) if each["images"]]
    assert [(each["images"], each["accuracy"]) for each in bins] == [(1, 1.0), (4, 0.75)]
    assert all(each["low"] < each["confidence"] <= each["high"] for each in bins)


def test_every_image_is_in_one_bin_even_at_the_borders():
    shares = np.stack([np.linspace(0.5, 1.0, 31), 1 - np.linspace(0.5, 1.0, 31)], axis=-1)
    assert sum(each["images"] for each in reliability(np.zeros(31, int), shares)) == 31


def test_probabilities_of_large_logits_are_finite():
    assert probabilities(np.array([[1000.0, 0.0], [-1000.0, -1000.0]])).tolist() == [[1.0, 0.0], [0.5, 0.5]]


@pytest.mark.parametrize(
    ("first", "second", "p_value"),
    [
        ([1, 1, 1, 0], [1, 1, 1, 0], 1.0),  # no difference at all
        ([1] * 6 + [0], [0] * 6 + [0], 2 * 0.5**6),  # six coins fall the same way
        ([1] * 5 + [0], [0] * 5 + [1], 2 * (1 + 6) * 0.5**6),  # five of six or more
    ],
)
def test_mcnemar_is_a_fair_coin(first, second, p_value):
    found = mcnemar(np.array(first, bool), np.array(second, bool))
    assert found["p_value"] == pytest.approx(p_value)
    assert found["only_first"] == sum(a > b for a, b in zip(first, second, strict=True))


def test_no_p_value_is_said_to_be_zero():
    every = np.ones(1100, bool)
    assert p_words(mcnemar(every, ~every)["p_value"]) == "p < 1e-300" and p_words(0.0312) == "p = 0.031"


def test_thousands_of_classes_make_a_small_file(tmp_path):
    number = 3000
    labels = np.arange(2 * number) % number
    logits = np.zeros((len(labels), number), np.float32)
    logits[np.arange(len(labels)), labels] = 1.0
    logits[0, 7] = 2.0
    figures = classification_metrics(labels, logits, [f"class {at}" for at in range(number)])
    told = {"checkpoint": "best", "epoch": 1, "split": "validation", "test_time_views": "none"}
    write_json(tmp_path / "evaluation.json", told | figures)
    assert (tmp_path / "evaluation.json").stat().st_size < 1_500_000
    confusion = json.loads((tmp_path / "evaluation.json").read_text())["confusion"]
    assert len(confusion["images"]) == number + 1 and sum(confusion["images"]) == len(labels)
    cells = list(zip(confusion["true_class"], confusion["predicted_class"], confusion["images"], strict=True))
    assert cells[:3] == [(0, 0, 1), (0, 7, 1), (1, 1, 2)]


@pytest.mark.parametrize("confusion", [[[1, 1, 0], [0, 2, 0], [0, 0, 1]], {"true_class": [0]}])
def test_evaluations_of_every_version_are_read(tmp_path, confusion):
    figures = classification_metrics(LABELS, logits_of(SHARES), ["ant", "bee", "cow"])
    told = {"checkpoint": "best", "epoch": 1, "split": "validation", "test_time_views": "none"}
    write_json(tmp_path / "evaluation.json", told | figures | {"confusion": confusion})
    assert read_record(tmp_path / "evaluation.json", EvaluationRecord).classes[1].name == "bee"
