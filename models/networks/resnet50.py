"""ResNet50 as in the "J1 - ResNet-50" practice post on four classes of birds (PyTorch).

He, Zhang, Ren and Sun, 2015, arXiv:1512.03385, Table 1 (50-layer), with the post's own ways: every
convolution has a bias, the pooling of the stem is not padded (112 pixels become 55), and the last map is
flattened, not averaged.

Differences from the source: logits instead of a softmax at the end. The post puts cross-entropy, which
expects logits, on top of its softmax; the experiment's `loss.softmax_before_loss` does the same. Moving
variances divide by n, as Keras has it, there by n - 1.
"""

import functools
from typing import Any

import keras
from keras import ops

from models.layers import BatchNormalization
from models.limits import BelowOne, Positive
from models.network import Block, Drop, Network, Norm, Published, network, stochastic_depth
from models.torch_layers import TorchConv2D, TorchDense, torch_kernel_initializer

STAGES = ((64, 3), (128, 4), (256, 6), (512, 3))  # filters of the narrow convolutions, number of blocks


class BottleneckBlock(Block):
    """1x1, 3x3 and 1x1 convolution, added to the input or to a projection of it.

    Args:
        filters: Channels of the first two convolutions; the block puts out four times as many.
        strides: Stride of the first convolution and of the projection.
        projection: Whether the shortcut is a 1x1 convolution with normalisation instead of the identity.
    """

    def __init__(
        self, filters: int, norm: Norm, drop: Drop, strides: int = 1, projection: bool = False
    ) -> None:
        super().__init__()
        self.drop = drop
        self.projection = projection
        self.conv1 = _conv(filters, 1, strides)
        self.norm1 = norm()
        self.conv2 = _conv(filters, 3)
        self.norm2 = norm()
        self.conv3 = _conv(4 * filters, 1)
        self.norm3 = norm()
        if projection:
            self.shortcut_conv = _conv(4 * filters, 1, strides)
            self.shortcut_norm = norm()

    def call(self, inputs: Any) -> Any:
        """Map (batch, height, width, channels) to (batch, height / strides, width / strides, outputs)."""
        x = ops.relu(self.norm1(self.conv1(inputs)))
        x = ops.relu(self.norm2(self.conv2(x)))
        x = self.drop(self.norm3(self.conv3(x)))
        shortcut = self.shortcut_norm(self.shortcut_conv(inputs)) if self.projection else inputs
        return ops.relu(x + shortcut)


@network("resnet50")
class ResNet50(Network):
    """7x7 stem with pooling, stages of 3, 4, 6 and 3 bottleneck blocks, a flatten head.

    Args:
        bn_momentum: Momentum of the moving statistics (PyTorch's default 0.1 is 0.9 in Keras' sense).
    """

    published = Published(
        pixels=224, num_classes=4, total=23_989_124, trainable=23_936_004, macs=3_832_684_544,
        norms=(53, 0.9, 1e-5), source="practice post 'J1 - ResNet-50' (PyTorch)", counted="printed",
    )  # fmt: skip
    smallest_pixels = 37  # Keras' adaptive pooling cannot compile for a last map of one pixel

    def __init__(
        self,
        num_classes: int = 4,
        bn_momentum: BelowOne = 0.9,
        bn_epsilon: Positive = 1e-5,
        drop_path: BelowOne = 0.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        norm = functools.partial(BatchNormalization, momentum=bn_momentum, epsilon=bn_epsilon)
        self.stem_conv = _conv(64, 7, 2)
        self.stem_norm = norm()
        self.stem_pool = keras.layers.MaxPooling2D(3, strides=2)
        blocks = [(filters, block) for filters, num_blocks in STAGES for block in range(num_blocks)]
        self.blocks = [
            # Every stage starts with a projection; stages 2 to 4 halve the map there.
            BottleneckBlock(
                filters,
                norm,
                stochastic_depth(drop_path, number, len(blocks)),
                strides=2 if block == 0 and filters > 64 else 1,
                projection=block == 0,
            )
            for number, (filters, block) in enumerate(blocks)
        ]
        self.pool = keras.layers.AdaptiveAveragePooling2D(7)  # changes nothing at 224 pixels
        self.flatten = keras.layers.Flatten()
        self.head = TorchDense(num_classes, kernel_initializer=torch_kernel_initializer(), dtype="float32")

    def call(self, images: Any, training: bool | None = None) -> Any:
        """Map images (batch, height, width, channels) to logits (batch, num_classes)."""
        x = self.stem_conv(images)  # 112x112x64 for 224x224 images
        x = ops.relu(self.stem_norm(x, training=training))
        x = self.stem_pool(x)  # 55x55x64
        for block in self.blocks:
            x = block(x, training=training)  # after each stage: 55x55x256, 28x28x512, 14x14x1024, 7x7x2048
        x = self.pool(x)  # 7x7x2048
        x = self.flatten(x)  # 100352
        return self.head(x)


def _conv(filters: int, kernel_size: int, strides: int = 1) -> TorchConv2D:
    return TorchConv2D(filters, kernel_size, strides, kernel_initializer=torch_kernel_initializer())
