"""The order of training images, and batches of them from any position on.

`epoch_order` is the only source of order: a pure function, so a stream can start anywhere and a resumed run
sees the images that the uninterrupted one would have seen. Batches are cut in NumPy and handed to TensorFlow
through a generator, which leaves a single copy of the images in memory; see `_stream` for the other backends.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from app.data.dataset import Split
from app.data.order import FLIP_STREAM, Sampler, epoch_order, flipped_places
from app.data.views import View

# images (batch, height, width, channels) uint8, labels (batch,) int32; of a shard, weights and size besides
Batch = tuple[np.ndarray, ...]
PREFETCH_BATCHES = 4


@dataclass(frozen=True)
class Shard:
    """What one worker computes of every batch, which is divided evenly among all replicas.

    A replica gets images, labels, weights `(n,)` float32 and size `()` float32. With weights of
    `num_replicas * n / batch` for each image, the mean over the replicas of their weighted mean losses is the
    mean over the batch, also where replicas differ by an image. `size` is `batch / num_replicas`. A batch of
    fewer images than replicas leaves some without any; those get the whole batch with weights of 0, which
    leaves synchronised statistics of batch normalisation as they are.

    Attributes:
        num_replicas: Replicas of all workers together.
        local_replicas: Those of this worker.
    """

    num_replicas: int
    local_replicas: range

    def split(self, positions: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Yield positions, weights and size for each local replica, of the batch at `positions`."""
        size = np.array(len(positions) / self.num_replicas, np.float32)
        everyone = np.array_split(positions, self.num_replicas)
        for own in everyone[self.local_replicas.start : self.local_replicas.stop]:
            weights = np.full(len(own) or len(positions), len(own) / size, np.float32)
            yield (own if len(own) else positions), weights, size


def num_steps(num_images: int, batch_size: int) -> int:
    """Return the batches of an epoch; the last one may be smaller."""
    return -(-num_images // batch_size)


def training_batches(
    split: Split,
    *,
    seed: int,
    batch_size: int,
    epochs: int,
    epoch: int = 0,
    step: int = 0,
    sampler: Sampler | None = None,
    alternating_flip: bool = False,
    flip_stream: int = FLIP_STREAM,
    shard: Shard | None = None,
) -> Any:
    """Return shuffled batches from a position to the end of the last epoch.

    Args:
        split: The training split.
        seed: Names the order.
        batch_size: Images in a batch; no batch crosses the end of an epoch.
        epochs: Where the stream ends.
        epoch: Where it starts, counted from 0.
        step: The first batch of that epoch to be delivered.
        sampler: How often classes appear, see `epoch_order`.
        alternating_flip: Whether to mirror images left to right, see `flipped_places`.
        flip_stream: Names the coins of that.
        shard: Deliver each batch for these replicas only, one after the other.

    Returns:
        A `tf.data.Dataset` of images `(batch, height, width, channels)` uint8 and labels `(batch,)` int32,
        of known length; of a shard weights and sizes, too. Where TensorFlow is not installed, a generator of
        the same batches.
    """
    steps = num_steps(len(split), batch_size)

    def batches() -> Iterator[Batch]:
        for current in range(epoch, epochs):
            order = epoch_order(seed, current, split.labels, sampler)
            flipped = flipped_places(seed, current, order, flip_stream) if alternating_flip else None
            for index in range(step if current == epoch else 0, steps):
                places = np.arange(index * batch_size, min((index + 1) * batch_size, len(order)))
                for own, *weights in [(places,)] if shard is None else shard.split(places):
                    images, labels = split.take(order[own])
                    if flipped is not None:
                        mirrored = flipped[own]
                        images[mirrored] = images[mirrored, :, ::-1]
                    yield images, labels, *weights

    return _stream(batches, split, max(0, (epochs - epoch) * steps - step), shard)


def evaluation_batches(
    split: Split, batch_size: int, view: View | None = None, shard: Shard | None = None
) -> Any:
    """Return every image once, in the order of the split; see `training_batches` for what is returned.

    It can be read again and again; where TensorFlow is not installed it is a `keras.utils.PyDataset`.

    Args:
        split: The images.
        batch_size: Images in a batch; the last may be smaller.
        view: How the network is to see them, see app/data/views.py; as they are by default.
        shard: Deliver each batch for these replicas only, one after the other.
    """
    steps = num_steps(len(split), batch_size)

    def batch(step: int) -> Iterator[Batch]:
        positions = np.arange(step * batch_size, min((step + 1) * batch_size, len(split)))
        for own, *weights in [(positions,)] if shard is None else shard.split(positions):
            images, labels = split.take(own)
            yield (images if view is None else view.of(images)), labels, *weights

    if shard is None and not _tensorflow():
        return _readable_again(lambda step: next(batch(step)), steps)
    return _stream(lambda: (each for step in range(steps) for each in batch(step)), split, steps, shard)


def _readable_again(batch: Callable[[int], Batch], steps: int) -> Any:
    """Return batches by number, to be read after every epoch; a generator is used up by the first."""
    import keras  # here: the order of images is asked for where no backend is needed

    class Batches(keras.utils.PyDataset):
        def __len__(self) -> int:
            return steps

        def __getitem__(self, step: int) -> Batch:
            if not 0 <= step < steps:
                raise IndexError(step)
            return batch(step)

    return Batches()


def _tensorflow() -> Any:
    """Return TensorFlow, None where it is not installed."""
    try:
        import tensorflow
    except ImportError:
        return None
    return tensorflow


def _stream(
    batches: Callable[[], Iterator[Batch]], split: Split, num_batches: int, shard: Shard | None
) -> Any:
    """Hand NumPy batches to TensorFlow's input pipeline, or on as they are where it is not installed."""
    tf = _tensorflow()
    if tf is None:
        return batches()
    images = tf.TensorSpec((None, *split.images.shape[1:]), split.images.dtype)
    signature = [images, tf.TensorSpec((None,), tf.int32)]
    if shard is not None:
        signature += [tf.TensorSpec((None,), tf.float32), tf.TensorSpec((), tf.float32)]
        num_batches *= len(shard.local_replicas)
    dataset = tf.data.Dataset.from_generator(batches, output_signature=tuple(signature))
    options = tf.data.Options()
    options.autotune.enabled = False  # nothing here to tune, and its thread holds up the end of an iterator
    dataset = dataset.apply(tf.data.experimental.assert_cardinality(num_batches)).with_options(options)
    return dataset.prefetch(PREFETCH_BATCHES)
