"""The random streams of the data: the order of an epoch, its flips, the split."""

import numpy as np

from app.config.dataset import Sampler

# Streams, beside the epochs' 0, 1, 2, ...
SPLIT_STREAM = 2**63  # plus the class
FLIP_STREAM = 2**62
OLD_FLIP_STREAM = SPLIT_STREAM + 1  # of runs whose states do not name theirs: the split's of class 1, too


def generator(seed: int, stream: int) -> np.random.Generator:
    """Return the random numbers of a stream: Philox, keyed by the seed and the stream."""
    return np.random.Generator(np.random.Philox(key=np.array([seed, stream], np.uint64)))


def epoch_order(seed: int, epoch: int, labels: np.ndarray, sampler: Sampler | None = None) -> np.ndarray:
    """Return the order of an epoch (counted from 0): as many positions as there are images, int64.

    Without a sampler it is a permutation. A sampler gives each class its number of places, see `num_places`;
    a class fills them with whole passes through its images and a random part of one more. So an epoch never
    holds an image twice while it lacks another one of the same class.

    Args:
        seed: Names the order.
        epoch: The epoch.
        labels: The class of each image, `(num_images,)`.
        sampler: How often classes appear; None for as often as they have images.
    """
    rng = generator(seed, epoch)
    if sampler is None:
        return rng.permutation(len(labels))
    counts = np.bincount(labels)
    by_class = np.split(np.argsort(labels, kind="stable"), np.cumsum(counts)[:-1])
    drawn = []
    for positions, places in zip(by_class, num_places(counts, sampler, rng.random()), strict=True):
        passes, rest = divmod(places, max(len(positions), 1))
        drawn += [np.tile(positions, passes), rng.permutation(positions)[:rest]]
    return rng.permutation(np.concatenate(drawn))


def num_places(counts: np.ndarray, sampler: Sampler, coin: float) -> np.ndarray:
    """Return how many places of an epoch each class gets; together as many as there are images.

    A class gets its exact number rounded up or down. `coin`, between 0 and 1, decides which classes round up,
    so that over all epochs each has its exact number on average.
    """
    weights = np.sign(counts) if sampler == "balanced" else np.sqrt(counts)
    ends = np.cumsum(weights)
    ends = np.floor(ends / ends[-1] * counts.sum() + coin)
    return np.diff(np.minimum(ends, counts.sum()).astype(np.int64), prepend=0)


def flipped_images(seed: int, epoch: int, num_images: int, stream: int = FLIP_STREAM) -> np.ndarray:
    """Return which images an alternating flip mirrors in an epoch (counted from 0), `(num_images,)` bool.

    A coin for each image decides in the first epoch; from then on every image is mirrored in every second
    epoch. Each pair of epochs thus shows each image both ways, where independent coins would show half of
    the images the same way twice. Jordan 2024, arXiv:2404.00498, section 3.6.
    """
    coins = generator(seed, stream).random(num_images) < 0.5
    return coins ^ bool(epoch % 2)


def flipped_places(seed: int, epoch: int, order: np.ndarray, stream: int = FLIP_STREAM) -> np.ndarray:
    """Return which places of an epoch's order show their image mirrored, `(num_images,)` bool.

    The first time an image appears it is as `flipped_images` says. Where a sampler repeats it, it is mirrored
    every other time.
    """
    by_image = np.argsort(order, kind="stable")
    sorted_order = order[by_image]
    earlier = np.empty_like(order)  # how often the image has appeared before
    earlier[by_image] = np.arange(len(order)) - np.searchsorted(sorted_order, sorted_order)
    return flipped_images(seed, epoch, len(order), stream)[order] ^ (earlier % 2 == 1)
