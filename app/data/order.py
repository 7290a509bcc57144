"""The random streams of the data: the order of an epoch, its flips, the split."""

import numpy as np

# Streams, beside the epochs' 0, 1, 2, ...
SPLIT_STREAM = 2**63  # plus the class
FLIP_STREAM = 2**62
OLD_FLIP_STREAM = SPLIT_STREAM + 1  # of runs whose states do not name theirs: the split's of class 1, too


def generator(seed: int, stream: int) -> np.random.Generator:
    """Return the random numbers of a stream: Philox, keyed by the seed and the stream."""
    return np.random.Generator(np.random.Philox(key=np.array([seed, stream], np.uint64)))


def epoch_order(seed: int, epoch: int, num_images: int) -> np.ndarray:
    """Return the order of an epoch (counted from 0), a permutation of `range(num_images)`, int64."""
    return generator(seed, epoch).permutation(num_images)


def flipped_images(seed: int, epoch: int, num_images: int, stream: int = FLIP_STREAM) -> np.ndarray:
    """Return which images an alternating flip mirrors in an epoch (counted from 0), `(num_images,)` bool.

    A coin for each image decides in the first epoch; from then on every image is mirrored in every second
    epoch. Each pair of epochs thus shows each image both ways, where independent coins would show half of
    the images the same way twice. Jordan 2024, arXiv:2404.00498, section 3.6.
    """
    coins = generator(seed, stream).random(num_images) < 0.5
    return coins ^ bool(epoch % 2)
