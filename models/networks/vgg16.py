"""VGG16 for small images: the lecture notes' version of Simonyan and Zisserman.

Simonyan and Zisserman, 2014, arXiv:1409.1556, Table 1 (column D), in the version of the TensorFlow 2 lecture
notes, chapter 5: batch normalisation after every convolution, dropout after every stage, dense layers of 512.

Differences from the source: logits instead of a softmax at the end (the loss applies it).
"""

import functools
from typing import Any

import keras
from keras import ops

from models.layers import BatchNormalization, Conv2D
from models.limits import BelowOne, Positive
from models.network import Block, Network, Norm, Published, network

STAGES = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))  # filters, number of convolutions


class VGGStage(Block):
    """Normalised 3x3 convolutions, a pooling that halves the map, dropout.

    Args:
        filters: Channels of every convolution.
        num_convolutions: Number of convolutions.
        dropout: Fraction of values dropped after the pooling.
    """

    def __init__(self, filters: int, num_convolutions: int, norm: Norm, dropout: float = 0.2) -> None:
        super().__init__()
        self.convs = [Conv2D(filters, 3, padding="same") for _ in range(num_convolutions)]
        self.norms = [norm() for _ in self.convs]
        self.pool = keras.layers.MaxPooling2D(2, strides=2, padding="same")
        self.pool_dropout = keras.layers.Dropout(dropout)

    def call(self, inputs: Any) -> Any:
        """Map (batch, height, width, channels) to (batch, height / 2, width / 2, filters), rounded up."""
        x = inputs
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = ops.relu(norm(conv(x)))
        x = self.pool(x)
        return self.pool_dropout(x)


@network("vgg16")
class VGG16(Network):
    """Five normalised stages, then two dense layers of 512 with dropout.

    Args:
        dropout: Fraction of values dropped after every pooling and every hidden dense layer.
    """

    published = Published(
        pixels=32, num_classes=10, total=15_262_026, trainable=15_253_578, macs=313_725_952,
        norms=(13, 0.99, 1e-3), source="TensorFlow 2 lecture notes, chapter 5", counted="its layers",
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
        self.stages = [
            VGGStage(filters, num_convolutions, norm, dropout) for filters, num_convolutions in STAGES
        ]
        self.flatten = keras.layers.Flatten()
        self.hidden1 = keras.layers.Dense(512, activation="relu")
        self.dropout1 = keras.layers.Dropout(dropout)
        self.hidden2 = keras.layers.Dense(512, activation="relu")
        self.dropout2 = keras.layers.Dropout(dropout)
        self.head = keras.layers.Dense(num_classes, dtype="float32")

    def call(self, images: Any, training: bool | None = None) -> Any:
        """Map images (batch, height, width, channels) to logits (batch, num_classes)."""
        x = images
        for stage in self.stages:
            x = stage(x, training=training)  # 16x16x64, 8x8x128, 4x4x256, 2x2x512, 1x1x512 for 32x32 images
        x = self.flatten(x)  # 512
        x = self.hidden1(x)
        x = self.dropout1(x, training=training)
        x = self.hidden2(x)
        x = self.dropout2(x, training=training)
        return self.head(x)
