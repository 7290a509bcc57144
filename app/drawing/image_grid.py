"""Grids of images with captions."""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from app.drawing.canvas import (
    BLACK,
    DOTS_PER_INCH,
    LEAST_WIDTH,
    MARGIN,
    VERMILION,
    add_panel,
    new_figure,
    save_figure,
    shortened,
)

# A sheet: square tiles with captions of several lines below, in inches.
SHEET_TILE, SHEET_LINE = 1.45, 0.16
CAPTION_POINTS, CAPTION_INCHES = 8.5, SHEET_TILE + MARGIN - 0.06
WRONG_SIGN = "✗ "


def draw_grid(
    path: Path,
    images: Sequence[np.ndarray],
    captions: Sequence[str],
    title: str,
    *,
    wrong: Sequence[bool] | None = None,
    columns: int = 6,
) -> None:
    """Draw a contact sheet: images in rows, each with its caption below.

    Images are (height, width, channels) uint8 with one channel or three, of any size; small ones are enlarged
    pixel by pixel. Captions have one line or several; lines that are too long are cut in the middle, and the
    captions that `wrong` names are red and bear a cross.
    """
    pitch = SHEET_TILE + MARGIN
    lines = max((caption.count("\n") + 1 for caption in captions if caption), default=0)
    row_inches = pitch + lines * SHEET_LINE
    width = max(min(columns, len(images)) * pitch + MARGIN, LEAST_WIDTH)
    body = max(math.ceil(len(images) / columns) * row_inches, MARGIN)
    figure = new_figure(width, body, title)
    height = figure.get_figheight()
    for number, (image, caption) in enumerate(zip(images, captions, strict=True)):
        row, column = divmod(number, columns)
        left, bottom = MARGIN + column * pitch, body - row * row_inches - SHEET_TILE
        axes = add_panel(figure, left, bottom, SHEET_TILE, SHEET_TILE, frameon=False, xticks=[], yticks=[])
        axes.imshow(_for_tile(image), cmap="gray", vmin=0, vmax=255, interpolation="nearest")
        marked = wrong is not None and bool(wrong[number])
        for line, text in enumerate(caption.split("\n")):
            sign = WRONG_SIGN if marked and line == 0 else ""
            figure.text(
                (left + SHEET_TILE / 2) / width, (bottom - 0.05 - line * SHEET_LINE) / height,
                shortened(sign + text, CAPTION_INCHES, CAPTION_POINTS),
                fontsize=CAPTION_POINTS, ha="center", va="top", parse_math=False,
                color=VERMILION if marked else BLACK,
            )  # fmt: skip
    save_figure(figure, path)


def _for_tile(image: np.ndarray) -> Image.Image:
    """Return an image no larger than a tile, so that none of its pixels is simply left out."""
    picture = Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)
    most = round(SHEET_TILE * DOTS_PER_INCH)
    picture.thumbnail((most, most), Image.Resampling.LANCZOS)
    return picture
