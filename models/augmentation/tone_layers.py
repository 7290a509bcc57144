"""Layers that blur, sharpen, posterize and solarize training images at random.

As in color_layers.py they have the names and arguments of Keras' layers and do what Keras' documentation
says. Keras 3.15 does not: it pads images with black to sharpen or blur them, which leaves a frame; it never
draws the upper limit of posterization; and it draws thresholds and additions of solarization from 0 up,
whatever the lower limit.
"""

from typing import Any

from keras import ops, random

from models.augmentation import augmentation
from models.augmentation.color_layers import Factor, Recolour, RecolourByFactor, limits, require


@augmentation
class RandomSharpness(RecolourByFactor):
    """Blur or sharpen; the factor goes from 0 (blurred) over 0.5 (as it is) to 1 (sharpened).

    An image moves away from its mean over 3x3 pixels, in which the middle one counts five times. The
    outermost pixels, which lack neighbours, stay as they are.
    """

    def _recolour(self, pixels):
        if min(pixels.shape[1:3]) < 3:
            return pixels
        return pixels + (1.0 - 2.0 * self._draw(pixels, self.factor)) * blurring(pixels)


@augmentation
class RandomPosterization(RecolourByFactor):
    """Keep the upper bits of each pixel's eight.

    Args:
        factor: Their number, from 1 to 8, or the limits of its draw.
    """

    def _limits(self, factor: Any) -> tuple[float, float]:
        pair = limits("factor", [factor, factor] if isinstance(factor, int | float) else factor, 1, 8)
        require(all(number == int(number) for number in pair), "factor must be whole numbers of bits", factor)
        return pair

    def _recolour(self, pixels):
        few, many = map(int, self.factor)
        shape = (ops.shape(pixels)[0], 1, 1, 1)
        bits = random.randint(shape, few, many + 1, dtype="int32", seed=self.seed_generator)
        step = 2.0 ** (8.0 - ops.cast(bits, "float32"))
        # 0.001 makes up for pixels that scaling has left a little below a whole number.
        return ops.floor((pixels * 255.0 + 0.001) / step) * step / 255.0


@augmentation
class Solarization(Recolour):
    """Add to all pixels, then turn those into their negative that are not below a threshold.

    Args:
        addition_factor: From 0 to 1 (the whole range): the limits of the draw, or the upper one.
        threshold_factor: From 0 to 1 (the largest value): the limits of the draw, or the upper one. By
            Keras' default, 0, every training image would be turned, and none in evaluation.
    """

    def __init__(
        self,
        addition_factor: Factor = 0.0,
        threshold_factor: Factor = 1.0,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.addition_factor = limits("addition_factor", addition_factor, 0, 1)
        self.threshold_factor = limits("threshold_factor", threshold_factor, 0, 1)

    def _recolour(self, pixels):
        pixels = ops.minimum(pixels + self._draw(pixels, self.addition_factor), 1.0)
        return ops.where(pixels < self._draw(pixels, self.threshold_factor), pixels, 1.0 - pixels)


def blurring(pixels):
    """Return the distance from pixels to their mean over 3x3, in which the middle one counts five times.

    The outermost pixels, which lack neighbours, stay as they are. Images have at least 3x3 pixels.
    """
    rows = pixels[:, :-2] + pixels[:, 1:-1] + pixels[:, 2:]
    inner = pixels[:, 1:-1, 1:-1]
    blurred = (rows[:, :, :-2] + rows[:, :, 1:-1] + rows[:, :, 2:] + 4.0 * inner) / 13.0
    return ops.pad(blurred - inner, ((0, 0), (1, 1), (1, 1), (0, 0)))
