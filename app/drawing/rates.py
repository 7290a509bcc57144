"""Pictures of learning rates: over all epochs, and the loss over those of a range test."""

from pathlib import Path

import numpy as np

from app.drawing.canvas import (
    BLACK,
    BLUE,
    GREY,
    LEAST_WIDTH,
    VERMILION,
    add_legend,
    add_panel,
    new_figure,
    save_figure,
    set_up_grid,
    set_up_panel,
)


def draw_rate_range(
    path: Path,
    title: str,
    rates: np.ndarray,
    losses: np.ndarray,
    curve: np.ndarray,
    span: tuple[float, float, float] | None,
    own: float,
) -> None:
    """Draw losses and their smoothed curve, and mark what is suggested and what the experiment has.

    `span` has the ends of the suggested range, and the peak in it; None where nothing is suggested.
    """
    width, height = LEAST_WIDTH + 1.0, 4.1
    figure = new_figure(width, height, title)
    axes = add_panel(figure, 0.095 * width, 0.6, 0.875 * width, height - 1.1)
    axes.set_xscale("log")
    axes.set_xlabel("peak learning rate")
    axes.set_ylabel("loss in training")
    set_up_grid(axes)
    if span:
        low, high, peak = span
        label = f"suggested: {low:.2g} to {high:.2g}"
        axes.axvspan(low, high, color="#DDECF5", zorder=0, label=label)
        axes.axvline(peak, color=BLUE, linestyle="-", linewidth=1.3, label=f"peak {peak:.2g}")
    axes.axvline(own, color=VERMILION, linestyle="--", linewidth=1.3, label=f"the experiment's: {own:.3g}")
    axes.plot(rates, losses, "-", color=GREY, linewidth=0.8, alpha=0.6, label="loss of a step")
    axes.plot(rates, curve, "-", color=BLACK, linewidth=2.2, zorder=3, label="smoothed")
    margin = 0.06 * np.ptp(curve) + 0.02
    axes.set_ylim(curve.min() - 3 * margin, curve.max() + 3 * margin)
    axes.set_xlim(min(rates[0], own) / 1.3, max(rates[-1], own) * 1.3)
    add_legend(
        figure, height - 0.08, axes.get_legend_handles_labels()[0], ncols=5, fontsize=7.5, columnspacing=1.2
    )
    save_figure(figure, path)


def draw_schedule(
    path: Path, title: str, positions: np.ndarray, rates: np.ndarray, epochs: int, warmup_epochs: int
) -> None:
    """Draw the learning rates of steps at `positions`, in epochs; mark warm-up, start, peak and end."""
    width, height = LEAST_WIDTH + 1.0, 4.1
    figure = new_figure(width, height, title)
    axes = add_panel(figure, 0.115 * width, 0.6, 0.855 * width, height - 1.1)
    set_up_panel(axes)
    axes.set_ylabel("learning rate")
    axes.plot(positions, rates, "-", color=BLUE, linewidth=2.0, zorder=3)
    axes.set_xlim(-0.02 * epochs, 1.02 * epochs)
    axes.set_ylim(0, 1.08 * max(float(rates.max()), 1e-12))
    if warmup_epochs:
        axes.axvspan(0, warmup_epochs, color="#E8E8E8", zorder=0, label=f"warm-up to epoch {warmup_epochs}")
    for at, marker, colour, name in (
        (0, "o", GREY, "start"),
        (int(rates.argmax()), "^", VERMILION, "peak"),
        (len(rates) - 1, "s", BLACK, "end"),
    ):
        if name == "peak" and at in (0, len(rates) - 1):
            continue
        where = f" at epoch {round(float(positions[at]), 3):,.7g}" if name == "peak" else ""
        axes.plot(
            [positions[at]], [rates[at]], marker, color=colour, markersize=9, linestyle="none", zorder=4,
            clip_on=False, label=f"{name}: {rates[at]:.3g}{where}",
        )  # fmt: skip
    add_legend(figure, height - 0.08, axes.get_legend_handles_labels()[0])
    save_figure(figure, path)
