"""What is known of published weights: where they are, whose they are, and what images they expect."""

from typing import Any, Literal, NamedTuple

import keras

Layout = Literal["torch", "keras"]
KERAS_NORM = ("gamma", "beta", "moving_mean", "moving_variance")  # in the order of Keras' files


class PublishedLayer(NamedTuple):
    """A layer with weights and its name in a published file.

    Attributes:
        name: What the names of its arrays begin with.
        layer: The layer, built.
        channels: Of the map that a dense layer reads flattened, which PyTorch flattens channels first.
    """

    name: str
    layer: keras.layers.Layer
    channels: int = 0


class Pretrained(NamedTuple):
    """Weights of a network that its authors or a library published.

    Attributes:
        file: Name of the file.
        digest: Beginning of its SHA-256, or `md5:` and its MD5.
        layout: Whose names and axes its arrays have.
        licence: Under which it is published, and by whom.
        mean: By channel, red first, of images in [0, 1] as the network expects them.
        deviation: Standard deviation likewise.
        url: Folder from which it is downloaded; empty where a package holds it.
        package: The package that holds it, as it is installed; its module has the same name with underscores.
        arguments: The network's arguments that fit it.
        blue_first: Whether its first convolution takes the channels in reverse order.
    """

    file: str
    digest: str
    layout: Layout
    licence: str
    mean: tuple[float, float, float]
    deviation: tuple[float, float, float]
    url: str = ""
    package: str = ""
    arguments: dict[str, Any] = {}
    blue_first: bool = False


def torchvision(name: str, digest: str, **arguments: Any) -> Pretrained:
    """Return weights that torchvision publishes; their file's name carries the hash."""
    return Pretrained(
        file=f"{name}-{digest}.pth",
        digest=digest,
        layout="torch",
        licence="BSD 3-Clause (torchvision)",
        mean=(0.485, 0.456, 0.406),
        deviation=(0.229, 0.224, 0.225),
        url="https://download.pytorch.org/models/",
        arguments=arguments,
    )


def keras_application(name: str, folder: str, md5: str, licence: str, **arguments: Any) -> Pretrained:
    """Return weights that `keras.applications` publishes: of BGR images from 0 to 255 less a mean."""
    return Pretrained(
        file=f"{name}_weights_tf_dim_ordering_tf_kernels.h5",
        digest=f"md5:{md5}",
        layout="keras",
        licence=licence,
        mean=(123.68 / 255, 116.779 / 255, 103.939 / 255),
        deviation=(1 / 255, 1 / 255, 1 / 255),
        url=f"https://storage.googleapis.com/tensorflow/keras-applications/{folder}/",
        arguments=arguments,
        blue_first=True,
    )
