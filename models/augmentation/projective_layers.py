"""Layers that crop and resize, zoom, shear and tilt training images at random, in one interpolation."""

import math
from collections.abc import Sequence
from typing import Annotated, Any

from keras import ops, random

from models.augmentation import augmentation
from models.augmentation.boxes import Area, Aspect, random_boxes
from models.augmentation.warp import Fill, Interpolation, Warp, matrices
from models.limits import Limits, Range

Scale = Annotated[Sequence[float], Range(exclusiveMinimum=0)]
Shear = Annotated[float, Limits(minimum=0, exclusiveMaximum=90)]
# Beyond 2/3 the third corner may come to lie within the other three, and the image would fold.
Distortion = Annotated[float, Limits(minimum=0, maximum=0.6)]


@augmentation
class RandomResizedCrop(Warp):
    """Cut a rectangle of random area and aspect out of each image and resize it to the image's size.

    As torchvision's layer of this name, but that the rectangle begins and ends at fractions of a pixel, and
    that, where none of ten draws fits into the image, the first is cut to the image's sides.

    Args:
        area: Limits of the rectangle's fraction of the image's area, uniform.
        aspect: Limits of its width in parts of its height, both in pixels, log-uniform.
        interpolation: bilinear or nearest.
    """

    def __init__(
        self,
        area: Area = (0.08, 1.0),
        aspect: Aspect = (3 / 4, 4 / 3),
        interpolation: Interpolation = "bilinear",
        **kwargs: Any,
    ):
        super().__init__(interpolation=interpolation, **kwargs)
        self.area = tuple(area)
        self.aspect = tuple(aspect)

    def _matrix(self, batch, height, width):
        box = random_boxes((batch, height, width), self.area, self.aspect, self.seed_generator)
        tall, wide, down, right = box
        return matrices(batch, (tall / height, 0, down), (0, wide / width, right), (0, 0, 1))


@augmentation
class RandomZoom(Warp):
    """Magnify or shrink each image about its centre.

    Args:
        scale: Limits of the magnification, uniform; above 1 the image grows and its margins are cut off.
    """

    def __init__(
        self,
        scale: Scale = (0.8, 1.2),
        interpolation: Interpolation = "bilinear",
        fill: Fill = "nearest",
        **kwargs: Any,
    ):
        super().__init__(interpolation=interpolation, fill=fill, **kwargs)
        self.scale = tuple(scale)

    def _matrix(self, batch, height, width):
        step = 1.0 / random.uniform((batch,), *self.scale, dtype="float32", seed=self.seed_generator)
        return matrices(batch, (step, 0, 0), (0, step, 0), (0, 0, 1))


@augmentation
class RandomShear(Warp):
    """Shear each image about its centre, first along its rows, then along its columns.

    Args:
        horizontal_degrees: Largest angle by which columns lean, to either side; the angle is uniform.
        vertical_degrees: The same of rows.
    """

    def __init__(
        self,
        horizontal_degrees: Shear = 15.0,
        vertical_degrees: Shear = 0.0,
        interpolation: Interpolation = "bilinear",
        fill: Fill = "nearest",
        **kwargs: Any,
    ):
        super().__init__(interpolation=interpolation, fill=fill, **kwargs)
        self.horizontal_degrees = horizontal_degrees
        self.vertical_degrees = vertical_degrees

    def _matrix(self, batch, height, width):
        draws = random.uniform((2, batch), -1.0, 1.0, dtype="float32", seed=self.seed_generator)
        along_rows = ops.tan(draws[0] * math.radians(self.horizontal_degrees))
        along_columns = ops.tan(draws[1] * math.radians(self.vertical_degrees))
        # The columns' shear, the later one, leads from the result to the sheared rows.
        rows_last = 1.0 + along_rows * along_columns
        return matrices(batch, (1, along_columns, 0), (along_rows, rows_last, 0), (0, 0, 1))


@augmentation
class RandomPerspective(Warp):
    """Tilt each image: its four corners move towards its centre, each by draws of its own.

    Args:
        distortion: Largest way of a corner, in parts of half a side, along each axis; uniform.
    """

    def __init__(
        self,
        distortion: Distortion = 0.5,
        interpolation: Interpolation = "bilinear",
        fill: Fill = "nearest",
        **kwargs: Any,
    ):
        super().__init__(interpolation=interpolation, fill=fill, **kwargs)
        self.distortion = distortion

    def _matrix(self, batch, height, width):
        draws = random.uniform((2, 4, batch), dtype="float32", seed=self.seed_generator)
        inward = 1.0 - self.distortion * draws
        down = ops.stack([-inward[0, 0], -inward[0, 1], inward[0, 2], inward[0, 3]])
        right = ops.stack([-inward[1, 0], inward[1, 1], inward[1, 2], -inward[1, 3]])
        return to_rectangle(down * (height / 2), right * (width / 2), height, width)


def to_rectangle(down, right, height: int, width: int):
    """Return the projective maps from quadrilaterals to the image, (batch, 3, 3).

    Args:
        down: Of the corners from the image's centre, (4, batch), clockwise from the upper left one.
        right: The same.
        height: Of the image.
        width: Of the image.
    """
    # From the unit square to the quadrilateral: P. Heckbert, Fundamentals of Texture Mapping and Image
    # Warping (1989), section 2.2.3.
    down_excess = down[0] - down[1] + down[2] - down[3]
    right_excess = right[0] - right[1] + right[2] - right[3]
    area = (down[3] - down[2]) * (right[1] - right[2]) - (right[3] - right[2]) * (down[1] - down[2])
    g = (down[3] - down[2]) * right_excess - (right[3] - right[2]) * down_excess
    h = (right[1] - right[2]) * down_excess - (down[1] - down[2]) * right_excess
    g, h = g / area, h / area
    rows = (
        (down[3] - down[0] + h * down[3], down[1] - down[0] + g * down[1], down[0]),
        (right[3] - right[0] + h * right[3], right[1] - right[0] + g * right[1], right[0]),
        (h, g, ops.ones_like(g)),
    )
    # The inverse but for a factor, by which the depth is divided. Its rows are cross products of the columns.
    first, second, third = (ops.stack(column, axis=-1) for column in zip(*rows, strict=True))
    inverse = ops.stack([ops.cross(second, third), ops.cross(third, first), ops.cross(first, second)], axis=1)
    determinant = ops.sum(first * inverse[:, 0], axis=-1)[:, None]
    vertical, horizontal, depth = (inverse[:, row] / determinant for row in range(3))
    # From the unit square to the image, whose centre is its middle.
    down, right = height * (vertical - depth / 2), width * (horizontal - depth / 2)
    return ops.stack([down, right, depth], axis=1)
