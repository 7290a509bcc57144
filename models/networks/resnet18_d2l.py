"""ResNet18 in the style of "Dive into Deep Learning", as in the post "PyTorch lesson 9: ResNet".

He, Zhang, Ren and Sun, 2015, arXiv:1512.03385, Table 1 (18-layer), for CIFAR-10 at 96x96 pixels, with the
post's own ways: the stem is not padded and has its own epsilon, a block has a ReLU after both normalisations
and again after the sum, and its projection has a bias but no normalisation. Kernels start Xavier-uniform
(Keras' default), biases as in PyTorch.

Differences from the source: moving variances divide by n, as Keras has it, there by n - 1.
"""

import functools
import itertools
from typing import Any

import keras
from keras import ops

from models.layers import BatchNormalization
from models.limits import BelowOne, Positive
from models.network import Block, Drop, Network, Norm, Published, network, stochastic_depth
from models.torch_layers import TorchConv2D, TorchDense


class ResidualD2L(Block):
    """Two 3x3 convolutions, each with normalisation and ReLU, added to the input or to a projection of it.

    Args:
        filters: Channels of both convolutions.
        strides: Stride of the first convolution and of the projection.
    """

    def __init__(self, filters: int, norm: Norm, drop: Drop, strides: int = 1) -> None:
        super().__init__()
        self.drop = drop
        self.strides = strides
        self.conv1 = TorchConv2D(filters, 3, strides, use_bias=False)
        self.norm1 = norm()
        self.conv2 = TorchConv2D(filters, 3, use_bias=False)
        self.norm2 = norm()
        if strides > 1:
            self.shortcut_conv = TorchConv2D(filters, 1, strides)

    def call(self, inputs: Any) -> Any:
        """Map (batch, height, width, channels) to (batch, height / strides, width / strides, filters)."""
        x = ops.relu(self.norm1(self.conv1(inputs)))
        x = self.drop(ops.relu(self.norm2(self.conv2(x))))
        shortcut = self.shortcut_conv(inputs) if self.strides > 1 else inputs
        return ops.relu(x + shortcut)


@network("resnet18_d2l")
class ResNet18D2L(Network):
    """Unpadded 7x7 stem with pooling, four stages of two blocks, 3x3 average pooling, one dense layer.

    Args:
        bn_momentum: Momentum of the moving statistics (PyTorch's default 0.1 is 0.9 in Keras' sense).
        bn_epsilon: Added to the variance, except in the stem.
        stem_bn_epsilon: Added to the variance in the stem.
    """

    published = Published(
        pixels=96, num_classes=10, total=11_188_618, trainable=11_180_810, macs=323_552_960,
        norms=(17, 0.9, 1e-5), source="'PyTorch lesson 9: ResNet'", counted="PyTorch",
    )  # fmt: skip
    smallest_pixels = 71
    largest_pixels = 166  # up to here the last map is pooled to a single pixel

    def __init__(
        self,
        num_classes: int = 10,
        bn_momentum: BelowOne = 0.9,
        bn_epsilon: Positive = 1e-5,
        stem_bn_epsilon: Positive = 1e-3,
        drop_path: BelowOne = 0.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        norm = functools.partial(BatchNormalization, momentum=bn_momentum, epsilon=bn_epsilon)
        self.stem_conv = TorchConv2D(64, 7, strides=2, padding_pixels=0)
        self.stem_norm = norm(epsilon=stem_bn_epsilon)
        self.stem_pad = keras.layers.ZeroPadding2D(1)  # exact before a pooling: the map has no negatives
        self.stem_pool = keras.layers.MaxPooling2D(3, strides=2)
        self.blocks = [
            # The first block of stages 2 to 4 halves the map.
            ResidualD2L(
                filters,
                norm,
                stochastic_depth(drop_path, number, 8),
                strides=2 if filters > 64 and block == 0 else 1,
            )
            for number, (filters, block) in enumerate(itertools.product((64, 128, 256, 512), range(2)))
        ]
        self.pool = keras.layers.AveragePooling2D(3)
        self.flatten = keras.layers.Flatten()
        self.head = TorchDense(num_classes, dtype="float32")

    def call(self, images: Any, training: bool | None = None) -> Any:
        """Map images (batch, height, width, channels) to logits (batch, num_classes)."""
        x = self.stem_conv(images)  # 45x45x64 for 96x96 images
        x = ops.relu(self.stem_norm(x, training=training))
        x = self.stem_pad(x)
        x = self.stem_pool(x)  # 23x23x64
        for block in self.blocks:
            x = block(x, training=training)  # after each pair: 23x23x64, 12x12x128, 6x6x256, 3x3x512
        x = self.pool(x)  # 1x1x512
        x = self.flatten(x)  # 512
        return self.head(x)
