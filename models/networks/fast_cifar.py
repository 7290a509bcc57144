"""FastCifar10: the small network that learns CIFAR-10 in ten epochs.

Source: Jordan 2024, "94% on CIFAR-10 in 3.29 Seconds on a Single GPU", arXiv:2404.00498, section 3, the
network of airbench94; its pieces come from Page 2018 (whitening, scaled logits, normalisation without scale)
and hlb-CIFAR10. The recipe that belongs to it is experiments/fast_cifar10.yaml.

Differences from the source: none in the layers. There the whitening bias is frozen after three epochs; here
it is trained throughout. The kernel is that of the first 5,000 images of the first epoch, there of the file.
Moving variances divide by n, as Keras has it, there by n - 1.
"""

import functools
from collections.abc import Sequence
from typing import Annotated, Any

import keras
import numpy as np
from keras import ops

from models.layers import BatchNormalization, Conv2D, Gelu
from models.limits import BelowOne, Limits, Positive
from models.network import Block, Network, Norm, Published, network
from models.torch_layers import torch_kernel_initializer


class WhiteningConv2D(keras.layers.Layer):
    """Convolution whose outputs are the uncorrelated components of small patches, each with its negative.

    The kernel is computed from images by `adapt` and is not trained; the bias is.

    Args:
        kernel_size: Side of the square patches, in pixels. There are 2 * kernel_size**2 * channels outputs.
        epsilon: Added to the variance of every component before dividing by its root.
    """

    def __init__(self, kernel_size: int = 2, epsilon: float = 5e-4, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.kernel_size = kernel_size
        self.epsilon = epsilon

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Make kernel and bias for images (batch, height, width, channels)."""
        size, channels = self.kernel_size, int(input_shape[-1] or 0)
        filters = 2 * size * size * channels
        self.kernel = self.add_weight(
            name="kernel",
            shape=(size, size, channels, filters),
            initializer="glorot_uniform",  # until `adapt` is called
            trainable=False,
        )
        self.bias = self.add_weight(name="bias", shape=(filters,), initializer="zeros")

    def adapt(self, images: np.ndarray) -> None:
        """Compute the kernel from normalised images (batch, height, width, channels), float32."""
        size, values = self.kernel_size, self.kernel_size**2 * images.shape[-1]
        products, count = np.zeros((values, values)), 0
        for start in range(0, len(images), 500):  # all patches at once are many times the images
            part = np.asarray(images[start : start + 500], "float64")
            windows = np.lib.stride_tricks.sliding_window_view(part, (size, size), axis=(1, 2))
            patches = np.moveaxis(windows, 3, -1).reshape(-1, values)
            products, count = products + patches.T @ patches, count + len(patches)
        variances, components = np.linalg.eigh(products / count)
        variances, components = variances[::-1], components[:, ::-1]  # largest first
        # Eigenvectors are known up to their sign, which is fixed here for the same kernel everywhere.
        largest = components[np.abs(components).argmax(axis=0), range(values)]
        components = components * np.sign(largest)
        whitening = components / np.sqrt(variances + self.epsilon)
        self.kernel.assign(np.concatenate([whitening, -whitening], axis=1).reshape(self.kernel.shape))

    def call(self, inputs: Any) -> Any:
        """Map (batch, height, width, channels) to `filters` channels on a map smaller by kernel_size - 1."""
        return ops.conv(inputs, ops.cast(self.kernel, inputs.dtype), padding="valid") + self.bias

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Return the shape of `call`'s result."""
        batch, *sides, _ = input_shape
        smaller = [None if side is None else side - self.kernel_size + 1 for side in sides]
        return (batch, *smaller, self.bias.shape[0])


class PartialIdentity(keras.initializers.Initializer):
    """First passes every input channel on unchanged, as one output each; further outputs start at random.

    Jordan 2024, section 3.3. The random kernels are PyTorch's default, uniform within 1 / sqrt(fan_in).
    """

    def __call__(self, shape: Sequence[int], dtype: Any = None) -> Any:
        """Return a kernel (height, width, inputs, outputs)."""
        height, width, inputs, outputs = shape
        identity = np.zeros(shape, "float32")
        same = range(min(inputs, outputs))
        identity[height // 2, width // 2, same, same] = 1.0
        random = ops.convert_to_tensor(torch_kernel_initializer()(shape, dtype="float32"))
        return ops.cast(ops.where(np.arange(outputs) < inputs, identity, random), dtype or "float32")


class FastBlock(Block):
    """Convolution, pooling, normalisation, GELU, then the same without the pooling; halves the map.

    Args:
        filters: Channels of both convolutions.
        partial_identity: Whether the convolutions start by passing their inputs on.
    """

    def __init__(self, filters: int, norm: Norm, partial_identity: bool = True) -> None:
        super().__init__()
        start = PartialIdentity if partial_identity else torch_kernel_initializer
        conv = {"padding": "same", "use_bias": False}
        self.conv1 = Conv2D(filters, 3, kernel_initializer=start(), **conv)  # each draws from its own
        self.pool = keras.layers.MaxPooling2D(2)
        self.norm1 = norm()
        self.gelu1 = Gelu()
        self.conv2 = Conv2D(filters, 3, kernel_initializer=start(), **conv)
        self.norm2 = norm()
        self.gelu2 = Gelu()

    def call(self, inputs: Any) -> Any:
        """Map (batch, height, width, channels) to (batch, height // 2, width // 2, filters)."""
        x = self.gelu1(self.norm1(self.pool(self.conv1(inputs))))
        return self.gelu2(self.norm2(self.conv2(x)))


@network("fast_cifar10")
class FastCifar10(Network):
    """Whitening, three blocks, the largest value of every map, one dense layer, logits over nine.

    Args:
        widths: Channels of the blocks, three in the source.
        whitening: Whether the first kernel whitens patches; else one of 24 filters, as many as of RGB images,
            is trained from a random start.
        partial_identity: Whether the other convolutions start by passing their inputs on.
    """

    published = Published(
        pixels=32, num_classes=10, total=1_973_944, trainable=1_971_352, macs=118_147_360,
        norms=(6, 0.6, 1e-12), source="Jordan 2024, arXiv:2404.00498, airbench94", counted="its layers",
    )  # fmt: skip
    smallest_pixels = 9
    adapt_images = 5000

    def __init__(
        self,
        num_classes: int = 10,
        widths: Sequence[Annotated[int, Limits(minimum=1)]] = (64, 256, 256),
        bn_momentum: BelowOne = 0.6,
        bn_epsilon: Positive = 1e-12,
        whitening: bool = True,
        partial_identity: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.whitening = whitening
        norm = functools.partial(BatchNormalization, momentum=bn_momentum, epsilon=bn_epsilon, scale=False)
        self.stem = WhiteningConv2D(2) if whitening else Conv2D(24, 2)
        self.gelu = Gelu()
        self.blocks = [FastBlock(filters, norm, partial_identity) for filters in widths]
        self.pool = keras.layers.GlobalMaxPooling2D()
        self.head = keras.layers.Dense(
            num_classes, use_bias=False, kernel_initializer=torch_kernel_initializer(), dtype="float32"
        )

    def adapt(self, images: np.ndarray) -> None:
        """Compute the whitening kernel."""
        if self.whitening:
            self.stem.adapt(images)

    def call(self, images: Any, training: bool | None = None) -> Any:
        """Map images (batch, height, width, channels) to logits (batch, num_classes)."""
        x = self.gelu(self.stem(images), training=training)  # 31x31x24 for 32x32x3 images
        for block in self.blocks:
            x = block(x, training=training)  # 15x15x64, 7x7x256, 3x3x256
        x = self.pool(x)  # 256; the source pools 3x3, which is the whole map
        return self.head(x) / 9.0
