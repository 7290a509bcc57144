"""Layers that turn and shift training images at random, in one interpolation."""

import math
from typing import Annotated, Any

from keras import ops, random

from models.augmentation import augmentation
from models.augmentation.warp import Fill, Interpolation, Warp
from models.limits import Limits, NotNegative

Degrees = Annotated[float, Limits(minimum=0, maximum=180)]


@augmentation
class RandomAffine(Warp):
    """Turn and shift each image by random amounts, in one interpolation.

    All draws are uniform and continuous. The image turns about its centre.

    Args:
        degrees: Largest angle, to either side.
        height_pixels: Largest vertical shift, up or down.
        width_pixels: Largest horizontal shift, left or right.
        interpolation: bilinear or nearest.
        fill: What lies outside the image: nearest (the border pixel goes on), constant (black) or
            reflect (d c b a | a b c d | d c b a).
    """

    def __init__(
        self,
        degrees: Degrees = 0.0,
        height_pixels: NotNegative = 0.0,
        width_pixels: NotNegative = 0.0,
        interpolation: Interpolation = "bilinear",
        fill: Fill = "nearest",
        **kwargs: Any,
    ):
        super().__init__(interpolation=interpolation, fill=fill, **kwargs)
        self.degrees = degrees
        self.height_pixels = height_pixels
        self.width_pixels = width_pixels

    def sources(self, shape, down, right):
        """Shift first, then turn about the centre. Not by a matrix, whose last bits would be others."""
        draws = random.uniform((3, shape[0], 1, 1), -1.0, 1.0, dtype="float32", seed=self.seed_generator)
        angle = draws[0] * math.radians(self.degrees)
        down = down + draws[1] * self.height_pixels
        right = right + draws[2] * self.width_pixels
        turned = ops.cos(angle) * down + ops.sin(angle) * right
        return turned, ops.cos(angle) * right - ops.sin(angle) * down


@augmentation
class RandomRotation(RandomAffine):
    """Turn each image about its centre by a random angle; arguments as in `RandomAffine`."""

    def __init__(
        self,
        degrees: Degrees,
        interpolation: Interpolation = "bilinear",
        fill: Fill = "nearest",
        **kwargs: Any,
    ):
        super().__init__(degrees=degrees, interpolation=interpolation, fill=fill, **kwargs)


@augmentation
class RandomTranslation(RandomAffine):
    """Shift each image by random amounts; arguments as in `RandomAffine`."""

    def __init__(
        self,
        height_pixels: NotNegative,
        width_pixels: NotNegative,
        interpolation: Interpolation = "bilinear",
        fill: Fill = "nearest",
        **kwargs: Any,
    ):
        shifts = {"height_pixels": height_pixels, "width_pixels": width_pixels}
        super().__init__(**shifts, interpolation=interpolation, fill=fill, **kwargs)
