"""What a dataset is once it is loaded: images, labels, class names, and who gets which image."""

import functools
import hashlib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from app.errors import UserError

CHUNK_ELEMENTS = 4_000_000  # pixel values handled at a time: 32 MB as float64
SPLIT_STREAM = 2**63  # second half of the Philox key, plus the class; epochs use 0, 1, 2, ...


@dataclass(frozen=True, eq=False)
class Split:
    """Some images of one array, which several splits may share (and which may lie on disk).

    Attributes:
        images: All images, `(num_all, height, width, channels)` uint8.
        labels: The labels of this split's images, `(n,)` int32.
        rows: Where in `images` they lie, `(n,)` int64.
    """

    images: np.ndarray
    labels: np.ndarray
    rows: np.ndarray

    def __len__(self) -> int:
        """The number of this split's images."""
        return len(self.rows)

    def take(self, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return copies of the images (uint8) and labels (int32) at `positions` of this split."""
        return self.images[self.rows[positions]], self.labels[positions]

    def chunks(self) -> Iterator[np.ndarray]:
        """Yield all images of the split in order, a bounded number at a time."""
        size = max(1, CHUNK_ELEMENTS // math.prod(self.images.shape[1:]))
        for start in range(0, len(self), size):
            yield self.images[self.rows[start : start + size]]

    def hashes(self) -> np.ndarray:
        """Return 64 bits for each image, uint64 in order: the same for the same pixels, else different."""
        rows = (row for images in self.chunks() for row in images.reshape(len(images), -1))
        return np.frombuffer(
            b"".join(hashlib.blake2b(row.data, digest_size=8).digest() for row in rows), np.uint64
        )


def whole_split(images: np.ndarray, labels: np.ndarray) -> Split:
    """Return the split that holds every image of an array."""
    return Split(images, np.asarray(labels, np.int32), np.arange(len(images), dtype=np.int64))


@dataclass(frozen=True, eq=False)
class Source:
    """What a loader found, before validation data is taken from it.

    Attributes:
        class_names: In the order of the labels.
        train: The training images as published or as found in `train/`.
        val: Images of a `val/` folder, if there is one.
        test: Published test images or those of `test/`, if there are any.
        text: Where the data came from, for people.
        skipped: Files left out because they could not be read, relative to the data folder.
    """

    class_names: tuple[str, ...]
    train: Split
    val: Split | None
    test: Split | None
    text: str
    skipped: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Dataset:
    """A dataset ready to train on.

    Attributes:
        name: Its name in the registry.
        class_names: In the order of the labels.
        train: What the network learns from.
        val: What the curves and the best checkpoint are measured on.
        test: Measured once, at the end; None where there is none or where it serves as `val`.
        source: Where the data came from, for people.
        split_rule: How `val` came about, for people.
        fingerprint: SHA-256 over pixels, labels and class names, whatever they were stored in.
        skipped: Files left out because they could not be read, relative to the data folder.
    """

    name: str
    class_names: tuple[str, ...]
    train: Split
    val: Split
    test: Split | None
    source: str
    split_rule: str
    fingerprint: str
    skipped: tuple[str, ...]

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """`(height, width, channels)`, the same for every split."""
        height, width, channels = self.train.images.shape[1:]
        return height, width, channels

    def as_json(self) -> dict[str, Any]:
        """Return what a run's dataset.json says about the data."""
        splits = {"train": self.train, "val": self.val, "test": self.test}
        return {
            "name": self.name,
            "class_names": list(self.class_names),
            "image_shape": list(self.image_shape),
            "num_images": {name: len(split) for name, split in splits.items() if split is not None},
            "num_images_per_class": {
                name: dict(zip(self.class_names, self._counts(split), strict=True))
                for name, split in splits.items()
                if split is not None
            },
            "split_rule": self.split_rule,
            "source": self.source,
            "fingerprint": self.fingerprint,
            "validation_fingerprint": self.validation_fingerprint,
            "duplicates": self.duplicates,
            "skipped": list(self.skipped),
        }

    @functools.cached_property
    def validation_fingerprint(self) -> str:
        """SHA-256 over pixels and labels of `val` in order, whatever they were drawn from."""
        digest = hashlib.sha256(repr(self.val.images.shape[1:]).encode())
        digest.update(self.val.labels.astype("<i4").tobytes())
        digest.update(self.val.hashes().tobytes())
        return digest.hexdigest()

    @functools.cached_property
    def duplicates(self) -> dict[str, int]:
        """How many images of a split equal one of an earlier split, pixel for pixel; counted at first use."""
        train, val = self.train.hashes(), self.val.hashes()
        counts = {"train_and_val": int(np.isin(val, train).sum())}
        if self.test is not None:
            test = self.test.hashes()
            counts["train_and_test"] = int(np.isin(test, train).sum())
            counts["val_and_test"] = int(np.isin(test, val).sum())
        return counts

    def duplicates_warning(self) -> str | None:
        """Return a line that warns of images which are in two splits; None where there are none."""
        found = [
            f"{self.duplicates[key]:,} of {len(split):,} {name} images are {other} images too"
            for key, name, split, other in (
                ("train_and_val", "validation", self.val, "training"),
                ("train_and_test", "test", self.test, "training"),
                ("val_and_test", "test", self.test, "validation"),
            )
            if split is not None and self.duplicates[key]
        ]
        if not found:
            return None
        return (
            f"warning: {', '.join(found)}, pixel for pixel; "
            "accuracy on them says nothing of new images. Remove the copies."
        )

    def _counts(self, split: Split) -> list[int]:
        return np.bincount(split.labels, minlength=len(self.class_names)).tolist()


def fingerprint(source: Source) -> str:
    """Return the SHA-256 of what a source holds: class names, labels and pixels, in order."""
    digest = hashlib.sha256(repr(source.class_names).encode())
    for name, split in (("train", source.train), ("val", source.val), ("test", source.test)):
        if split is not None:
            digest.update(f"{name} {len(split)} {split.images.shape[1:]}".encode())
            digest.update(split.labels.astype("<i4").tobytes())
            for images in split.chunks():
                digest.update(images.data)
    return digest.hexdigest()


def stratified(split: Split, share: float, seed: int, class_names: tuple[str, ...]) -> tuple[Split, Split]:
    """Divide a split in two with `share` of each class, drawn by `seed`, in the second.

    Which images of a class are drawn depends on the seed, the class and its number of images alone. Both
    parts keep the order of the given split.

    Args:
        split: What to divide.
        share: How much of each class goes to the second part, above 0 and below 1. Each part gets one
            image of each class at least.
        seed: Names the draw.
        class_names: For the message.

    Returns:
        The rest and the share.

    Raises:
        UserError: A class has a single image, so it cannot be in both.
    """
    chosen = np.zeros(len(split), bool)
    for label, class_name in enumerate(class_names):
        positions = np.flatnonzero(split.labels == label)
        if len(positions) == 1:
            raise UserError(
                f"class {class_name!r} has one training image; it takes two to validate on one of them "
                "(dataset.validation). Add images, remove the class, or provide a val/ folder."
            )
        if len(positions) > 1:
            count = min(max(round(share * len(positions)), 1), len(positions) - 1)
            chosen[_generator(seed, SPLIT_STREAM + label).permutation(positions)[:count]] = True
    return _subset(split, ~chosen), _subset(split, chosen)


def train_share(rest: Split, share: float, total: int, seed: int, num_classes: int) -> Split:
    """Return the images that `dataset.train_share` leaves to train on.

    Validation images are drawn before it and from everything, so runs with different shares compare.

    Args:
        rest: The training images that are not held out.
        share: How much of the whole training split to keep, of each class, one image at least.
        total: Number of images in the whole training split.
        seed: Names the draw.
        num_classes: Number of classes.

    Returns:
        The share, in the order of the given split.

    Raises:
        UserError: More are asked for than are left.
    """
    if round(share * total) > len(rest):
        raise UserError(
            f"dataset.train_share: received {share:g}, which is {round(share * total):,} of the {total:,} "
            f"training images, but validation leaves {len(rest):,}; choose at most {len(rest) / total:.4g}, "
            "or leave it out to use them all"
        )
    chosen = np.zeros(len(rest), bool)
    for label in range(num_classes):
        positions = np.flatnonzero(rest.labels == label)
        count = max(round(share * total / len(rest) * len(positions)), 1)
        chosen[_generator(seed, SPLIT_STREAM + label).permutation(positions)[:count]] = True
    return _subset(rest, chosen)


def _subset(split: Split, mask: np.ndarray) -> Split:
    return Split(split.images, split.labels[mask], split.rows[mask])


def _generator(seed: int, stream: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(key=np.array([seed, stream], np.uint64)))
