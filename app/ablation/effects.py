"""How far each variant of a recipe is from the recipe, with its interval, as a picture."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from app.ablation.results import Result
from app.drawing.canvas import (
    BLACK,
    BLUE,
    GREY,
    MARGIN,
    VERMILION,
    add_legend,
    add_panel,
    new_figure,
    save_figure,
    set_up_grid,
    shortened,
    text_inches,
)

NAME_POINTS = 9
ROW_INCHES = 0.34
PANEL_INCHES = 5.2  # across


def draw_effects(path: Path, title: str, label: str, results: Sequence[Result]) -> None:
    """Draw a dot and an interval for each row from the top down, and a small dot for each seed.

    The first of `results` is the recipe itself; `label` is that of the axis.
    """
    from matplotlib.lines import Line2D

    name_inches = min(3.4, max(text_inches(each.name, NAME_POINTS) for each in results) + 0.1)
    panel_height = ROW_INCHES * (len(results) + 0.6)
    width, height = MARGIN + name_inches + PANEL_INCHES + 0.2, panel_height + 1.05
    figure = new_figure(width, height, title)
    axes = add_panel(figure, MARGIN + name_inches, 0.6, PANEL_INCHES, panel_height)
    axes.set_ylim(len(results) - 0.2, -0.8)
    names = [shortened(each.name, name_inches - 0.1, NAME_POINTS) for each in results]
    axes.set_yticks(range(len(results)), names, fontsize=NAME_POINTS, parse_math=False)
    axes.tick_params(axis="y", length=0)
    set_up_grid(axes, "x")
    axes.spines["left"].set_visible(False)
    axes.axvline(0, color=BLACK, linewidth=1, linestyle="--")
    axes.set_xlabel(label)
    whole = results[0].mean
    seeds = [100 * (np.array(each.finished) - whole) for each in results]
    # Intervals of few seeds may be many times wider than what was measured: they may leave the panel.
    shown = np.concatenate([[0.0], *seeds])
    margin = max(0.5 * np.ptp(shown), 0.05)
    left, right = shown.min() - margin, shown.max() + margin
    axes.set_xlim(left, right)
    for row, (each, points) in enumerate(zip(results, seeds, strict=True)):
        axes.plot(points, np.full(len(points), row), "|", color=GREY, markersize=9, zorder=3)
        if not each.finished:
            words, place = "its loss was never finite to the end", axes.get_yaxis_transform()
            axes.text(0.01, row, words, fontsize=8, color=GREY, va="center", transform=place)
            continue
        low, high = 100 * each.difference.low, 100 * each.difference.high
        significant = each.difference.significant
        colour = VERMILION if significant else BLUE if row else BLACK
        axes.plot([low, high], [row, row], "-", color=colour, linewidth=2, zorder=2)
        axes.plot(
            100 * (each.mean - whole), row, "o", color=colour,
            markerfacecolor=colour if significant else "white", markersize=8, zorder=4,
        )  # fmt: skip
        for beyond, edge, arrow in ((low < left, left, "<"), (high > right, right, ">")):
            if beyond:
                axes.plot(edge, row, arrow, color=colour, markersize=8, clip_on=False)
    style = {"linestyle": "-", "marker": "o", "markersize": 8}
    handles = [
        Line2D([], [], color=VERMILION, label="significant", **style),  # type: ignore[arg-type]
        Line2D([], [], color=BLUE, markerfacecolor="white", label="not significant", **style),  # type: ignore[arg-type]
        Line2D([], [], color=GREY, marker="|", linestyle="none", markersize=9, label="a seed"),
    ]
    add_legend(figure, height - 0.08, handles)
    save_figure(figure, path)
