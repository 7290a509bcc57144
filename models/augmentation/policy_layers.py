"""Layers that change each training image by operations drawn from a list.

RandAugment: E. D. Cubuk, B. Zoph, J. Shlens, Q. V. Le (2019), arXiv:1909.13719.
TrivialAugment: S. G. Müller, F. Hutter (2021), arXiv:2103.10158, table 5, the wide search space.

The strength of an operation goes from its first to its second value in 30 equal steps, magnitude 0 to 30, as
in torchvision; where there is a ±, the sign is a coin's. The code of RandAugment's authors, and so timm's,
has 10 steps: their magnitude 9 is 27 here.

| operation | rand_augment | trivial_augment |
|---|---|---|
| identity, auto_contrast, equalize | | |
| shear_x, shear_y: shift in parts of the distance from the upper left corner | ±0 to 0.3 | ±0 to 0.99 |
| translate_x, translate_y: shift | ±0 to 150/331 of the side | ±0 to 32 pixels |
| rotate | ±0 to 30 degrees | ±0 to 135 degrees |
| brightness, color, contrast, sharpness: factor | 1 ± 0 to 0.9 | 1 ± 0 to 0.99 |
| posterize: bits that stay, rounded | 8 to 4 | 8 to 2 |
| solarize: level from which on pixels are turned into their negative | 255 to 0 | 255 to 0 |

Differences from the sources: the colours are changed first, in the order of the draws, and then all geometric
operations are composed into one interpolation. So no operation sees the filled border, and images are
interpolated once. Levels are not rounded, but for images of whole numbers at the end. RandAugment's
authors fill the border with gray 128.
"""

import functools
from typing import Annotated, Any

from keras import ops, random

from models.augmentation import augmentation
from models.augmentation.operations import OPERATIONS, SIGNED, geometric_matrix, recoloured
from models.augmentation.pixel_layers import PerImage, as_dtype
from models.augmentation.warp import Fill, Interpolation, projected, warped
from models.limits import Limits

STEPS = 30  # from the first strength of an operation to its last


class Policy(PerImage):
    """Base of these layers.

    Args:
        interpolation: bilinear or nearest.
        fill: What lies outside the image, see `Warp`.
    """

    def __init__(
        self,
        interpolation: Interpolation = "nearest",
        fill: Fill = "constant",
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.interpolation = interpolation
        self.fill = fill

    def ranges(self, height: int, width: int) -> dict[str, tuple[float, float]]:
        """Return the strengths of the operations at the magnitudes 0 and 30, for images of a size."""
        raise NotImplementedError

    def _draws(self, count: int, batch):
        """Return operations, as indices into `OPERATIONS`, and signs, both (count, batch)."""
        signs = random.uniform((count, batch), -1.0, 1.0, dtype="float32", seed=self.seed_generator)
        shape, kinds = (count, batch), len(OPERATIONS)
        return random.randint(shape, 0, kinds, dtype="int32", seed=self.seed_generator), ops.sign(signs)

    def changed(self, images, operations, magnitudes, signs):
        """Apply given operations to `images`.

        Args:
            images: (batch, height, width, channels).
            operations: Indices into `OPERATIONS`, (count, batch) int32; they are applied in this order.
            magnitudes: From 0 to 30, broadcast to (count, batch) float32.
            signs: 1 or -1, (count, batch) float32.
        """
        _, height, width, _ = ops.shape(images)
        ranges = self.ranges(height, width)
        limits = zip(*(ranges.get(name, (0.0, 0.0)) for name in OPERATIONS), strict=True)
        first, last = (ops.take(ops.array(ends, "float32"), operations) for ends in limits)
        is_signed = ops.take(ops.array([name in SIGNED for name in OPERATIONS]), operations)
        strengths = (first + (last - first) * magnitudes / STEPS) * ops.where(is_signed, signs, 1.0)
        pixels, maps = ops.cast(images, "float32"), []
        for index in range(operations.shape[0]):
            pixels = recoloured(pixels, operations[index], strengths[index])
            matrix = geometric_matrix(operations[index], strengths[index], height, width)
            maps.append(functools.partial(projected, matrix))
        return as_dtype(warped(pixels, maps, self.interpolation, self.fill), images.dtype)


@augmentation
class RandAugment(Policy):
    """Apply operations of a list to each image, all with the same magnitude.

    Args:
        num_ops: How many, drawn with replacement.
        magnitude: From 0 to 30.
        interpolation: bilinear or nearest.
        fill: What lies outside the image, see `Warp`.
    """

    def __init__(
        self,
        num_ops: Annotated[int, Limits(minimum=1, maximum=16)] = 2,
        magnitude: Annotated[int, Limits(minimum=0, maximum=STEPS)] = 9,
        interpolation: Interpolation = "nearest",
        fill: Fill = "constant",
        **kwargs: Any,
    ):
        super().__init__(interpolation=interpolation, fill=fill, **kwargs)
        self.num_ops = num_ops
        self.magnitude = magnitude

    def ranges(self, height, width):
        """Return the strengths of the paper, its translations in parts of a side."""
        return {
            **dict.fromkeys(("shear_x", "shear_y"), (0.0, 0.3)),
            "translate_x": (0.0, 150 / 331 * width),
            "translate_y": (0.0, 150 / 331 * height),
            "rotate": (0.0, 30.0),
            **dict.fromkeys(("brightness", "color", "contrast", "sharpness"), (0.0, 0.9)),
            "posterize": (8.0, 4.0),
            "solarize": (255.0, 0.0),
        }

    def _augment(self, images):
        operations, signs = self._draws(self.num_ops, ops.shape(images)[0])
        return self.changed(images, operations, float(self.magnitude), signs)


@augmentation
class TrivialAugment(Policy):
    """Apply one operation of a list to each image, with a magnitude drawn from 0 to 30."""

    def ranges(self, height, width):
        """Return the strengths of the wide search space."""
        return {
            **dict.fromkeys(("shear_x", "shear_y"), (0.0, 0.99)),
            **dict.fromkeys(("translate_x", "translate_y"), (0.0, 32.0)),
            "rotate": (0.0, 135.0),
            **dict.fromkeys(("brightness", "color", "contrast", "sharpness"), (0.0, 0.99)),
            "posterize": (8.0, 2.0),
            "solarize": (255.0, 0.0),
        }

    def _augment(self, images):
        batch = ops.shape(images)[0]
        operations, signs = self._draws(1, batch)
        magnitudes = random.randint((1, batch), 0, STEPS + 1, dtype="int32", seed=self.seed_generator)
        return self.changed(images, operations, ops.cast(magnitudes, "float32"), signs)
