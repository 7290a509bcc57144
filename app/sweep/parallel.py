"""Parallel coordinates: a line through the settings of each trial, one axis a setting."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from app.config.loader import as_yaml
from app.config.sweep import Choice, Range, SweepConfig
from app.drawing.canvas import (
    BLACK,
    GREY,
    VERMILION,
    add_panel,
    new_figure,
    save_figure,
    shortened,
    shortened_apart,
)
from app.sweep.trials import Trial
from app.sweep.values import choice_labels, ranked, value_of, value_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LEAST_WIDTH, HEIGHT = 9.6, 4.2  # inches
SPACING = 1.7  # inches, from one axis to the next where there are many
POINTS = 8.5


def draw_parallel(path: Path, trials: Sequence[Trial], sweep: SweepConfig) -> None:
    """Draw a line through the settings of each finished trial, the darker the better its objective is."""
    from matplotlib import colormaps

    best_first = ranked(trials, sweep)
    columns = len(sweep.space)
    width = max(LEAST_WIDTH, SPACING * (columns + 1))
    figure = new_figure(width, HEIGHT, f"Parallel coordinates of {len(best_first)} finished trials")
    spacing = (width - 1.9) / columns
    axes = add_panel(figure, 0.5, 0.2, width - 1.9, HEIGHT - 0.55)
    axes.set_axis_off()
    axes.set_xlim(0, columns)
    axes.set_ylim(-0.02, 1.02)
    low, high = sorted((value_of(best_first[0]), value_of(best_first[-1])))
    if low == high:  # a single trial, or all at chance level
        low, high = low - 0.01, high + 0.01
    objective = Range(low, high, log=False, integer=False)
    for trial in reversed(best_first):
        goodness = abs(_height(objective, value_of(trial)) - (sweep.direction == "minimize"))
        look: dict[str, Any] = {"color": colormaps["viridis_r"](goodness), "linewidth": 1.0, "alpha": 0.7}
        if trial is best_first[0]:
            look = {"color": VERMILION, "linewidth": 2.4, "zorder": 5}
        heights = [_height(dimension, trial.settings[key]) for key, dimension in sweep.space.items()]
        axes.plot([*heights, _height(objective, value_of(trial))], **look)
    for column, (key, dimension) in enumerate(sweep.space.items()):
        _coordinate(axes, column, key, _ticks(dimension), spacing - 0.15)
    ends = {_height(objective, at): value_text(at, sweep) for at in np.linspace(low, high, 5)}
    _coordinate(axes, columns, sweep.objective, ends, 1.3)
    save_figure(figure, path)


def _height(dimension: Range | Choice, value: Any) -> float:
    """Return where on its coordinate a value lies, from 0 to 1."""
    if isinstance(dimension, Choice):
        texts = [as_yaml(choice) for choice in dimension.values]
        return (texts.index(as_yaml(value)) + 0.5) / len(texts)
    low, high = float(dimension.low), float(dimension.high)
    if dimension.log:
        low, high, value = math.log(low), math.log(high), math.log(value)
    return (value - low) / (high - low) if high > low else 0.5


def _ticks(dimension: Range | Choice) -> dict[float, str]:
    """Return what is written at a coordinate, by place from 0 to 1."""
    if isinstance(dimension, Choice):
        labels = choice_labels(dimension).values()
        return {(row + 0.5) / len(labels): label for row, label in enumerate(labels)}
    places = np.linspace(dimension.low, dimension.high, 5)
    if dimension.log:
        powers = round(math.log10(dimension.high / dimension.low))
        places = np.geomspace(dimension.low, dimension.high, powers + 1 if 2 <= powers <= 6 else 5)
    if dimension.integer:
        return {_height(dimension, at): f"{at}" for at in sorted({round(at) for at in places})}
    return {_height(dimension, at): f"{at:.3g}" for at in places}


def _coordinate(axes: "Axes", column: int, name: str, ticks: Mapping[float, str], room: float) -> None:
    """Draw one of the parallel axes, its ticks at the right, its name above it."""
    axes.axvline(column, color=BLACK, linewidth=1.0, zorder=6)
    short = shortened_apart(list(ticks.values()), room, POINTS)
    box = {"facecolor": "white", "alpha": 0.75, "edgecolor": "none", "pad": 1.0}
    for height, text in ticks.items():
        axes.annotate(
            short[text], (column, height), (4, 0), textcoords="offset points", va="center", fontsize=POINTS,
            bbox=box, zorder=7, annotation_clip=False, parse_math=False,
        )  # fmt: skip
    first, dot, last = name.rpartition(".")
    for line, text in enumerate((last, first + dot)):
        axes.annotate(
            shortened(text, room, POINTS), (column, 1.0), (-6, 10 + 12 * line), textcoords="offset points",
            fontsize=POINTS, color=GREY if line else BLACK, annotation_clip=False, parse_math=False,
        )  # fmt: skip
