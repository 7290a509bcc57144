"""Layers that turn and shift training images at random, in one interpolation."""

import math
from typing import Annotated, Any, Literal

import keras
from keras import ops, random

from models.augmentation import augmentation
from models.augmentation.pixel_layers import PerImage, take_pixels
from models.limits import Limits, NotNegative

Degrees = Annotated[float, Limits(minimum=0, maximum=180)]
Interpolation = Literal["bilinear", "nearest"]
Fill = Literal["nearest", "constant", "reflect"]


@augmentation
class RandomAffine(PerImage):
    """Turn and shift each image by random amounts, in one interpolation.

    All draws are uniform and continuous. The image turns about its centre.

    Args:
        degrees: Largest angle, to either side.
        height_pixels: Largest vertical shift, up or down.
        width_pixels: Largest horizontal shift, left or right.
        interpolation: bilinear or nearest.
        fill: What lies outside the image: nearest (the border pixel goes on), constant (black) or
            reflect (d c b a | a b c d | d c b a).
        seed: Start of the random draws; None for a different one each time.
        **kwargs: Arguments of `keras.layers.Layer`.
    """

    def __init__(
        self,
        degrees: Degrees = 0.0,
        height_pixels: NotNegative = 0.0,
        width_pixels: NotNegative = 0.0,
        interpolation: Interpolation = "bilinear",
        fill: Fill = "nearest",
        seed: int | None = None,
        **kwargs: Any,
    ):
        super().__init__(seed=seed, **kwargs)
        self.degrees = degrees
        self.height_pixels = height_pixels
        self.width_pixels = width_pixels
        self.interpolation = interpolation
        self.fill = fill

    def _augment(self, images):
        batch, height, width, _ = ops.shape(images)
        draws = random.uniform((3, batch, 1, 1), -1.0, 1.0, dtype="float32", seed=self.seed_generator)
        angle = draws[0] * math.radians(self.degrees)
        centre_row, centre_column = (height - 1) / 2, (width - 1) / 2
        # Where each pixel of the result comes from: shifted first, then turned about the centre.
        down = ops.arange(height, dtype="float32")[:, None] - centre_row + draws[1] * self.height_pixels
        right = ops.arange(width, dtype="float32") - centre_column + draws[2] * self.width_pixels
        rows = ops.cos(angle) * down + ops.sin(angle) * right + centre_row  # (batch, height, width)
        columns = ops.cos(angle) * right - ops.sin(angle) * down + centre_column
        return _sample(images, rows, columns, self.interpolation, self.fill)


@augmentation
class RandomRotation(RandomAffine):
    """Turn each image about its centre by a random angle; arguments as in `RandomAffine`."""

    def __init__(
        self,
        degrees: Degrees,
        interpolation: Interpolation = "bilinear",
        fill: Fill = "nearest",
        seed: int | None = None,
        **kwargs: Any,
    ):
        super().__init__(degrees=degrees, interpolation=interpolation, fill=fill, seed=seed, **kwargs)


@augmentation
class RandomTranslation(RandomAffine):
    """Shift each image by random amounts; arguments as in `RandomAffine`."""

    def __init__(
        self,
        height_pixels: NotNegative,
        width_pixels: NotNegative,
        interpolation: Interpolation = "bilinear",
        fill: Fill = "nearest",
        seed: int | None = None,
        **kwargs: Any,
    ):
        shifts = {"height_pixels": height_pixels, "width_pixels": width_pixels}
        super().__init__(**shifts, interpolation=interpolation, fill=fill, seed=seed, **kwargs)


def _sample(images, rows, columns, interpolation: str, fill: str):
    """Read `images` at float32 places (batch, height, width); returns the images' dtype."""
    dtype = keras.backend.standardize_dtype(images.dtype)
    pixels = ops.cast(images, "float32")
    if fill == "constant":  # one black pixel all round, which then goes on like any border
        pixels = ops.pad(pixels, ((0, 0), (1, 1), (1, 1), (0, 0)))
        rows, columns = rows + 1.0, columns + 1.0
    _, height, width, _ = ops.shape(pixels)
    if fill == "reflect":
        rows, columns = _reflect(rows, height), _reflect(columns, width)
    rows, columns = ops.clip(rows, 0.0, height - 1.0), ops.clip(columns, 0.0, width - 1.0)
    if interpolation == "nearest":
        result = take_pixels(pixels, ops.cast(rows + 0.5, "int32"), ops.cast(columns + 0.5, "int32"))
        return ops.cast(result, dtype)
    top, left = ops.cast(rows, "int32"), ops.cast(columns, "int32")
    bottom, right = ops.minimum(top + 1, height - 1), ops.minimum(left + 1, width - 1)
    below = (rows - ops.cast(top, "float32"))[..., None]
    beyond = (columns - ops.cast(left, "float32"))[..., None]
    upper = _between(take_pixels(pixels, top, left), take_pixels(pixels, top, right), beyond)
    lower = _between(take_pixels(pixels, bottom, left), take_pixels(pixels, bottom, right), beyond)
    result = _between(upper, lower, below)
    return ops.cast(ops.round(result) if "int" in dtype else result, dtype)


def _between(start, end, fraction):
    return start + fraction * (end - start)


def _reflect(places, size: int):
    """Fold places outside [-0.5, size - 0.5] back into the image, the border pixel counted twice."""
    return size - ops.abs(ops.mod(places + 0.5, 2.0 * size) - size) - 0.5
