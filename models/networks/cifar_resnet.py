"""The narrow ResNets for CIFAR-10, with and without shortcuts: 20, 32, 44, 56, 110 layers, or any 6n + 2.

He, Zhang, Ren and Sun, 2015, arXiv:1512.03385, section 4.2: three stages of n units with 16, 32 and 64
filters, shortcut option A (no parameters: every second pixel, new channels zero). The plain network is the
same without shortcuts. Pre-activation units: He et al., 2016, arXiv:1603.05027, Figure 1b and appendix; the
first unit takes the activated stem, the last sum is normalised and activated.

Differences from the source: logits, no softmax; kernels start from a normal distribution that is cut at two
standard deviations, of the same variance; the head from Keras' Glorot uniform, there as the convolutions.
"""

import functools
from typing import Annotated, Any

import keras
from keras import ops

from models.layers import BatchNormalization
from models.limits import BelowOne, Limits, Positive
from models.network import Block, Drop, Network, Norm, Published, network, stochastic_depth
from models.torch_layers import TorchConv2D


class CifarUnit(Block):
    """Two 3x3 convolutions, in a residual network added to the input.

    Args:
        filters: Channels of both convolutions.
        strides: Stride of the first convolution.
        shortcut: Whether the input is added to the result.
        preactivation: Whether normalisation and ReLU come before each convolution instead of after it.
        activated_input: Whether a pre-activation unit gets its input already normalised and activated.
    """

    def __init__(
        self,
        filters: int,
        norm: Norm,
        drop: Drop,
        strides: int = 1,
        shortcut: bool = True,
        preactivation: bool = False,
        activated_input: bool = False,
    ) -> None:
        super().__init__()
        self.drop = drop
        self.filters = filters
        self.strides = strides
        self.shortcut = shortcut
        self.preactivation = preactivation
        self.activated_input = activated_input
        if not activated_input:
            self.norm1 = norm()
        self.conv1 = _conv(filters, strides)
        self.norm2 = norm()
        self.conv2 = _conv(filters)

    def call(self, inputs: Any) -> Any:
        """Map (batch, height, width, channels) to (batch, height / strides, width / strides, filters)."""
        if self.preactivation:
            x = inputs if self.activated_input else ops.relu(self.norm1(inputs))
            x = self.conv1(x)
            x = self.drop(self.conv2(ops.relu(self.norm2(x))))
            return x + self._identity(inputs) if self.shortcut else x
        x = ops.relu(self.norm1(self.conv1(inputs)))
        x = self.drop(self.norm2(self.conv2(x)))
        return ops.relu(x + self._identity(inputs) if self.shortcut else x)

    def _identity(self, inputs: Any) -> Any:
        """Take every `strides`-th pixel and append zero channels up to `filters`."""
        new_channels = self.filters - inputs.shape[-1]
        x = inputs[:, :: self.strides, :: self.strides, :] if self.strides > 1 else inputs
        return ops.pad(x, ((0, 0), (0, 0), (0, 0), (0, new_channels))) if new_channels else x


@network("cifar_resnet")
class CifarResNet(Network):
    """3x3 stem, three stages of (depth - 2) / 6 units, global average pooling, one dense layer.

    Args:
        depth: Number of layers with weights: 20, 32, 44, 56, 110 in the paper, any 6n + 2 here.
        shortcuts: False for the plain network.
        preactivation: Whether the units are pre-activated.

    Raises:
        ValueError: If the depth is not 6n + 2, or a plain network is to leave out branches.
    """

    # The paper's rounded 0.27, 0.46, 0.66, 0.85 and 1.7 million weights; plain and pre-activation networks
    # have as many.
    published = tuple(
        Published(
            pixels=32, num_classes=10, total=total, trainable=trainable, macs=macs,
            norms=(depth - 1, 0.9, 1e-5), source="He et al. 2015, arXiv:1512.03385", counted="its layers",
            arguments={"depth": depth},
        )
        for depth, total, trainable, macs in (
            (20, 271_098, 269_722, 40_551_040),
            (32, 466_426, 464_154, 68_862_592),
            (44, 661_754, 658_586, 97_174_144),
            (56, 857_082, 853_018, 125_485_696),
            (110, 1_736_058, 1_727_962, 252_887_680),
        )
    )  # fmt: skip
    unseen_by_shapes = ("shortcuts", "preactivation")

    def __init__(
        self,
        num_classes: int = 10,
        depth: Annotated[int, Limits(minimum=8)] = 20,
        shortcuts: bool = True,
        preactivation: bool = False,
        bn_momentum: BelowOne = 0.9,
        bn_epsilon: Positive = 1e-5,
        drop_path: BelowOne = 0.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        norm = functools.partial(BatchNormalization, momentum=bn_momentum, epsilon=bn_epsilon)
        if depth % 6 != 2:
            raise ValueError(
                "CifarResNet's depth must be 6n + 2: 20, 32, 44, 56 and 110 in the paper. "
                f"Received: depth={depth}"
            )
        if drop_path and not shortcuts:
            raise ValueError(
                "CifarResNet's drop_path must be 0 in the plain network, where a branch is all there is. "
                f"Received: drop_path={drop_path}, shortcuts={shortcuts}"
            )
        self.preactivation = preactivation
        units = [(filters, unit) for filters in (16, 32, 64) for unit in range((depth - 2) // 6)]
        self.stem_conv = _conv(16)
        self.stem_norm = norm()
        self.units = [
            CifarUnit(
                filters,
                norm,
                stochastic_depth(drop_path, number, len(units)),
                strides=2 if filters > 16 and unit == 0 else 1,
                shortcut=shortcuts,
                preactivation=preactivation,
                activated_input=preactivation and filters == 16 and unit == 0,
            )
            for number, (filters, unit) in enumerate(units)
        ]
        if preactivation:
            self.norm = norm()
        self.pool = keras.layers.GlobalAveragePooling2D()
        self.head = keras.layers.Dense(num_classes, dtype="float32")

    def call(self, images: Any, training: bool | None = None) -> Any:
        """Map images (batch, height, width, channels) to logits (batch, num_classes)."""
        x = self.stem_conv(images)
        x = ops.relu(self.stem_norm(x, training=training))  # 32x32x16 for 32x32 images
        for unit in self.units:
            x = unit(x, training=training)  # after each stage: 32x32x16, 16x16x32, 8x8x64
        if self.preactivation:
            x = ops.relu(self.norm(x, training=training))
        x = self.pool(x)  # 64
        return self.head(x)


def _conv(filters: int, strides: int = 1) -> TorchConv2D:
    return TorchConv2D(filters, 3, strides, use_bias=False, kernel_initializer="he_normal")
