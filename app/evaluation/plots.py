"""Pictures of how a network does on a split: what it confuses, how good it is at each class, how sure."""

import itertools
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from app.drawing.canvas import (
    BLACK,
    BLUE,
    GREY,
    LEAST_WIDTH,
    MARGIN,
    VERMILION,
    add_legend,
    add_panel,
    new_figure,
    percent_of,
    save_figure,
    shortened_apart,
    text_inches,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PALE = "#8A8A8A"
WHITE_ABOVE = 0.66  # of a row: on the cell's blue white is then easier to read than black
MOST_WRITTEN = 20  # classes up to which every cell of the confusion matrix is written out
CELLS = ((13, 0.52, 7.0), (6, 0.62, 8.5), (0, 1.1, 11.0))  # from N classes on: inches, points
MOST_LISTED = 26  # confusions named beside a matrix without numbers
MOST_TICKS = 50  # classes named at a matrix without numbers
MATRIX_INCHES = 8.0
LABEL_INCHES, LABEL_POINTS = 1.3, 8.5
ROWS_A_COLUMN = 28  # of the picture of all classes
MOST_CLASSES = 5 * ROWS_A_COLUMN
ROW_INCHES, COLUMN_INCHES = 0.235, 2.1


def draw_confusion(
    path: Path, confusion: np.ndarray | Sequence[Sequence[int]], class_names: Sequence[str], title: str
) -> None:
    """Draw which true classes (rows) are taken for which (columns).

    Up to 20 classes each cell says its count and its fraction of the row. Beyond, there are shades alone, and
    the most frequent confusions are listed beside them.
    """
    counts = np.asarray(confusion, np.int64)
    fractions = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    written = len(counts) <= MOST_WRITTEN
    cell, points = next(size for least, *size in CELLS if len(counts) >= least)
    side = cell * len(counts) if written else MATRIX_INCHES
    title = f"Confusion matrix: {np.trace(counts):,} of {counts.sum():,} correct\n{title}"
    step = math.ceil(len(counts) / MOST_TICKS)
    positions = range(0, len(counts), step)
    wrong = counts - np.diag(np.diag(counts))
    order = np.argsort(-wrong, axis=None, kind="stable")[: 0 if written else MOST_LISTED]
    pairs = [divmod(int(at), len(counts)) for at in order if wrong.flat[at]]  # the most frequent confusions
    shown = [class_names[at] for at in (*positions, *itertools.chain(*pairs))]
    short = shortened_apart(shown, LABEL_INCHES, LABEL_POINTS)
    names = [short[class_names[at]] for at in positions]
    longest = max(text_inches(name, LABEL_POINTS) for name in names)
    turned = not written or longest > cell - 0.1
    left = longest + 0.5
    below = (longest if turned else 0.15) + 0.5
    width = max(left + side + (0.4 if written else 4.4), LEAST_WIDTH)
    figure = new_figure(width, side + below + 0.1, title)
    axes = add_panel(figure, left, below, side, side)
    # The root lets small fractions be seen beside the large ones of the diagonal.
    axes.imshow(np.sqrt(fractions), cmap="Blues", vmin=0.0, vmax=1.15, interpolation="antialiased")
    axes.set_ylabel("true class", labelpad=4)
    axes.set_xlabel("predicted class", labelpad=4)
    axes.set_xticks(positions, names, fontsize=LABEL_POINTS, parse_math=False, rotation=90 * turned)
    axes.set_yticks(positions, names, fontsize=LABEL_POINTS, parse_math=False)
    axes.spines[:].set_color("#C8C8C8")
    if written:
        _write_cells(axes, counts, fractions, points if counts.max() < 10_000 else points - 1.5)
    else:
        lines = [
            f"{short[class_names[truth]]} → {short[class_names[taken]]}: "
            f"{counts[truth, taken]:,} ({100 * fractions[truth, taken]:.1f} %)"
            for truth, taken in pairs
        ]
        _list_confusions(axes, lines, step)
    save_figure(figure, path)


def _write_cells(axes: "Axes", counts: np.ndarray, fractions: np.ndarray, points: float) -> None:
    """Write count and fraction into every cell."""
    for row, column in np.ndindex(*counts.shape):
        fraction = fractions[row, column]
        colour = "white" if fraction > WHITE_ABOVE else BLACK if counts[row, column] else PALE
        axes.text(
            column, row, f"{counts[row, column]:,}\n{100 * fraction:.1f}%",
            ha="center", va="center", fontsize=points, linespacing=1.3, color=colour,
        )  # fmt: skip


def _list_confusions(axes: "Axes", confusions: Sequence[str], step: int) -> None:
    """Name the most frequent confusions on the right of a matrix."""
    lines = [
        "most frequent confusions" if confusions else "no confusion at all",
        *confusions,
        "",
        "true → predicted: images (fraction of the true class)",
        "the darker, the larger the fraction of the row",
        f"one class in {step} is named at the axes" if step > 1 else "",
    ]
    for number, text in enumerate(lines):
        axes.text(
            1.03, 1.0 - 0.25 * number / MATRIX_INCHES, text, transform=axes.transAxes, va="top",
            fontsize=9.5 if number == 0 else LABEL_POINTS, parse_math=False,
            color=BLACK if number <= len(confusions) else GREY,
        )  # fmt: skip


def draw_classes(path: Path, classes: Sequence[Mapping[str, Any]], title: str) -> None:
    """Draw precision, recall and F1 of `classes`, those of `classification_metrics`, the best class first."""
    ordered = sorted(classes, key=lambda each: -each["f1"])
    kind = "the best class first"
    if len(ordered) > MOST_CLASSES:
        half = MOST_CLASSES // 2
        ordered = ordered[:half] + ordered[-half:]
        kind = f"the {half} best and the {half} worst classes"
    short = shortened_apart([each["name"] for each in classes], LABEL_INCHES, LABEL_POINTS)
    title = f"Precision, recall and F1 by class (images), {kind}\n{title}"
    columns = math.ceil(len(ordered) / ROWS_A_COLUMN)
    rows = math.ceil(len(ordered) / columns)
    label, value = LABEL_INCHES + 0.65, 0.45
    pitch = label + COLUMN_INCHES + value if columns > 1 else LEAST_WIDTH - MARGIN
    height = rows * ROW_INCHES + 0.8
    figure = new_figure(columns * pitch + MARGIN, height, title)
    low = min(min(each["precision"], each["recall"], each["f1"]) for each in ordered)
    low = math.floor(min(low, 0.9) * 10) / 10
    for column in range(columns):
        part = ordered[column * rows : (column + 1) * rows]
        left, bottom = label + column * pitch, 0.5 + (rows - len(part)) * ROW_INCHES
        axes = add_panel(figure, left, bottom, pitch - label - value, len(part) * ROW_INCHES)
        _draw_class_rows(axes, part, short, low)
    add_legend(figure, height + 0.02, axes.get_legend_handles_labels()[0])
    save_figure(figure, path)


def _draw_class_rows(
    axes: "Axes", part: Sequence[Mapping[str, Any]], short: Mapping[str, str], low: float
) -> None:
    """Draw a column of classes from the top down, with the metrics from `low` to 1 along the bottom."""
    rows = np.arange(len(part))
    values = {key: [each[key] for each in part] for key in ("precision", "recall", "f1")}
    axes.hlines(rows, low, 1.0, color="#ECECEC", linewidth=0.8, zorder=0)
    axes.hlines(rows, values["precision"], values["recall"], color=PALE, linewidth=1.2, zorder=1)
    marks: dict[str, Any] = {"linestyle": "none", "clip_on": False}
    axes.plot(values["f1"], rows, "o", color=BLUE, markersize=6, label="F1", **marks)
    axes.plot(values["precision"], rows, ">", color=VERMILION, markersize=4.5, label="precision", **marks)
    axes.plot(values["recall"], rows, "D", color=BLACK, markersize=3.2, label="recall", **marks)
    axes.set_xlim(low, 1.0)
    axes.set_ylim(len(part) - 0.5, -0.5)
    names = [f"{short[each['name']]} ({each['images']:,})" for each in part]
    axes.set_yticks(rows, names, fontsize=LABEL_POINTS, parse_math=False)
    axes.tick_params(axis="y", length=0)
    axes.tick_params(axis="x", labelsize=LABEL_POINTS)
    axes.spines[["top", "right", "left"]].set_visible(False)
    for row, value in zip(rows, values["f1"], strict=True):
        axes.annotate(
            f"{value:.3f}", (1.0, row), (8, 0), textcoords="offset points", va="center",
            fontsize=LABEL_POINTS, color=BLUE, annotation_clip=False,
        )  # fmt: skip


def draw_reliability(
    path: Path,
    bins: Sequence[Mapping[str, float]],
    error: float,
    title: str,
    before: tuple[Sequence[Mapping[str, float]], float] | None = None,
) -> None:
    """Draw accuracy by confidence, and how many images there are of each confidence.

    `bins` are those of `reliability`, `error` is the expected calibration error; `before` has both before
    temperature scaling, where there was any.
    """
    scaled = f" ({100 * before[1]:.1f} % before scaling)" if before else ""
    title = f"Reliability diagram: expected calibration error {100 * error:.1f} %{scaled}\n{title}"
    width, height = LEAST_WIDTH, 6.9
    figure = new_figure(width, height, title)
    upper = add_panel(figure, 0.12 * width, 2.5, 0.84 * width, height - 2.85)
    lower = add_panel(figure, 0.12 * width, 0.55, 0.84 * width, 1.6, sharex=upper)
    filled = [each for each in bins if each["images"]]
    keys = ("low", "high", "images", "confidence", "accuracy")
    left, right, images, confidence, accuracy = (np.array([each[key] for each in filled]) for key in keys)
    bars: dict[str, Any] = {"align": "edge", "width": right - left}
    upper.bar(left, accuracy, color=BLUE, edgecolor="white", label="accuracy in the bin", **bars)
    upper.bar(
        left, confidence - accuracy, bottom=accuracy, fill=False, edgecolor=VERMILION, hatch="///",
        linewidth=1.0, label="gap to the mean confidence", **bars,
    )  # fmt: skip
    upper.plot([0, 1], [0, 1], "--", color=BLACK, linewidth=1.2, label="perfect calibration")
    if before:
        points = [(each["confidence"], each["accuracy"]) for each in before[0] if each["images"]]
        upper.plot(
            *zip(*points, strict=True), "o-", color=BLACK, markerfacecolor="white", linewidth=1.0,
            markersize=4.5, clip_on=False, label="before",
        )  # fmt: skip
    upper.set_xlim(0, 1)
    upper.set_ylim(0, 1.01)
    upper.set_ylabel("accuracy")
    upper.tick_params(axis="x", labelbottom=False)
    add_legend(figure, height + 0.02, upper.get_legend_handles_labels()[0])
    fractions = images / images.sum()
    lower.bar(left, fractions, color=GREY, edgecolor="white", **bars)
    lower.set_ylim(0, 1.18 * max(fractions))
    for middle, fraction in zip((left + right) / 2, fractions, strict=True):
        words = percent_of(fraction).removesuffix(" %").replace("below", "<")
        lower.text(middle, fraction, words, ha="center", va="bottom", fontsize=7.5)
    lower.set_ylabel("% of images")
    lower.set_yticks([])
    lower.set_xlabel("confidence (probability of the predicted class)")
    for axes in (upper, lower):
        axes.spines[["top", "right"]].set_visible(False)
    save_figure(figure, path)
