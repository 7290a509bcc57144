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
from app.data.order import FLIP_STREAM, epoch_order, flipped_images
from app.data.views import View

# images (batch, height, width, channels) uint8, labels (batch,) int32; for a share, weights and size besides
Batch = tuple[np.ndarray, ...]
PREFETCH_BATCHES = 4


@dataclass(frozen=True)
class Share:
    """What one worker computes of every batch: the parts of its own replicas, of `replicas` equal parts.

    A replica's part comes as images, labels, weights `(part,)` float32 and size `()` float32. With weights of
    `replicas * part / batch` for each image, the mean over the replicas of their weighted mean losses is the
    mean over the batch, also where the parts differ by an image. `size` is `batch / replicas`. A batch with
    fewer images than there are replicas leaves some without any; such a part is the whole batch with
    weights of 0, which leaves synchronised statistics of batch normalisation as they are.
    """

    replicas: int
    own: range

    def parts(self, positions: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Yield positions, weights and size for each own replica's part of the batch at `positions`."""
        size = np.array(len(positions) / self.replicas, np.float32)
        for part in np.array_split(positions, self.replicas)[self.own.start : self.own.stop]:
            weights = np.full(len(part) or len(positions), len(part) / size, np.float32)
            yield (part if len(part) else positions), weights, size


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
    alternating_flip: bool = False,
    flip_stream: int = FLIP_STREAM,
    share: Share | None = None,
) -> Any:
    """Return shuffled batches from a position to the end of the last epoch.

    Args:
        split: The training split.
        seed: Names the order.
        batch_size: Images in a batch; no batch crosses the end of an epoch.
        epochs: Where the stream ends.
        epoch: Where it starts, counted from 0.
        step: The first batch of that epoch to be delivered.
        alternating_flip: Whether to mirror images left to right, see `flipped_images`.
        flip_stream: Names the coins of that.
        share: Deliver only these parts of each batch, one after the other.

    Returns:
        A `tf.data.Dataset` of images `(batch, height, width, channels)` uint8 and labels `(batch,)` int32,
        of known length; of a share weights and sizes, too. Where TensorFlow is not installed, a generator of
        the same batches.
    """
    steps = num_steps(len(split), batch_size)

    def batches() -> Iterator[Batch]:
        for current in range(epoch, epochs):
            order = epoch_order(seed, current, len(split))
            flipped = None
            if alternating_flip:
                flipped = flipped_images(seed, current, len(split), flip_stream)
            for index in range(step if current == epoch else 0, steps):
                positions = order[index * batch_size : (index + 1) * batch_size]
                for part, *weights in [(positions,)] if share is None else share.parts(positions):
                    images, labels = split.take(part)
                    if flipped is not None:
                        mirrored = flipped[part]
                        images[mirrored] = images[mirrored, :, ::-1]
                    yield images, labels, *weights

    return _stream(batches, split, max(0, (epochs - epoch) * steps - step), share)


def evaluation_batches(
    split: Split, batch_size: int, view: View | None = None, share: Share | None = None
) -> Any:
    """Return every image once, in the order of the split; see `training_batches` for what is returned.

    It can be read again and again; where TensorFlow is not installed it is a `keras.utils.PyDataset`.

    Args:
        split: The images.
        batch_size: Images in a batch; the last may be smaller.
        view: How the network is to see them, see app/data/views.py; as they are by default.
        share: Deliver only these parts of each batch, one after the other.
    """
    steps = num_steps(len(split), batch_size)

    def batch(step: int) -> Iterator[Batch]:
        positions = np.arange(step * batch_size, min((step + 1) * batch_size, len(split)))
        for part, *weights in [(positions,)] if share is None else share.parts(positions):
            images, labels = split.take(part)
            yield (images if view is None else view.of(images)), labels, *weights

    if share is None and not _tensorflow():
        return _readable_again(lambda step: next(batch(step)), steps)
    return _stream(lambda: (part for step in range(steps) for part in batch(step)), split, steps, share)


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
    batches: Callable[[], Iterator[Batch]], split: Split, num_batches: int, share: Share | None
) -> Any:
    """Hand NumPy batches to TensorFlow's input pipeline, or on as they are where it is not installed."""
    tf = _tensorflow()
    if tf is None:
        return batches()
    signature = [tf.TensorSpec((None, *split.images.shape[1:]), tf.uint8), tf.TensorSpec((None,), tf.int32)]
    if share is not None:
        signature += [tf.TensorSpec((None,), tf.float32), tf.TensorSpec((), tf.float32)]
        num_batches *= len(share.own)
    dataset = tf.data.Dataset.from_generator(batches, output_signature=tuple(signature))
    options = tf.data.Options()
    options.autotune.enabled = False  # nothing here to tune, and its thread holds up the end of an iterator
    dataset = dataset.apply(tf.data.experimental.assert_cardinality(num_batches)).with_options(options)
    return dataset.prefetch(PREFETCH_BATCHES)
