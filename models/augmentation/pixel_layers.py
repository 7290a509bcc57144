"""Layers that change training images at random by moving whole pixels: crop and flip.

Every layer draws anew for each image, keeps the shape, does nothing unless `training=True`, and can be
compiled by XLA. Keras' own crop, rotation and translation layers cannot: one of them in a model switches
compilation off for all of it.
"""

import inspect
from typing import Annotated, Any, Literal, Self

import keras
from keras import ops, random

from models.augmentation import augmentation
from models.limits import Limits, check_arguments

Mode = Literal["horizontal", "vertical", "horizontal_and_vertical"]
Border = Literal["constant", "mirror"]


class PerImage(keras.layers.Layer):
    """Base of our augmentation layers: they act in training only, and draw from a seed of their own.

    Derive, keep each argument of `__init__` as an attribute of its name, and write `_augment(images)`. The
    types of the arguments are their limits. Inputs are not cast to the layer's compute dtype: bfloat16 can
    hold neither coordinates nor interpolated pixels exactly.

    Args:
        seed: Start of the random draws; None for a different one each time.
    """

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        """Check the constructor's arguments against their annotations."""
        layer = super().__new__(cls, *args, **kwargs)
        check_arguments(cls, inspect.signature(cls.__init__).bind(layer, *args, **kwargs).arguments)
        return layer

    def __init__(self, seed: int | None = None, **kwargs: Any):
        super().__init__(autocast=False, **kwargs)
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed)

    def call(self, images, training=False):
        """Change `images` (batch, height, width, channels), float or uint8, if `training`."""
        return self._augment(images) if training else images

    def _augment(self, images):
        raise NotImplementedError

    def compute_output_shape(self, input_shape):
        """Return the shape unchanged."""
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        names = {*inspect.signature(type(self).__init__).parameters, "seed"} - {"self", "kwargs"}
        return {**super().get_config(), **{name: getattr(self, name) for name in sorted(names)}}


@augmentation
class RandomCrop(PerImage):
    """Surround each image with a border and cut its original size out of it at a random place.

    Args:
        padding_pixels: Width of the border on every side.
        fill: What the border holds: constant (black) or mirror (d c b | a b c d | c b a).
    """

    def __init__(
        self,
        padding_pixels: Annotated[int, Limits(minimum=0)] = 4,
        fill: Border = "constant",
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.padding_pixels = padding_pixels
        self.fill = fill

    def build(self, input_shape):
        """Check that a mirrored border is not wider than what it mirrors."""
        if self.fill == "mirror" and self.padding_pixels >= min(input_shape[1:3]):
            sides = f"{input_shape[1]}x{input_shape[2]}"
            rule = f"padding_pixels must be below the sides ({sides}) to mirror"
            raise ValueError(f"{rule}. Received: {self.padding_pixels!r}")
        super().build(input_shape)

    def _augment(self, images):
        batch, height, width, _ = ops.shape(images)
        border = (self.padding_pixels, self.padding_pixels)
        # "reflect" is NumPy's name, which Keras' fills use otherwise.
        mode = "reflect" if self.fill == "mirror" else "constant"
        padded = ops.pad(images, ((0, 0), border, border, (0, 0)), mode)
        corners = random.randint((2, batch, 1, 1), 0, 2 * self.padding_pixels + 1, seed=self.seed_generator)
        rows = corners[0] + ops.arange(height, dtype="int32")[:, None]  # (batch, height, 1)
        columns = corners[1] + ops.arange(width, dtype="int32")  # (batch, 1, width)
        return take_pixels(padded, rows, columns)


@augmentation
class RandomFlip(PerImage):
    """Mirror each image with probability one half, along each axis that `mode` names independently.

    Args:
        mode: horizontal (left and right change places), vertical or horizontal_and_vertical.
    """

    def __init__(self, mode: Mode = "horizontal", **kwargs: Any):
        super().__init__(**kwargs)
        self.mode = mode

    def _augment(self, images):
        for axis in [axis for axis, name in ((1, "vertical"), (2, "horizontal")) if name in self.mode]:
            coins = random.uniform((ops.shape(images)[0], 1, 1, 1), dtype="float32", seed=self.seed_generator)
            images = ops.where(coins < 0.5, ops.flip(images, axis=axis), images)
        return images


def take_pixels(images, rows, columns):
    """Return `images[i, rows[i], columns[i]]` for every image i; rows and columns are int32 and broadcast."""
    batch, height, width, channels = ops.shape(images)
    first = (ops.arange(batch, dtype="int32") * (height * width))[:, None, None]
    return ops.take(ops.reshape(images, (-1, channels)), first + rows * width + columns, axis=0)


def as_dtype(pixels, dtype):
    """Return float32 pixels as `dtype`, rounded where it is one of integers."""
    dtype = keras.backend.standardize_dtype(dtype)
    return ops.cast(ops.round(pixels) if "int" in dtype else pixels, dtype)
