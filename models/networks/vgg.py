"""VGG at the depths 16 and 19 of the paper: stages of 3x3 convolutions, each ended by a pooling.

Simonyan and Zisserman, 2014, arXiv:1409.1556, Table 1 (columns D and E). `vgg16` of the registry is a
write-up's own version for small images and has a file of its own.

Differences from the source: logits instead of a softmax at the end (the loss applies it). Training starts
from Keras' Glorot uniform weights, not from a shallower trained network.
"""

from collections.abc import Iterator
from typing import Any, Literal

import keras

from models.layers import Conv2D
from models.limits import BelowOne
from models.network import Network, Published, network
from models.pretrained.published import Layout, PublishedLayer, keras_application, torchvision

Depth = Literal[16, 19]
OXFORD = "CC BY 4.0 (Visual Geometry Group, Oxford)"
STAGE_FILTERS = (64, 128, 256, 512, 512)
STAGE_CONVOLUTIONS: dict[Depth, tuple[int, ...]] = {16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}


@network("vgg")
class VGG(Network):
    """Five stages without normalisation, then two dense layers of 4096 with dropout; for 224x224 images.

    Args:
        depth: 16 or 19, the number of layers with weights.
        dropout: Fraction of values dropped after each hidden dense layer.
    """

    published = tuple(
        Published(
            pixels=224, num_classes=1000, total=weights, trainable=weights, macs=macs,
            source="Simonyan and Zisserman 2014, arXiv:1409.1556", counted="torchvision",
            arguments={"depth": depth},
        )
        for depth, weights, macs in ((16, 138_357_544, 15_470_264_320), (19, 143_667_240, 19_632_062_464))
    )  # fmt: skip
    pretrained = (
        torchvision("vgg16", "397923af", depth=16),
        torchvision("vgg19", "dcbb9e9d", depth=19),
        keras_application("vgg16", "vgg16", "64373286793e3c8b2b4e3219cbf3544b", OXFORD, depth=16),
        keras_application("vgg19", "vgg19", "cbe5617147190e668d6c5d5026f83318", OXFORD, depth=19),
    )
    smallest_pixels = 32

    def __init__(
        self, num_classes: int = 1000, depth: Depth = 16, dropout: BelowOne = 0.5, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
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
        """Map images (batch, height, width, channels) to logits (batch, num_classes)."""
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

    def published_layers(self, layout: Layout) -> Iterator[PublishedLayer]:
        """Yield the layers by torchvision's names, or by those of `keras.applications`."""
        torch = layout == "torch"
        place = 0  # in torchvision's list, where activations and poolings count too
        for stage, convs in enumerate(self.stages, 1):
            for number, conv in enumerate(convs, 1):
                yield PublishedLayer(f"features.{place}" if torch else f"block{stage}_conv{number}", conv)
                place += 2
            place += 1
        names = ("classifier.0", "classifier.3", "classifier.6") if torch else ("fc1", "fc2", "predictions")
        dense = (self.hidden1, self.hidden2, self.head)
        for name, layer, channels in zip(names, dense, (STAGE_FILTERS[-1], 0, 0), strict=True):
            yield PublishedLayer(name, layer, channels)
