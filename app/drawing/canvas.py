"""What all pictures need: colours, a figure, its heading, panels, texts that fit, a file written atomically.

Matplotlib is imported when the first picture is drawn.
"""

import bisect
import functools
import itertools
import os
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from app.files import atomic_path
from app.wording import printable

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Three of Okabe and Ito's colours, which stay apart for colour-blind eyes; line and marker differ as well.
BLUE, VERMILION, BLACK = "#0072B2", "#D55E00", "#000000"
GREY = "#767676"
DOTS_PER_INCH = 150
# A value this many times above the level that all but 5 % of the values (and two at least) keep is left off.
SPIKE_FACTOR = 10.0
SHOWN_FACTOR = 2.5
LEAST_WIDTH = 7.0  # inches, for the heading
MARGIN, HEAD_TOP, HEAD_LINE = 0.17, 0.12, 0.24  # inches
TITLE_POINTS, SUBTITLE_POINTS = 12.5, 8.5
_LONGEST = 500  # letters that are looked at


def new_figure(width_inches: float, height_inches: float, heading: str = "") -> "Figure":
    """Return a figure that needs neither a display nor pyplot, with a heading above the given height.

    The heading stands at the left; its further lines are smaller and grey.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    lines = heading.split("\n") if heading else []
    height = height_inches + (HEAD_TOP + HEAD_LINE * len(lines) + 0.1 if lines else 0.0)
    figure = Figure(figsize=(width_inches, height), dpi=DOTS_PER_INCH)
    FigureCanvasAgg(figure)
    room = width_inches - 2 * MARGIN
    for number, line in enumerate(lines):
        points = SUBTITLE_POINTS if number else TITLE_POINTS
        if not number and text_inches(line, points) > room:
            points = max(SUBTITLE_POINTS, 0.999 * points * room / text_inches(line, points))
        figure.text(
            MARGIN / width_inches, 1 - (HEAD_TOP + number * HEAD_LINE) / height,
            shortened(line, room, points), fontsize=points, va="top", parse_math=False,
            color=GREY if number else BLACK,
        )  # fmt: skip
    return figure


def set_up_grid(axes: "Axes", axis: Literal["both", "x", "y"] = "both") -> None:
    """Give a panel its grid, behind what is drawn, and no frame at the top and at the right."""
    axes.grid(axis=axis, color="#E4E4E4", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def set_up_panel(axes: "Axes", epochs: np.ndarray | None = None) -> None:
    """Give a panel over epochs its grid and its whole-numbered axis, a little wider than `epochs`."""
    from matplotlib.ticker import MaxNLocator

    axes.set_xlabel("epoch")
    set_up_grid(axes)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=11, steps=[1, 2, 5, 10], integer=True, min_n_ticks=1))
    if epochs is not None and len(epochs):
        margin = max(0.5, 0.02 * len(epochs))
        axes.set_xlim(epochs[0] - margin, epochs[-1] + margin)


def limit_values(axes: "Axes", values: np.ndarray, metric: str, where_none: str) -> None:
    """Set the ends of the value axis; where no value is finite, write `where_none` into the panel.

    A loss that jumps far above all others for a moment would press every curve into a flat line; the axis
    then ends above the others. Neither quantity falls below 0, no accuracy exceeds 1.
    """
    finite = np.sort(values[np.isfinite(values)])
    if not len(finite):
        axes.text(0.5, 0.5, where_none, ha="center", color=GREY, transform=axes.transAxes)
        return
    low, high = finite[0], finite[-1]
    if metric == "loss" and len(finite) >= 6:
        ordinary = finite[-1 - max(2, len(finite) // 20)]
        if high > SPIKE_FACTOR * ordinary > 0:
            high = SHOWN_FACTOR * ordinary
    # Noise in the fourth digit must not look like a mountain range.
    least_span = 0.05 if metric == "accuracy" else 0.05 * max(high, 0.02)
    middle, half = (low + high) / 2, max(high - low, least_span) / 2 * 1.12
    bottom, top = max(middle - half, min(0.0, low) - 0.02 * half), middle + half
    axes.set_ylim(bottom, min(top, 1.02) if metric == "accuracy" else top)


def add_panel(
    figure: "Figure", left: float, bottom: float, width: float, height: float, **options: Any
) -> "Axes":
    """Add a panel whose place in the figure is given in inches."""
    across, up = figure.get_size_inches()
    return figure.add_axes((left / across, bottom / up, width / across, height / up), **options)


def add_legend(figure: "Figure", top: float, handles: "Sequence[Artist]", **options: Any) -> None:
    """Explain marks in a row at the left of a figure, from `top` inches down."""
    width, height = figure.get_size_inches()
    figure.legend(
        handles=handles, loc="upper left", bbox_to_anchor=(MARGIN / width, top / height), frameon=False,
        borderaxespad=0.0, borderpad=0.0, **{"ncols": 4, "fontsize": 9} | options,
    )  # fmt: skip


def shortened(text: str, width_inches: float, points: float) -> str:
    """Return text on one line, its middle cut out where it would be wider than `width_inches`.

    Line breaks become spaces; letters that cannot be drawn are escaped, or boxes where the font lacks them.
    """
    whole = "".join(map(_letter, printable(" ".join(text.split()))[:_LONGEST]))
    if text_inches(whole, points) <= width_inches:
        return whole

    def cut(kept: int) -> str:
        return f"{whole[: kept - kept // 2]}…{whole[len(whole) - kept // 2 :]}"

    # The largest number of letters that fits lies between those that do and those that do not.
    numbers = range(1, len(whole))
    return cut(bisect.bisect(numbers, width_inches, key=lambda kept: text_inches(cut(kept), points)))


@functools.cache
def _letter(letter: str) -> str:
    from matplotlib.font_manager import FontProperties, findfont, get_font

    return letter if get_font(findfont(FontProperties())).get_char_index(ord(letter)) else "□"


def shortened_apart(texts: Sequence[str], width_inches: float, points: float) -> dict[str, str]:
    """Return for each text its `shortened` form, such that different texts stay different.

    Those that would become the same keep the letters in which they differ; where even that does not tell them
    apart they begin with their number (from 0).
    """
    numbers = {text: number for number, text in enumerate(dict.fromkeys(texts))}
    found = {text: shortened(text, width_inches, points) for text in numbers}
    for group in _alike(found):
        group.sort()  # the text that shares the longest beginning is a neighbour
        same = [0, *(len(os.path.commonprefix(pair)) for pair in itertools.pairwise(group)), 0]
        for text, place in zip(group, map(max, itertools.pairwise(same)), strict=True):
            found[text] = shortened(f"{text[:4]}…{text[place:]}", width_inches, points)
    for group in _alike(found):
        found |= {text: shortened(f"{numbers[text]} {text}", width_inches, points) for text in group}
    return found


def _alike(found: Mapping[str, str]) -> list[list[str]]:
    """Return the texts that have the same shortened form."""
    groups: dict[str, list[str]] = {}
    for text, short in found.items():
        groups.setdefault(short, []).append(text)
    return [group for group in groups.values() if len(group) > 1]


def text_inches(text: str, points: float) -> float:
    """Return the width of a line of text."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import text_to_path

    font = FontProperties(size=points)
    with any_script():
        width, *_ = text_to_path.get_text_width_height_descent(printable(text), font, ismath=False)
    return width / 72


def percent_of(fraction: float) -> str:
    """Return a fraction in words, without a false 0 or 100 %."""
    if 0.9995 <= fraction < 1.0:
        return "over 99.9 %"
    if 0.0 < fraction < 0.0005:
        return "below 0.1 %"
    return f"{100 * fraction:.1f} %"


def certainty_of(probability: float) -> str:
    """Return a softmax's largest probability in words; it is below 1, whatever rounding has made of it."""
    return percent_of(min(probability, 1 - 1e-9))


def save_figure(figure: "Figure", path: Path) -> None:
    """Write a figure as a PNG file, atomically."""
    with atomic_path(path) as temporary, any_script():
        figure.savefig(temporary, dpi=DOTS_PER_INCH)


def any_script() -> "warnings.catch_warnings[None]":
    """Return a context in which letters that the font lacks become boxes without a warning."""
    return warnings.catch_warnings(action="ignore", category=UserWarning)
