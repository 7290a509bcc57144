"""The loss over the learning rates of a range test, as a picture."""

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

    Args:
        path: The picture to write.
        title: Its heading.
        rates: Learning rates, (steps,), rising.
        losses: The loss of each step; infinite ones are left out.
        curve: The same, smoothed.
        span: The ends of the suggested range, and the peak in it; None where nothing is suggested.
        own: The experiment's peak.
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
    add_legend(figure, height - 0.08, axes.get_legend_handles_labels()[0], ncols=5, fontsize=8)
    save_figure(figure, path)
