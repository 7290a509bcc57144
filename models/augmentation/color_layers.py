"""Layers that change the colours of training images at random, each image by draws of its own.

They have the names and arguments (but `value_range`) of Keras' layers and do what Keras' documentation says.
Keras 3.15 does not: it clips the saturation to 255 instead of 1, so that a strong draw changes the hue; draws
the factors of saturation, contrast and colour degeneration from other ranges than documented where one number
is given. See tone_layers.py for the others.
"""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops, random

from models.augmentation import augmentation
from models.augmentation.pixel_layers import PerImage, as_dtype

Factor = float | Sequence[float]
LUMINANCE = (0.299, 0.587, 0.114)  # of red, green and blue, ITU-R BT.601


class Recolour(PerImage):
    """Base of these layers: pixels in float32 that stay in their range, and draws for each image."""

    def __init__(self, **kwargs: Any):
        kwargs.pop("value_range", None)  # in models of earlier commits, where it is (0, 255)
        super().__init__(**kwargs)

    def _augment(self, images):
        pixels = self._recolour(ops.cast(images, "float32") / 255.0)
        return as_dtype(ops.clip(pixels, 0.0, 1.0) * 255.0, images.dtype)

    def _recolour(self, pixels):
        """Change `pixels` (batch, height, width, channels), float32 from 0 to 1; the result is clipped."""
        raise NotImplementedError

    def _draw(self, pixels, limits: tuple[float, float]):
        """Return a number for each image, (batch, 1, 1, 1)."""
        shape = (ops.shape(pixels)[0], 1, 1, 1)
        return random.uniform(shape, *limits, dtype="float32", seed=self.seed_generator)


class RecolourByFactor(Recolour):
    """Base of the layers with one factor.

    Args:
        factor: The limits of the draw, or the upper one alone.
    """

    def __init__(self, factor: Factor, **kwargs: Any):
        super().__init__(**kwargs)
        self.factor = self._limits(factor)

    def _limits(self, factor: Any) -> tuple[float, float]:
        return limits("factor", factor, 0, 1)


@augmentation
class RandomSaturation(RecolourByFactor):
    """Make colours paler or stronger; hue and brightness (H and V of HSV) stay.

    The factor goes from 0 (gray) over 0.5 (as it is) to 1 (as strong as the hue can be): the saturation is
    multiplied by factor / (1 - factor).
    """

    def _recolour(self, pixels):
        return saturated(pixels, self._draw(pixels, self.factor))


@augmentation
class RandomColorDegeneration(RecolourByFactor):
    """Make images grayer; the factor goes from 0 (as it is) to 1 (gray)."""

    def _recolour(self, pixels):
        if pixels.shape[-1] != 3:
            return pixels
        gray = ops.sum(pixels * ops.array(LUMINANCE, "float32"), axis=-1, keepdims=True)
        return pixels + (gray - pixels) * self._draw(pixels, self.factor)


@augmentation
class RandomContrast(RecolourByFactor):
    """Scale the distances from each channel's mean.

    The factor says how far the scale may fall below and rise above 1, each from 0 to 1; one number is both.
    """

    def _limits(self, factor: Any) -> tuple[float, float]:
        return around_one("factor", factor)

    def _recolour(self, pixels):
        return contrasted(pixels, self._draw(pixels, (1 - self.factor[0], 1 + self.factor[1])))


@augmentation
class RandomHue(keras.layers.RandomHue):
    """Keras' own, but that gray images stay as they are: they have no hue, which Keras' does not know."""

    def call(self, data, training=True):
        """Return images with another hue, in training."""
        return data if data.shape[-1] != 3 else super().call(data, training=training)


@augmentation
class RandomColorJitter(Recolour):
    """Change brightness, contrast, saturation and hue, in this order; None leaves one of them as it is.

    Args:
        brightness_factor: From -1 (black) to 1 (white), added: the limits of the draw, or one number for
            both sides of 0.
        contrast_factor: How far the contrast may fall below and rise above 1, each from 0 to 1, or one number
            for both. Distances from a channel's mean are multiplied by what is drawn.
        saturation_factor: See `RandomSaturation`.
        hue_factor: From 0 (as it is) to 1 (half a turn of the colour wheel), to either side: the limits of
            the draw, or the upper one.
    """

    def __init__(
        self,
        brightness_factor: Factor | None = None,
        contrast_factor: Factor | None = None,
        saturation_factor: Factor | None = None,
        hue_factor: Factor | None = None,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        if isinstance(brightness_factor, int | float):
            brightness_factor = (-brightness_factor, brightness_factor)
        self.brightness_factor = limits("brightness_factor", brightness_factor, -1, 1)
        self.contrast_factor = around_one("contrast_factor", contrast_factor)
        self.saturation_factor = limits("saturation_factor", saturation_factor, 0, 1)
        self.hue_factor = limits("hue_factor", hue_factor, 0, 1)

    def _recolour(self, pixels):
        if self.brightness_factor:
            pixels = ops.clip(pixels + self._draw(pixels, self.brightness_factor), 0.0, 1.0)
        if self.contrast_factor:
            below, above = self.contrast_factor
            pixels = ops.clip(contrasted(pixels, self._draw(pixels, (1 - below, 1 + above))), 0.0, 1.0)
        if self.saturation_factor:
            pixels = ops.clip(saturated(pixels, self._draw(pixels, self.saturation_factor)), 0.0, 1.0)
        if self.hue_factor and pixels.shape[-1] == 3:
            sign = ops.sign(self._draw(pixels, (-1.0, 1.0)))
            pixels = hue_turned(pixels, 0.5 * sign * self._draw(pixels, self.hue_factor))
        return pixels


def require(condition: bool, rule: str, received: Any) -> None:
    """Raise a ValueError that states the rule and what was received, unless the condition holds."""
    if not condition:
        raise ValueError(f"{rule}. Received: {received!r}")


def limits(name: str, factor: Any, least: float, most: float) -> Any:
    """Return a factor as the limits of its draw, the lower first; one number is the upper limit.

    Raises:
        ValueError: It is no number or pair of numbers from `least` to `most`.
    """
    if factor is None:
        return None
    pair = (least, factor) if isinstance(factor, int | float) else tuple(factor)
    numbers = len(pair) == 2 and all(isinstance(number, int | float) for number in pair)
    rule = f"{name} must be a number from {least} to {most}, or two of them"
    require(numbers and all(least <= number <= most for number in pair), rule, factor)
    return tuple(sorted(pair))


def around_one(name: str, factor: Any) -> Any:
    """Return how far a draw may lie below and above 1; one number is both.

    Raises:
        ValueError: It is no number or pair of numbers from 0 to 1.
    """
    if isinstance(factor, int | float):
        factor = (factor, factor)
    limits(name, factor, 0, 1)
    return factor and tuple(factor)


def saturated(pixels, strength):
    """Return pixels with another saturation, `strength` / (1 - `strength`) times theirs, at most 1.

    V of HSV is the largest channel and S the distance of the smallest from it, in parts of V. Scaling all
    distances from the largest channel changes S alone.
    """
    value = ops.max(pixels, axis=-1, keepdims=True)
    distance = value - ops.min(pixels, axis=-1, keepdims=True)
    scale = strength / ops.maximum(1.0 - strength, 1e-7)
    return value - (value - pixels) * ops.minimum(scale, value / ops.maximum(distance, 1e-7))


def contrasted(pixels, scale):
    """Return pixels with their distances from the mean of each channel of each image scaled."""
    mean = ops.mean(pixels, axis=(1, 2), keepdims=True)
    return mean + (pixels - mean) * scale


def hue_turned(pixels, turns):
    """Return pixels with their hue moved by parts of a turn; saturation and value stay."""
    hue, saturation, value = ops.split(ops.image.rgb_to_hsv(pixels, data_format="channels_last"), 3, axis=-1)
    hue = hue + turns
    turned = ops.concatenate([hue - ops.floor(hue), saturation, value], axis=-1)
    return ops.image.hsv_to_rgb(turned, data_format="channels_last")
