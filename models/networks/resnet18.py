"""ResNet18 for small images: the lecture notes' version of He et al.

He, Zhang, Ren and Sun, 2015, arXiv:1512.03385, Table 1 (18-layer), in the version of the TensorFlow 2 lecture
notes, chapter 5: a 3x3 stem without pooling, convolutions without bias, Keras' `same` padding (one row more
at the bottom and right where the stride is 2).

Differences from the source: logits instead of a softmax at the end (the loss applies it).
"""

import functools
import itertools
from typing import Any

import keras
from keras import ops

from models.layers import BatchNormalization, Conv2D
from models.limits import BelowOne, NotNegative, Positive
from models.network import Block, Drop, Network, Norm, Published, network, stochastic_depth


class ResnetBlock(Block):
    """Two 3x3 convolutions, added to the input or to a projection of it.

    Args:
        filters: Channels of both convolutions.
        strides: Stride of the first convolution and of the projection.
        projection: Whether the shortcut is a 1x1 convolution with normalisation instead of the identity.
    """

    def __init__(
        self, filters: int, norm: Norm, drop: Drop, strides: int = 1, projection: bool = False
    ) -> None:
        super().__init__()
        self.drop = drop
        self.projection = projection
        self.conv1 = Conv2D(filters, 3, strides=strides, padding="same", use_bias=False)
        self.norm1 = norm()
        self.conv2 = Conv2D(filters, 3, padding="same", use_bias=False)
        self.norm2 = norm()
        if projection:
            self.shortcut_conv = Conv2D(filters, 1, strides=strides, padding="same", use_bias=False)
            self.shortcut_norm = norm()

    def call(self, inputs: Any) -> Any:
        """Map (batch, height, width, channels) to (batch, height / strides, width / strides, filters)."""
        x = ops.relu(self.norm1(self.conv1(inputs)))
        x = self.drop(self.norm2(self.conv2(x)))
        shortcut = self.shortcut_norm(self.shortcut_conv(inputs)) if self.projection else inputs
        return ops.relu(x + shortcut)


@network("resnet18")
class ResNet18(Network):
    """Stem, four stages of two blocks, global average pooling, one dense layer.

    Args:
        head_l2: L2 penalty on the head's kernel, added to the loss; 0 for none. The source's value is the
            default.
    """

    published = Published(
        pixels=32, num_classes=10, total=11_183_562, trainable=11_173_962, macs=555_422_720,
        norms=(20, 0.99, 1e-3), source="TensorFlow 2 lecture notes, chapter 5", counted="its layers",
    )  # fmt: skip

    def __init__(
        self,
        num_classes: int = 10,
        head_l2: NotNegative = 0.01,
        bn_momentum: BelowOne = 0.99,
        bn_epsilon: Positive = 1e-3,
        drop_path: BelowOne = 0.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        norm = functools.partial(BatchNormalization, momentum=bn_momentum, epsilon=bn_epsilon)
        self.stem_conv = Conv2D(64, 3, padding="same", use_bias=False)
        self.stem_norm = norm()
        self.blocks = [
            # Stages 2 to 4 halve the map and double the channels in their first block.
            ResnetBlock(
                filters,
                norm,
                stochastic_depth(drop_path, number, 8),
                strides=2 if filters > 64 and block == 0 else 1,
                projection=filters > 64 and block == 0,
            )
            for number, (filters, block) in enumerate(itertools.product((64, 128, 256, 512), range(2)))
        ]
        self.pool = keras.layers.GlobalAveragePooling2D()
        penalty = keras.regularizers.L2(head_l2) if head_l2 else None
        self.head = keras.layers.Dense(num_classes, kernel_regularizer=penalty, dtype="float32")

    def call(self, images: Any, training: bool | None = None) -> Any:
        """Map images (batch, height, width, channels) to logits (batch, num_classes)."""
        x = self.stem_conv(images)
        x = ops.relu(self.stem_norm(x, training=training))  # 32x32x64 for 32x32 images
        for block in self.blocks:
            x = block(x, training=training)  # after each pair: 32x32x64, 16x16x128, 8x8x256, 4x4x512
        x = self.pool(x)  # 512
        return self.head(x)
