"""Curves of a run: accuracy, loss and learning rate, epoch by epoch, as PNG files.

Drawn without pyplot, so that a picture leaves no state behind, needs no display, and may be made between two
epochs; the single panels are the halves of the one canvas. Matplotlib is imported when the first picture is
drawn: the quick commands import this module for nothing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from app.config import Experiment
from app.runs import Run, atomic_path

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Three of Okabe and Ito's colours, which stay apart for colour-blind eyes; line and marker differ as well.
BLUE, VERMILION, BLACK = "#0072B2", "#D55E00", "#000000"
GREY, PALE = "#767676", "#A0A0A0"
DOTS_PER_INCH = 150
FIGURE_INCHES = (1600 / DOTS_PER_INCH, 700 / DOTS_PER_INCH)
COLUMNS = ("epoch", "accuracy", "loss", "val_accuracy", "val_loss", "learning_rate")
MARKED_EPOCHS = 60  # up to here every epoch gets a marker
# A value this many times above the level that all but 5 % of the values (and two at least) keep is left off.
SPIKE_FACTOR = 10.0
SHOWN_FACTOR = 2.5


@dataclass(frozen=True)
class _Best:
    """The epoch that the monitored quantity names as best."""

    epoch: int
    metric: str  # "accuracy" or "loss": the panel whose value decided
    prefix: str  # "val_" or "": the curve that carries the star
    words: str  # "best" or "best on test"


def draw_curves(
    rows: Sequence[Mapping[str, float]],
    folder: Path,
    *,
    title: str,
    monitor: str = "val_accuracy",
    mode: str = "max",
    validation_name: str = "validation",
    resumed_epochs: Sequence[int] = (),
) -> None:
    """Draw curves.png (accuracy | loss), accuracy.png and loss.png into `folder`.

    Args:
        rows: History, one mapping an epoch with `epoch` (from 1) and any of `accuracy`, `loss`,
            `val_accuracy`, `val_loss`, `learning_rate`; what is missing or not finite leaves a gap.
        folder: Receives the files; each replaces its predecessor whole.
        title: Heading over the panels, usually the run's name.
        monitor: Column that decides which epoch is best.
        mode: "max" or "min", the direction in which `monitor` improves.
        validation_name: "validation", or "test" where the test split serves for validation.
        resumed_epochs: Epochs in which an interrupted run went on.
    """
    columns = {name: column(rows, name) for name in COLUMNS}
    best = _find_best(columns, monitor, mode, validation_name)
    pixels = _render(columns, title, best, validation_name, resumed_epochs)
    middle = pixels.shape[1] // 2
    for filename, part in (
        ("curves.png", pixels),
        ("accuracy.png", pixels[:, :middle]),
        ("loss.png", pixels[:, middle:]),
    ):
        with atomic_path(folder / filename) as temporary:
            Image.fromarray(part).save(temporary, dpi=(DOTS_PER_INCH, DOTS_PER_INCH))


def draw_history(
    run: Run,
    experiment: Experiment,
    rows: Sequence[Mapping[str, float]],
    resumed_epochs: Sequence[int] = (),
) -> None:
    """Draw the curves of a run of `experiment` into its folder; see `draw_curves`."""
    draw_curves(
        rows,
        run.path,
        title=f"{experiment.name}: {experiment.model.name} on {experiment.dataset.name}",
        monitor=experiment.training.monitor,
        mode=experiment.training.mode,
        validation_name="test" if experiment.dataset.validation == "test" else "validation",
        resumed_epochs=resumed_epochs,
    )


def _render(
    columns: Mapping[str, np.ndarray],
    title: str,
    best: _Best | None,
    validation_name: str,
    resumed_epochs: Sequence[int],
) -> np.ndarray:
    """Return both panels side by side as uint8 pixels (height, width, 3); each fills its own half."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=FIGURE_INCHES, dpi=DOTS_PER_INCH)
    canvas = FigureCanvasAgg(figure)
    for half, metric in enumerate(("accuracy", "loss")):
        axes = figure.add_axes((0.5 * half + 0.053, 0.125, 0.42, 0.735))
        axes.set_title(title, fontsize=8.5, color=GREY, parse_math=False)
        figure.text(
            0.5 * half + 0.263, 0.925, f"Training and Validation {metric.capitalize()}",
            fontsize=12.5, ha="center",
        )  # fmt: skip
        _draw_panel(axes, metric, columns, best, validation_name, resumed_epochs)
        if metric == "loss":
            _draw_learning_rate(axes, columns["epoch"], columns["learning_rate"])
    canvas.draw()
    return np.ascontiguousarray(np.asarray(canvas.buffer_rgba())[..., :3])


def column(rows: Sequence[Mapping[str, float]], name: str) -> np.ndarray:
    """Return one column as floats, NaN where a value is missing or not finite."""
    values = np.array([row.get(name, np.nan) for row in rows], dtype=np.float64)
    return np.where(np.isfinite(values), values, np.nan)


def _find_best(
    columns: Mapping[str, np.ndarray], monitor: str, mode: str, validation_name: str
) -> _Best | None:
    """Return the first epoch with the best value of `monitor`, or None where it has no value at all."""
    values = columns[monitor]
    if np.isnan(values).all():
        return None
    row = np.nanargmax(values) if mode == "max" else np.nanargmin(values)
    prefix = "val_" if monitor.startswith("val_") else ""
    return _Best(
        epoch=int(columns["epoch"][row]),
        metric=monitor.removeprefix("val_"),
        prefix=prefix,
        words="best on test" if prefix and validation_name == "test" else "best",
    )


def _draw_panel(
    axes: "Axes",
    metric: str,
    columns: Mapping[str, np.ndarray],
    best: _Best | None,
    validation_name: str,
    resumed_epochs: Sequence[int],
) -> None:
    """Draw the training and the validation curve of one metric."""
    epochs = columns["epoch"]
    name = metric.capitalize()
    set_up_panel(axes)

    curves = {"": columns[metric], "val_": columns[f"val_{metric}"]}
    values = np.concatenate(list(curves.values()))
    if np.isnan(values).all():
        axes.text(0.5, 0.5, "no finite value so far", ha="center", color=GREY, transform=axes.transAxes)
        return
    margin = max(0.5, 0.02 * len(epochs))
    axes.set_xlim(epochs[0] - margin, epochs[-1] + margin)
    bottom, top = axis_limits(values, metric)
    axes.set_ylim(bottom, top)

    test = " (test split)" if validation_name == "test" else ""
    styles = {
        "": (f"Training {name}", BLUE, "-", "o"),
        "val_": (f"Validation {name}{test}", VERMILION, "--", "s"),
    }
    marker_step = 1 if len(epochs) <= MARKED_EPOCHS else len(epochs) // 20
    for prefix, (label, colour, line, marker) in styles.items():
        curve = curves[prefix]
        if np.isnan(curve).all():
            continue
        axes.plot(
            epochs, curve, line, marker=marker, markersize=4, markevery=marker_step,
            color=colour, linewidth=1.6, label=label,
        )  # fmt: skip
        above = curve > top
        if above.any():
            axes.plot(
                epochs[above], np.full(above.sum(), top), "^", color=colour, markersize=8,
                label=f"off the scale, up to {np.nanmax(curve):.3g}", clip_on=False,
            )  # fmt: skip
    for number, epoch in enumerate(resumed_epochs):
        in_legend = "resumed" if number == 0 else None
        axes.axvline(epoch, color=GREY, linestyle=":", linewidth=1.2, zorder=1, label=in_legend)
    if best:
        _mark_best(axes, metric, epochs, curves[best.prefix], best)
    axes.legend(loc="best", fontsize=9, framealpha=0.85)


def _draw_learning_rate(axes: "Axes", epochs: np.ndarray, rates: np.ndarray) -> None:
    """Draw the learning rate as a thin line behind the curves, on its own axis from 0 to its maximum."""
    if np.isnan(rates).all():
        return
    top = max(float(np.nanmax(rates)), 1e-12)
    right = axes.twinx()
    right.set_zorder(axes.get_zorder() - 1)
    axes.patch.set_visible(False)  # it would hide what lies behind
    right.plot(epochs, rates, ".-" if len(epochs) == 1 else "-", color=PALE, linewidth=1.1)
    right.set_ylim(0, 1.04 * top)
    # On their sides the texts fit the margin that the other panel has, too.
    right.set_yticks([0, top], ["0", f"{top:.3g}"], rotation=90, fontsize=8, color=GREY)
    right.set_ylabel("learning rate (grey line)", fontsize=8, color=GREY)
    right.yaxis.set_label_coords(1.027, 0.5)
    right.spines[["top", "left", "bottom"]].set_visible(False)
    right.spines["right"].set_color(PALE)
    right.tick_params(color=PALE, length=3, pad=1)


def set_up_panel(axes: "Axes") -> None:
    """Give a panel over epochs its grid and its whole-numbered axis."""
    from matplotlib.ticker import MaxNLocator

    axes.set_xlabel("epoch")
    axes.grid(color="#E4E4E4", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=11, steps=[1, 2, 5, 10], integer=True, min_n_ticks=1))


def _mark_best(axes: "Axes", metric: str, epochs: np.ndarray, curve: np.ndarray, best: _Best) -> None:
    """Put a star on `curve` at the best epoch, with its value in the legend."""
    value = float(curve[epochs == best.epoch][0])
    if np.isnan(value):
        return
    if metric == best.metric:
        label = f"{best.words}: {value:.4f} at epoch {best.epoch}"
    else:
        label = f"{value:.4f} at epoch {best.epoch} ({best.words} by {best.metric})"
    axes.axvline(best.epoch, color=BLACK, linewidth=0.8, alpha=0.5, zorder=1)
    axes.plot(
        [best.epoch], [value], "*", markersize=14, markerfacecolor="#F0E442", markeredgecolor=BLACK,
        markeredgewidth=0.9, linestyle="none", zorder=5, label=label,
    )  # fmt: skip


def axis_limits(values: np.ndarray, metric: str) -> tuple[float, float]:
    """Return the lower and the upper end of the value axis.

    A loss that jumps far above all others for a moment would press every curve into a flat line; the axis
    then ends above the others. Neither quantity falls below 0, no accuracy exceeds 1.
    """
    finite = np.sort(values[np.isfinite(values)])
    low, high = finite[0], finite[-1]
    if metric == "loss" and len(finite) >= 6:
        ordinary = finite[-1 - max(2, len(finite) // 20)]
        if high > SPIKE_FACTOR * ordinary > 0:
            high = SHOWN_FACTOR * ordinary
    # Noise in the fourth digit must not look like a mountain range.
    least_span = 0.05 if metric == "accuracy" else 0.05 * max(high, 0.02)
    middle, half = (low + high) / 2, max(high - low, least_span) / 2 * 1.12
    bottom, top = middle - half, middle + half
    return max(bottom, min(0.0, low) - 0.02 * half), min(top, 1.02) if metric == "accuracy" else top
