"""LeNet5: two sigmoid convolutions and three dense layers.

LeCun, Bottou, Bengio and Haffner, 1998, doi:10.1109/5.726791, Figure 2, in the version of the TensorFlow 2
lecture notes, chapter 5: colour images, max pooling, full connections, no normalisation, no dropout.

Differences from the source: logits instead of a softmax at the end (the loss applies it).
"""

from typing import Any

import keras

from models.layers import Conv2D
from models.network import Network, Published, network


@network("lenet5")
class LeNet5(Network):
    """LeNet with sigmoids throughout."""

    published = Published(
        pixels=32, num_classes=10, total=62_006, trainable=62_006, macs=651_720,
        source="TensorFlow 2 lecture notes, chapter 5", counted="its layers",
    )  # fmt: skip
    smallest_pixels = 16

    def __init__(self, num_classes: int = 10, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.conv1 = Conv2D(6, 5, activation="sigmoid")
        self.pool1 = keras.layers.MaxPooling2D(2, strides=2)
        self.conv2 = Conv2D(16, 5, activation="sigmoid")
        self.pool2 = keras.layers.MaxPooling2D(2, strides=2)
        self.flatten = keras.layers.Flatten()
        self.hidden1 = keras.layers.Dense(120, activation="sigmoid")
        self.hidden2 = keras.layers.Dense(84, activation="sigmoid")
        self.head = keras.layers.Dense(num_classes, dtype="float32")

    def call(self, images: Any, training: bool | None = None) -> Any:
        """Map images (batch, height, width, channels) to logits (batch, num_classes)."""
        x = self.conv1(images)
        x = self.pool1(x)  # 14x14x6 for 32x32 images
        x = self.conv2(x)
        x = self.pool2(x)  # 5x5x16
        x = self.flatten(x)  # 400
        x = self.hidden1(x)
        x = self.hidden2(x)
        return self.head(x)
