"""Networks drawn layer by layer: every convolution and dense layer as a bar, from the image to the logits."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import keras

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
)
from app.reports.networks import build_published
from models.inspect import count_macs, named_layers
from models.network import Published

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WIDTH_INCHES, ROW_INCHES, LABEL_INCHES, LEGEND_INCHES = 10.0, 0.98, 2.0, 0.3
LINE_INCHES = 0.15  # of a row's words
MOST_UNITS = 2048  # of a dense layer as high as an image
SHADED_CHANNELS = (6, 512)  # lightest and darkest
_TITLE = (
    "The networks, layer by layer\n"
    "A bar is a layer with weights. Its height is the square root of its map's side (below it, in pixels); "
    "a dense layer's is that of its units."
)


def draw_architectures(path: Path, networks: Sequence[Published]) -> None:
    """Draw networks below each other, their bars in the order in which the network has its layers."""
    from matplotlib.patches import Patch

    body = ROW_INCHES * len(networks) + MARGIN
    figure = new_figure(WIDTH_INCHES, body + LEGEND_INCHES, _TITLE)
    height = figure.get_figheight()
    patches = [
        Patch(color=GREY, label="image"),
        *(Patch(color=shade(channels), label=f"{channels}") for channels in (8, 32, 128)),
        Patch(color=shade(512), label="512 channels or more"),
        Patch(color=VERMILION, label="dense layer"),
    ]
    options = {"ncols": len(patches), "fontsize": 8.5, "handlelength": 1.2}
    add_legend(figure, body + LEGEND_INCHES, patches, **options)
    built = [build_published(published) for published in networks]
    kinds = keras.layers.Conv2D | keras.layers.Dense
    rows = [[each for _, each in named_layers(network) if isinstance(each, kinds)] for network in built]
    longest = max(map(len, rows))
    for number, (published, network, layers) in enumerate(zip(networks, built, rows, strict=True)):
        top = body - number * ROW_INCHES
        wide = WIDTH_INCHES - LABEL_INCHES - MARGIN
        box = LABEL_INCHES, top - ROW_INCHES + 0.04, wide, ROW_INCHES - 0.08
        axes = add_panel(figure, *box, frameon=False, xticks=[], yticks=[])
        axes.set_xlim(-1, longest)
        _draw_bars(axes, layers, published.pixels)
        words = (
            f"{published.pixels} x {published.pixels} x 3, {published.num_classes} classes",
            f"{len(layers)} layers with weights",
            f"{published.total / 1e6:.2f} million parameters",
            f"{count_macs(network) / 1e6:,.1f} million MACs an image",
        )
        left, line = MARGIN / WIDTH_INCHES, (top - 0.08) / height
        figure.text(left, line, published.label, fontsize=10.5, va="top", color=BLACK)
        for place, text in enumerate(words):
            line = (top - 0.28 - place * LINE_INCHES) / height
            figure.text(left, line, text, fontsize=8, va="top", color=GREY)
    save_figure(figure, path)


def _draw_bars(axes: "Axes", layers: Sequence[keras.layers.Layer], pixels: int) -> None:
    """Draw the image and the layers of a network, and below them the side of the map where it changes."""
    axes.set_ylim(-0.72, 0.52)
    axes.bar(-0.5, 1.0, 0.8, -0.5, color=GREY)
    last: int | None = None
    for place, layer in enumerate(layers):
        is_dense = isinstance(layer, keras.layers.Dense)
        side = None if is_dense else layer.output.shape[1]
        fraction = layer.units / MOST_UNITS if is_dense else layer.output.shape[1] / pixels
        tall = math.sqrt(min(fraction, 1.0))
        colour = VERMILION if is_dense else shade(layer.filters)
        axes.bar(place + 0.5, tall, 0.8, -tall / 2, color=colour)
        if side is not None and side != last:
            axes.text(place + 0.92, -0.55, str(side), fontsize=6.2, ha="right", va="top", color=GREY)
            last = side


def shade(channels: int) -> tuple[float, float, float]:
    """Return a blue, the darker the more channels: a step for each doubling."""
    from matplotlib.colors import to_rgb

    low, high = SHADED_CHANNELS
    depth = math.log(min(max(channels, low), high) / low) / math.log(high / low)
    strength = 0.25 + 0.75 * depth
    red, green, blue = (1 - strength * (1 - part) for part in to_rgb(BLUE))
    return red, green, blue
