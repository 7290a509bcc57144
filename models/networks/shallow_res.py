"""ShallowRes: a ten-layer ResNet with one residual block per stage.

Source: a published training log with its model summary, which fixes every layer but the pooling window (3x3
as in He et al., 2015, arXiv:1512.03385, Table 1), the image size (97 to 128 pixels; 128 taken) and the head's
activation (softmax taken). Every
convolution has a bias, the projections too.

Differences from the source: logits at the end (the loss applies the softmax).
"""

import functools
from typing import Any

import keras
from keras import ops

from models.layers import BatchNormalization, Conv2D
from models.limits import BelowOne, Positive
from models.network import Block, Drop, Network, Norm, Published, network, stochastic_depth


class ShallowResBlock(Block):
    """Two 3x3 convolutions, added to the input or, where the stride is not 1, to a projection of it.

    Args:
        filters: Channels of both convolutions.
        strides: Stride of the first convolution and of the projection.
    """

    def __init__(self, filters: int, norm: Norm, drop: Drop, strides: int = 1) -> None:
        super().__init__()
        self.drop = drop
        self.strides = strides
        self.conv1 = Conv2D(filters, 3, strides=strides, padding="same")
        self.norm1 = norm()
        self.conv2 = Conv2D(filters, 3, padding="same")
        self.norm2 = norm()
        if strides > 1:
            self.shortcut_conv = Conv2D(filters, 1, strides=strides, padding="same")
            self.shortcut_norm = norm()

    def call(self, inputs: Any) -> Any:
        """Map (batch, height, width, channels) to (batch, height / strides, width / strides, filters)."""
        x = ops.relu(self.norm1(self.conv1(inputs)))
        x = self.drop(self.norm2(self.conv2(x)))
        shortcut = self.shortcut_norm(self.shortcut_conv(inputs)) if self.strides > 1 else inputs
        return ops.relu(x + shortcut)


@network("shallow_res")
class ShallowRes(Network):
    """7x7 stem with pooling, four stages of one block, global average pooling, one dense layer.

    Args:
        bn_momentum: Momentum of the moving statistics. The source's 0.99 needs several hundred steps to
            settle; take 0.9 for shorter runs.
    """

    published = Published(
        pixels=128, num_classes=10, total=4_919_562, trainable=4_913_802, macs=290_198_528,
        norms=(12, 0.99, 1e-3),
        source="training log of a 10-layer residual network (Keras)", counted="printed",
    )  # fmt: skip

    def __init__(
        self,
        num_classes: int = 10,
        bn_momentum: BelowOne = 0.99,
        bn_epsilon: Positive = 1e-3,
        drop_path: BelowOne = 0.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        norm = functools.partial(BatchNormalization, momentum=bn_momentum, epsilon=bn_epsilon)
        self.stem_conv = Conv2D(64, 7, strides=2, padding="same")
        self.stem_norm = norm()
        self.stem_pool = keras.layers.MaxPooling2D(3, strides=2, padding="same")
        drops = [stochastic_depth(drop_path, number, 4) for number in range(4)]
        self.stage1 = ShallowResBlock(64, norm, drops[0])
        self.stage2 = ShallowResBlock(128, norm, drops[1], strides=2)
        self.stage3 = ShallowResBlock(256, norm, drops[2], strides=2)
        self.stage4 = ShallowResBlock(512, norm, drops[3], strides=2)
        self.pool = keras.layers.GlobalAveragePooling2D()
        self.head = keras.layers.Dense(num_classes, dtype="float32")

    def call(self, images: Any, training: bool | None = None) -> Any:
        """Map images (batch, height, width, channels) to logits (batch, num_classes)."""
        x = self.stem_conv(images)  # 64x64x64 for 128x128 images
        x = ops.relu(self.stem_norm(x, training=training))
        x = self.stem_pool(x)  # 32x32x64
        x = self.stage1(x, training=training)  # 32x32x64
        x = self.stage2(x, training=training)  # 16x16x128
        x = self.stage3(x, training=training)  # 8x8x256
        x = self.stage4(x, training=training)  # 4x4x512
        x = self.pool(x)  # 512
        return self.head(x)
