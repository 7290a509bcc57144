"""Test-time views of all images, and only of those that a network is unsure of."""

import numpy as np
import pytest

from app.data.dataset import Split
from app.data.views import VIEWS
from app.evaluation.logits import passes_saved, split_logits

IMAGES = np.random.RandomState(0).randint(0, 256, (60, 4, 4, 3)).astype(np.uint8)
SPLIT = Split(IMAGES, np.zeros(60, np.int32), np.arange(59, -1, -1))


class Columns:
    """A classifier whose logits are the means of three columns, so that a mirrored image has others."""

    def __init__(self):
        self.images = 0

    def predict(self, batches, verbose):
        pixels = np.concatenate([np.asarray(images) for images, _ in batches])
        self.images += len(pixels)
        return logits_of(pixels)


def logits_of(pixels):
    return (pixels.astype("float32") / 64).mean(axis=(1, 3))[:, :3]


@pytest.mark.parametrize("kind", ["flip", "flip_and_shift"])
@pytest.mark.parametrize("known", [True, False])
def test_views_of_unsure_images_only(kind, known):
    views, pixels = VIEWS[kind], IMAGES[::-1]
    plain = logits_of(pixels)
    averages = sum(view.weight * logits_of(view.of(pixels)) for view in views)
    powers = np.exp(plain.astype("float64"))
    confidence = (powers / powers.sum(1, keepdims=True)).max(1)
    limit = float(np.median(confidence))
    classifier = Columns()
    logits = split_logits(classifier, SPLIT, 7, views, plain if known else None, limit)
    expected = np.where((confidence < limit)[:, None], averages, plain)
    assert logits.dtype == np.float32
    np.testing.assert_allclose(logits, expected, rtol=1e-5)
    assert (averages != plain).any(axis=1).all()

    saved = passes_saved(plain, views, limit)
    assert saved == 30 * (len(views) - 1)
    assert classifier.images == 60 * len(views) - saved - 60 * known


def test_limits_that_take_all_images_or_none():
    views, plain = VIEWS["flip"], logits_of(IMAGES[::-1])
    classifier = Columns()
    np.testing.assert_array_equal(split_logits(classifier, SPLIT, 7, views, plain, 1e-6), plain)
    assert classifier.images == 0 and passes_saved(plain, views, 1e-6) == 60
    everywhere = split_logits(classifier, SPLIT, 7, views, plain, 1.0)
    np.testing.assert_array_equal(everywhere, split_logits(classifier, SPLIT, 7, views, plain))
    assert passes_saved(plain, views, 1.0) == 0
