"""A frozen backbone computed once: its features of all images are kept, and steps train the head on them.

The classifier stays the one that is compiled, saved and resumed; while it is fitted, its `call` takes
features in place of images.
"""

import contextlib
import dataclasses
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, TextIO

import keras
import numpy as np
from keras import ops

from app.data.dataset import Split, whole_split
from app.data.progress import progress
from app.data.views import VIEWS
from app.runs import Run
from app.training.interruptions import message_on_stop
from app.training.setup import Job
from app.wording import duration
from models import ImageClassifier
from models.augmentation.pixel_layers import RandomFlip
from models.inspect import intercepted, weighted_layers

# All features together; where they would take more, steps are taken on images. It is no fraction of the free
# memory, because a resumed run must go the same way.
MAX_BYTES = 2**30


class Halves(NamedTuple):
    """A classifier as two models that share its layers.

    Attributes:
        backbone: Raw images (batch, height, width, channels) to features (batch, values): what the head, or
            dropout directly before it, receives.
        head: Features to logits (batch, classes).
    """

    backbone: keras.Model
    head: keras.Model


def halves_of(classifier: ImageClassifier, image_shape: tuple[int, ...]) -> Halves | None:
    """Split a built classifier before its head.

    Returns:
        None where what comes before the head draws at random in training, the head takes no vectors, or
        logits do not come from it alone.
    """
    images = keras.Input(image_shape, dtype="uint8")
    logits = classifier.network.call(classifier.normalization(ops.cast(images, "float32")))
    *_, head = weighted_layers(classifier.network).values()
    features = head._inbound_nodes[-1].input_tensors[0]
    while isinstance(features._keras_history.operation, keras.layers.Dropout):
        dropout, node, _ = features._keras_history
        features = dropout._inbound_nodes[node].input_tensors[0]
    backbone = keras.Model(images, features, name="backbone")
    if len(features.shape) != 2 or any(layer._seed_generators for layer in backbone._flatten_layers()):
        return None
    try:
        return Halves(backbone, keras.Model(features, logits, name="head"))
    except ValueError:  # Keras finds no way from the features alone to the logits
        return None


def usable_halves(job: Job) -> Halves | None:
    """Return the halves of a job's classifier if its head learns from features what it learns from images.

    That is so on one device, where the whole backbone is frozen for good, nothing in it draws at random, and
    augmentation flips images left to right or does nothing.
    """
    classifier = job.classifier
    backbone = [*weighted_layers(classifier.network).values()][:-1]
    if job.replicas.count > 1 or job.freezing.layers != backbone or job.freezing.unfreeze_epoch:
        return None
    if any(not isinstance(each, RandomFlip) or each.mode != "horizontal" for each in classifier.augmentation):
        return None
    halves = halves_of(classifier, job.dataset.image_shape)
    return halves if halves and feature_bytes(job, halves) <= MAX_BYTES else None


@contextlib.contextmanager
def features_once(job: Job, run: Run, out: TextIO) -> Iterator[Job]:
    """Let `fit` train the head on features of the backbone, computed here, where `usable_halves` allows it.

    Args:
        job: Its classifier has the weights that it starts or goes on with; its `progress` gets the seconds.
        run: Named where a user stops the computation.
        out: Receives one line on it.

    Yields:
        The job that has the batches for `fit`: `job`, or one with features (batch, 1, views, values) float32
        in place of images. A flip lets the two views of an image change places, as it does with the columns
        of an image, and the first counts.
    """
    classifier, dataset = job.classifier, job.dataset
    halves = usable_halves(job)
    if halves is None:
        yield job
        return
    began = time.monotonic()
    with (
        message_on_stop(f"go on with: make resume RUN={run.argument}", "before the first step"),
        progress("features of the frozen backbone", len(dataset.train) + len(dataset.val)) as advance,
    ):
        size = job.experiment.training.batch_size
        train = _features(halves.backbone, dataset.train, size, _num_views(job), advance)
        val = _features(halves.backbone, dataset.val, size, 1, advance)
    seconds = time.monotonic() - began
    job.progress.feature_seconds += seconds
    print(
        f"features of the frozen backbone: {len(train) + len(val):,} images, computed once in "
        f"{duration(seconds)} ({feature_bytes(job, halves) / 1e6:,.1f} MB)",
        file=out,
        flush=True,
    )

    def logits(_: Any, call: Any, features: Any, training: bool = False) -> Any:
        if training:
            for flip in classifier.augmentation:
                features = flip(features, training=True)
        return ops.cast(halves.head(features[:, 0, 0], training=training), "float32")

    with intercepted([classifier], logits):
        _forget_steps(classifier)
        yield dataclasses.replace(job, dataset=dataclasses.replace(dataset, train=train, val=val))
    _forget_steps(classifier)


def _num_views(job: Job) -> int:
    return 2 if job.classifier.augmentation or job.experiment.alternating_flip else 1


def feature_bytes(job: Job, halves: Halves) -> int:
    """Return the bytes of all features."""
    num_vectors = _num_views(job) * len(job.dataset.train) + len(job.dataset.val)
    return 4 * halves.backbone.output_shape[-1] * num_vectors


def _features(
    backbone: keras.Model, split: Split, batch_size: int, num_views: int, advance: Callable[[int], None]
) -> Split:
    """Return a split with features (n, 1, views, values) float32 in place of images."""
    features = np.empty((len(split), 1, num_views, backbone.output_shape[-1]), np.float32)
    for start in range(0, len(split), batch_size):
        places = np.arange(start, min(start + batch_size, len(split)))
        images = split.images_at(places)
        for column, view in enumerate(VIEWS["flip"][:num_views]):
            features[places, 0, column] = backbone.predict_on_batch(view.of(images))
        advance(len(places))
    return whole_split(features, split.labels)


def _forget_steps(classifier: ImageClassifier) -> None:
    """Let the steps be compiled anew, for other inputs."""
    classifier.train_function = classifier.test_function = None
