"""Curves of a run: accuracy and loss of training and validation, epoch by epoch, as PNG files.

Each file is drawn on a canvas of its own, without pyplot, so that drawing leaves no state behind, needs no
display, and may happen between two epochs. Matplotlib is imported when the first picture is drawn: importing
this module costs nothing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from app.config import Experiment
from app.runs import Run, atomic_path

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Three of Okabe and Ito's colours, which stay apart for colour-blind eyes; line and marker differ as well.
BLUE, VERMILION, BLACK = "#0072B2", "#D55E00", "#000000"
GREY = "#767676"
DOTS_PER_INCH = 150
PANEL_INCHES = (5.33, 4.67)  # 800 x 700 pixels
MARKED_EPOCHS = 60  # up to here every epoch gets a marker
# A value this many times above what 95 % of the values (all but two at least) stay below is left off the scale.
SPIKE_FACTOR = 10.0
SHOWN_FACTOR = 4.0


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
            `val_accuracy`, `val_loss`; what is missing or not finite leaves a gap.
        folder: Receives the files; each replaces its predecessor whole.
        title: Heading over the panels, usually the run's name.
        monitor: Column that decides which epoch is best.
        mode: "max" or "min", the direction in which `monitor` improves.
        validation_name: "validation", or "test" where the test split serves for validation.
        resumed_epochs: Epochs in which an interrupted run went on.
    """
    columns = {name: _column(rows, name) for name in ("epoch", "accuracy", "loss", "val_accuracy", "val_loss")}
    best = _find_best(columns, monitor, mode, validation_name)
    for filename, metrics in (
        ("curves.png", ("accuracy", "loss")),
        ("accuracy.png", ("accuracy",)),
        ("loss.png", ("loss",)),
    ):
        _draw_file(folder / filename, metrics, columns, title, best, validation_name, resumed_epochs)


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


def _column(rows: Sequence[Mapping[str, float]], name: str) -> np.ndarray:
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


def _draw_file(
    path: Path,
    metrics: Sequence[str],
    columns: Mapping[str, np.ndarray],
    title: str,
    best: _Best | None,
    validation_name: str,
    resumed_epochs: Sequence[int],
) -> None:
    """Draw one panel for each of `metrics`, side by side, into the PNG file `path`."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    width, height = PANEL_INCHES
    figure = Figure(figsize=(width * len(metrics), height), dpi=DOTS_PER_INCH)
    canvas = FigureCanvasAgg(figure)
    # Margins in inches, the same for one panel and for two.
    all_width = width * len(metrics)
    figure.subplots_adjust(
        left=0.75 / all_width, right=1 - 0.2 / all_width, top=0.835, bottom=0.125, wspace=0.2
    )
    figure.suptitle(title, fontsize=10, color=GREY, y=0.975, parse_math=False)
    panels = figure.subplots(1, len(metrics), squeeze=False)[0]
    for axes, metric in zip(panels, metrics, strict=True):
        _draw_panel(axes, metric, columns, best, validation_name, resumed_epochs)
    with atomic_path(path) as temporary:
        canvas.print_png(temporary)


def _draw_panel(
    axes: "Axes",
    metric: str,
    columns: Mapping[str, np.ndarray],
    best: _Best | None,
    validation_name: str,
    resumed_epochs: Sequence[int],
) -> None:
    """Draw the training and the validation curve of one metric."""
    from matplotlib.ticker import MaxNLocator

    epochs = columns["epoch"]
    name = metric.capitalize()
    axes.set_title(f"Training and Validation {name}", fontsize=12)
    axes.set_xlabel("epoch")
    axes.grid(color="#E4E4E4", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=10, integer=True, min_n_ticks=1))

    curves = {"": columns[metric], "val_": columns[f"val_{metric}"]}
    values = np.concatenate(list(curves.values()))
    if np.isnan(values).all():
        axes.text(0.5, 0.5, "no finite value so far", ha="center", color=GREY, transform=axes.transAxes)
        return
    axes.set_xlim(epochs[0] - 0.5, epochs[-1] + 0.5)
    bottom, top = _limits(values, metric)
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
        label = "resumed" if number == 0 else None
        axes.axvline(epoch, color=GREY, linestyle=":", linewidth=1.2, zorder=1, label=label)
    if best:
        _mark_best(axes, metric, epochs, curves[best.prefix], best)
    axes.legend(loc="best", fontsize=9, framealpha=0.85)


def _mark_best(axes: "Axes", metric: str, epochs: np.ndarray, curve: np.ndarray, best: _Best) -> None:
    """Put a star on `curve` at the best epoch, with its value in the legend."""
    value = float(curve[epochs == best.epoch][0])
    if metric == best.metric:
        label = f"{best.words}: {value:.4f} at epoch {best.epoch}"
    else:
        label = f"{value:.4f} at epoch {best.epoch} ({best.words} by {best.metric})"
    axes.axvline(best.epoch, color=BLACK, linewidth=0.8, alpha=0.5, zorder=1)
    axes.plot(
        [best.epoch], [value], "*", markersize=14, markerfacecolor="#F0E442", markeredgecolor=BLACK,
        markeredgewidth=0.9, linestyle="none", zorder=5, label=label,
    )  # fmt: skip


def _limits(values: np.ndarray, metric: str) -> tuple[float, float]:
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
    middle, half = (low + high) / 2, max(high - low, least_span) / 2 * 1.08
    bottom, top = middle - half, middle + half
    return max(bottom, min(0.0, low) - 0.02 * half), min(top, 1.02) if metric == "accuracy" else top
