"""Sheets of images: what is in them, read back from the pixels, and that every text can be read."""

import numpy as np
import pytest

from app.drawing import image_grid
from app.drawing.canvas import VERMILION, percent_of, shortened
from app.drawing.image_grid import draw_grid
from app.evaluation.image_sheets import draw_predictions
from tests.drawing.test_curves import has_colour, pixels

ODD_NAMES = ["$x_{ unclosed $", "two\nlines", "猫", "\udcff no unicode", "w" * 300, "", "a", "\\frac"]


def drawn_texts(figure):
    """All texts of a figure that are visible."""
    texts = list(figure.texts)
    for legend in [*figure.legends, *(axes.get_legend() for axes in figure.axes)]:
        texts += legend.get_texts() if legend else []
    for axes in figure.axes:
        texts += [*axes.texts, axes.title, axes.xaxis.label, axes.yaxis.label]
        for axis in (axes.xaxis, axes.yaxis):
            low, high = sorted(axis.get_view_interval())
            texts += [
                tick.label1
                for tick in axis.get_major_ticks()
                if low <= tick.get_loc() <= high and axis.get_visible()
            ]
    return [text for text in texts if text.get_visible() and text.get_text().strip()]


def assert_legible(figure):
    """No text is cut off at the border, and none lies over another."""
    renderer = figure.canvas.get_renderer()
    texts = drawn_texts(figure)
    boxes = [text.get_window_extent(renderer) for text in texts]
    width, height = figure.canvas.get_width_height()
    for text, box in zip(texts, boxes, strict=True):
        inside = box.x0 >= 0 and box.y0 >= 0 and box.x1 <= width and box.y1 <= height
        assert inside, f"{text.get_text()!r} is cut off: {box} in {width} x {height}"
    left, low, right, high = np.array([box.extents for box in boxes]).T
    common_width = np.minimum(right[:, None], right) - np.maximum(left[:, None], left)
    common_height = np.minimum(high[:, None], high) - np.maximum(low[:, None], low)
    for one, other in np.argwhere((common_width > 1) & (common_height > 1)):
        assert one == other, f"{texts[one].get_text()!r} lies over {texts[other].get_text()!r}"


def texts_of(figure):
    return [text.get_text() for text in figure.texts]


def image(height, width, channels=3, value=128):
    return np.full((height, width, channels), value, np.uint8)


def test_small_images_are_enlarged_pixel_by_pixel(tmp_path):
    colours = np.array([[[255, 0, 0], [0, 255, 0]], [[0, 0, 255], [255, 0, 255]]], np.uint8)
    draw_grid(tmp_path / "grid.png", [colours], [""], "two by two")
    found = pixels(tmp_path / "grid.png")
    side = image_grid.SHEET_TILE * 150 / 2
    for colour in colours.reshape(-1, 3):
        count = (found == colour).all(axis=-1).sum()
        assert count == pytest.approx(side**2, rel=0.03)


def test_gray_images_keep_their_values_whatever_their_range(tmp_path):
    dim = image(3, 3, 1, 100)
    dim[0, 0] = 90  # would be stretched to black if the range were taken from the image
    draw_grid(tmp_path / "grid.png", [dim], [""], "grey")
    found = pixels(tmp_path / "grid.png")
    assert ((found == 100).all(axis=-1).sum()) == pytest.approx(8 / 9 * (1.45 * 150) ** 2, rel=0.05)


def test_large_images_are_averaged(tmp_path):
    checkers = np.indices((1000, 1000)).sum(axis=0) % 2 * 255
    draw_grid(tmp_path / "grid.png", [checkers.astype(np.uint8)[..., None]], [""], "fine")
    found = pixels(tmp_path / "grid.png")[60:250, 30:240]  # within the tile
    assert 120 < found.mean() < 135 and np.abs(found.astype(int) - 128).mean() < 10


def test_wrong_ones_bear_a_cross_and_a_colour(tmp_path, figures):
    draw_grid(tmp_path / "right.png", [image(8, 8)] * 2, ["one\n1", "two\n2"], "t", wrong=[False, False])
    draw_grid(tmp_path / "wrong.png", [image(8, 8)] * 2, ["one\n1", "two\n2"], "t", wrong=[False, True])
    assert not has_colour(tmp_path / "right.png", VERMILION) and has_colour(tmp_path / "wrong.png", VERMILION)
    assert texts_of(figures[1]) == ["t", "one", "1", "✗ two", "2"]
    assert [text.get_color() == VERMILION for text in figures[1].texts] == [False, False, False, True, True]


@pytest.mark.parametrize("number", [0, 1, 5, 6, 7, 24])
def test_sheets_of_any_size_are_legible(tmp_path, figures, number):
    sizes = [(8, 8), (300, 200), (40, 600), (1, 1), (28, 28), (32, 32), (4, 90), (90, 4)]
    images = [image(*sizes[at % 8], 1 if at % 2 else 3, 10 * at) for at in range(number)]
    names = [f"truth: {ODD_NAMES[at % 8]}\npredicted: {ODD_NAMES[at // 8]}" for at in range(number)]
    draw_grid(tmp_path / "grid.png", images, names, f"{'a long title ' * 30}\n$and another$", columns=6)
    assert_legible(figures[0])
    assert list(tmp_path.iterdir()) == [tmp_path / "grid.png"]


class Images:
    """Numbered images, and which of them were asked for."""

    def __init__(self, labels, files=()):
        self.labels, self.files, self.asked = labels, files, []

    def images_at(self, positions):
        self.asked.append(list(positions))
        return np.stack([image(4, 4, value=int(at)) for at in positions])

    def files_at(self, positions):
        return [self.files[at] for at in positions] if self.files else []


def answers(margins, right):
    """Labels and logits of two classes: each image says class 0 by its margin, which is right or not."""
    logits = np.stack([np.array(margins, np.float32), np.zeros(len(margins), np.float32)], axis=1)
    return np.where(right, 0, 1), logits


def test_mistakes_are_the_most_certain_ones_in_their_order(tmp_path, figures):
    margins = np.random.default_rng(0).permutation(80) / 20 + 0.05
    right = np.arange(80) % 2 == 0  # 40 mistakes: more than fit
    labels, logits = answers(margins, right)
    take = Images(labels)
    draw_predictions(tmp_path / "m.png", take, logits, ["ant", "bee"], "run", correct=False)
    wrong = sorted((at for at in range(80) if at % 2), key=lambda at: -margins[at])
    assert take.asked == [wrong[:24]]
    share = 100 / (1 + np.exp(-margins[wrong[0]]))
    assert texts_of(figures[0])[:5] == [
        "The 24 most confident of 40 wrong predictions",
        "run",
        "truth: bee",
        "predicted: ant",
        f"with {share:.1f} %",
    ]
    assert_legible(figures[0])


def test_doubts_are_the_least_certain_hits_in_their_order(tmp_path, figures):
    margins = np.random.default_rng(1).permutation(30) / 20 + 0.05
    labels, logits = answers(margins, np.arange(30) < 10)
    take = Images(labels)
    draw_predictions(tmp_path / "d.png", take, logits, ["ant", "bee"], "run", correct=True)
    assert take.asked == [sorted(range(10), key=lambda at: margins[at])]
    share = 100 / (1 + np.exp(-margins[:10].min()))
    assert texts_of(figures[0])[:5] == [
        "The 10 correct predictions, the least confident first",
        "run",
        "truth: ant",
        f"predicted with {share:.1f} %",
        "next: bee",
    ]


def test_equally_certain_ones_come_in_the_order_of_the_images(tmp_path):
    labels, logits = answers([1.0] * 30, [False] * 30)
    take = Images(labels)
    draw_predictions(tmp_path / "m.png", take, logits, ["ant", "bee"], "run", correct=False)
    assert take.asked == [list(range(24))]


def test_where_there_are_none_the_picture_says_so(tmp_path, figures):
    labels, logits = answers([1.0] * 5, [True] * 5)
    right, wrong = Images(labels), Images(1 - labels)
    draw_predictions(tmp_path / "m.png", right, logits, ["ant", "bee"], "run", correct=False)
    draw_predictions(tmp_path / "d.png", wrong, logits, ["ant", "bee"], "run", correct=True)
    assert right.asked == wrong.asked == []
    assert texts_of(figures[0]) == ["No wrong prediction in 5 images", "run"]
    assert texts_of(figures[1]) == ["No correct prediction in 5 images", "run"]
    assert len(np.unique(pixels(tmp_path / "m.png"))) > 2  # something is written on it


def test_the_only_class_has_no_second(tmp_path, figures):
    logits = np.ones((3, 1), np.float32)
    draw_predictions(tmp_path / "d.png", Images(np.zeros(3, int)), logits, ["ant"], "run", correct=True)
    assert texts_of(figures[0])[0] == "The 3 correct predictions, the least confident first"


@pytest.mark.parametrize(
    ("share", "words"),
    [(0.5, "50.0 %"), (1.0, "100.0 %"), (0.99951, "over 99.9 %"), (0.0, "0.0 %"), (1e-9, "below 0.1 %")],
)
def test_no_false_certainty(share, words):
    assert percent_of(share) == words


def test_long_texts_lose_their_middle():
    assert shortened("short", 1.0, 8) == "short"
    cut = shortened("holiday photographs of 2024 number 17.jpg", 1.5, 8)
    assert cut.startswith("holiday") and cut.endswith(".jpg") and "…" in cut and len(cut) > 20
    assert shortened("two\n lines", 1.0, 8) == "two lines"
    assert shortened("long", 0.001, 8) == "…" and shortened("", 0.001, 8) == ""


def test_captions_begin_with_the_name_of_the_file(tmp_path, figures):
    labels, logits = answers([1.0, 2.0], [False] * 2)
    images = Images(labels, files=["cat/a.png", "dog/b.png"])
    draw_predictions(tmp_path / "m.png", images, logits, ["ant", "bee"], "run", correct=False)
    assert texts_of(figures[0])[2:4] == ["b.png", "truth: bee"] and "a.png" in texts_of(figures[0])
