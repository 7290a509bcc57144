"""VGG: stages of 3x3 convolutions, each ended by a pooling, then three dense layers.

Simonyan and Zisserman, 2014, arXiv:1409.1556, Table 1 (columns D and E). Two networks:

- `VGG`: the paper's, 16 or 19 layers deep, for ImageNet-sized images.
- `VGG16`: the small-image version of the TensorFlow 2 lecture notes, chapter 5, with batch normalisation,
  dropout after every stage and dense layers of 512.

Differences from the sources: logits instead of a softmax at the end (the loss applies it). `VGG` starts from
Keras' Glorot uniform weights, not from a shallower trained network.
"""

import functools
from typing import Any

import keras
from keras import ops

from models.layers import BatchNormalization, Conv2D
from models.network import Block, Network, Norm

STAGE_FILTERS = (64, 128, 256, 512, 512)
STAGE_CONVOLUTIONS = {16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}  # by depth: convolutions in each stage


class VGGStage(Block):
    """Normalised 3x3 convolutions, a pooling that halves the map, dropout.

    Args:
        filters: Channels of every convolution.
        num_convolutions: Number of convolutions.
        norm: Makes a normalisation layer.
        dropout: Share of values dropped after the pooling.
    """

    def __init__(
        self,
        filters: int,
        num_convolutions: int,
        norm: Norm,
        dropout: float = 0.2,
    ) -> None:
        super().__init__()
        self.convs = [Conv2D(filters, 3, padding="same") for _ in range(num_convolutions)]
        self.norms = [norm() for _ in self.convs]
        self.pool = keras.layers.MaxPooling2D(2, strides=2, padding="same")
        self.pool_dropout = keras.layers.Dropout(dropout)

    def call(self, inputs: Any) -> Any:
        """Maps (batch, height, width, channels) to (batch, height / 2, width / 2, filters), rounded up."""
        x = inputs
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = conv(x)
            x = ops.relu(norm(x))
        x = self.pool(x)
        return self.pool_dropout(x)


@keras.saving.register_keras_serializable("models")
class VGG16(Network):
    """The lecture notes' VGG16: five normalised stages, two dense layers of 512 with dropout.

    Args:
        num_classes: Number of logits.
        dropout: Share of values dropped after every pooling and every hidden dense layer.
        bn_momentum: Momentum of the moving statistics.
        bn_epsilon: Added to the variance.
        **kwargs: Arguments of `keras.Model`.
    """

    def __init__(
        self,
        num_classes: int = 10,
        dropout: float = 0.2,
        bn_momentum: float = 0.99,
        bn_epsilon: float = 1e-3,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        norm = functools.partial(BatchNormalization, momentum=bn_momentum, epsilon=bn_epsilon)
        self.stages = [
            VGGStage(filters, num_convolutions, norm, dropout)
            for filters, num_convolutions in zip(STAGE_FILTERS, STAGE_CONVOLUTIONS[16], strict=True)
        ]
        self.flatten = keras.layers.Flatten()
        self.hidden1 = keras.layers.Dense(512, activation="relu")
        self.dropout1 = keras.layers.Dropout(dropout)
        self.hidden2 = keras.layers.Dense(512, activation="relu")
        self.dropout2 = keras.layers.Dropout(dropout)
        self.head = keras.layers.Dense(num_classes, dtype="float32")

    def call(self, images: Any, training: bool | None = None) -> Any:
        """Maps images (batch, height, width, channels) to logits (batch, num_classes)."""
        x = images
        for stage in self.stages:
            x = stage(x, training=training)  # 16x16x64, 8x8x128, 4x4x256, 2x2x512, 1x1x512 for 32x32 images
        x = self.flatten(x)  # 512
        x = self.hidden1(x)
        x = self.dropout1(x, training=training)
        x = self.hidden2(x)
        x = self.dropout2(x, training=training)
        return self.head(x)


@keras.saving.register_keras_serializable("models")
class VGG(Network):
    """The paper's VGG: five bare stages, two dense layers of 4096 with dropout; made for 224x224 images.

    Args:
        num_classes: Number of logits.
        depth: 16 or 19, the number of layers with weights.
        dropout: Share of values dropped after each hidden dense layer.
        **kwargs: Arguments of `keras.Model`.

    Raises:
        ValueError: If there is no VGG of this depth.
    """

    smallest_pixels = 32

    def __init__(self, num_classes: int = 1000, depth: int = 16, dropout: float = 0.5, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if depth not in STAGE_CONVOLUTIONS:
            raise ValueError(
                f"VGG's depth must be one of {sorted(STAGE_CONVOLUTIONS)}. Received: depth={depth}"
            )
        self.stages = [
            [Conv2D(filters, 3, padding="same", activation="relu") for _ in range(num_convolutions)]
            for filters, num_convolutions in zip(STAGE_FILTERS, STAGE_CONVOLUTIONS[depth], strict=True)
        ]
        self.pools = [keras.layers.MaxPooling2D(2, strides=2) for _ in self.stages]
        self.flatten = keras.layers.Flatten()
        self.hidden1 = keras.layers.Dense(4096, activation="relu")
        self.dropout1 = keras.layers.Dropout(dropout)
        self.hidden2 = keras.layers.Dense(4096, activation="relu")
        self.dropout2 = keras.layers.Dropout(dropout)
        self.head = keras.layers.Dense(num_classes, dtype="float32")

    def call(self, images: Any, training: bool | None = None) -> Any:
        """Maps images (batch, height, width, channels) to logits (batch, num_classes)."""
        x = images
        for convs, pool in zip(self.stages, self.pools, strict=True):
            for conv in convs:
                x = conv(x)
            x = pool(x)  # 112x112x64, 56x56x128, 28x28x256, 14x14x512, 7x7x512 for 224x224 images
        x = self.flatten(x)  # 25088
        x = self.hidden1(x)
        x = self.dropout1(x, training=training)
        x = self.hidden2(x)
        x = self.dropout2(x, training=training)
        return self.head(x)
