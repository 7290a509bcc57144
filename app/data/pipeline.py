"""The order of training images, and batches of them from any position on.

`epoch_order` is the only source of order: a pure function, so a stream can start anywhere and a resumed run
sees the images that the uninterrupted one would have seen. Batches are cut in NumPy and handed to TensorFlow
through a generator, which leaves a single copy of the images in memory; see `_stream` for the other backends.
"""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from app.data.splits import Split

Batch = tuple[np.ndarray, np.ndarray]  # images (batch, height, width, channels) uint8, labels (batch,) int32
PREFETCH_BATCHES = 4


def epoch_order(seed: int, epoch: int, num_images: int) -> np.ndarray:
    """Return the order of an epoch (counted from 0), a permutation of `range(num_images)`, int64."""
    key = np.array([seed, epoch], np.uint64)
    return np.random.Generator(np.random.Philox(key=key)).permutation(num_images)


def num_steps(num_images: int, batch_size: int) -> int:
    """Return the batches of an epoch; the last one may be smaller."""
    return -(-num_images // batch_size)


def training_batches(
    split: Split, *, seed: int, batch_size: int, epochs: int, epoch: int = 0, step: int = 0
) -> Any:
    """Return shuffled batches from a position to the end of the last epoch.

    Args:
        split: The training split.
        seed: Names the order.
        batch_size: Images in a batch; no batch crosses the end of an epoch.
        epochs: Where the stream ends.
        epoch: Where it starts, counted from 0.
        step: The first batch of that epoch to be delivered.

    Returns:
        A `tf.data.Dataset` of images `(batch, height, width, channels)` uint8 and labels `(batch,)` int32,
        of known length. Where TensorFlow is not installed, a generator of the same batches.
    """
    steps = num_steps(len(split), batch_size)

    def batches() -> Iterator[Batch]:
        for current in range(epoch, epochs):
            order = epoch_order(seed, current, len(split))
            for index in range(step if current == epoch else 0, steps):
                yield split.take(order[index * batch_size : (index + 1) * batch_size])

    return _stream(batches, split, max(0, (epochs - epoch) * steps - step))


def evaluation_batches(split: Split, batch_size: int) -> Any:
    """Return every image once, in the order of the split; see `training_batches` for what is returned."""

    def batches() -> Iterator[Batch]:
        for start in range(0, len(split), batch_size):
            yield split.take(np.arange(start, min(start + batch_size, len(split))))

    return _stream(batches, split, num_steps(len(split), batch_size))


def _stream(batches: Callable[[], Iterator[Batch]], split: Split, num_batches: int) -> Any:
    """Hand NumPy batches to TensorFlow's input pipeline, or on as they are where it is not installed."""
    try:
        import tensorflow as tf
    except ImportError:
        return batches()
    signature = (tf.TensorSpec((None, *split.images.shape[1:]), tf.uint8), tf.TensorSpec((None,), tf.int32))
    dataset = tf.data.Dataset.from_generator(batches, output_signature=signature)
    return dataset.apply(tf.data.experimental.assert_cardinality(num_batches)).prefetch(PREFETCH_BATCHES)
