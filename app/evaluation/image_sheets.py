"""Sheets of images as PNG files: before and after augmentation, mistakes, doubts, any grid with captions."""

from collections.abc import Callable, Sequence
from pathlib import Path, PurePath

import numpy as np

from app.drawing.canvas import (
    percent_of,
)
from app.drawing.image_grid import draw_grid
from app.evaluation.metrics import probabilities
from app.wording import printable

MOST_SHOWN = 24  # mistakes, doubts


def draw_mistakes(
    path: Path,
    take: Callable[[np.ndarray], np.ndarray],
    labels: np.ndarray,
    logits: np.ndarray,
    class_names: Sequence[str],
    title: str,
    files_at: Callable[[np.ndarray], Sequence[str]] | None = None,
) -> int:
    """Draw the images that were taken for another class with the highest probability.

    Args:
        path: The PNG file.
        take: Returns the images (n, height, width, channels) uint8 at positions (n,).
        labels: (images,), integers.
        logits: (images, classes).
        class_names: One a class.
        title: Of what; the second line of the heading.
        files_at: Returns the files of the images at positions (n,), or nothing where they have none.

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
        path,
        take,
        chosen,
        _with_files(captions, chosen, files_at),
        f"{words or f'No mistake among {len(labels):,} images'}\n{title}",
    )
    return len(chosen)


def draw_doubts(
    path: Path,
    take: Callable[[np.ndarray], np.ndarray],
    labels: np.ndarray,
    logits: np.ndarray,
    class_names: Sequence[str],
    title: str,
    files_at: Callable[[np.ndarray], Sequence[str]] | None = None,
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
        path,
        take,
        chosen,
        _with_files(captions, chosen, files_at),
        f"{words or f'No right answer in {len(labels):,} images'}\n{title}",
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


def _with_files(
    captions: list[str], chosen: np.ndarray, files_at: Callable[[np.ndarray], Sequence[str]] | None
) -> list[str]:
    """Return captions that begin with the name of the image's file, where there is one."""
    files = files_at(chosen) if files_at else []
    return (
        [
            f"{printable(PurePath(file).name)}\n{caption}"
            for file, caption in zip(files, captions, strict=True)
        ]
        if files
        else captions
    )


def _draw_chosen(
    path: Path,
    take: Callable[[np.ndarray], np.ndarray],
    chosen: np.ndarray,
    captions: Sequence[str],
    title: str,
) -> None:
    images = list(take(chosen)) if len(chosen) else []
    draw_grid(path, images, captions, title)
