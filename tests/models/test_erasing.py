import numpy as np
import pytest

from models.augmentation.erasing_layers import RandomErasing
from tests.models.test_augmentation import apply

RNG = np.random.default_rng(0)
HEIGHT, WIDTH = 40, 60
IMAGES = RNG.integers(1, 256, (600, HEIGHT, WIDTH, 3)).astype("float32")


def erased(layer, images=IMAGES):
    """Which pixels of which images were changed."""
    changed = apply(layer, images) != images
    assert (changed == changed[..., :1]).all()  # all channels together
    return changed[..., 0]


def test_a_rectangle_of_the_area_and_the_aspect_that_were_asked_for_is_erased():
    pixels = erased(RandomErasing(0.6, (0.05, 0.3), (0.5, 2.0), fill="constant", seed=1))
    chosen = pixels.any(axis=(1, 2))
    assert abs(chosen.mean() - 0.6) < 0.08
    rows, columns = pixels[chosen].any(axis=2), pixels[chosen].any(axis=1)
    np.testing.assert_array_equal(pixels[chosen], rows[:, :, None] & columns[:, None])
    assert all(np.ptp(np.flatnonzero(side)) + 1 == side.sum() for side in (*rows, *columns))  # no gaps
    tall, wide = rows.sum(axis=1), columns.sum(axis=1)
    # A side is off by less than one pixel, because only whole pixels are erased.
    assert ((tall - 1) * (wide - 1) < 0.3 * HEIGHT * WIDTH).all()
    assert ((tall + 1) * (wide + 1) > 0.05 * HEIGHT * WIDTH).all()
    assert ((wide - 1) / (tall + 1) < 2.0).all() and ((wide + 1) / (tall - 1) > 0.5).all()
    area = tall * wide / (HEIGHT * WIDTH)
    assert area.min() < 0.08 and area.max() > 0.25 and abs(area.mean() - 0.175) < 0.02
    assert rows[:, 0].any() and rows[:, -1].any() and columns[:, 0].any() and columns[:, -1].any()


@pytest.mark.parametrize("fill", ["random", "mean", "constant"])
@pytest.mark.parametrize("dtype", ["float32", "uint8"])
def test_fills(fill, dtype):
    images = np.concatenate([IMAGES[:4] / 2, IMAGES[:4] / 2 + 127]).astype(dtype)
    result = apply(RandomErasing(1.0, (1.0, 1.0), (1.5, 1.5), fill=fill, seed=1), images).astype("float32")
    result = result[:, 1:-1, 1:-1]  # roundings may leave the outermost pixels
    if fill == "random":
        assert result.min() >= 0 and result.max() <= 255
        assert abs(result.mean() - 127.5) < 3 and abs(result.std() - 255 / 12**0.5) < 3
    else:
        mean = images.mean(axis=(1, 2), keepdims=True, dtype="float64") * (fill == "mean")
        assert np.abs(result - mean).max() < (0.51 if dtype == "uint8" else 0.01)


def test_probability_zero_erases_nothing():
    assert not erased(RandomErasing(0.0, seed=1)).any()
