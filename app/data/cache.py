"""Decoded images in a file of the cache, which an interrupted decoding leaves fit to be continued.

NAME-LISTING.images holds the pixels of one image after the other, then a record for each: the key of its file
where its pixels are there, 0 where not, and their hash. Pixels are flushed to disk before their records are
written: what has a key is whole after a kill or a power cut. Other images of the same NAME, such as those of
a folder that changed, get a file of another LISTING, which takes over what the older one has of them. Files
may be deleted at any time: processes that have them mapped keep them, but for those on NFS, where the images
of a training may not change.
"""

import contextlib
import errno
import fcntl
import hashlib
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Self

import numpy as np

from app.data.dataset import pixel_hashes
from app.data.progress import progress, remark
from app.machine import free_disk_bytes
from app.paths import cache_folder, shown

DISK_FRACTION = 0.8  # of the free space, which decoded images may take
SAID_BYTES = 10**8  # what takes less is not worth a line
COPIED_BYTES = 64 * 2**20  # at a time
RECORD = np.dtype([("key", np.uint64), ("hash", np.uint64)])


class ImageCache:
    """The images of one list, as far as they are decoded; one process at a time has it open.

    Attributes:
        path: The file.
        present: Which images are in it, `(n,)` bool.
        hashes: Of those, as `pixel_hashes` gives them, `(n,)` uint64.
    """

    def __init__(self, name: str, shape: tuple[int, ...], keys: np.ndarray):
        """Name the file, without opening it.

        Args:
            name: Stands for how images were made, and for their shape.
            shape: Of all images.
            keys: For each image a number that stands for its content, `(n,)` uint64.
        """
        listing = hashlib.blake2b(keys.tobytes(), digest_size=16).hexdigest()
        self.path = cache_folder() / f"{name}-{listing}.images"
        self.present, self.hashes = np.zeros(len(keys), bool), np.zeros(len(keys), np.uint64)
        self._pattern, self._shape, self._keys = f"{name}-*.images", shape, keys
        self._image_bytes = math.prod(shape[1:])
        self._file: IO[bytes] | None = None

    def __enter__(self) -> Self:
        """Open the file if there is one, once no other process has it open."""
        with contextlib.suppress(OSError):
            # A complete one serves even where it cannot be written.
            self._open("rb+" if os.access(self.path, os.W_OK) else "rb")
        return self

    def __exit__(self, *_: object) -> None:
        """Let other processes open the file; what is mapped of it stays."""
        if self._file:
            with contextlib.suppress(OSError):  # a file system without locks
                fcntl.flock(self._file, fcntl.LOCK_UN)  # closing would not do: a mapping holds it, too
            with contextlib.suppress(OSError):  # what a full disk did not take
                self._file.close()

    @property
    def known(self) -> bool:
        """Whether there is a file of these images, or of others of the name."""
        return any(self.path.parent.glob(self._pattern))

    @property
    def _missing_bytes(self) -> int:
        return self._image_bytes * int(np.sum(~self.present))

    def begin(self) -> None:
        """Make ready to write: say how much of the disk that takes, and take over what an older file has.

        Raises:
            OSError: There is too little space, or the file cannot be written.
        """
        folder, free = self.path.parent, free_disk_bytes(self.path.parent)
        if self._missing_bytes > DISK_FRACTION * free:
            words = f"more than {DISK_FRACTION:.0%} of the {free / 1e9:.1f} GB that are free"
            raise OSError(errno.ENOSPC, words)
        if self._file is None:
            folder.mkdir(parents=True, exist_ok=True)
            self.path.touch()
            self._open("rb+")
        if self._missing_bytes >= SAID_BYTES:
            place = f"{shown(folder)}, where {free / 1e9:.1f} GB are free"
            remark(f"decoded images take {self._missing_bytes / 1e9:.1f} GB of {place}")
        if not (self._file and self._file.writable()):
            raise OSError(errno.EACCES, os.strerror(errno.EACCES))
        for older in sorted(folder.glob(self._pattern)):
            if older != self.path:
                self._take_over(older)

    def write(self, positions: np.ndarray, images: np.ndarray) -> None:
        """Write images `(n, ...)` uint8 to ascending positions `(n,)`.

        Raises:
            OSError: The disk is full.
        """
        if not len(positions):
            return
        assert self._file
        self._write(0, positions, images)
        self._file.flush()
        os.fsync(self._file.fileno())
        records = np.empty(len(positions), RECORD)
        records["key"], records["hash"] = self._keys[positions], pixel_hashes(images)
        self._write(math.prod(self._shape), positions, records)
        self._file.flush()
        self.present[positions], self.hashes[positions] = True, records["hash"]

    def images(self) -> np.ndarray:
        """Return all images, mapped into memory; zeros for those that are not there."""
        assert self._file
        # Not of the file object itself, in whose buffer a full disk may have left something.
        with open(self._file.fileno(), "rb", closefd=False) as file:
            return np.memmap(file, np.uint8, "r", shape=self._shape)

    def _open(self, mode: str) -> None:
        file = self._file = open(self.path, mode)
        _lock(file)
        size, start = len(self._keys) * (self._image_bytes + RECORD.itemsize), math.prod(self._shape)
        if os.fstat(file.fileno()).st_size != size:  # new, or damaged
            file.truncate(0)
            file.truncate(size)
        file.seek(start)
        records = np.frombuffer(file.read(), RECORD)
        self.present, self.hashes = records["key"] == self._keys, records["hash"].copy()

    def _write(self, start: int, positions: np.ndarray, content: np.ndarray) -> None:
        """Write rows of `content` to their positions behind `start`, neighbours at once."""
        assert self._file
        size = content[:1].nbytes
        for run in np.split(np.arange(len(positions)), np.flatnonzero(np.diff(positions) != 1) + 1):
            self._file.seek(start + int(positions[run[0]]) * size)
            self._file.write(np.ascontiguousarray(content[run[0] : run[-1] + 1]).data)

    def _take_over(self, older: Path) -> None:
        """Copy what is wanted from the file of another list, and delete that file unless it is in use."""
        with contextlib.ExitStack() as stack:
            try:
                # NFS gives no lock to a file that is open for reading alone.
                file = stack.enter_context(open(older, "rb+" if os.access(older, os.W_OK) else "rb"))
                num_images = os.fstat(file.fileno()).st_size // (self._image_bytes + RECORD.itemsize)
                images = np.memmap(file, np.uint8, "r", shape=(num_images, *self._shape[1:]))
                file.seek(images.nbytes)
                keys = np.frombuffer(file.read(), RECORD)["key"]
            except (OSError, ValueError):  # deleted meanwhile, or damaged
                return
            wanted = np.flatnonzero(~self.present)
            _, here, there = np.intersect1d(self._keys[wanted], keys, return_indices=True)
            here, there = np.sort(wanted[here]), there[np.argsort(wanted[here])]
            with progress("taking over decoded images", len(here)) as advance:
                for chunk in ranges(len(here), max(1, COPIED_BYTES // self._image_bytes)):
                    some = slice(chunk.start, chunk.stop)
                    self.write(here[some], images[there[some]])
                    advance(len(chunk))
            with contextlib.suppress(OSError):  # where another process has it open
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                older.unlink()


def _lock(file: IO[bytes]) -> None:
    """Lock an open file for this process; wait where another one has it."""
    with contextlib.suppress(OSError):  # a file system without locks
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            remark("another process decodes these images; waiting for it")
            fcntl.flock(file, fcntl.LOCK_EX)


def ranges(total: int, size: int) -> Iterator[range]:
    """Yield the ranges of at most `size` that make up 0 to `total`."""
    return (range(start, min(start + size, total)) for start in range(0, total, size))
