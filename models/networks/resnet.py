"""ResNet at the depths of the paper: 18, 34, 50, 101 and 152.

He, Zhang, Ren and Sun, 2015, arXiv:1512.03385, Table 1, Figures 3 and 5, shortcut option B: projections where
the shape changes, identities elsewhere. A bottleneck's stride is on its first convolution, a 1x1, as in the
paper's costs and the authors' release, or with `stride_on="middle"` on its 3x3, as in torchvision's networks
and weights ("ResNet v1.5"; Goyal et al. 2017, arXiv:1706.02677, section 5.1). `resnet18` and `resnet50` of
the registry are two write-ups' own versions and have files of their own.

Differences from the source: a stem for small images (3x3, no pooling) may be chosen instead of the paper's;
logits, no softmax; kernels start from a normal distribution that is cut at two standard deviations, of the
same variance; the head from Keras' Glorot uniform, there as the convolutions.
"""

import functools
from collections.abc import Iterator
from typing import Any, Literal

import keras
from keras import ops

from models.layers import BatchNormalization
from models.limits import BelowOne, Positive
from models.network import Block, Drop, Network, Norm, Published, network, stochastic_depth
from models.pretrained.published import Layout, PublishedLayer, keras_application, torchvision
from models.torch_layers import TorchConv2D

Depth = Literal[18, 34, 50, 101, 152]
Stem = Literal["imagenet", "cifar"]
StrideOn = Literal["first", "middle"]  # of a bottleneck's three convolutions
STAGE_UNITS: dict[Depth, tuple[int, ...]] = {  # units in each of the four stages
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
}
STAGE_FILTERS = (64, 128, 256, 512)
HE = "He et al. 2015, arXiv:1512.03385"
MIDDLE = {"stride_on": "middle"}
FIRST = {"stride_on": "first"}
MIT = "MIT (Kaiming He)"
V1_5 = "ResNet v1.5, Goyal et al. 2017, arXiv:1706.02677"


class ResidualUnit(Block):
    """Two 3x3 convolutions or a bottleneck of three, added to the input or to a projection of it.

    Args:
        filters: Channels of the 3x3 convolutions.
        strides: Stride of the unit and of the projection.
        bottleneck: Whether the 3x3 convolution stands between two 1x1, the last with four times the channels.
        projection: Whether the shortcut is a 1x1 convolution with normalisation instead of the identity.
        stride_on: "first" or "middle": which convolution of a bottleneck has the stride.
    """

    def __init__(
        self,
        filters: int,
        norm: Norm,
        drop: Drop,
        strides: int = 1,
        bottleneck: bool = False,
        projection: bool = False,
        stride_on: StrideOn = "first",
    ) -> None:
        super().__init__()
        self.projection = projection
        self.drop = drop
        outputs = 4 * filters if bottleneck else filters
        if bottleneck:
            first, middle = (strides, 1) if stride_on == "first" else (1, strides)
            self.convs = [_conv(filters, 1, first), _conv(filters, 3, middle), _conv(outputs, 1)]
        else:
            self.convs = [_conv(filters, 3, strides), _conv(outputs, 3)]
        self.norms = [norm() for _ in self.convs]
        if projection:
            self.shortcut_conv = _conv(outputs, 1, strides)
            self.shortcut_norm = norm()

    def call(self, inputs: Any) -> Any:
        """Map (batch, height, width, channels) to (batch, height / strides, width / strides, outputs)."""
        x = inputs
        for conv, norm in zip(self.convs[:-1], self.norms[:-1], strict=True):
            x = ops.relu(norm(conv(x)))
        x = self.drop(self.norms[-1](self.convs[-1](x)))
        shortcut = self.shortcut_norm(self.shortcut_conv(inputs)) if self.projection else inputs
        return ops.relu(x + shortcut)


@network("resnet")
class ResNet(Network):
    """Stem, four stages of residual units, global average pooling, one dense layer.

    Args:
        depth: 18 or 34 with basic units, 50, 101 or 152 with bottlenecks.
        stem: "imagenet" (7x7 and pooling, together a quarter of the side) or "cifar" (3x3, full size).
        stride_on: "first" or "middle": which convolution of a bottleneck has the stride. The basic units of
            depth 18 and 34 always have it on the first.

    Raises:
        ValueError: If the stride of basic units is to be in the middle.
    """

    # Weights as torchvision publishes them. The costs agree with the paper's rounded ones (1.8, 3.6, 3.8, 7.6
    # and 11.3 billion); torchvision's 4.09, 7.80 and 11.51 are those with the stride on the 3x3.
    published = tuple(
        Published(224, 1000, total, trainable, macs, source, counted, (norms, 0.9, 1e-5), arguments)
        for arguments, norms, total, trainable, macs, source, counted in (
            ({"depth": 18}, 20, 11_699_112, 11_689_512, 1_814_073_344, HE, "torchvision"),
            ({"depth": 34}, 36, 21_814_696, 21_797_672, 3_663_761_408, HE, "torchvision"),
            ({"depth": 50}, 53, 25_610_152, 25_557_032, 3_857_973_248, HE, "its layers"),
            ({"depth": 101}, 104, 44_654_504, 44_549_160, 7_570_194_432, HE, "its layers"),
            ({"depth": 152}, 155, 60_344_232, 60_192_808, 11_282_415_616, HE, "its layers"),
            ({"depth": 50, **MIDDLE}, 53, 25_610_152, 25_557_032, 4_089_184_256, V1_5, "torchvision"),
            ({"depth": 101, **MIDDLE}, 104, 44_654_504, 44_549_160, 7_801_405_440, V1_5, "torchvision"),
            ({"depth": 152, **MIDDLE}, 155, 60_344_232, 60_192_808, 11_513_626_624, V1_5, "torchvision"),
        )
    )

    unseen_by_shapes = ("stride_on",)
    pretrained = (
        torchvision("resnet18", "f37072fd", depth=18),
        torchvision("resnet34", "b627a593", depth=34),
        torchvision("resnet50", "0676ba61", depth=50, **MIDDLE),
        torchvision("resnet101", "63fe2227", depth=101, **MIDDLE),
        torchvision("resnet152", "394f9c45", depth=152, **MIDDLE),
        keras_application("resnet50", "resnet", "2cb95161c43110f7111970584f804107", MIT, depth=50, **FIRST),
        keras_application("resnet101", "resnet", "f1aeb4b969a6efcfb50fad2f0c20cfc5", MIT, depth=101, **FIRST),
        keras_application("resnet152", "resnet", "100835be76be38e30d865e96f2aaae62", MIT, depth=152, **FIRST),
    )

    def __init__(
        self,
        num_classes: int = 1000,
        depth: Depth = 50,
        stem: Stem = "imagenet",
        bn_momentum: BelowOne = 0.9,
        bn_epsilon: Positive = 1e-5,
        stride_on: StrideOn = "first",
        drop_path: BelowOne = 0.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        norm = functools.partial(BatchNormalization, momentum=bn_momentum, epsilon=bn_epsilon)
        if stride_on == "middle" and depth < 50:
            raise ValueError(
                "ResNet's stride_on must be first at depth 18 and 34, whose units have two convolutions. "
                f"Received: stride_on={stride_on!r}, depth={depth}"
            )
        self.stem = stem
        self.stage_units = STAGE_UNITS[depth]
        self.stem_conv = _conv(64, 7, 2) if stem == "imagenet" else _conv(64, 3)
        self.stem_norm = norm()
        if stem == "imagenet":
            self.stem_pad = keras.layers.ZeroPadding2D(1)  # exact before a pooling: the map has no negatives
            self.stem_pool = keras.layers.MaxPooling2D(3, strides=2)
        bottleneck = depth >= 50
        units = [
            (filters, unit)
            for filters, num_units in zip(STAGE_FILTERS, STAGE_UNITS[depth], strict=True)
            for unit in range(num_units)
        ]
        self.units = [
            ResidualUnit(
                filters,
                norm,
                stochastic_depth(drop_path, number, len(units)),
                strides=2 if filters > 64 and unit == 0 else 1,
                bottleneck=bottleneck,
                projection=unit == 0 and (bottleneck or filters > 64),
                stride_on=stride_on,
            )
            for number, (filters, unit) in enumerate(units)
        ]
        self.pool = keras.layers.GlobalAveragePooling2D()
        self.head = keras.layers.Dense(num_classes, dtype="float32")

    def call(self, images: Any, training: bool | None = None) -> Any:
        """Map images (batch, height, width, channels) to logits (batch, num_classes)."""
        x = self.stem_conv(images)
        x = ops.relu(self.stem_norm(x, training=training))  # 112x112x64 for 224x224 images
        if self.stem == "imagenet":
            x = self.stem_pad(x)
            x = self.stem_pool(x)  # 56x56x64
        for unit in self.units:
            x = unit(x, training=training)  # after each stage: 56x56, 28x28, 14x14, 7x7
        x = self.pool(x)  # 512, or 2048 with bottlenecks
        return self.head(x)

    def published_layers(self, layout: Layout) -> Iterator[PublishedLayer]:
        """Yield the layers by torchvision's names, or by those of `keras.applications`."""
        torch = layout == "torch"
        yield PublishedLayer("conv1" if torch else "conv1_conv", self.stem_conv)
        yield PublishedLayer("bn1" if torch else "conv1_bn", self.stem_norm)
        places = [(stage, unit) for stage, num in enumerate(self.stage_units, 1) for unit in range(num)]
        for (stage, number), unit in zip(places, self.units, strict=True):
            prefix = f"layer{stage}.{number}" if torch else f"conv{stage + 1}_block{number + 1}"
            for i, (conv, norm) in enumerate(zip(unit.convs, unit.norms, strict=True), 1):
                yield PublishedLayer(f"{prefix}.conv{i}" if torch else f"{prefix}_{i}_conv", conv)
                yield PublishedLayer(f"{prefix}.bn{i}" if torch else f"{prefix}_{i}_bn", norm)
            if unit.projection:
                names = ("downsample.0", "downsample.1") if torch else ("0_conv", "0_bn")
                for name, layer in zip(names, (unit.shortcut_conv, unit.shortcut_norm), strict=True):
                    yield PublishedLayer(f"{prefix}.{name}" if torch else f"{prefix}_{name}", layer)
        yield PublishedLayer("fc" if torch else "predictions", self.head)


def _conv(filters: int, kernel_size: int, strides: int = 1) -> TorchConv2D:
    return TorchConv2D(filters, kernel_size, strides, use_bias=False, kernel_initializer="he_normal")
