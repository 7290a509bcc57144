"""Layers that mix the images of a batch in pairs, their labels with them: mixup and CutMix.

Sources: Zhang et al. 2018, arXiv:1710.09412, equation 1; Yun et al. 2019, arXiv:1905.04899, equations 1 and
2, and the box of the authors' code.

Differences from the sources: every image has a lambda and a box of its own, not the batch; and of the two
images of a pair, the one that has the larger part of the result is the row's own. Pairs are drawn at random,
either image as likely in either place, so mixed images have the same distribution, and the accuracy in
training, which compares with a row's own label, is about the heavier of the two.
"""

import math
from collections.abc import Sequence
from typing import Annotated, Any, NamedTuple

import keras
from keras import ops, random

from models.augmentation import augmentation
from models.augmentation.pixel_layers import PerImage, as_dtype
from models.limits import Limits, Positive

Probability = Annotated[float, Limits(exclusiveMinimum=0, maximum=1)]
TINY = 1e-30  # keeps 0 / 0 away


class Mix(NamedTuple):
    """What each image of a batch consists of.

    Attributes:
        partner: Row of the other image, (batch,) int32.
        weight: Of the image's own label, (batch,) float32 from 0.5 to 1; the partner's has the rest.
    """

    partner: Any
    weight: Any


class Mixing(PerImage):
    """Base of these layers.

    In an `ImageClassifier` they act together, after all other layers, see `augment`.

    Args:
        alpha: Both parameters of the Beta distribution of lambda; the smaller, the less is mixed.
        probability: Fraction of the images that the layer mixes.
    """

    def __init__(self, alpha: Positive = 1.0, probability: Probability = 1.0, **kwargs: Any):
        super().__init__(**kwargs)
        self.alpha = alpha
        self.probability = probability

    def _augment(self, images):
        return mix([self], images)[0]

    def draw(self, batch, height: int, width: int):
        """Draw how much of every pixel is the image's own.

        Returns:
            That, (batch, 1 or height, 1 or width, 1) float32 from 0 to 1, and its mean, (batch,).
        """
        raise NotImplementedError

    def _uniform(self, *shape):
        return random.uniform(shape, dtype="float32", seed=self.seed_generator)

    def _lambda(self, batch):
        """Draw from Beta(alpha, alpha), (batch,).

        `keras.random.beta` cannot be compiled by XLA on TensorFlow. If T has Student's distribution with
        n = 2 alpha degrees of freedom, (1 + T / sqrt(n + T^2)) / 2 is such a draw. Two uniform ones give T =
        sqrt(n (U^(-2 / n) - 1)) cos(2 pi V) (Bailey 1994, doi:10.2307/2153537); sqrt(n) cancels out.
        """
        draws = self._uniform(2, batch)
        power, cosine = draws[0] ** (1.0 / self.alpha), ops.cos(2.0 * math.pi * draws[1])
        length = ops.sqrt(ops.maximum(power + (1.0 - power) * cosine * cosine, TINY))
        return 0.5 + 0.5 * ops.clip(ops.sqrt(1.0 - power) * cosine / length, -1.0, 1.0)


@augmentation
class Mixup(Mixing):
    """Mix all pixels of two images, lambda of one with 1 - lambda of the other; arguments as in `Mixing`."""

    def draw(self, batch, height: int, width: int):
        """Draw lambda, which holds for all pixels."""
        own = self._lambda(batch)
        return own[:, None, None, None], own


@augmentation
class Cutmix(Mixing):
    """Put a box of one image into the other, of area 1 - lambda before it is cut off at the border.

    The weight is the fraction of the pixels. Arguments as in `Mixing`.
    """

    def draw(self, batch, height: int, width: int):
        """Draw the box, which is centred anywhere in the image."""
        side = ops.sqrt(1.0 - self._lambda(batch))
        centres = self._uniform(2, batch)
        rows, num_rows = _stretch(centres[0], side, height)
        columns, num_columns = _stretch(centres[1], side, width)
        own = 1.0 - rows[:, :, None, None] * columns[:, None, :, None]
        return own, 1.0 - num_rows * num_columns / (height * width)


def _stretch(centre, side, size: int):
    """Return which of `size` places a stretch takes, (batch, size) of 0 and 1, and how many.

    Args:
        centre: (batch,), from 0 to 1.
        side: Its length before it is cut off at the ends, (batch,), likewise.
        size: Places.
    """
    middle, half = ops.floor(centre * size), ops.floor(side * size / 2.0)
    start, end = ops.maximum(middle - half, 0.0), ops.minimum(middle + half, float(size))
    places = ops.arange(size, dtype="float32")
    inside = (places >= start[:, None]) & (places < end[:, None])
    return ops.cast(inside, "float32"), end - start


def augment(layers: Sequence[keras.layers.Layer], images):
    """Apply augmentation layers as in training: those that mix last, on what the others have made.

    Args:
        layers: Layers from images to images.
        images: (batch, height, width, channels) in [0, 255].

    Returns:
        The images, and a `Mix`, None where no layer mixes.
    """
    mixing = []
    for layer in layers:
        # Of symbolic images there are shapes alone, and every layer gets one.
        if isinstance(layer, Mixing) and not isinstance(images, keras.KerasTensor):
            mixing.append(layer)
        else:
            images = layer(images, training=True)
    images = ops.clip(images, 0.0, 255.0)  # saved models may hold layers of Keras that leave this range
    return mix(mixing, images) if mixing else (images, None)


def mix(layers: Sequence[Mixing], images):
    """Mix each image of a batch with one that is drawn; return the images and the `Mix`."""
    batch = ops.shape(images)[0]
    partner = random.shuffle(ops.arange(batch, dtype="int32"), seed=layers[0].seed_generator)
    mixed, weight = blend(layers, images, ops.take(images, partner, axis=0))
    return mixed, Mix(partner, weight)


def blend(layers: Sequence[Mixing], images, others):
    """Mix images (batch, height, width, channels) with `others`, row by row.

    Args:
        layers: Each mixes a fraction of the rows, its probability; no row is mixed twice.
        images: Float or uint8.
        others: Likewise.

    Returns:
        The mixed images, and for each row the weight of the image itself, at least 0.5: where the draw gives
        the other more, they change places.
    """
    batch, height, width, _ = ops.shape(images)
    coins = random.uniform((batch,), dtype="float32", seed=layers[0].seed_generator)
    own, weight = ops.ones((batch, 1, 1, 1)), ops.ones((batch,))
    for layer in layers:
        chosen = (coins >= 0.0) & (coins < layer.probability)
        drawn, mean = layer.draw(batch, height, width)
        own = ops.where(chosen[:, None, None, None], drawn, own)
        weight = ops.where(chosen, mean, weight)
        coins = coins - layer.probability
    lighter = weight < 0.5
    own = ops.where(lighter[:, None, None, None], 1.0 - own, own)
    weight = ops.where(lighter, 1.0 - weight, weight)
    mixed = own * ops.cast(images, "float32") + (1.0 - own) * ops.cast(others, "float32")
    return as_dtype(mixed, images.dtype), weight
