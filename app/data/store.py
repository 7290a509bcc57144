"""Where decoded images lie: in memory, or in a file of the cache where they would take too much of it.

What took long to decode is kept in such a file in either case, so that the next start need not wait for it.
"""

import contextlib
import fcntl
import json
import math
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO

import numpy as np

from app.data.images import BadImageError, quiet_pillow
from app.data.progress import progress
from app.errors import UserError
from app.files import atomic_path, write_text
from app.machine import available_memory_bytes
from app.paths import shown

MEMORY_FRACTION = 0.25  # decoded images above this fraction of the available memory go to disk
KEPT_AFTER_SECONDS = 5.0  # of decoding
BLOCK_BYTES = 64 * 2**20  # decoded between two writes
FILES_PER_TASK = 64
PID_REUSED_SECONDS = 86_400.0  # a file untouched for so long is not of the process that has its number now

WHAT = "decoding images"

BadImages = dict[int, str]  # position -> reason


def store_images(
    decode: Callable[[int], np.ndarray],
    shape: tuple[int, ...],
    path: Path,
    check: Callable[[BadImages], None] = lambda bad: None,
    num_threads: int = 1,
) -> tuple[np.ndarray, BadImages]:
    """Decode every image once.

    Args:
        decode: Returns the pixels at a position, uint8, or raises BadImageError. Runs in threads.
        shape: Of all images.
        path: The file for images that are too many for memory, or took long to decode. Its name must stand
            for the content: a file of that name is used as it is. It may be deleted at any time.
        check: Sees the bad images before anything is kept, and may raise.
        num_threads: That decode side by side.

    Returns:
        All images, uint8, with zeros for the bad ones, and the bad ones.

    Raises:
        UserError: The cache cannot be written.
    """
    size = math.prod(shape)
    in_memory = size <= MEMORY_FRACTION * available_memory_bytes()
    cached = _read_cache(path, shape)
    if cached is not None:
        images, bad = cached
        check(bad)
        return np.array(images) if in_memory else images, bad
    bad = {}
    if in_memory:
        began, images = time.monotonic(), np.empty(shape, np.uint8)
        with progress(WHAT, shape[0]) as advance:
            for start, block in _decoded_blocks(decode, shape, num_threads, bad, advance):
                images[start : start + len(block)] = block
        check(bad)
        if time.monotonic() - began > KEPT_AFTER_SECONDS:
            _keep(path, images, bad)
        return images, bad
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(path) as temporary:
            # Through the file, not memory that is mapped to it: a full disk is an error, not a crash.
            with _open_held(temporary) as file, progress(WHAT, shape[0]) as advance:
                header = {"descr": "|u1", "fortran_order": False, "shape": shape}
                np.lib.format.write_array_header_1_0(file, header)
                for _, block in _decoded_blocks(decode, shape, num_threads, bad, advance):
                    file.write(block.data)
            check(bad)
            write_text(path.with_suffix(".json"), json.dumps(bad))
    except OSError as error:
        raise UserError(
            f"{shown(path.parent)}: cannot keep {size / 1e9:.1f} GB of decoded images ({error.strerror}); "
            f"they exceed {MEMORY_FRACTION:.0%} of the available memory. Free the space, or choose a smaller "
            "dataset.image_size."
        ) from error
    cached = _read_cache(path, shape)
    assert cached is not None
    return cached


def _keep(path: Path, images: np.ndarray, bad: BadImages) -> None:
    """Write what was decoded, if a tenth of the free space suffices; a failure is of no consequence."""
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        if images.nbytes <= 0.1 * shutil.disk_usage(path.parent).free:
            with atomic_path(path) as temporary, _open_held(temporary) as file:
                np.save(file, images)
            write_text(path.with_suffix(".json"), json.dumps(bad))


def _read_cache(path: Path, shape: tuple[int, ...]) -> tuple[np.ndarray, BadImages] | None:
    """Return what an earlier load left; None where there is nothing or it is damaged."""
    try:
        images = np.load(path, mmap_mode="r", allow_pickle=False)
        reasons = json.loads(path.with_suffix(".json").read_text())
        bad = {int(position): reason for position, reason in reasons.items()}
    except (OSError, EOFError, ValueError):
        return None
    return (images, bad) if images.shape == shape and images.dtype == np.uint8 else None


def _open_held(path: Path) -> BinaryIO:
    """Open a new file for writing, with a lock by which others see that its process lives."""
    file = open(path, "wb")
    with contextlib.suppress(OSError):  # a file system without locks
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    return file


def remove_stale_temporaries(folder: Path) -> None:
    """Delete what killed processes left half-written in the cache.

    A file is left alone while its process lives, or while it is locked: processes of other machines and
    containers have numbers of their own.
    """
    for path in folder.glob(".tmp-*"):
        number = re.match(r"\.tmp-(\d+)-", path.name)
        with contextlib.suppress(OSError), open(path, "rb+") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # an OSError where another process holds it
            untouched = time.time() - os.fstat(file.fileno()).st_mtime
            if untouched > PID_REUSED_SECONDS or (number and not _lives(int(number[1]))):
                path.unlink()


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # another user's
        pass
    return True


def _decoded_blocks(
    decode: Callable[[int], np.ndarray],
    shape: tuple[int, ...],
    num_threads: int,
    bad: BadImages,
    advance: Callable[[int], None],
) -> Iterator[tuple[int, np.ndarray]]:
    """Yield the position of an image and, from it on, `(n, *shape[1:])` uint8, zeros for those in `bad`."""

    def task(rows: range) -> int:
        for row in rows:
            try:
                block[row] = decode(start + row)
            except BadImageError as error:
                bad[start + row] = str(error)
        return len(rows)

    for positions in _ranges(shape[0], max(1, BLOCK_BYTES // math.prod(shape[1:]))):
        start, block = positions.start, np.zeros((len(positions), *shape[1:]), np.uint8)
        with quiet_pillow(), ThreadPoolExecutor(num_threads) as pool:
            tasks = _ranges(len(block), max(1, min(FILES_PER_TASK, len(block) // (4 * num_threads))))
            try:
                for num_done in pool.map(task, tasks):
                    advance(num_done)
            except BaseException:  # also a signal's: the tasks under way suffice to wait for
                pool.shutdown(wait=False, cancel_futures=True)
                raise
        yield start, block


def _ranges(total: int, size: int) -> Iterator[range]:
    return (range(start, min(start + size, total)) for start in range(0, total, size))
