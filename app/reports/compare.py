"""Several runs in one picture."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from app.errors import UserError
from app.paths import runs_root
from app.reports.plots import DOTS_PER_INCH, FIGURE_INCHES, GREY, axis_limits, column, set_up_panel
from app.runs import Run, atomic_path, load_run_experiment, new_folder, read_history

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Okabe and Ito's colours that stand out on white; the markers differ where colours repeat.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MOST_RUNS = 14


def draw_comparison(runs: Sequence[Run]) -> Path:
    """Draw accuracy and loss of several runs over each other, as curves.png in a new folder of comparisons.

    Bold lines are training, thin dashed ones validation, one colour a run.

    Args:
        runs: The runs, in the order of the legend; each has finished an epoch at least.

    Returns:
        The picture.

    Raises:
        UserError: There are fewer than two runs or too many to tell apart, or a history cannot be read.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    if not 2 <= len(runs) <= MOST_RUNS:
        raise UserError(
            f"compare: received {len(runs)} run{'s' if len(runs) != 1 else ''}; a picture holds 2 to "
            f'{MOST_RUNS}: RUNS="a/latest b/latest" or EXPS="a b"'
        )
    histories = [read_history(run.history) for run in runs]
    for run, rows in zip(runs, histories, strict=True):
        if not rows:
            raise UserError(f"compare: {run.name} has not finished an epoch yet")
    figure = Figure(figsize=FIGURE_INCHES, dpi=DOTS_PER_INCH)
    FigureCanvasAgg(figure)
    for half, metric in enumerate(("accuracy", "loss")):
        axes = figure.add_axes((0.5 * half + 0.053, 0.125, 0.432, 0.76))
        axes.set_title(f"{metric.capitalize()}: training (bold) and validation (dashed)", fontsize=11)
        _draw_panel(axes, metric, _labels(runs), histories)
    path = new_folder(runs_root() / "comparisons") / "curves.png"
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=DOTS_PER_INCH)
    return path


def _labels(runs: Sequence[Run]) -> list[str]:
    """Return the experiments' names, with the time where one occurs twice."""
    names = [load_run_experiment(run).name for run in runs]
    return [run.name if names.count(name) > 1 else name for run, name in zip(runs, names, strict=True)]


def _draw_panel(axes: "Axes", metric: str, labels: Sequence[str], histories: Sequence[list]) -> None:
    """Draw the curves of one metric."""
    set_up_panel(axes)
    values = np.concatenate([column(rows, prefix + metric) for rows in histories for prefix in ("", "val_")])
    if np.isnan(values).all():
        axes.text(0.5, 0.5, "no finite value", ha="center", color=GREY, transform=axes.transAxes)
        return
    axes.set_ylim(*axis_limits(values, metric))
    for number, (label, rows) in enumerate(zip(labels, histories, strict=True)):
        colour = COLOURS[number % len(COLOURS)]
        epochs = column(rows, "epoch")
        axes.plot(
            epochs, column(rows, metric), "o-" if number < len(COLOURS) else "s-", color=colour,
            linewidth=2.2, markersize=3.5, markevery=max(1, len(rows) // 20), label=label,
        )  # fmt: skip
        axes.plot(epochs, column(rows, f"val_{metric}"), "--", color=colour, linewidth=0.9)
    axes.legend(loc="best", fontsize=9, framealpha=0.85)
