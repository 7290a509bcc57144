"""Curves of a run: accuracy and loss side by side, the learning rate in a strip below, as PNG files.

Drawn without pyplot, so that a picture leaves no state behind, needs no display, and may be made between two
epochs; the single panels are cut out of the one canvas. Matplotlib is imported by the first picture.
"""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from app.config import Experiment
from app.drawing.canvas import (
    BLACK,
    BLUE,
    DOTS_PER_INCH,
    GREY,
    VERMILION,
    add_panel,
    any_script,
    limit_values,
    new_figure,
    set_up_panel,
    shortened,
)
from app.files import atomic_path
from app.reading import Row, best_row
from app.runs import Run
from app.wording import best_words

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FIGURE_INCHES = (1600 / DOTS_PER_INCH, 700 / DOTS_PER_INCH)
SMALL_POINTS = 9.0  # of the line below the titles
STRIP_INCHES = 200 / DOTS_PER_INCH  # below the panels, for the learning rate
LEGEND_POINTS = 8.5
COLUMNS = ("epoch", "accuracy", "loss", "val_accuracy", "val_loss", "learning_rate")
MARKED_EPOCHS = 60  # up to here every epoch gets a marker


def draw_curves(
    run: Run, experiment: Experiment, rows: Sequence[Row], resumed_epochs: Sequence[int] = ()
) -> None:
    """Draw curves.png (accuracy | loss, learning rate below), accuracy.png and loss.png into a run's folder.

    Args:
        run: Its folder receives the files, each atomically.
        experiment: What was trained; its `monitor` decides which epoch is best.
        rows: History, one mapping an epoch with `epoch` (from 1) and any of `accuracy`, `loss`,
            `val_accuracy`, `val_loss`, `learning_rate`; what is missing or not finite leaves a gap.
        resumed_epochs: Epochs in which an interrupted run went on.
    """
    columns = {name: column(rows, name) for name in COLUMNS}
    has_rates = not np.isnan(columns["learning_rate"]).all()
    width, height = FIGURE_INCHES
    strip_inches = STRIP_INCHES * has_rates
    figure = new_figure(width, height + strip_inches)
    title = f"{experiment.name}: {experiment.model.name} on {experiment.dataset.name}"
    title = shortened(title, 0.45 * width, SMALL_POINTS)
    monitor = experiment.training.monitor
    best = best_row(rows, monitor)
    mixed = " (mixed)" if experiment.mixes_images else ""
    on_test = experiment.dataset.validates_on_test
    notes = ["test"] * on_test + ["EMA"] * bool(experiment.training.ema)
    validated = f" ({', '.join(notes)})" if notes else ""
    for half, metric in enumerate(("accuracy", "loss")):
        left = 0.5 * half * width
        place = (left + 0.053 * width, strip_inches + 0.115 * height, 0.425 * width, 0.66 * height)
        axes = add_panel(figure, *place)
        for y, text, points, colour in (
            (0.945, f"Training and Validation {metric.capitalize()}", 13.5, BLACK),
            (0.9, title, SMALL_POINTS, GREY),
        ):
            up = (strip_inches + y * height) / (strip_inches + height)
            figure.text(
                0.5 * half + 0.266, up, text, fontsize=points, color=colour, ha="center", parse_math=False
            )
        _draw_panel(axes, metric, columns, mixed, validated)
        if axes.lines:
            if best is not None:
                _mark_best(axes, metric, best, monitor, on_test)
            _add_legend(axes, resumed_epochs)
    if has_rates:
        strip = add_panel(figure, 0.053 * width, 0.3, 0.925 * width, STRIP_INCHES - 0.6)
        _draw_learning_rate(strip, columns["epoch"], columns["learning_rate"])
    with any_script():
        figure.canvas.draw()
    pixels = np.asarray(figure.canvas.buffer_rgba())[..., :3]  # type: ignore[attr-defined]
    upper, middle = round(height * DOTS_PER_INCH), pixels.shape[1] // 2
    for filename, part in (
        ("curves.png", pixels),
        ("accuracy.png", pixels[:upper, :middle]),
        ("loss.png", pixels[:upper, middle:]),
    ):
        with atomic_path(run.path / filename) as temporary:
            Image.fromarray(np.ascontiguousarray(part)).save(temporary, dpi=(DOTS_PER_INCH, DOTS_PER_INCH))


def column(rows: Sequence[Mapping[str, float]], name: str) -> np.ndarray:
    """Return one column as floats, NaN where a value is missing or not finite."""
    values = np.array([row.get(name, np.nan) for row in rows], dtype=np.float64)
    return np.where(np.isfinite(values), values, np.nan)


def _draw_panel(
    axes: "Axes", metric: str, columns: Mapping[str, np.ndarray], mixed: str, validated: str
) -> None:
    """Draw the training and the validation curve of one metric."""
    epochs, curves = columns["epoch"], (columns[metric], columns[f"val_{metric}"])
    set_up_panel(axes, epochs)
    limit_values(axes, np.concatenate(curves), metric, "no finite value so far")
    marker_step = 1 if len(epochs) <= MARKED_EPOCHS else len(epochs) // 20
    for curve, label, colour, style in zip(
        curves,
        (f"Training {metric.capitalize()}{mixed}", f"Validation {metric.capitalize()}{validated}"),
        (BLUE, VERMILION),
        ("o-", "s--"),
        strict=True,
    ):
        if not np.isnan(curve).all():
            axes.plot(
                epochs, curve, style, markersize=4, markevery=marker_step,
                color=colour, linewidth=1.8, label=label,
            )  # fmt: skip
            _mark_above(axes, epochs, curve, colour)


def _add_legend(axes: "Axes", resumed_epochs: Sequence[int]) -> None:
    """Mark the epochs in which the run went on, and explain everything above the panel."""
    for number, epoch in enumerate(resumed_epochs):
        in_legend = "resumed" if number == 0 else None
        axes.axvline(epoch, color=GREY, linestyle=":", linewidth=1.4, zorder=1, label=in_legend)
    # Above the panel, where it hides nothing.
    axes.legend(
        loc="lower left", bbox_to_anchor=(-0.02, 0.995), ncols=2, fontsize=LEGEND_POINTS, frameon=False,
        borderaxespad=0.1, labelspacing=0.25, columnspacing=0.7, handlelength=1.6, handletextpad=0.5,
    )  # fmt: skip


def _mark_above(axes: "Axes", epochs: np.ndarray, curve: np.ndarray, colour: str) -> None:
    """Put a triangle on the upper border where a curve leaves the panel, and its largest value beside it."""
    top = axes.get_ylim()[1]
    above = curve > top
    if not above.any():
        return
    axes.plot(epochs[above], np.full(above.sum(), top), "^", color=colour, markersize=8, clip_on=False)
    row = int(np.nanargmax(curve))
    on_left = row > len(epochs) // 2
    axes.annotate(
        f"up to {curve[row]:.3g}", (epochs[row], top), (-8 if on_left else 8, -10 - 12 * (colour == BLUE)),
        textcoords="offset points", ha="right" if on_left else "left", color=colour, fontsize=LEGEND_POINTS,
        bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.6}, zorder=6,
    )  # fmt: skip


def _draw_learning_rate(axes: "Axes", epochs: np.ndarray, rates: np.ndarray) -> None:
    """Draw the learning rate of each epoch's last step, on an axis from 0 to a little above its maximum."""
    from matplotlib.ticker import MaxNLocator

    set_up_panel(axes, epochs)
    top = float(np.nanmax(rates)) or 1.0
    power = math.floor(math.log10(top))
    unit = 10.0**power if power < -2 else 1.0  # so that ticks of small rates stay short
    axes.plot(epochs, rates, ".-" if len(epochs) == 1 else "-", color=GREY, linewidth=1.6)
    axes.set_ylim(0, 1.12 * top)
    axes.yaxis.set_major_locator(MaxNLocator(nbins=3, min_n_ticks=2))
    axes.yaxis.set_major_formatter(lambda rate, _: f"{rate / unit:.3g}")
    title = f"learning rate (in 1e{power})" if unit < 1 else "learning rate"
    axes.set_title(title, loc="left", fontsize=LEGEND_POINTS, pad=4)
    axes.tick_params(labelsize=9)
    axes.set_xlabel("")


def _mark_best(axes: "Axes", metric: str, best: Row, monitor: str, on_test: bool) -> None:
    """Put a star at the best epoch, with its value in the legend, on the curve of the monitored kind."""
    validation = monitor.startswith("val_")
    epoch, value = best["epoch"], best.get(f"val_{metric}" if validation else metric, math.nan)
    if not math.isfinite(value):
        return
    if monitor.endswith(metric):
        label = f"{best_words(monitor, on_test)}: {value:.4f} at epoch {epoch:.0f}"
    else:
        label = f"{value:.4f} at epoch {epoch:.0f} (best {monitor})"
    axes.axvline(epoch, color=BLACK, linewidth=0.8, alpha=0.5, zorder=1)
    axes.plot(
        [epoch], [value], "*", markersize=14, markerfacecolor="#F0E442", markeredgecolor=BLACK,
        markeredgewidth=0.9, linestyle="none", zorder=5, label=label,
    )  # fmt: skip
