"""Sheets of images as PNG files: before and after augmentation, mistakes, doubts, any grid with captions."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from app.reports.canvas import (
    BLACK,
    DOTS_PER_INCH,
    LEAST_WIDTH,
    MARGIN,
    VERMILION,
    draw_heading,
    heading_inches,
    new_figure,
    percent_of,
    save_figure,
    shortened,
)
from app.reports.figures import probabilities

MOST_IMAGES = 8
TILE_INCHES = 1.25
# A sheet: square tiles with captions of several lines below, in inches.
SHEET_TILE, SHEET_LINE = 1.45, 0.16
CAPTION_POINTS = 8.5
MOST_SHOWN = 24  # mistakes, doubts
WRONG_SIGN = "✗ "


def draw_augmentation(
    path: Path, before: np.ndarray, after: np.ndarray, names: Sequence[str], title: str
) -> None:
    """Draw images in one row, what augmentation made of each below it, and its class over both.

    Args:
        path: The PNG file; a predecessor is replaced whole.
        before: Images (n, height, width, channels), uint8; the first eight are drawn.
        after: The same images augmented, likewise.
        names: The class of each.
        title: Heading over the rows.
    """
    columns = min(MOST_IMAGES, len(before))
    figure = new_figure(TILE_INCHES * max(columns, 4), TILE_INCHES * 2 + 0.7, layout="constrained")
    figure.suptitle(title, fontsize=9, parse_math=False)
    panels = figure.subplots(2, columns, squeeze=False)
    for row, (images, label) in enumerate(((before, "as stored"), (after, "augmented"))):
        panels[row, 0].set_ylabel(label, fontsize=8)
        for column in range(columns):
            axes = panels[row, column]
            image = images[column]
            if image.shape[-1] == 1:
                axes.imshow(image[..., 0], cmap="gray", vmin=0, vmax=255)
            else:
                axes.imshow(image)
            axes.set_xticks([])
            axes.set_yticks([])
            if row == 0:
                axes.set_title(shortened(names[column], TILE_INCHES, 8), fontsize=8, parse_math=False)
    save_figure(figure, path)


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

    Args:
        path: The PNG file; a predecessor is replaced whole.
        images: Each (height, width, channels) uint8 with one channel or three; sizes may differ. Small ones
            are enlarged pixel by pixel.
        captions: One an image, of one line or several; lines that are too long are cut in the middle.
        title: Heading; further lines of it are smaller.
        wrong: Which captions tell of something wrong: they are red and bear a cross.
        columns: Images in a row.
    """
    pitch = SHEET_TILE + MARGIN
    lines = max((caption.count("\n") + 1 for caption in captions if caption), default=0)
    row_inches = pitch + lines * SHEET_LINE
    head = heading_inches(title)
    width = max(min(columns, len(images)) * pitch + MARGIN, LEAST_WIDTH)
    height = head + max(math.ceil(len(images) / columns) * row_inches, MARGIN)
    figure = new_figure(width, height)
    draw_heading(figure, title)
    for number, (image, caption) in enumerate(zip(images, captions, strict=True)):
        row, column = divmod(number, columns)
        left, bottom = MARGIN + column * pitch, height - head - row * row_inches - SHEET_TILE
        axes = figure.add_axes(
            (left / width, bottom / height, SHEET_TILE / width, SHEET_TILE / height), frameon=False
        )
        axes.set_xticks([])
        axes.set_yticks([])
        pixels = _for_tile(image)
        if pixels.shape[-1] == 1:
            axes.imshow(pixels[..., 0], cmap="gray", vmin=0, vmax=255, interpolation="nearest")
        else:
            axes.imshow(pixels, interpolation="nearest")
        marked = wrong is not None and bool(wrong[number])
        for line, text in enumerate(caption.split("\n")):
            sign = WRONG_SIGN if marked and line == 0 else ""
            figure.text(
                (left + SHEET_TILE / 2) / width, (bottom - 0.05 - line * SHEET_LINE) / height,
                shortened(sign + text, pitch - 0.06, CAPTION_POINTS),
                fontsize=CAPTION_POINTS, ha="center", va="top", parse_math=False,
                color=VERMILION if marked else BLACK,
            )  # fmt: skip
    save_figure(figure, path)


def draw_mistakes(
    path: Path,
    take: Callable[[np.ndarray], np.ndarray],
    labels: np.ndarray,
    logits: np.ndarray,
    class_names: Sequence[str],
    title: str,
) -> int:
    """Draw the images that were taken for another class with the highest probability.

    Args:
        path: The PNG file.
        take: Returns the images (n, height, width, channels) uint8 at positions (n,).
        labels: (images,), integers.
        logits: (images, classes).
        class_names: One a class.
        title: Of what; the second line of the heading.

    Returns:
        How many were drawn; where there are none, the picture says so.
    """
    predicted, confidence, _ = _answers(logits)
    found = np.flatnonzero(predicted != labels)
    chosen = found[np.argsort(-confidence[found], kind="stable")][:MOST_SHOWN]
    captions = [
        f"truth: {class_names[labels[at]]}\n"
        f"predicted: {class_names[predicted[at]]}\nwith {percent_of(confidence[at])}"
        for at in chosen
    ]
    words = _counted(len(chosen), len(found), "mistake", "most certain")
    _draw_chosen(
        path, take, chosen, captions, f"{words or f'No mistake among {len(labels):,} images'}\n{title}"
    )
    return len(chosen)


def draw_doubts(
    path: Path,
    take: Callable[[np.ndarray], np.ndarray],
    labels: np.ndarray,
    logits: np.ndarray,
    class_names: Sequence[str],
    title: str,
) -> int:
    """Draw the images that were recognised with the lowest probability; see `draw_mistakes`."""
    predicted, confidence, second = _answers(logits)
    found = np.flatnonzero(predicted == labels)
    chosen = found[np.argsort(confidence[found], kind="stable")][:MOST_SHOWN]
    captions = [
        f"truth: {class_names[labels[at]]}\n"
        f"predicted with {percent_of(confidence[at])}\nnext: {class_names[second[at]]}"
        for at in chosen
    ]
    words = _counted(len(chosen), len(found), "right answer", "least certain")
    _draw_chosen(
        path, take, chosen, captions, f"{words or f'No right answer in {len(labels):,} images'}\n{title}"
    )
    return len(chosen)


def _answers(logits: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the predicted classes (images,), their probabilities, and the classes that came second."""
    order = np.argsort(-logits, axis=-1, kind="stable")
    predicted, second = order[:, 0], order[:, min(1, logits.shape[-1] - 1)]
    return predicted, np.take_along_axis(probabilities(logits), order[:, :1], -1)[:, 0], second


def _counted(num_drawn: int, num_all: int, what: str, kind: str) -> str:
    """Return the heading for the chosen ones of all; empty where there are none."""
    if num_all == 1:
        return f"The only {what}"
    if num_drawn == num_all:
        return f"The {num_all} {what}s, the {kind} first" if num_all else ""
    return f"The {num_drawn} {kind} of {num_all:,} {what}s"


def _draw_chosen(
    path: Path,
    take: Callable[[np.ndarray], np.ndarray],
    chosen: np.ndarray,
    captions: Sequence[str],
    title: str,
) -> None:
    images = list(take(chosen)) if len(chosen) else []
    draw_grid(path, images, captions, title)


def _for_tile(image: np.ndarray) -> np.ndarray:
    """Return an image no larger than a tile, so that none of its pixels is simply left out."""
    most = round(SHEET_TILE * DOTS_PER_INCH)
    if max(image.shape[:2]) <= most:
        return image
    gray = image.shape[-1] == 1
    picture = Image.fromarray(image[..., 0] if gray else image)
    picture.thumbnail((most, most), Image.Resampling.LANCZOS)
    pixels = np.asarray(picture)
    return pixels[..., np.newaxis] if gray else pixels
