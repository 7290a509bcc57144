"""Where decoded images lie: what is quickly decoded in memory, all else in a file of the cache.

The file is mapped into memory, which the system can take back, and the next start need not decode again.
"""

import math
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from app.data.cache import ImageCache, ranges
from app.data.images import BadImageError, quiet_pillow
from app.data.progress import progress, remark
from app.errors import UserError
from app.machine import available_memory_bytes
from app.paths import cache_folder, shown

MEMORY_FRACTION = 0.25  # of the available memory, which decoded images may take
KEPT_AFTER_SECONDS = 5.0  # of decoding
BLOCK_IMAGES, BLOCK_BYTES = 256, 64 * 2**20  # decoded between two writes, at most
FILES_PER_TASK = 64

BadImages = dict[int, str]  # position -> reason


def store_images(
    decode: Callable[[int], np.ndarray],
    shape: tuple[int, ...],
    name: str,
    keys: np.ndarray,
    num_threads: int = 1,
) -> tuple[np.ndarray, np.ndarray | None, BadImages]:
    """Decode every image once, but for those that the cache has. Bad ones are tried anew at every start.

    Args:
        decode: Returns the pixels at a position, uint8, or raises BadImageError. Runs in threads.
        shape: Of all images.
        name: Stands in the cache for how the images are made, and for the shape of one.
        keys: For each image a number that stands for its content, `(n,)` uint64.
        num_threads: That decode side by side.

    Returns:
        All images, uint8, with zeros for the bad ones; of those in the cache the hashes, see `pixel_hashes`,
        else None; and the bad ones.

    Raises:
        UserError: The images are too many for memory, and the cache cannot take them either.
    """
    bad: BadImages = {}
    fits_in_memory = math.prod(shape) <= MEMORY_FRACTION * available_memory_bytes()

    def fill(
        keep: Callable[[np.ndarray, np.ndarray], None], missing: np.ndarray, seconds: float = math.inf
    ) -> np.ndarray:
        """Decode images and hand them to `keep` until the time is over; return the positions of the rest."""
        began = time.monotonic()
        with progress("decoding images", shape[0], shape[0] - len(missing)) as advance:
            for positions, block in _decoded_blocks(decode, missing, shape[1:], num_threads, bad, advance):
                good = ~np.isin(positions, list(bad))
                keep(positions[good], block[good])
                missing = missing[len(positions) :]
                if time.monotonic() - began > seconds:
                    break
        return missing

    with ImageCache(name, shape, keys) as cache:
        missing, done, images = np.flatnonzero(~cache.present), np.array([], int), None
        began, slow = time.monotonic(), False
        if fits_in_memory and not cache.known:
            images = np.zeros(shape, np.uint8)
            done = np.setdiff1d(missing, missing := fill(images.__setitem__, missing, KEPT_AFTER_SECONDS))
            slow = time.monotonic() - began > KEPT_AFTER_SECONDS
        try:
            if len(missing) or slow:
                cache.begin()
                if images is not None:
                    done = np.setdiff1d(done, [*bad, *np.flatnonzero(cache.present)])
                    cache.write(done, images[done])
                    images, done = None, done[:0]
                fill(cache.write, np.setdiff1d(np.flatnonzero(~cache.present), list(bad)))
        except OSError as error:
            size = f"{math.prod(shape) / 1e9:.1f} GB of decoded images"
            refusal = f"{shown(cache_folder())}: cannot keep {size} ({error.strerror})"
            rest = np.setdiff1d(np.flatnonzero(~cache.present), [*bad, *done])
            if fits_in_memory:
                remark(f"{refusal}; they stay in memory alone")
                images = np.zeros(shape, np.uint8) if images is None else images
                if cache.present.any():
                    images[cache.present] = cache.images()[cache.present]
                fill(images.__setitem__, rest)
            elif cache.present.any() and len(rest) <= BLOCK_IMAGES:
                fill(lambda *_: None, rest)  # nothing has to be kept where all of them are bad
                rest = np.setdiff1d(rest, list(bad))
            if not fits_in_memory and len(rest):
                raise UserError(
                    f"{refusal}, which exceed {MEMORY_FRACTION:.0%} of the available memory. Free space (all "
                    "that lies there may be deleted), or choose a smaller dataset.image_size."
                ) from error
        return (cache.images(), cache.hashes, bad) if images is None else (images, None, bad)


def _decoded_blocks(
    decode: Callable[[int], np.ndarray],
    positions: np.ndarray,
    shape: tuple[int, ...],
    num_threads: int,
    bad: BadImages,
    advance: Callable[[int], None],
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield some of the positions and, for each, an image of `shape`, uint8, zeros for those in `bad`."""

    def task(rows: range) -> int:
        for row in rows:
            try:
                block[row] = decode(some[row])
            except BadImageError as error:
                bad[some[row]] = str(error)
        return len(rows)

    for places in ranges(len(positions), max(1, min(BLOCK_IMAGES, BLOCK_BYTES // math.prod(shape)))):
        some = positions[places.start : places.stop].tolist()
        block = np.zeros((len(some), *shape), np.uint8)
        with quiet_pillow(), ThreadPoolExecutor(num_threads) as pool:
            tasks = ranges(len(some), max(1, min(FILES_PER_TASK, len(some) // (4 * num_threads))))
            try:
                for num_done in pool.map(task, tasks):
                    advance(num_done)
            except BaseException:  # also a signal's: the tasks under way suffice to wait for
                pool.shutdown(wait=False, cancel_futures=True)
                raise
        yield positions[places.start : places.stop], block
