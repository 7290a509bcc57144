"""Curves of a run: accuracy and loss side by side, the learning rate in a strip below, as PNG files.

Drawn without pyplot, so that a picture leaves no state behind, needs no display, and may be made between two
epochs; the single panels are cut out of the one canvas. Matplotlib is imported by the first picture.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
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
    axis_limits,
    new_figure,
    set_epochs,
    set_up_panel,
)
from app.files import atomic_path
from app.runs import Run

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FIGURE_INCHES = (1600 / DOTS_PER_INCH, 700 / DOTS_PER_INCH)
STRIP_INCHES = 200 / DOTS_PER_INCH  # below the panels, for the learning rate
LEGEND_POINTS = 9.5
COLUMNS = ("epoch", "accuracy", "loss", "val_accuracy", "val_loss", "learning_rate")
MARKED_EPOCHS = 60  # up to here every epoch gets a marker


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
    """Draw curves.png (accuracy | loss, learning rate below), accuracy.png and loss.png into `folder`.

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
    height, middle = round(FIGURE_INCHES[1] * DOTS_PER_INCH), pixels.shape[1] // 2
    for filename, part in (
        ("curves.png", pixels),
        ("accuracy.png", pixels[:height, :middle]),
        ("loss.png", pixels[:height, middle:]),
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
    mixed = "; training metrics are of mixed images" if experiment.mixes_images else ""
    draw_curves(
        rows,
        run.path,
        title=f"{experiment.name}: {experiment.model.name} on {experiment.dataset.name}{mixed}",
        monitor=experiment.training.monitor,
        mode=experiment.training.mode,
        validation_name="test" if experiment.dataset.validates_on_test else "validation",
        resumed_epochs=resumed_epochs,
    )


def _render(
    columns: Mapping[str, np.ndarray],
    title: str,
    best: _Best | None,
    validation_name: str,
    resumed_epochs: Sequence[int],
) -> np.ndarray:
    """Return uint8 pixels (height, width, 3): a panel in each half, and a strip below if there are rates."""
    width, height = FIGURE_INCHES
    has_rates = not np.isnan(columns["learning_rate"]).all()
    total = height + STRIP_INCHES * has_rates
    figure = new_figure(width, total)

    def place(x: float, y: float, w: float, h: float) -> tuple[float, float, float, float]:
        """Turn fractions of the upper part into fractions of the whole figure."""
        return x, 1 - (1 - y) * height / total, w, h * height / total

    for half, metric in enumerate(("accuracy", "loss")):
        axes = figure.add_axes(place(0.5 * half + 0.053, 0.115, 0.425, 0.66))
        for y, text, points, colour in (
            (0.945, f"Training and Validation {metric.capitalize()}", 13.5, BLACK),
            (0.9, title, 9.0, GREY),
        ):
            x, y, *_ = place(0.5 * half + 0.266, y, 0, 0)
            figure.text(x, y, text, fontsize=points, color=colour, ha="center", parse_math=False)
        _draw_panel(axes, metric, columns, best, validation_name, resumed_epochs)
    if has_rates:
        strip = figure.add_axes((0.053, 0.3 / total, 0.925, (STRIP_INCHES - 0.6) / total))
        _draw_learning_rate(strip, columns["epoch"], columns["learning_rate"])
    figure.canvas.draw()
    return np.ascontiguousarray(np.asarray(figure.canvas.buffer_rgba())[..., :3])  # type: ignore[attr-defined]


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
    set_epochs(axes, epochs)
    bottom, top = axis_limits(values, metric)
    axes.set_ylim(bottom, top)

    test = " (test)" if validation_name == "test" else ""
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
            color=colour, linewidth=1.8, label=label,
        )  # fmt: skip
        _mark_above(axes, epochs, curve, top, colour)
    if best:
        _mark_best(axes, metric, epochs, curves[best.prefix], best)
    for number, epoch in enumerate(resumed_epochs):
        in_legend = "resumed" if number == 0 else None
        axes.axvline(epoch, color=GREY, linestyle=":", linewidth=1.4, zorder=1, label=in_legend)
    # Above the panel, where it hides nothing.
    axes.legend(
        loc="lower left", bbox_to_anchor=(-0.02, 0.995), ncols=2, fontsize=LEGEND_POINTS, frameon=False,
        borderaxespad=0.1, labelspacing=0.25, columnspacing=1.0, handlelength=1.6, handletextpad=0.5,
    )  # fmt: skip


def _mark_above(axes: "Axes", epochs: np.ndarray, curve: np.ndarray, top: float, colour: str) -> None:
    """Put a triangle on the upper border where a curve leaves the panel, and its largest value beside it."""
    above = curve > top
    if not above.any():
        return
    axes.plot(epochs[above], np.full(above.sum(), top), "^", color=colour, markersize=8, clip_on=False)
    row = int(np.nanargmax(curve))
    on_left = row > len(epochs) // 2
    axes.annotate(
        f"up to {curve[row]:.3g}", (epochs[row], top), (-8 if on_left else 8, -10 - 12 * (colour == BLUE)),
        textcoords="offset points", ha="right" if on_left else "left", color=colour, fontsize=LEGEND_POINTS,
    )  # fmt: skip


def _draw_learning_rate(axes: "Axes", epochs: np.ndarray, rates: np.ndarray) -> None:
    """Draw the learning rate of each epoch's last step, on an axis from 0 to a little above its maximum."""
    from matplotlib.ticker import MaxNLocator

    set_up_panel(axes)
    set_epochs(axes, epochs)
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


def _mark_best(axes: "Axes", metric: str, epochs: np.ndarray, curve: np.ndarray, best: _Best) -> None:
    """Put a star on `curve` at the best epoch, with its value in the legend."""
    value = float(curve[epochs == best.epoch][0])
    if np.isnan(value):
        return
    if metric == best.metric:
        label = f"{best.words}: {value:.4f} at epoch {best.epoch}"
    else:
        words = best.words if best.words != "best" else f"best {best.metric}"
        label = f"{value:.4f} at epoch {best.epoch} ({words})"
    axes.axvline(best.epoch, color=BLACK, linewidth=0.8, alpha=0.5, zorder=1)
    axes.plot(
        [best.epoch], [value], "*", markersize=14, markerfacecolor="#F0E442", markeredgecolor=BLACK,
        markeredgewidth=0.9, linestyle="none", zorder=5, label=label,
    )  # fmt: skip
