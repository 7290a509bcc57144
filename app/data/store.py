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

BadImages = dict[int, str]  # position -> reason


def store_images(
    decode: Callable[[int], np.ndarray],
    num_images: int,
    shape: tuple[int, ...],
    path: Path,
    check: Callable[[BadImages], None] = lambda bad: None,
    num_threads: int = 1,
) -> tuple[np.ndarray, BadImages]:
    """Decode every image once.

    Args:
        decode: Returns the pixels at a position, `shape` uint8, or raises BadImageError. Runs in threads.
        num_images: How many there are.
        shape: Of one image.
        path: The file for images that are too many for memory, or took long to decode. Its name must stand
            for the content: a file of that name is used as it is. It may be deleted at any time.
        check: Sees the bad images before anything is kept, and may raise.
        num_threads: That decode side by side.

    Returns:
        All images, `(num_images, *shape)` uint8, with zeros for the bad ones, and the bad ones.

    Raises:
        UserError: The cache cannot be written.
    """
    reasons = path.with_suffix(".json")
    in_memory = num_images * math.prod(shape) <= MEMORY_FRACTION * available_memory_bytes()
    cached = _read_cache(path, reasons, (num_images, *shape))
    if cached is not None:
        images, bad = cached
        check(bad)
        return np.array(images) if in_memory else images, bad
    if in_memory:
        began = time.monotonic()
        images, bad = np.zeros((num_images, *shape), np.uint8), {}
        with _decoding(num_images) as advance:
            for start, stop in _blocks(num_images, shape):
                bad |= _fill(images[start:stop], decode, start, num_threads, advance)
        check(bad)
        if time.monotonic() - began > KEPT_AFTER_SECONDS:
            _keep(path, reasons, images, bad)
        return images, bad
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _write_cache(path, reasons, decode, (num_images, *shape), check, num_threads)
    except OSError as error:
        gigabytes = num_images * math.prod(shape) / 1e9
        raise UserError(
            f"{shown(path.parent)}: cannot keep {gigabytes:.1f} GB of decoded images ({error.strerror}); "
            f"they exceed {MEMORY_FRACTION:.0%} of the available memory. Free the space, or choose a smaller "
            "dataset.image_size."
        ) from error
    cached = _read_cache(path, reasons, (num_images, *shape))
    assert cached is not None
    return cached


def _keep(path: Path, reasons: Path, images: np.ndarray, bad: BadImages) -> None:
    """Write what was decoded, if a tenth of the free space suffices; a failure is of no consequence."""
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        if images.nbytes <= 0.1 * shutil.disk_usage(path.parent).free:
            with atomic_path(path) as temporary, _open_held(temporary) as file:
                np.save(file, images)
            write_text(reasons, json.dumps(bad))


def _read_cache(path: Path, reasons: Path, shape: tuple[int, ...]) -> tuple[np.ndarray, BadImages] | None:
    """Return what an earlier load left; None where there is nothing or it is damaged."""
    try:
        images = np.load(path, mmap_mode="r", allow_pickle=False)
        bad = {int(position): reason for position, reason in json.loads(reasons.read_text()).items()}
    except (OSError, EOFError, ValueError):
        return None
    return (images, bad) if images.shape == shape and images.dtype == np.uint8 else None


def _write_cache(
    path: Path,
    reasons: Path,
    decode: Callable[[int], np.ndarray],
    shape: tuple[int, ...],
    check: Callable[[BadImages], None],
    num_threads: int,
) -> None:
    """Write images block by block through the file, so that a full disk is an error, not a crash."""
    bad: BadImages = {}
    with atomic_path(path) as temporary:
        with _open_held(temporary) as file, _decoding(shape[0]) as advance:
            header = {"descr": "|u1", "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(file, header)
            for start, stop in _blocks(shape[0], shape[1:]):
                block = np.zeros((stop - start, *shape[1:]), np.uint8)
                bad |= _fill(block, decode, start, num_threads, advance)
                file.write(block.data)
        check(bad)
        write_text(reasons, json.dumps(bad))


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


def _decoding(num_images: int) -> contextlib.AbstractContextManager[Callable[[int], None]]:
    return progress("decoding images", num_images)


def _blocks(num_images: int, shape: tuple[int, ...]) -> Iterator[tuple[int, int]]:
    size = max(1, BLOCK_BYTES // math.prod(shape))
    for start in range(0, num_images, size):
        yield start, min(start + size, num_images)


def _fill(
    block: np.ndarray,
    decode: Callable[[int], np.ndarray],
    offset: int,
    num_threads: int,
    advance: Callable[[int], None],
) -> BadImages:
    """Decode the images from position `offset` on into `block`; return the bad ones."""
    size = max(1, min(FILES_PER_TASK, len(block) // (4 * num_threads)))

    def task(rows: range) -> BadImages:
        bad = {}
        for row in rows:
            try:
                block[row] = decode(offset + row)
            except BadImageError as error:
                bad[offset + row] = str(error)
        return bad

    bad: BadImages = {}
    tasks = [range(start, min(start + size, len(block))) for start in range(0, len(block), size)]
    with quiet_pillow(), ThreadPoolExecutor(num_threads) as pool:
        try:
            for rows, found in zip(tasks, pool.map(task, tasks), strict=True):
                bad |= found
                advance(len(rows))
        except BaseException:  # also a signal's: the tasks under way suffice to wait for
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return bad
