"""Class folders, decoded: their images in one array, the bad ones named or left out."""

import dataclasses
import hashlib
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from app.config.dataset import DatasetConfig
from app.data.dataset import Source, Split
from app.data.images import DECODER, BadImageError, ImageFormat, decode_file, listing_of, quiet_pillow
from app.data.listing import FolderIndex, index_folder
from app.data.splits import divide, subsample
from app.data.store import BadImages, store_images
from app.errors import UserError
from app.machine import usable_cores
from app.paths import shown
from app.wording import printable

SMALL_FILE_BYTES = 2048


def load_folder(
    root: Path,
    image_format: ImageFormat,
    config: DatasetConfig,
    official: Sequence[str] | None = None,
) -> Source:
    """Index and decode class folders; `official` as in `index_folder`.

    Raises:
        UserError: Also for classes that cannot be divided, before anything is decoded, for unreadable images,
            and for images of different sizes where no size is asked for.
    """
    index = index_folder(root, official)
    if config.fold is None and config.relabel is None:  # else it needs pixels, or other labels
        source = _source(index, np.empty((len(index.files), 0, 0, 0), np.uint8))
        rest, share = divide(source, config)[0], config.train_share
        if share and config.exclude is None and config.on_bad_image == "fail":  # else fewer may be left
            subsample(rest, share, len(source.train), config.split_seed, len(index.class_names))
    first, shape = _first_shape(index, image_format, config.on_bad_image)

    def decode(position: int) -> np.ndarray:
        pixels = decode_file(os.path.join(root, index.files[position]), image_format)
        if pixels.shape != shape:
            sizes = [
                f"{printable(index.files[p])} is {height}x{width}"
                for p, (height, width, _) in ((first, shape), (position, pixels.shape))
            ]
            raise UserError(
                f"{shown(root)}: images differ in size: {', '.join(sizes)} (height x width). "
                "Set dataset.image_size: [height, width]."
            )
        return pixels

    first_file = root / index.files[first]
    small = os.path.exists(first_file) and os.path.getsize(first_file) < SMALL_FILE_BYTES
    num_threads = 1 if small else usable_cores()  # where Python outweighs decoding, threads would queue
    images, hashes, bad = store_images(
        decode,
        (len(index.files), *shape),
        hashlib.sha256(
            repr((str(root.resolve()), dataclasses.asdict(image_format), shape)).encode()
        ).hexdigest()[:32],
        _keys(index),
        num_threads,
    )
    _check_bad(index, bad, config.on_bad_image)
    return _source(index, images, hashes, bad)


def _source(
    index: FolderIndex, images: np.ndarray, hashes: np.ndarray | None = None, bad: BadImages | None = None
) -> Source:
    """Return what an index and its images make up; `hashes` as `store_images` gives them."""
    bad = bad or {}
    splits = {
        part: Split(images, index.labels[rows], rows, index.files, hashes)
        for part, rows in _good_rows(index, bad)
    }
    suffixes = sorted({os.path.splitext(name)[1].lower() for name in index.files})
    text = f"class folders in {shown(index.root)} ({len(index.files):,} {' '.join(suffixes)} files)"
    if index.num_ignored:
        text += f", {index.num_ignored} other files ignored"
    skipped = tuple(printable(index.files[position]) for position in sorted(bad))
    return Source(index.class_names, splits["train"], splits.get("val"), splits.get("test"), text, skipped)


def _first_shape(
    index: FolderIndex, image_format: ImageFormat, on_bad_image: str
) -> tuple[int, tuple[int, int, int]]:
    """Return the position and shape of the first readable image, which the others must agree with."""
    if image_format.image_size is not None:
        return 0, (*image_format.image_size, image_format.channels)
    bad = {}
    for position, name in enumerate(index.files):
        try:
            with quiet_pillow():
                height, width, channels = decode_file(index.root / name, image_format).shape
            return position, (height, width, channels)
        except BadImageError as error:
            bad[position] = str(error)
    _check_bad(index, bad, on_bad_image)
    raise AssertionError("an index holds images")


def _check_bad(index: FolderIndex, bad: BadImages, on_bad_image: str) -> None:
    """Raise for bad images, or, where they may be skipped, for classes that would lose every image."""
    if not bad:
        return
    if on_bad_image == "fail":
        raise UserError(
            f"{shown(index.root)}: {len(bad)} of {len(index.files)} images cannot be read:\n"
            + listing_of([(index.files[position], bad[position]) for position in sorted(bad)])
            + "\nRepair or remove them, or leave them out with dataset.on_bad_image: skip."
        )
    for part, rows in _good_rows(index, bad):
        counts = np.bincount(index.labels[rows], minlength=len(index.class_names))
        if lost := [name for name, count in zip(index.class_names, counts, strict=True) if count == 0]:
            raise UserError(
                f"{shown(index.root)}: no readable image is left in {part} for: {', '.join(lost)} "
                f"({len(bad)} bad images skipped)"
            )


def _good_rows(index: FolderIndex, bad: BadImages) -> Iterator[tuple[str, np.ndarray]]:
    """Yield each part with the positions of its images that are not bad."""
    for part, place in index.parts.items():
        rows = np.arange(place.start, place.stop)
        yield part, rows[~np.isin(rows, list(bad))]


def _keys(index: FolderIndex) -> np.ndarray:
    """Return a number for each file, uint64, that changes with its path, size, time and the decoder."""
    found: list[os.stat_result | None] = []
    for name in index.files:
        try:
            found.append(os.stat(os.path.join(index.root, name)))
        except OSError:
            found.append(None)
    alike = Counter((status.st_size, status.st_mtime_ns) for status in found if status)
    digests = []
    for name, status in zip(index.files, found, strict=True):
        words = f"{name!a} missing"
        if status:
            size, time = status.st_size, status.st_mtime_ns
            # Of an archive whose files have one size and time: only this tells that two changed places.
            changed = status.st_ctime_ns if alike[size, time] > 1 else ""
            words = f"{name!a} {size} {time} {DECODER} {changed}".rstrip()
        digests.append(hashlib.blake2b(words.encode(), digest_size=8).digest())
    return np.frombuffer(b"".join(digests), np.uint64)
