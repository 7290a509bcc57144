"""Logits of a split."""

from collections.abc import Sequence

import keras
import numpy as np

from app.data.dataset import Split
from app.data.pipeline import evaluation_batches
from app.data.splits import subset
from app.data.views import VIEWS, View
from app.evaluation.metrics import probabilities
from models.layers import quick_inference


def split_logits(
    classifier: keras.Model,
    split: Split,
    batch_size: int,
    views: Sequence[View] = VIEWS["none"],
    plain: np.ndarray | None = None,
    below: float | None = None,
) -> np.ndarray:
    """Return float32 logits (images, classes) in the order of the split, averaged over `views`.

    Args:
        classifier: Takes raw images.
        split: The images.
        batch_size: Images in a batch.
        views: How the images are seen; the first time as they are.
        plain: The logits of the images as they are, where they are known already.
        below: Average the views only of images that are `unsure`; the others keep their plain logits. After
            Hiverge 2025, github.com/hiverge/cifar10-speedrun, which takes a fixed fraction of the images.
    """
    if below is not None:
        if plain is None:
            plain = split_logits(classifier, split, batch_size)
        chosen, logits = unsure(plain, below), plain.copy()
        if chosen.any():
            part = subset(split, chosen)
            logits[chosen] = split_logits(classifier, part, batch_size, views, plain[chosen])
        return logits

    def logits_of(view: View) -> np.ndarray:
        if plain is not None and not view.flip and not view.shift_pixels:
            return plain
        return classifier.predict(evaluation_batches(split, batch_size, view), verbose=0)

    with quick_inference():
        return np.sum([np.float32(view.weight) * logits_of(view) for view in views], axis=0)


def unsure(logits: np.ndarray, below: float) -> np.ndarray:
    """Return for which images the largest softmax probability is below a limit, (images,) bool."""
    return probabilities(logits).max(axis=-1) < below


def passes_saved(plain: np.ndarray, views: Sequence[View], below: float) -> int:
    """Return how many passes of an image through the network `below` spares, of `images * views` in all."""
    return int(np.count_nonzero(~unsure(plain, below))) * (len(views) - 1)
