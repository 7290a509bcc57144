"""Sheets of the most confident wrong and of the least confident correct predictions, as PNG files."""

from collections.abc import Sequence
from pathlib import Path, PurePath

import numpy as np

from app.data.dataset import Split
from app.drawing.canvas import certainty_of, shortened_apart
from app.drawing.image_grid import CAPTION_POINTS, draw_grid
from app.evaluation.metrics import probabilities
from app.wording import printable

MOST_SHOWN = 24
NAME_INCHES = 0.85  # of a class in a caption, behind "predicted: "


def draw_predictions(
    path: Path,
    split: Split,
    logits: np.ndarray,
    class_names: Sequence[str],
    title: str,
    *,
    correct: bool,
    temperature: float = 1.0,
) -> None:
    """Draw the most confident wrong predictions, or the least confident correct ones; say if there are none.

    Captions begin with the names of files, where there are any.
    """
    labels, order = split.labels, np.argsort(-logits, axis=-1, kind="stable")
    predicted, second = order[:, 0], order[:, min(1, logits.shape[-1] - 1)]
    confidence = np.take_along_axis(probabilities(logits, temperature), order[:, :1], -1)[:, 0]
    candidates = np.flatnonzero((predicted == labels) == correct)
    ranked = candidates[np.argsort((1 if correct else -1) * confidence[candidates], kind="stable")]
    chosen = ranked[:MOST_SHOWN]
    named = (second if correct else predicted)[chosen]
    pairs = [(class_names[truth], class_names[at]) for truth, at in zip(labels[chosen], named, strict=True)]
    short = shortened_apart(class_names, NAME_INCHES, CAPTION_POINTS)  # of all: the same in every picture
    files = [f"{printable(PurePath(name).name)}\n" for name in split.files_at(chosen)] or [""] * len(chosen)
    captions = []
    for at, file, (truth, name) in zip(chosen, files, pairs, strict=True):
        certain, other = certainty_of(confidence[at]), short[name]
        answer = (
            f"predicted with {certain}\nnext: {other}" if correct else f"predicted: {other}\nwith {certain}"
        )
        captions.append(f"{file}truth: {short[truth]}\n{answer}")
    what, kind = ("correct", "least confident") if correct else ("wrong", "most confident")
    if len(ranked) == 0:
        words = f"No {what} prediction in {len(labels):,} images"
    elif len(ranked) == 1:
        words = f"The only {what} prediction"
    elif len(chosen) == len(ranked):
        words = f"The {len(ranked)} {what} predictions, the {kind} first"
    else:
        words = f"The {len(chosen)} {kind} of {len(ranked):,} {what} predictions"
    images = list(split.images_at(chosen)) if len(chosen) else []
    draw_grid(path, images, captions, f"{words}\n{title}")
