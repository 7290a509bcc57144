"""Inception10: four inception cells in two groups, ten layers deep.

Szegedy et al., 2014, arXiv:1409.4842, Figure 2b, in the version of the TensorFlow 2 lecture notes, chapter 5:
batch normalisation after every convolution, equal channels on all four branches.

Differences from the source: logits instead of a softmax at the end (the loss applies it).
"""

import functools
from typing import Any

import keras
from keras import ops

from models.layers import BatchNormalization, Conv2D
from models.limits import BelowOne, Positive
from models.network import Block, Network, Norm, Published, network


class ConvUnit(Block):
    """Convolution with bias, batch normalisation, ReLU.

    Args:
        filters: Channels of the convolution.
        kernel_size: Side of the kernel.
        strides: Stride of the convolution.
    """

    def __init__(self, filters: int, kernel_size: int, norm: Norm, strides: int = 1) -> None:
        super().__init__()
        self.conv = Conv2D(filters, kernel_size, strides=strides, padding="same")
        self.norm = norm()

    def call(self, inputs: Any) -> Any:
        """Map (batch, height, width, channels) to (batch, height / strides, width / strides, filters)."""
        return ops.relu(self.norm(self.conv(inputs)))


class InceptionCell(Block):
    """Four branches side by side: 1x1, 3x3, 5x5 and pooling, concatenated in this order.

    Args:
        filters: Channels of each branch.
        strides: Stride of each branch, taken by its 1x1 convolution.
    """

    def __init__(self, filters: int, norm: Norm, strides: int = 1) -> None:
        super().__init__()
        self.branch1 = ConvUnit(filters, 1, norm, strides)
        self.branch2_reduce = ConvUnit(filters, 1, norm, strides)
        self.branch2 = ConvUnit(filters, 3, norm)
        self.branch3_reduce = ConvUnit(filters, 1, norm, strides)
        self.branch3 = ConvUnit(filters, 5, norm)
        self.branch4_pool = keras.layers.MaxPooling2D(3, strides=1, padding="same")
        self.branch4 = ConvUnit(filters, 1, norm, strides)

    def call(self, inputs: Any) -> Any:
        """Map (batch, height, width, channels) to (batch, height / strides, width / strides, outputs)."""
        x1 = self.branch1(inputs)
        x2 = self.branch2(self.branch2_reduce(inputs))
        x3 = self.branch3(self.branch3_reduce(inputs))
        x4 = self.branch4(self.branch4_pool(inputs))
        return ops.concatenate([x1, x2, x3, x4], axis=-1)


@network("inception10")
class Inception10(Network):
    """Stem, two groups of two inception cells, global average pooling, one dense layer."""

    published = Published(
        pixels=32, num_classes=10, total=121_418, trainable=120_234, macs=12_240_128,
        norms=(25, 0.99, 1e-3), source="TensorFlow 2 lecture notes, chapter 5", counted="its layers",
    )  # fmt: skip

    def __init__(
        self, num_classes: int = 10, bn_momentum: BelowOne = 0.99, bn_epsilon: Positive = 1e-3, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        norm = functools.partial(BatchNormalization, momentum=bn_momentum, epsilon=bn_epsilon)
        self.stem = ConvUnit(16, 3, norm)
        self.cells = [InceptionCell(filters, norm, strides) for filters in (16, 32) for strides in (2, 1)]
        self.pool = keras.layers.GlobalAveragePooling2D()
        self.head = keras.layers.Dense(num_classes, dtype="float32")

    def call(self, images: Any, training: bool | None = None) -> Any:
        """Map images (batch, height, width, channels) to logits (batch, num_classes)."""
        x = self.stem(images, training=training)  # 32x32x16 for 32x32 images
        for cell in self.cells:
            x = cell(x, training=training)  # after each pair: 16x16x64, 8x8x128
        x = self.pool(x)  # 128
        return self.head(x)
