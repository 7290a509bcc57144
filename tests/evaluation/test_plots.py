"""Pictures of an evaluation: figures in their places, legible from 2 to 100 classes."""

import numpy as np
import pytest
from sklearn.metrics import confusion_matrix

from app.drawing.canvas import shortened_apart, text_inches
from app.evaluation.metrics import (
    classification_metrics,
    expected_calibration_error,
    probabilities,
    reliability,
)
from app.evaluation.plots import draw_classes, draw_confusion, draw_reliability
from tests.drawing.test_curves import pixels
from tests.evaluation.test_image_sheets import assert_legible, drawn_texts

SIZES = [2, 5, 10, 20, 21, 100]


def names_of(number):
    """Class names, some of them far too long, one with mathematics in it."""
    long = ["hooded merganser of the northern lakes", "$x_{ unclosed $", "cat", "sweet pepper"]
    return [f"{long[at % 4]} {at}" for at in range(number)]


def figures_of(number, images=2000):
    """The evaluation of a network that is often right, on so many classes."""
    generator = np.random.default_rng(number)
    labels = generator.integers(number, size=images)
    logits = generator.normal(size=(images, number)).astype(np.float32)
    logits[np.arange(images), labels] += generator.uniform(0.5, 6, number)[labels]
    found = classification_metrics(labels, logits, names_of(number))
    return found | {"confusion": confusion_matrix(labels, logits.argmax(-1), labels=range(number))}


def texts_of(figure):
    return [text.get_text() for text in drawn_texts(figure)]


@pytest.mark.parametrize("number", SIZES)
def test_pictures_of_any_number_of_classes_are_legible(tmp_path, figures, number):
    found, title = figures_of(number), "run, best epoch (3)"
    draw_confusion(tmp_path / "c.png", found["confusion"], names_of(number), title)
    draw_classes(tmp_path / "f.png", found["classes"], title)
    draw_reliability(tmp_path / "r.png", found["reliability"], found["expected_calibration_error"], title)
    for figure in figures:
        assert_legible(figure)


def test_long_names_that_differ_in_the_middle_stay_apart(tmp_path, figures):
    names = [
        f"holiday photographs of {what} on the northern lakes, 2024" for what in ("cats", "dogs", "owls")
    ]
    draw_confusion(tmp_path / "c.png", np.eye(3, dtype=int), names, "run")
    (axes,) = figures[0].axes
    labels = [label.get_text() for label in axes.get_yticklabels()]
    assert all(what in label for what, label in zip(("cats", "dogs", "owls"), labels, strict=True))
    assert_legible(figures[0])


def test_shortened_names_stay_apart():
    ends = [f"{'a' * 40}{kind}{'b' * 40}{number}{'c' * 40}" for kind in "xy" for number in range(3)]
    found = shortened_apart([*ends, "short"], 1.3, 8.5)
    assert len(set(found.values())) == 7 and found["short"] == "short"
    assert max(text_inches(text, 8.5) for text in found.values()) <= 1.3


def test_every_cell_has_its_count_and_its_share_of_the_row(tmp_path, figures):
    draw_confusion(tmp_path / "c.png", [[3, 7, 0], [0, 1200, 0], [0, 0, 0]], ["a", "b", "c"], "run")
    (axes,) = figures[0].axes
    cells = {text.get_position(): text.get_text() for text in axes.texts}
    assert len(cells) == 9
    assert cells[1, 0] == "7\n70.0%" and cells[0, 0] == "3\n30.0%"  # at (column, row)
    assert cells[1, 1] == "1,200\n100.0%" and cells[2, 2] == "0\n0.0%"
    assert axes.get_ylabel() == "true class" and axes.get_xlabel() == "predicted class"
    assert "Confusion matrix: 1,203 of 1,210 correct" in texts_of(figures[0])


def test_shades_are_those_of_the_row_shares(tmp_path, figures):
    draw_confusion(tmp_path / "c.png", [[0, 5], [100, 900]], ["a", "b"], "run")
    (axes,) = figures[0].axes
    box = axes.get_window_extent()
    found = pixels(tmp_path / "c.png")
    height = len(found)

    def brightness(row, column):  # near a corner of the cell, beside its text
        x = box.x0 + (column + 0.1) * box.width / 2
        y = height - box.y1 + (row + 0.1) * box.height / 2
        return int(found[round(y), round(x)].sum())

    assert brightness(0, 1) < brightness(1, 1) < brightness(1, 0) < brightness(0, 0)


def test_many_classes_come_with_a_list_of_confusions(tmp_path, figures):
    counts = np.diag([10] * 30)
    counts[4, 9], counts[9, 4], counts[0, 29] = 30, 2, 5
    draw_confusion(tmp_path / "c.png", counts.tolist(), [f"n{at}" for at in range(30)], "run")
    texts = texts_of(figures[0])
    first = texts.index("n4 → n9: 30 (75.0 %)")
    assert texts[first + 1 : first + 3] == ["n0 → n29: 5 (33.3 %)", "n9 → n4: 2 (16.7 %)"]
    assert sum("→ n" in text for text in texts) == 3


def test_no_confusion_among_many_classes(tmp_path, figures):
    draw_confusion(tmp_path / "c.png", np.diag([4] * 25).tolist(), [f"n{at}" for at in range(25)], "run")
    assert "no confusion at all" in texts_of(figures[0])
    assert_legible(figures[0])


def test_classes_are_sorted_by_f1_and_say_it(tmp_path, figures):
    rows = [("low", 0.5, 0.25, 1 / 3), ("high", 0.9, 0.8, 0.847), ("none", 0.0, 0.0, 0.0)]
    classes = [
        {"name": name, "images": 1000 + at, "precision": p, "recall": r, "f1": f1}
        for at, (name, p, r, f1) in enumerate(rows)
    ]
    draw_classes(tmp_path / "c.png", classes, "run")
    (axes,) = figures[0].axes
    assert [label.get_text() for label in axes.get_yticklabels()] == [
        "high (1,001)",
        "low (1,000)",
        "none (1,002)",
    ]
    assert axes.get_ylim()[0] > axes.get_ylim()[1]  # the first row is at the top
    assert [text.get_text() for text in axes.texts] == ["0.847", "0.333", "0.000"]
    lines = {line.get_label(): list(line.get_xdata()) for line in axes.lines}
    assert lines["recall"] == [0.8, 0.25, 0.0] and lines["precision"] == [0.9, 0.5, 0.0]
    assert lines["F1"] == [0.847, 1 / 3, 0.0]
    assert axes.get_xlim() == (0.0, 1.0)


def test_of_very_many_classes_the_best_and_the_worst(tmp_path, figures):
    classes = [
        {"name": f"n{at}", "images": 1, "precision": at / 999, "recall": at / 999, "f1": at / 999}
        for at in range(1000)
    ]
    draw_classes(tmp_path / "c.png", classes, "run")
    named = [label.get_text().split()[0] for axes in figures[0].axes for label in axes.get_yticklabels()]
    assert named == [f"n{at}" for at in (*range(999, 929, -1), *range(69, -1, -1))]
    assert "the 70 best and the 70 worst classes" in texts_of(figures[0])[0]


def test_reliability_shows_accuracy_confidence_and_share_of_each_bin(tmp_path, figures):
    # Nine images in [0.6, 2/3): confidence 0.65, 3 right; one in (14/15, 1]: sure and right.
    shares = np.array([[0.65, 0.35]] * 9 + [[1.0, 0.0]])
    labels = np.array([0] * 3 + [1] * 6 + [0])
    bins = reliability(labels, shares)
    error = expected_calibration_error(bins)
    assert error == pytest.approx(0.9 * (0.65 - 1 / 3))
    draw_reliability(tmp_path / "r.png", bins, error, "run")
    upper, lower = figures[0].axes
    bars, gaps = upper.containers
    assert [(bar.get_x(), bar.get_height()) for bar in bars] == [
        pytest.approx((9 / 15, 1 / 3)),
        pytest.approx((14 / 15, 1.0)),
    ]
    assert [gap.get_height() for gap in gaps] == pytest.approx([0.65 - 1 / 3, 0.0])
    assert [bar.get_height() for bar in lower.containers[0]] == pytest.approx([0.9, 0.1])
    assert "Reliability diagram: expected calibration error 28.5 %" in texts_of(figures[0])
    assert_legible(figures[0])


def test_reliability_before_scaling_is_a_line(tmp_path, figures):
    generator = np.random.default_rng(0)
    labels, logits = generator.integers(10, size=500), generator.normal(size=(500, 10))
    logits[np.arange(500), labels] += generator.uniform(0, 4, 500)
    scaled, before = (reliability(labels, probabilities(logits, each)) for each in (0.5, 1.0))
    draw_reliability(tmp_path / "r.png", scaled, 0.112, "run", (before, 0.345))
    title = "Reliability diagram: expected calibration error 11.2 % (34.5 % before scaling)"
    assert title in texts_of(figures[0])
    line = next(line for line in figures[0].axes[0].lines if line.get_label() == "before")
    assert list(line.get_ydata()) == [each["accuracy"] for each in before if each["images"]]
    assert_legible(figures[0])
