"""A layer that erases a rectangle of training images at random.

Z. Zhong, L. Zheng, G. Kang, S. Li, Y. Yang: Random Erasing Data Augmentation (2017), arXiv:1708.04896.

Differences from the source: where none of ten draws of area and aspect fits, the first is cut to the image;
the source draws on. The aspect is log-uniform, as in torchvision, not uniform. `mean` is that of each image,
not that of ImageNet.
"""

from typing import Annotated, Any, Literal

from keras import ops, random

from models.augmentation import augmentation
from models.augmentation.boxes import Area, Aspect, random_boxes
from models.augmentation.pixel_layers import PerImage, as_dtype
from models.limits import Limits


@augmentation
class RandomErasing(PerImage):
    """Replace a random rectangle of an image, all channels of it.

    Args:
        probability: Of an image to lose a rectangle.
        area: Limits of the rectangle's fraction of the image's area, uniform.
        aspect: Limits of its width in parts of its height, both in pixels, log-uniform.
        fill: What comes in its place: random (each value uniform from 0 to 255), mean (each channel's of the
            image) or constant (black).
    """

    def __init__(
        self,
        probability: Annotated[float, Limits(minimum=0, maximum=1)] = 0.5,
        area: Area = (0.02, 0.4),
        aspect: Aspect = (0.3, 1 / 0.3),
        fill: Literal["random", "mean", "constant"] = "random",
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.probability = probability
        self.area = tuple(area)
        self.aspect = tuple(aspect)
        self.fill = fill

    def _augment(self, images):
        shape = ops.shape(images)
        batch, height, width, _ = shape
        tall, wide, down, right = (
            side[:, None, None, None]
            for side in random_boxes(shape, self.area, self.aspect, self.seed_generator)
        )
        rows = ops.arange(height, dtype="float32")[:, None, None] - (height - 1) / 2
        columns = ops.arange(width, dtype="float32")[:, None] - (width - 1) / 2
        erased = ops.logical_and(ops.abs(rows - down) < tall / 2, ops.abs(columns - right) < wide / 2)
        coins = random.uniform((batch, 1, 1, 1), dtype="float32", seed=self.seed_generator)
        erased = ops.logical_and(erased, coins < self.probability)
        pixels = ops.cast(images, "float32")
        filling = 0.0
        if self.fill == "random":
            filling = random.uniform(shape, 0.0, 255.0, dtype="float32", seed=self.seed_generator)
        elif self.fill == "mean":
            filling = ops.mean(pixels, axis=(1, 2), keepdims=True)
        return as_dtype(ops.where(erased, filling, pixels), images.dtype)
