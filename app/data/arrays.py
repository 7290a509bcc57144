"""Images and labels that come as arrays: checked, and converted where another format is wanted."""

import zlib
from dataclasses import dataclass

import numpy as np
from PIL import Image

from app.data.dataset import Source, fingerprint, whole_split
from app.data.images import DECODER, ImageFormat
from app.data.store import store_images
from app.errors import UserError


@dataclass(frozen=True, eq=False)
class Arrays:
    """A published dataset in memory.

    Images are `(n, height, width)` or `(n, height, width, channels)`, labels `(n,)` or `(n, 1)`.
    """

    train: tuple[np.ndarray, np.ndarray]
    test: tuple[np.ndarray, np.ndarray] | None
    text: str  # a description of where the data came from
    class_names: tuple[str, ...] | None = None  # where the file has them


def numbered(arrays: Arrays) -> tuple[str, ...]:
    """Return the labels as class names, for data that comes without.

    Raises:
        UserError: There are labels beyond the number of images.
    """
    labels = arrays.train[1]
    if labels.dtype.kind not in "iu" or not labels.size:
        return ()  # what `source_of` refuses
    if labels.max() >= labels.size:
        raise UserError(
            f"{arrays.text}: train: a label {labels.max()} among {labels.size} images; count from 0"
        )
    return tuple(map(str, range(int(labels.max()) + 1)))


def source_of(arrays: Arrays, names: tuple[str, ...], image_format: ImageFormat) -> Source:
    """Check arrays and bring their images to the wanted format.

    Raises:
        UserError: The arrays are no images and labels of these classes.
    """
    splits = {}
    for part, pair in (("train", arrays.train), ("test", arrays.test)):
        if pair is not None:
            images, labels = _checked(*pair, len(names), f"{arrays.text}: {part}")
            splits[part] = whole_split(_converted(images, image_format), labels)
    if len(names) < 2:
        raise UserError(f"{arrays.text}: there is one class only; a classifier needs two")
    shapes = {part: split.images.shape[1:] for part, split in splits.items()}
    if len(set(shapes.values())) > 1:
        raise UserError(
            f"{arrays.text}: images of train have the shape {shapes['train']}, of test {shapes['test']}; set "
            "dataset.image_size and dataset.channels, to which they are converted"
        )
    return Source(names, splits["train"], None, splits.get("test"), arrays.text)


def _checked(
    images: np.ndarray, labels: np.ndarray, num_classes: int, where: str
) -> tuple[np.ndarray, np.ndarray]:
    """Return images `(n, height, width, channels)` and labels `(n,)`, or say what is wrong with them."""
    images = images[..., None] if images.ndim == 3 else images
    labels = labels.reshape(-1)
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] not in (1, 3) or 0 in images.shape:
        raise UserError(
            f"{where}: images are {images.dtype} {images.shape}; needed: uint8 (n, height, width) or "
            "(n, height, width, channels) with 1 or 3 channels"
        )
    if len(labels) != len(images) or labels.dtype.kind not in "iu":
        raise UserError(f"{where}: {len(labels)} labels of type {labels.dtype} for {len(images)} images")
    if labels.min() < 0 or labels.max() >= num_classes:
        raise UserError(
            f"{where}: labels from {labels.min()} to {labels.max()}; needed: 0 to {num_classes - 1}"
        )
    return np.ascontiguousarray(images), labels  # Keras' CIFAR is a transposed view


def _converted(images: np.ndarray, image_format: ImageFormat) -> np.ndarray:
    """Return images in the wanted size and channels; the same array where they are."""
    num_images, height, width, channels = images.shape
    shape = (*(image_format.image_size or (height, width)), image_format.channels)
    if shape == (height, width, channels):
        return images

    def decode(position: int) -> np.ndarray:
        pixels = images[position]
        return image_format.convert(Image.fromarray(pixels[..., 0] if channels == 1 else pixels))

    plain = whole_split(images, np.zeros(num_images))
    digest = fingerprint(Source((repr(image_format),), plain, None, None, ""))
    decoder = zlib.crc32(repr(DECODER).encode()) << 32  # another one's images are converted anew
    keys = np.arange(decoder + 1, decoder + 1 + num_images, dtype=np.uint64)
    return store_images(decode, (num_images, *shape), digest, keys)[0]
