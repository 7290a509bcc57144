"""MiniModel: a small pre-activation ResNet.

Source: the blog post "Decode Residual Network", after He, Zhang, Ren and Sun, 2016, arXiv:1603.05027, Figure
1b. Its own way to halve the map stays: the main path starts with a max pooling, while the shortcut is a
strided convolution of the map before that pooling, without normalisation. All convolutions have a bias.

Differences from the source: logits instead of a softmax at the end (the loss applies it).
"""

import functools
import itertools
from typing import Any

import keras
from keras import ops

from models.layers import BatchNormalization, Conv2D
from models.limits import BelowOne, Positive
from models.network import Block, Drop, Network, Norm, Published, network, stochastic_depth


class MiniModelUnit(Block):
    """Twice normalisation, ReLU and 3x3 convolution, added to the shortcut; nothing after the sum.

    Args:
        filters: Channels of both convolutions.
        halve: Whether the unit halves the map and changes the channels.
    """

    def __init__(self, filters: int, norm: Norm, drop: Drop, halve: bool = False) -> None:
        super().__init__()
        self.drop = drop
        self.halve = halve
        if halve:
            self.pool = keras.layers.MaxPooling2D(2, strides=2)
            self.shortcut_conv = Conv2D(filters, 1, strides=2, padding="same")
        self.norm1 = norm()
        self.conv1 = Conv2D(filters, 3, padding="same")
        self.norm2 = norm()
        self.conv2 = Conv2D(filters, 3, padding="same")

    def call(self, inputs: Any) -> Any:
        """Map (batch, height, width, channels) to `filters` channels, on half the side if `halve`."""
        x = self.pool(inputs) if self.halve else inputs
        shortcut = self.shortcut_conv(inputs) if self.halve else inputs
        x = self.conv1(ops.relu(self.norm1(x)))
        x = self.drop(self.conv2(ops.relu(self.norm2(x))))
        return x + shortcut


@network("minimodel")
class MiniModel(Network):
    """Stem, four stages of three units, dropout, 4x4 average pooling, one dense layer.

    Args:
        dropout: Fraction of values dropped before the average pooling.
    """

    published = Published(
        pixels=32, num_classes=10, total=4_374_538, trainable=4_368_714, macs=214_796_800,
        norms=(25, 0.99, 1e-3), source="blog post 'Decode Residual Network' (Keras)", counted="printed",
    )  # fmt: skip
    smallest_pixels = 32
    multiple_pixels = 8  # each halving rounds the main path down and the shortcut up

    def __init__(
        self,
        num_classes: int = 10,
        dropout: BelowOne = 0.25,
        bn_momentum: BelowOne = 0.99,
        bn_epsilon: Positive = 1e-3,
        drop_path: BelowOne = 0.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        norm = functools.partial(BatchNormalization, momentum=bn_momentum, epsilon=bn_epsilon)
        self.stem = Conv2D(32, 3, padding="same")
        self.units = [
            # The first unit of stages 2 to 4 halves the map.
            MiniModelUnit(
                filters, norm, stochastic_depth(drop_path, number, 12), halve=filters > 32 and unit == 0
            )
            for number, (filters, unit) in enumerate(itertools.product((32, 64, 128, 256), range(3)))
        ]
        self.norm = norm()
        self.pool_dropout = keras.layers.Dropout(dropout)
        self.pool = keras.layers.AveragePooling2D(4)
        self.flatten = keras.layers.Flatten()
        self.head = keras.layers.Dense(num_classes, dtype="float32")

    def call(self, images: Any, training: bool | None = None) -> Any:
        """Map images (batch, height, width, channels) to logits (batch, num_classes)."""
        x = self.stem(images)  # 32x32x32 for 32x32 images
        for unit in self.units:
            x = unit(x, training=training)  # after each three: 32x32x32, 16x16x64, 8x8x128, 4x4x256
        x = ops.relu(self.norm(x, training=training))
        x = self.pool_dropout(x, training=training)
        x = self.pool(x)  # 1x1x256
        x = self.flatten(x)  # 256
        return self.head(x)
