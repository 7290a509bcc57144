"""Rectangles drawn at random within images."""

import math
from collections.abc import Sequence
from typing import Annotated

from keras import ops, random

from models.limits import Range

ATTEMPTS = 10
Area = Annotated[Sequence[float], Range(exclusiveMinimum=0, maximum=1)]
Aspect = Annotated[Sequence[float], Range(exclusiveMinimum=0)]


def random_boxes(shape, area: Sequence[float], aspect: Sequence[float], seed):
    """Draw a rectangle for each image; its sides and its place are no whole numbers of pixels.

    Area and aspect are drawn anew, ten times at most, until the rectangle fits into the image. Where none
    does, the first is cut to the image's sides.

    Args:
        shape: Of the images.
        area: Limits of its fraction of the image's area, uniform.
        aspect: Limits of its width in parts of its height, both in pixels, log-uniform.
        seed: A `SeedGenerator`.

    Returns:
        Height, width, and the place of its middle down and right from the image's centre: (batch,) float32.
    """
    batch, height, width = shape[:3]
    draws = random.uniform((2, ATTEMPTS, batch), dtype="float32", seed=seed)
    areas = (area[0] + (area[1] - area[0]) * draws[0]) * (height * width)
    low, high = math.log(aspect[0]), math.log(aspect[1])
    roots = ops.exp((low + (high - low) * draws[1]) / 2.0)
    heights, widths = ops.sqrt(areas) / roots, ops.sqrt(areas) * roots
    fits = ops.logical_and(heights <= height, widths <= width)
    first = ops.one_hot(ops.argmax(ops.cast(fits, "int32"), axis=0), ATTEMPTS, axis=0, dtype="float32")
    tall = ops.minimum(ops.sum(first * heights, axis=0), height)
    wide = ops.minimum(ops.sum(first * widths, axis=0), width)
    middle = random.uniform((2, batch), -0.5, 0.5, dtype="float32", seed=seed)
    return tall, wide, middle[0] * (height - tall), middle[1] * (width - wide)
