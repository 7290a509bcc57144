"""What layers share that move pixels by a projective map: its composition and the interpolation.

Such a layer says where each pixel of its result comes from. Neighbours in a list of layers are composed into
one map, so that the image is interpolated once, however many they are.
"""

import functools
import itertools
from collections.abc import Sequence
from typing import Any, Literal

import keras
from keras import ops

from models.augmentation.pixel_layers import PerImage, as_dtype, take_pixels

Interpolation = Literal["bilinear", "nearest"]
Fill = Literal["nearest", "constant", "reflect"]


class Warp(PerImage):
    """Base of these layers.

    Derive and write `_matrix`. Places are counted in pixels down and right from the image's centre.

    Args:
        interpolation: bilinear or nearest.
        fill: What lies outside the image: nearest (the border pixel goes on), constant (black) or
            reflect (d c b a | a b c d | d c b a).
    """

    def __init__(
        self,
        interpolation: Interpolation = "bilinear",
        fill: Fill = "nearest",
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.interpolation = interpolation
        self.fill = fill

    def _augment(self, images):
        sources = functools.partial(self.sources, ops.shape(images))
        return warped(images, [sources], self.interpolation, self.fill)

    def sources(self, shape, down, right):
        """Return where the pixels of the result come from, both (batch, height, width) float32.

        Args:
            shape: Of the images.
            down: Places of the result, broadcast to (batch, height, width), float32.
            right: The same.
        """
        return projected(self._matrix(*shape[:3]), down, right)

    def _matrix(self, batch, height: int, width: int):
        """Draw a map from places of the result, (down, right, 1), to the image's: (batch, 3, 3)."""
        raise NotImplementedError


@keras.saving.register_keras_serializable("models")
class ComposedWarps(keras.layers.Layer):
    """Layers that follow each other and fill and interpolate alike, in one interpolation.

    So only what lies outside the stored image is filled: what one layer moves out of sight, and the next one
    back, is seen.

    Args:
        layers: In the order in which they are applied.
    """

    def __init__(self, layers: Sequence[Warp], **kwargs: Any):
        name = "_and_".join(layer.name for layer in layers)
        super().__init__(**{"name": name, "dtype": "float32", "autocast": False, **kwargs})
        self.layers = list(layers)

    def build(self, input_shape):
        """Build the layers, which are never called themselves."""
        for layer in self.layers:
            layer.build(input_shape)
        self.built = True

    def call(self, images, training=False):
        """Change `images` (batch, height, width, channels), float or uint8, if `training`."""
        if not training:
            return images
        first = self.layers[0]
        maps = [functools.partial(layer.sources, ops.shape(images)) for layer in self.layers]
        return warped(images, maps, first.interpolation, first.fill)

    def compute_output_shape(self, input_shape):
        """Return the shape unchanged."""
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments, the layers serialised."""
        serialized = [keras.saving.serialize_keras_object(layer) for layer in self.layers]
        return {**super().get_config(), "layers": serialized}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "ComposedWarps":
        """Make the layer that `get_config` described."""
        layers = [keras.saving.deserialize_keras_object(layer) for layer in config["layers"]]
        return cls(**{**config, "layers": layers})


def composed(layers: Sequence[keras.layers.Layer]) -> list[keras.layers.Layer]:
    """Return the layers with each run of `Warp` that fill and interpolate alike made one layer."""
    result: list[keras.layers.Layer] = []
    for kind, run in itertools.groupby(layers, _kind):
        members = list(run)
        result += [ComposedWarps(members)] if kind and len(members) > 1 else members
    return result


def _kind(layer: keras.layers.Layer) -> tuple[str, str] | None:
    return (layer.interpolation, layer.fill) if isinstance(layer, Warp) else None


def warped(images, maps, interpolation: str, fill: str):
    """Return images whose pixels come from elsewhere, interpolated once.

    Args:
        images: (batch, height, width, channels).
        maps: Functions from places of what they give, down and right from the centre, to those of what they
            are given, in the order in which they are applied.
        interpolation: See `Warp`.
        fill: See `Warp`.
    """
    _, height, width, _ = ops.shape(images)
    centre_row, centre_column = (height - 1) / 2, (width - 1) / 2
    down = ops.arange(height, dtype="float32")[:, None] - centre_row
    right = ops.arange(width, dtype="float32") - centre_column
    for sources in reversed(maps):  # the last one leads from the result to what it was given
        down, right = sources(down, right)
    return _sample(images, down + centre_row, right + centre_column, interpolation, fill)


def matrices(batch, *rows):
    """Return 3x3 matrices, (batch, 3, 3) float32, from rows of numbers and of tensors (batch,)."""
    numbers = [ops.broadcast_to(ops.cast(number, "float32"), (batch,)) for row in rows for number in row]
    return ops.reshape(ops.stack(numbers, axis=-1), (-1, 3, 3))


def projected(matrix, down, right):
    """Map places by projective maps, (batch, 3, 3), with a positive depth wherever the image is seen."""
    vertical, horizontal, depth = (
        matrix[:, row, 0, None, None] * down
        + matrix[:, row, 1, None, None] * right
        + matrix[:, row, 2, None, None]
        for row in range(3)
    )
    # Places on the horizon and beyond it, which no part of the image reaches, come from far outside.
    depth = ops.maximum(depth, 1e-3)
    return vertical / depth, horizontal / depth


def _sample(images, rows, columns, interpolation: str, fill: str):
    """Read `images` at float32 places (batch, height, width); returns the images' dtype."""
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
        return ops.cast(result, images.dtype)
    top, left = ops.cast(rows, "int32"), ops.cast(columns, "int32")
    bottom, right = ops.minimum(top + 1, height - 1), ops.minimum(left + 1, width - 1)
    below = (rows - ops.cast(top, "float32"))[..., None]
    beyond = (columns - ops.cast(left, "float32"))[..., None]
    upper = _between(take_pixels(pixels, top, left), take_pixels(pixels, top, right), beyond)
    lower = _between(take_pixels(pixels, bottom, left), take_pixels(pixels, bottom, right), beyond)
    return as_dtype(_between(upper, lower, below), images.dtype)


def _between(start, end, fraction):
    return start + fraction * (end - start)


def _reflect(places, size: int):
    """Fold places outside [-0.5, size - 0.5] back into the image, the border pixel counted twice."""
    return size - ops.abs(ops.mod(places + 0.5, 2.0 * size) - size) - 0.5
