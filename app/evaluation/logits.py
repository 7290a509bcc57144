"""Logits of a split."""

from collections.abc import Sequence

import keras
import numpy as np

from app.data.dataset import Split
from app.data.pipeline import evaluation_batches
from app.data.views import VIEWS, View
from models.layers import quick_inference


def split_logits(
    classifier: keras.Model,
    split: Split,
    batch_size: int,
    views: Sequence[View] = VIEWS["none"],
    plain: np.ndarray | None = None,
) -> np.ndarray:
    """Return float32 logits (images, classes) in the order of the split, averaged over `views`.

    `plain` are those of the images as they are, where they are known already.
    """

    def logits(view: View) -> np.ndarray:
        if plain is not None and not view.flip and not view.shift_pixels:
            return plain
        return classifier.predict(evaluation_batches(split, batch_size, view), verbose=0)

    with quick_inference():
        return np.sum([np.float32(view.weight) * logits(view) for view in views], axis=0)
