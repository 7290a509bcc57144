"""The random streams of the data: the order of an epoch, its flips, the split."""

import numpy as np

SPLIT_STREAM = 2**63  # second half of the Philox key, plus the class; epochs use 0, 1, 2, ...


def _generator(seed: int, stream: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(key=np.array([seed, stream], np.uint64)))


FLIP_STREAM = 2**62  # of the Philox key; epochs use 0, 1, 2, ..., splits SPLIT_STREAM + the class


OLD_FLIP_STREAM = SPLIT_STREAM + 1  # of runs whose states do not name theirs: the split's of class 1, too


def epoch_order(seed: int, epoch: int, num_images: int) -> np.ndarray:
    """Return the order of an epoch (counted from 0), a permutation of `range(num_images)`, int64."""
    key = np.array([seed, epoch], np.uint64)
    return np.random.Generator(np.random.Philox(key=key)).permutation(num_images)


def flipped_images(seed: int, epoch: int, num_images: int, stream: int = FLIP_STREAM) -> np.ndarray:
    """Return which images an alternating flip mirrors in an epoch (counted from 0), `(num_images,)` bool.

    A coin for each image decides in the first epoch; from then on every image is mirrored in every second
    epoch. Each pair of epochs thus shows each image both ways, where independent coins would show half of
    the images the same way twice. Jordan 2024, arXiv:2404.00498, section 3.6.
    """
    key = np.array([seed, stream], np.uint64)
    coins = np.random.Generator(np.random.Philox(key=key)).random(num_images) < 0.5
    return coins ^ bool(epoch % 2)
