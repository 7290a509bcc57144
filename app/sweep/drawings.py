"""The pictures of a sweep's page, each a PNG file.

They are narrow enough to be legible on a telephone; see parallel.py for the one that is not.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from app.config.loader import as_yaml
from app.config.sweep import Range, SweepConfig
from app.drawing.canvas import (
    BLACK,
    BLUE,
    GREY,
    VERMILION,
    add_legend,
    add_panel,
    limit_values,
    new_figure,
    save_figure,
    set_up_grid,
    set_up_panel,
    shortened_apart,
    text_inches,
)
from app.sweep.trials import Trial
from app.sweep.values import choice_labels, in_percent, ranked, value_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH, HEIGHT = 5.0, 3.1  # inches, of a small picture below its heading
POINTS = 8.5
LABELS_INCHES = 2.1  # beside a panel, at most
ROW_INCHES = 0.32
_GOLDEN = (math.sqrt(5) - 1) / 2  # its multiples, modulo 1, spread evenly
_LOOKS: dict[str, dict[str, Any]] = {
    "finished": {"color": BLUE, "alpha": 0.55, "linewidth": 1.1},
    "running": {"color": BLUE, "alpha": 0.55, "linewidth": 1.1, "linestyle": ":"},
    "waiting": {"color": BLUE, "alpha": 0.55, "linewidth": 1.1, "linestyle": ":"},  # interrupted
    "pruned": {"color": GREY, "alpha": 0.35, "linewidth": 0.8},
    "failed": {"color": VERMILION, "alpha": 0.6, "linewidth": 0.9, "linestyle": "--"},
}


def draw_progress(path: Path, trials: Sequence[Trial], sweep: SweepConfig) -> None:
    """Draw the objective by the number of the trial, and the best one so far."""
    figure, axes = _panel("Progress", sweep, [value_of(trial) for trial in trials])
    set_up_panel(axes, np.arange(max((trial.number for trial in trials), default=0) + 1))
    finished = sorted(ranked(trials, sweep), key=lambda trial: trial.number)
    if finished:
        better = np.maximum if sweep.direction == "maximize" else np.minimum
        numbers = [trial.number for trial in finished]
        best = better.accumulate([value_of(trial) for trial in finished])
        axes.step(numbers, best, where="post", color=BLACK, linewidth=1.2, zorder=2, label="best so far")
    numbers, values = [trial.number for trial in trials], [value_of(trial) for trial in trials]
    _scatter(axes, trials, numbers, values)
    _mark_above(axes, numbers, values)
    if failed := [trial.number for trial in trials if trial.state == "failed"]:
        axes.plot(
            failed, np.full(len(failed), axes.get_ylim()[0]), "x", color=VERMILION, markersize=7,
            markeredgewidth=1.8, clip_on=False, zorder=4, label="failed",
        )  # fmt: skip
    _finish(figure, axes, path, "trial")


def draw_trial_curves(path: Path, trials: Sequence[Trial], sweep: SweepConfig) -> None:
    """Draw the objective by epoch of all trials, and that of the best one above the others."""
    curves = [np.array(trial.values, float) for trial in trials]  # NaN for None
    figure, axes = _panel("Curves of all trials", sweep, np.concatenate([*curves, []]))
    set_up_panel(axes, np.arange(1, max(map(len, curves), default=0) + 1))
    best = ranked(trials, sweep)[:1]
    named: set[str] = set()
    for trial, curve in zip(trials, curves, strict=True):
        if len(curve):
            look, label = _LOOKS[trial.state], str(trial.state)
            if [trial] == best:
                look, label = {"color": BLACK, "linewidth": 2.4, "zorder": 5}, f"best: trial {trial.number}"
            marker = "o" if len(curve) == 1 else None
            label = f"_{label}" if label in named else label  # not in the legend
            axes.plot(np.arange(1, len(curve) + 1), curve, marker=marker, markersize=4, label=label, **look)
            named.add(label)
    _finish(figure, axes, path, "epoch")


def draw_importance(path: Path, importances: Mapping[str, float], num_trials: int) -> None:
    """Draw how much each setting explains of what all of them explain by themselves."""
    figure, axes = _rows(f"Importance of the settings ({num_trials} trials)", list(importances))
    for row, importance in enumerate(importances.values()):
        axes.barh(row, importance, color=BLUE, height=0.6)
        words = f"{100 * importance:.0f} %"
        axes.annotate(
            words, (importance, row), (4, 0), textcoords="offset points", va="center", fontsize=POINTS
        )
    axes.set_xlim(0, 1.15 * max(importances.values()) or 1.0)
    axes.xaxis.set_major_formatter(lambda value, _: f"{100 * value:g} %")
    _finish(figure, axes, path, "of what all settings explain by themselves")


def draw_slice(path: Path, key: str, trials: Sequence[Trial], sweep: SweepConfig) -> None:
    """Draw the objective by one setting: a range from left to right, choices in a row each."""
    dimension, values = sweep.space[key], [value_of(trial) for trial in trials]
    if isinstance(dimension, Range):
        figure, axes = _panel(key, sweep, values)
        across = [trial.settings[key] for trial in trials]
        _scatter(axes, trials, across, values)
        _mark_above(axes, across, values)
        margin = 0.03 * (dimension.high - dimension.low)
        axes.set_xlim(dimension.low - margin, dimension.high + margin)
        if dimension.log:
            axes.set_xscale("log")
            margin = (dimension.high / dimension.low) ** 0.03
            axes.set_xlim(dimension.low / margin, dimension.high * margin)
        name = key.rpartition(".")[2]
        _finish(figure, axes, path, f"{name}, logarithmic" if dimension.log else name)
        return
    labels = choice_labels(dimension)
    figure, axes = _rows(key, list(labels.values()))
    rows = [
        list(labels).index(as_yaml(trial.settings[key])) + 0.5 * (trial.number * _GOLDEN % 1 - 0.5)
        for trial in trials
    ]
    _scatter(axes, trials, values, rows)
    if in_percent(sweep):
        axes.xaxis.set_major_formatter(_percent)
    _finish(figure, axes, path, sweep.objective)


def _panel(heading: str, sweep: SweepConfig, values: Sequence[float] | np.ndarray) -> "tuple[Figure, Axes]":
    """Return a small picture with one panel whose vertical axis is the objective."""
    figure = new_figure(WIDTH, HEIGHT, heading)
    axes = add_panel(figure, 0.72, 0.5, WIDTH - 0.87, HEIGHT - 0.72)
    kind = "accuracy" if in_percent(sweep) else "loss"
    limit_values(axes, np.array(values, float), kind, "no value so far")
    if in_percent(sweep):
        axes.yaxis.set_major_formatter(_percent)
    axes.set_ylabel(sweep.objective, fontsize=POINTS)
    return figure, axes


def _rows(heading: str, texts: Sequence[str]) -> "tuple[Figure, Axes]":
    """Return a small picture with one panel, which has a row for each text."""
    names = shortened_apart(texts, LABELS_INCHES, POINTS)
    left = max(text_inches(name, POINTS) for name in names.values()) + 0.25
    height = max(HEIGHT, ROW_INCHES * len(texts) + 0.9)
    figure = new_figure(WIDTH, height, heading)
    axes = add_panel(figure, left, 0.5, WIDTH - left - 0.2, height - 0.72)
    axes.set_ylim(len(texts) - 0.5, -0.5)
    axes.set_yticks(range(len(texts)), [names[text] for text in texts], parse_math=False)
    return figure, axes


def _scatter(axes: "Axes", trials: Sequence[Trial], across: Sequence[Any], up: Sequence[Any]) -> None:
    """Draw a dot for each finished trial, a faint one for each other that has a value."""
    for state in ("finished", "pruned", "running"):
        places = [place for trial, *place in zip(trials, across, up, strict=True) if trial.state == state]
        if places:
            fill: dict[str, Any] = {} if state == "finished" else {"markerfacecolor": "none"}
            colour = GREY if state == "pruned" else BLUE
            axes.plot(
                *zip(*places, strict=True), "o", color=colour, markersize=4.5, alpha=0.75, label=state, **fill
            )


def _mark_above(axes: "Axes", across: Sequence[float], values: Sequence[float]) -> None:
    """Mark where values lie above the panel, which a loss that blew up does."""
    top = axes.get_ylim()[1]
    if places := [place for place, value in zip(across, values, strict=True) if value > top]:
        tops = [top] * len(places)
        axes.plot(places, tops, "^", color=VERMILION, markersize=6, clip_on=False, label="off the scale")


def _finish(figure: "Figure", axes: "Axes", path: Path, label: str) -> None:
    """Name the horizontal axis, explain what was drawn above the panel, and write the picture."""
    set_up_grid(axes)
    axes.tick_params(labelsize=POINTS)
    if axes.get_xscale() == "linear":
        axes.locator_params(axis="x", nbins=6)
    axes.set_xlabel(label, fontsize=POINTS, parse_math=False)
    handles = axes.get_legend_handles_labels()[0]
    if handles:
        top = figure.get_size_inches()[1] - 0.38
        add_legend(
            figure,
            top,
            handles,
            fontsize=POINTS,
            ncols=5,
            handlelength=1.4,
            columnspacing=1.0,
            handletextpad=0.4,
        )
    save_figure(figure, path)


def _percent(value: float, _: Any) -> str:
    return f"{100 * value:g} %"
