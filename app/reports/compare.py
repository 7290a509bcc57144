"""Several runs in one picture and on one page; seeds of one recipe as their mean and a band."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TextIO

import numpy as np

from app.drawing.canvas import GREY, any_script, limit_values, new_figure, save_figure, set_up_panel
from app.drawing.curves import FIGURE_INCHES, column
from app.errors import UserError
from app.files import new_folder
from app.paths import runs_root, shown
from app.reports.compare_chance import chance_sentences
from app.reports.compare_groups import Group, finished_trials, gather, read_trial, same_but_for_seed
from app.reports.compare_page import plain_table, title, write_comparison
from app.runs import Run, detour, list_runs, newest

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

# Okabe and Ito's colours that stand out on white; where colours repeat, the markers do not.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
MOST_GROUPS = 14
BAND = 0.22  # opacity
_PANEL_INCHES = 4.62  # with its titles; the legend stands below both


def newest_seeds(experiment_name: str, out: TextIO) -> list[Run]:
    """Return the newest run of an experiment with the newest of each other seed, ordered by seed.

    The newest run is the newest finished one, or the newest where none is finished; that one comes alone. Of
    the others only finished runs of the same settings, images and starting weights count. Where one cannot be
    read, `out` receives the reason.

    Raises:
        UserError: There is no run, or the newest cannot be read.
    """
    last = newest(experiment_name)
    if not last.finished:
        return [last]
    chosen = read_trial(last)
    trials, remarks = finished_trials(experiment_name)
    for remark in remarks:
        print(remark, file=out)
    # The oldest comes first: a newer one of the same seed takes its place.
    by_seed = {each.experiment.seed: each.run for each in trials if same_but_for_seed(chosen, each)}
    return [run for _, run in sorted((by_seed | {chosen.experiment.seed: last}).items())]


def compare(runs: Sequence[Run]) -> list[str]:
    """Compare runs, as curves.png and compare.html in a new folder of comparisons.

    Args:
        runs: The runs, in the order of the legend; each has finished an epoch at least. Finished runs that
            differ by their seed alone are taken together.

    Returns:
        The results for a terminal, and where picture and page lie.

    Raises:
        UserError: There are fewer than two to compare or too many to tell apart, or a run cannot be read.
            Nothing is written then.
    """
    groups = gather(runs)
    seeds_alone = len(groups) == 1 and len(groups[0].trials) > 1
    if not 2 <= len(groups) <= MOST_GROUPS and not seeds_alone:
        remark = " (one that is named twice counts once)" if len(runs) > len(groups) else ""
        for first in (group.first for group in groups):
            if why := detour(first.run, first.experiment):
                remark += f" ({first.run.name} is not pooled with other seeds: {why})"
            elif len(runs) == 1 and len(list_runs(first.experiment.name)) > 1:
                rule = "differ by their seed alone: the same settings, images and starting weights"
                remark += f" (other runs are taken with it where they are known to {rule})"
        raise UserError(
            f"compare: received {len(groups)} run{'s' if len(groups) != 1 else ''}{remark}; a picture holds "
            f'2 to {MOST_GROUPS}: RUNS="a/latest b/latest" or EXPS="a b"; one experiment does after '
            "make train EXP=a SEEDS=3"
        )
    found, remarks = chance_sentences(groups)
    figure = _draw(groups)
    folder = new_folder(runs_root() / "comparisons")
    picture, page = folder / "curves.png", folder / "compare.html"
    save_figure(figure, picture)
    write_comparison(page, groups, picture, found, remarks)
    return [*plain_table(groups), "", *found, *remarks, f"curves {shown(picture)}", f"page {shown(page)}"]


def _draw(groups: Sequence[Group]) -> "Figure":
    """Return the picture: accuracy and loss of all groups over each other, and one legend for both."""
    from matplotlib.patches import Patch

    figure = new_figure(*FIGURE_INCHES)
    figure.set_layout_engine("constrained", w_pad=0.12, h_pad=0.08)
    figure.suptitle(title(groups), fontsize=12.5, parse_math=False)
    on_test = {group.on_test for group in groups}
    validation = "validation on the test split" if on_test == {True} else "validation"
    handles: list[Any] = []  # Matplotlib does not list tuples, which it takes
    for axes, metric in zip(figure.subplots(1, 2), ("accuracy", "loss"), strict=True):
        axes.set_title(f"{metric.capitalize()}: training (bold), {validation} (dashed)", fontsize=10.5)
        set_up_panel(axes)
        handles = [*_draw_panel(axes, metric, groups)]
    marked = ", validated on test" if len(on_test) > 1 else ""
    labels = [
        group.label
        + (marked if group.on_test else "")
        + (", trained on mixed images" if group.first.experiment.mixes_images else "")
        for group in groups
    ]
    if colours := [_colour(number) for number, group in enumerate(groups) if len(group.trials) > 1]:
        handles.append(tuple(Patch(color=colour, alpha=BAND, linewidth=0) for colour in colours))
        labels.append("band: smallest to largest of the seeds")
    legend_inches = _add_legend(figure, handles, labels)
    height = math.ceil((_PANEL_INCHES + legend_inches) * 50) / 50  # a whole, even number of pixels
    figure.set_size_inches(FIGURE_INCHES[0], height)
    return figure


def _draw_panel(axes: "Axes", metric: str, groups: Sequence[Group]) -> "list[Artist]":
    """Draw the curves of one metric; return a line for each group, for the legend."""
    trials = [trial for group in groups for trial in group.trials]
    values = np.concatenate(
        [column(trial.rows, name) for trial in trials for name in (metric, f"val_{metric}")]
    )
    limit_values(axes, values, metric, "no finite value")
    if (values > axes.get_ylim()[1]).any():
        axes.text(
            0.99, 0.985, "triangles at the top: off the scale", color=GREY, fontsize=8,
            ha="right", va="top", transform=axes.transAxes,
        )  # fmt: skip
    return [_draw_group(axes, metric, number, group) for number, group in enumerate(groups)]


def _draw_group(axes: "Axes", metric: str, number: int, group: Group) -> "Line2D":
    """Draw a group's training and validation: of several seeds the mean, and a band over all of them."""
    colour = _colour(number)
    marker = MARKERS[(number + number // len(COLOURS)) % len(MARKERS)]
    num_epochs = min(len(trial.rows) for trial in group.trials)
    epochs = np.arange(1, num_epochs + 1)
    # A mark where validation ends shows it where there is but one epoch.
    dashed: dict[str, Any] = {
        "linestyle": "--", "linewidth": 1.1, "markersize": 5, "markerfacecolor": "white",
        "markevery": [num_epochs - 1],
    }  # fmt: skip
    bold: dict[str, Any] = {
        "linestyle": "-",
        "linewidth": 2.2,
        "markersize": 4,
        "markevery": max(1, num_epochs // 10),
    }
    for prefix, style in (("val_", dashed), ("", bold)):
        curves = np.stack([column(trial.rows, prefix + metric)[:num_epochs] for trial in group.trials])
        mean, low, high = curves.mean(axis=0), curves.min(axis=0), curves.max(axis=0)
        if len(curves) > 1 and num_epochs > 1:
            axes.fill_between(epochs, low, high, color=colour, alpha=BAND, linewidth=0)
        elif len(curves) > 1:
            axes.vlines(epochs, low, high, color=colour, alpha=0.4, linewidth=5)
        (line,) = axes.plot(
            epochs, mean, color=colour, marker=marker,
            zorder=2 + 1 / num_epochs,  # a short run stays in sight beside long ones
            **style,
        )  # fmt: skip
        top = axes.get_ylim()[1]
        if (above := mean > top).any():
            axes.plot(
                epochs[above], np.full(above.sum(), top), "^", color=colour, markersize=7, clip_on=False
            )
    return line


def _colour(number: int) -> str:
    return COLOURS[number % len(COLOURS)]


def _add_legend(figure: "Figure", handles: Sequence[Any], labels: Sequence[str]) -> float:
    """Put the legend at the bottom, in as many columns as have room; return its height in inches."""
    from matplotlib.legend_handler import HandlerTuple

    for num_columns in range(min(4, len(labels)), 0, -1):
        # A label that begins with _ would be left out, and $ would start a formula: the texts come later.
        legend = figure.legend(
            handles, ["run"] * len(labels), loc="outside lower center", ncols=num_columns, fontsize=9.5,
            frameon=False, handler_map={tuple: HandlerTuple(ndivide=None, pad=0.0)},
        )  # fmt: skip
        for text, label in zip(legend.get_texts(), labels, strict=True):
            text.set_parse_math(False)
            text.set_text(label)
        with any_script():
            extent = legend.get_window_extent(figure.canvas.get_renderer())  # type: ignore[attr-defined]
        if extent.width <= 0.97 * figure.bbox.width or num_columns == 1:
            break
        legend.remove()
    return extent.height / figure.dpi
