"""AlexNet8: five convolutions and three dense layers.

Krizhevsky, Sutskever and Hinton, 2012, doi:10.1145/3065386, Figure 2, in the version of the TensorFlow 2
lecture notes, chapter 5: 3x3 kernels for small images, batch normalisation instead of local response
normalisation.

Differences from the source: logits instead of a softmax at the end (the loss applies it). The fifth
convolution has the 256 filters of the source's code, not the 96 of its prose.
"""

import functools
from typing import Any

import keras
from keras import ops

from models.layers import BatchNormalization, Conv2D
from models.limits import BelowOne, Positive
from models.network import Network, Published, network


@network("alexnet8")
class AlexNet8(Network):
    """Two normalised and three bare convolutions, then two wide dense layers with dropout.

    Args:
        dropout: Fraction of values dropped after each hidden dense layer.
    """

    published = Published(
        pixels=32, num_classes=10, total=9_639_178, trainable=9_638_474, macs=117_909_632,
        norms=(2, 0.99, 1e-3), source="TensorFlow 2 lecture notes, chapter 5", counted="its layers",
    )  # fmt: skip
    smallest_pixels = 21

    def __init__(
        self,
        num_classes: int = 10,
        dropout: BelowOne = 0.5,
        bn_momentum: BelowOne = 0.99,
        bn_epsilon: Positive = 1e-3,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        norm = functools.partial(BatchNormalization, momentum=bn_momentum, epsilon=bn_epsilon)
        self.conv1 = Conv2D(96, 3)
        self.norm1 = norm()
        self.pool1 = keras.layers.MaxPooling2D(3, strides=2)
        self.conv2 = Conv2D(256, 3)
        self.norm2 = norm()
        self.pool2 = keras.layers.MaxPooling2D(3, strides=2)
        self.conv3 = Conv2D(384, 3, padding="same", activation="relu")
        self.conv4 = Conv2D(384, 3, padding="same", activation="relu")
        self.conv5 = Conv2D(256, 3, padding="same", activation="relu")
        self.pool5 = keras.layers.MaxPooling2D(3, strides=2)
        self.flatten = keras.layers.Flatten()
        self.hidden1 = keras.layers.Dense(2048, activation="relu")
        self.dropout1 = keras.layers.Dropout(dropout)
        self.hidden2 = keras.layers.Dense(2048, activation="relu")
        self.dropout2 = keras.layers.Dropout(dropout)
        self.head = keras.layers.Dense(num_classes, dtype="float32")

    def call(self, images: Any, training: bool | None = None) -> Any:
        """Map images (batch, height, width, channels) to logits (batch, num_classes)."""
        x = self.conv1(images)
        x = ops.relu(self.norm1(x, training=training))
        x = self.pool1(x)  # 14x14x96 for 32x32 images
        x = self.conv2(x)
        x = ops.relu(self.norm2(x, training=training))
        x = self.pool2(x)  # 5x5x256
        x = self.conv3(x)
        x = self.conv4(x)
        x = self.conv5(x)
        x = self.pool5(x)  # 2x2x256
        x = self.flatten(x)  # 1024
        x = self.hidden1(x)
        x = self.dropout1(x, training=training)
        x = self.hidden2(x)
        x = self.dropout2(x, training=training)
        return self.head(x)
