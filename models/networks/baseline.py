"""Baseline: one convolution and two dense layers.

Source: TensorFlow 2 lecture notes, chapter 5, the first network on CIFAR-10; layers confirmed by the course's
code.

Differences from the source: logits instead of a softmax at the end (the loss applies it).
"""

import functools
from typing import Any

import keras
from keras import ops

from models.layers import BatchNormalization, Conv2D
from models.limits import BelowOne, Positive
from models.network import Network, Published, network


@network("baseline")
class Baseline(Network):
    """Convolution, batch normalisation, ReLU, pooling and dropout, then a dense classifier.

    Args:
        dropout: Fraction of values dropped after the pooling and after the hidden dense layer.
    """

    published = Published(
        pixels=32, num_classes=10, total=198_506, trainable=198_494, macs=658_688,
        norms=(1, 0.99, 1e-3), source="TensorFlow 2 lecture notes, chapter 5", counted="its layers",
    )  # fmt: skip

    def __init__(
        self,
        num_classes: int = 10,
        dropout: BelowOne = 0.2,
        bn_momentum: BelowOne = 0.99,
        bn_epsilon: Positive = 1e-3,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        norm = functools.partial(BatchNormalization, momentum=bn_momentum, epsilon=bn_epsilon)
        self.conv = Conv2D(6, 5, padding="same")
        self.norm = norm()
        self.pool = keras.layers.MaxPooling2D(2, strides=2, padding="same")
        self.pool_dropout = keras.layers.Dropout(dropout)
        self.flatten = keras.layers.Flatten()
        self.hidden = keras.layers.Dense(128, activation="relu")
        self.hidden_dropout = keras.layers.Dropout(dropout)
        self.head = keras.layers.Dense(num_classes, dtype="float32")

    def call(self, images: Any, training: bool | None = None) -> Any:
        """Map images (batch, height, width, channels) to logits (batch, num_classes)."""
        x = self.conv(images)
        x = ops.relu(self.norm(x, training=training))
        x = self.pool(x)  # 16x16x6 for 32x32 images
        x = self.pool_dropout(x, training=training)
        x = self.flatten(x)  # 1536
        x = self.hidden(x)
        x = self.hidden_dropout(x, training=training)
        return self.head(x)
