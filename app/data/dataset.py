"""What a dataset is once it is loaded."""

import contextlib
import functools
import hashlib
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from app.config.dataset import Sampler
from app.data.order import num_places
from app.files import write_text
from app.paths import cache_folder
from app.wording import counted, printable

PAIRS = (("train", "val"), ("train", "test"), ("val", "test"))  # of splits, in which images may be the same
MAX_NAMED = 3  # copies, each with its original
CHUNK_ELEMENTS = 4_000_000  # pixel values handled at a time: 32 MB as float64


@dataclass(frozen=True, eq=False)
class Split:
    """Some images of one array, which several splits may use (and which may lie on disk)."""

    images: np.ndarray  # all images, `(num_all, height, width, channels)` uint8
    labels: np.ndarray  # of this split's images, `(n,)` int32
    rows: np.ndarray  # where in `images` they lie, `(n,)` int64
    files: Sequence[str] = ()  # of each of `images`, relative to the data folder; none where of an archive
    known_hashes: np.ndarray | None = (
        None  # of each of `images`, as `pixel_hashes` gives them; None: not known
    )

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.rows)

    def take(self, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return copies of the images (uint8) and labels (int32) at `positions` of this split."""
        return self.images_at(positions), self.labels[positions]

    def images_at(self, positions: np.ndarray) -> np.ndarray:
        """Return copies of the images at `positions`."""
        return self.images[self.rows[positions]]

    def files_at(self, positions: np.ndarray) -> list[str]:
        """Return the files of the images at `positions`; none where the images are of an archive."""
        return [self.files[row] for row in self.rows[positions]] if self.files else []

    def chunks(self) -> Iterator[np.ndarray]:
        """Yield all images of the split in order, a bounded number at a time."""
        size = max(1, CHUNK_ELEMENTS // math.prod(self.images.shape[1:]))
        for start in range(0, len(self), size):
            yield self.images[self.rows[start : start + size]]

    def hashes(self) -> np.ndarray:
        """Return 64 bits for each image, uint64 in order: the same for the same pixels, else different."""
        if self.known_hashes is not None:
            return self.known_hashes[self.rows]
        return np.concatenate([np.empty(0, np.uint64), *map(pixel_hashes, self.chunks())])


def pixel_hashes(images: np.ndarray) -> np.ndarray:
    """Return 64 bits for each image `(n, ...)`, uint64: the same for the same pixels, else different."""
    rows = np.ascontiguousarray(images).reshape(len(images), -1)
    return np.frombuffer(
        b"".join(hashlib.blake2b(row.data, digest_size=8).digest() for row in rows), np.uint64
    )


def whole_split(images: np.ndarray, labels: np.ndarray) -> Split:
    """Return the split that holds every image of an array."""
    return Split(images, np.asarray(labels, np.int32), np.arange(len(images), dtype=np.int64))


@dataclass(frozen=True, eq=False)
class Source:
    """What a loader returns, before validation data is taken from it."""

    class_names: tuple[str, ...]  # in the order of the labels
    train: Split  # as published or as found in `train/`
    val: Split | None  # of a `val/` folder, if there is one
    test: Split | None  # as published or those of `test/`, if there are any
    text: str  # a description of where the data came from
    skipped: tuple[str, ...] = ()  # files that could not be read, relative to the data folder
    corrections: Mapping[str, str] = field(default_factory=dict)  # the lists `exclude` and `relabel`, as read
    given: np.ndarray | None = None  # labels of `train` as they were before `relabel`, where that is given

    @property
    def splits(self) -> dict[str, Split]:
        """Those that there are, "train", "val" and "test"."""
        return _present(self.train, self.val, self.test)


@dataclass(frozen=True, eq=False)
class Dataset:
    """A dataset ready to train on."""

    name: str
    class_names: tuple[str, ...]  # in the order of the labels
    train: Split  # what the network learns from
    val: Split  # what the curves and the best checkpoint are measured on
    test: Split | None  # measured once, at the end; None where there is none or where it serves as `val`
    source: str  # a description of where the data came from
    split_rule: str  # a description of how `val` came about
    fingerprint: str  # SHA-256 over pixels, labels and class names, whatever they were stored in
    skipped: tuple[str, ...]  # files that could not be read, relative to the data folder
    corrections: Mapping[str, str] = field(default_factory=dict)  # the lists `exclude` and `relabel`, as read

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """`(height, width, channels)`, the same for every split."""
        height, width, channels = self.train.images.shape[1:]
        return height, width, channels

    @property
    def splits(self) -> dict[str, Split]:
        """Those that there are, "train", "val" and "test"."""
        return _present(self.train, self.val, self.test)

    def as_json(self) -> dict[str, Any]:
        """Return what a run's dataset.json says about the data."""

        def counts(split: Split) -> dict[str, int]:
            numbers = np.bincount(split.labels, minlength=len(self.class_names)).tolist()
            return dict(zip(self.class_names, numbers, strict=True))

        return {
            "name": self.name,
            "class_names": list(self.class_names),
            "image_shape": list(self.image_shape),
            "num_images": {name: len(split) for name, split in self.splits.items()},
            "num_images_per_class": {name: counts(split) for name, split in self.splits.items()},
            "split_rule": self.split_rule,
            "source": self.source,
            "fingerprint": self.fingerprint,
            "validation_fingerprint": self.validation_fingerprint,
            "duplicates": self.duplicates,
            "skipped": list(self.skipped),
        }

    def class_weights(
        self, setting: Literal["balanced"] | Mapping[str, float] | None, sampler: Sampler | None
    ) -> list[float] | None:
        """Return the factors of the training loss, one a class; None for no factors.

        Args:
            setting: Factors by class name, 1 for those that are not named. "balanced" lets every class count
                equally: n / (num_classes * n_class) for n_class of an epoch's n images, 0 without images.
            sampler: Draws the images of an epoch.
        """
        if setting is None:
            return None
        if setting != "balanced":
            return [setting.get(name, 1.0) for name in self.class_names]
        counts = np.bincount(self.train.labels, minlength=len(self.class_names))
        if sampler is not None:
            counts = num_places(counts, sampler, coin=0.5)
        return [float(counts.sum() / (len(counts) * count)) if count else 0.0 for count in counts]

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
        ends = np.cumsum([len(split) for split in self.splits.values()])[:-1]
        hashes = dict(zip(self.splits, np.split(self._hashes, ends), strict=True))
        return {
            f"{one}_and_{other}": int(np.isin(hashes[other], hashes[one]).sum())
            for one, other in PAIRS
            if other in hashes
        }

    @functools.cached_property
    def _hashes(self) -> np.ndarray:
        """Those of all images, split by split."""
        return np.concatenate([split.hashes() for split in self.splits.values()])

    def duplicates_warnings(self) -> Iterator[str]:
        """Yield a line that warns of images which are in two splits, and one of those in two classes."""
        names = {"train": "training", "val": "validation", "test": "test"}
        found = [
            f"{count:,} of {len(self.splits[other]):,} {names[other]} images are {names[one]} images too"
            for one, other in PAIRS
            if (count := self.duplicates.get(f"{one}_and_{other}"))
        ]
        splits = self.splits.values()
        part = np.repeat(np.arange(len(splits)), [len(split) for split in splits])
        labels = np.concatenate([split.labels for split in splits])
        files = [file for split in splits for file in split.files_at(np.arange(len(split)))]
        _, first, inverse = np.unique(self._hashes, return_index=True, return_inverse=True)
        twins = first[inverse]  # of each image the first that is equal

        def remedy(chosen: np.ndarray) -> str:
            rows = np.flatnonzero(chosen).tolist() if files else []
            pairs = [f"{printable(files[row])} = {printable(files[twins[row]])}" for row in rows[:MAX_NAMED]]
            more = f" and {len(rows) - MAX_NAMED:,} more" if len(rows) > MAX_NAMED else ""
            return f"Remove the copies{': ' * bool(pairs)}{', '.join(pairs)}{more}."

        if found:
            consequence = "accuracy on them says nothing of new images"
            yield (
                f"warning: {', '.join(found)}, pixel for pixel; {consequence}. {remedy(part != part[twins])}"
            )
        if files and (torn := labels != labels[twins]).any():
            equal = f"{counted(int(torn.sum()), 'image')} with an equal one in another class"
            yield f"warning: {equal}, pixel for pixel. {remedy(torn)}"


def _present(train: Split, val: Split | None, test: Split | None) -> dict[str, Split]:
    splits = {"train": train, "val": val, "test": test}
    return {name: split for name, split in splits.items() if split is not None}


def fingerprint(source: Source) -> str:
    """Return the SHA-256 of what a source holds: class names, labels and pixels, in order.

    Where the hashes of all images are known, the cache remembers it by them, and no pixel is read again.
    """
    if any(each.known_hashes is None for each in source.splits.values()):
        return _sha256(source, Split.chunks)
    path = cache_folder() / f"{_sha256(source, lambda split: [split.hashes()])}.fingerprint"
    with contextlib.suppress(OSError, ValueError):
        if re.fullmatch("[0-9a-f]{64}", text := path.read_text()):
            return text
    text = _sha256(source, Split.chunks)
    with contextlib.suppress(OSError):
        write_text(path, text)
    return text


def _sha256(source: Source, content: Callable[[Split], Iterable[np.ndarray]]) -> str:
    """Hash class names, labels and the `content` of each split."""
    digest = hashlib.sha256(repr(source.class_names).encode())
    for name, split in source.splits.items():
        digest.update(f"{name} {len(split)} {split.images.shape[1:]}".encode())
        digest.update(split.labels.astype("<i4").tobytes())
        for array in content(split):
            digest.update(array.data)
    return digest.hexdigest()
