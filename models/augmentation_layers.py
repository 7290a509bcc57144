"""Layers that change training images at random: crop, flip, rotation and translation.

Every layer draws anew for each image, keeps the shape, does nothing unless `training=True`, and can be
compiled by XLA. Keras' own crop, rotation and translation layers cannot: one of them in a model switches
compilation off for all of it.
"""

import math
from typing import Any, Literal, get_args

import keras
from keras import ops, random

register = keras.saving.register_keras_serializable("models")
Mode = Literal["horizontal", "vertical", "horizontal_and_vertical"]
Interpolation = Literal["bilinear", "nearest"]
Fill = Literal["nearest", "constant", "reflect"]
Border = Literal["constant", "mirror"]


class _PerImage(keras.layers.Layer):
    """What the layers share: the seed, and acting in training only.

    Inputs are not cast to the layer's compute dtype: bfloat16 can hold neither coordinates nor
    interpolated pixels exactly.
    """

    def __init__(self, seed: int | None = None, **kwargs: Any):
        super().__init__(autocast=False, **kwargs)
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed)

    def build(self, input_shape):
        self.built = True

    def call(self, images, training=False):
        """Change `images` (batch, height, width, channels), float or uint8, if `training`."""
        return self._augment(images) if training else images

    def _augment(self, images):
        raise NotImplementedError

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "seed": self.seed}


@register
class RandomCrop(_PerImage):
    """Surround each image with a border and cut its original size out of it at a random place.

    Args:
        padding_pixels: Width of the border on every side.
        fill: What the border holds: constant (black) or mirror (d c b | a b c d | c b a).
        seed: Start of the random draws; None for a different one each time.
        **kwargs: Arguments of `keras.layers.Layer`.
    """

    def __init__(
        self, padding_pixels: int = 4, fill: Border = "constant", seed: int | None = None, **kwargs: Any
    ):
        """Check and keep the arguments."""
        super().__init__(seed=seed, **kwargs)
        _require(padding_pixels >= 0, "padding_pixels must not be negative", padding_pixels)
        _require_one_of(Border, "fill", fill)
        self.padding_pixels = padding_pixels
        self.fill = fill

    def build(self, input_shape):
        """Check that a mirrored border is not wider than what it mirrors."""
        if self.fill == "mirror" and self.padding_pixels >= min(input_shape[1:3]):
            sides = f"{input_shape[1]}x{input_shape[2]}"
            _require(
                False, f"padding_pixels must be below the sides ({sides}) to mirror", self.padding_pixels
            )
        super().build(input_shape)

    def _augment(self, images):
        batch, height, width, _ = ops.shape(images)
        border = (self.padding_pixels, self.padding_pixels)
        mode = (
            "reflect" if self.fill == "mirror" else "constant"
        )  # NumPy's name, which Keras' fills use otherwise
        padded = ops.pad(images, ((0, 0), border, border, (0, 0)), mode)
        corners = random.randint((2, batch, 1, 1), 0, 2 * self.padding_pixels + 1, seed=self.seed_generator)
        rows = corners[0] + ops.arange(height, dtype="int32")[:, None]  # (batch, height, 1)
        columns = corners[1] + ops.arange(width, dtype="int32")  # (batch, 1, width)
        return _pixels(padded, rows, columns)

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return {**super().get_config(), "padding_pixels": self.padding_pixels, "fill": self.fill}


@register
class RandomFlip(_PerImage):
    """Mirror each image with probability one half, along each axis that `mode` names independently.

    Args:
        mode: horizontal (left and right change places), vertical or horizontal_and_vertical.
        seed: Start of the random draws; None for a different one each time.
        **kwargs: Arguments of `keras.layers.Layer`.
    """

    def __init__(self, mode: Mode = "horizontal", seed: int | None = None, **kwargs: Any):
        """Check and keep the arguments."""
        super().__init__(seed=seed, **kwargs)
        _require_one_of(Mode, "mode", mode)
        self.mode = mode

    def _augment(self, images):
        for axis in [axis for axis, name in ((1, "vertical"), (2, "horizontal")) if name in self.mode]:
            coins = random.uniform((ops.shape(images)[0], 1, 1, 1), dtype="float32", seed=self.seed_generator)
            images = ops.where(coins < 0.5, ops.flip(images, axis=axis), images)
        return images

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return {**super().get_config(), "mode": self.mode}


@register
class RandomAffine(_PerImage):
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
        degrees: float = 0.0,
        height_pixels: float = 0.0,
        width_pixels: float = 0.0,
        interpolation: Interpolation = "bilinear",
        fill: Fill = "nearest",
        seed: int | None = None,
        **kwargs: Any,
    ):
        """Check and keep the arguments."""
        super().__init__(seed=seed, **kwargs)
        _require(0 <= degrees <= 180, "degrees must lie between 0 and 180", degrees)
        _require(height_pixels >= 0, "height_pixels must not be negative", height_pixels)
        _require(width_pixels >= 0, "width_pixels must not be negative", width_pixels)
        _require_one_of(Interpolation, "interpolation", interpolation)
        _require_one_of(Fill, "fill", fill)
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

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        names = ("degrees", "height_pixels", "width_pixels", "interpolation", "fill")
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}


@register
class RandomRotation(RandomAffine):
    """Turn each image about its centre by a random angle; arguments as in `RandomAffine`."""

    def __init__(
        self,
        degrees: float,
        interpolation: Interpolation = "bilinear",
        fill: Fill = "nearest",
        seed: int | None = None,
        **kwargs: Any,
    ):
        """Check and keep the arguments."""
        super().__init__(degrees=degrees, interpolation=interpolation, fill=fill, seed=seed, **kwargs)

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return _without(super().get_config(), "height_pixels", "width_pixels")


@register
class RandomTranslation(RandomAffine):
    """Shift each image by random amounts; arguments as in `RandomAffine`."""

    def __init__(
        self,
        height_pixels: float,
        width_pixels: float,
        interpolation: Interpolation = "bilinear",
        fill: Fill = "nearest",
        seed: int | None = None,
        **kwargs: Any,
    ):
        """Check and keep the arguments."""
        shifts = {"height_pixels": height_pixels, "width_pixels": width_pixels}
        super().__init__(**shifts, interpolation=interpolation, fill=fill, seed=seed, **kwargs)

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return _without(super().get_config(), "degrees")


def _require(condition: bool, rule: str, received: Any) -> None:
    if not condition:
        raise ValueError(f"{rule}. Received: {received!r}")


def _require_one_of(choices: Any, name: str, received: Any) -> None:
    _require(received in get_args(choices), f"{name} must be one of {', '.join(get_args(choices))}", received)


def _without(config: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in config.items() if name not in names}


def _pixels(images, rows, columns):
    """Return `images[i, rows[i], columns[i]]` for every image i; rows and columns are int32 and broadcast."""
    batch, height, width, channels = ops.shape(images)
    first = (ops.arange(batch, dtype="int32") * (height * width))[:, None, None]
    return ops.take(ops.reshape(images, (-1, channels)), first + rows * width + columns, axis=0)


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
        result = _pixels(pixels, ops.cast(rows + 0.5, "int32"), ops.cast(columns + 0.5, "int32"))
        return ops.cast(result, dtype)
    top, left = ops.cast(rows, "int32"), ops.cast(columns, "int32")
    bottom, right = ops.minimum(top + 1, height - 1), ops.minimum(left + 1, width - 1)
    below = (rows - ops.cast(top, "float32"))[..., None]
    beyond = (columns - ops.cast(left, "float32"))[..., None]
    upper = _between(_pixels(pixels, top, left), _pixels(pixels, top, right), beyond)
    lower = _between(_pixels(pixels, bottom, left), _pixels(pixels, bottom, right), beyond)
    result = _between(upper, lower, below)
    return ops.cast(ops.round(result) if "int" in dtype else result, dtype)


def _between(start, end, share):
    return start + share * (end - start)


def _reflect(places, size: int):
    """Fold places outside [-0.5, size - 0.5] back into the image, the border pixel counted twice."""
    return size - ops.abs(ops.mod(places + 0.5, 2.0 * size) - size) - 0.5
