"""A frozen backbone computed once: its features of all images are kept, and steps train the head on them.

The classifier stays the one that is compiled, saved and resumed; while it is fitted, its `call` takes
features in place of images.
"""

import contextlib
import dataclasses
import math
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
        None where the head takes no vectors, or what comes before it draws at random in training.
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
    return Halves(backbone, keras.Model(features, logits, name="head"))


@contextlib.contextmanager
def features_once(job: Job, run: Run, out: TextIO) -> Iterator[Job]:
    """Let `fit` train the head on features of the backbone where that gives the results of images.

    That is so where the whole backbone is frozen for good, nothing in it draws at random, and augmentation
    flips images left to right or does nothing. Elsewhere the block trains on images.

    Args:
        job: Its classifier has the weights that it starts or goes on with.
        run: Named where a user stops the computation.
        out: Receives one line on it.

    Yields:
        The job that has the batches for `fit`, of features (batch, 1, views, values) float32: a flip lets the
        two views of an image change places as it does with the columns of an image, and the first counts.
    """
    classifier, dataset = job.classifier, job.dataset
    halves = halves_of(classifier, dataset.image_shape) if _is_frozen(job) and _only_flips(job) else None
    if halves is None:
        yield job
        return
    views = 2 if classifier.augmentation or job.experiment.alternating_flip else 1
    num_views = {"train": views * len(dataset.train), "val": len(dataset.val)}
    num_bytes = 4 * sum(num_views.values()) * math.prod(halves.backbone.output_shape[1:])
    if num_bytes > MAX_BYTES:
        yield job
        return

    began = time.monotonic()
    with (
        message_on_stop(f"go on with: make resume RUN={run.name}", "before the first step"),
        progress("features of the frozen backbone", sum(num_views.values())) as advance,
    ):
        size = job.experiment.training.batch_size
        train = _features(halves.backbone, dataset.train, size, views, advance)
        val = _features(halves.backbone, dataset.val, size, 1, advance)
    print(
        f"features of the frozen backbone: {len(train) + len(val):,} images, computed once in "
        f"{duration(time.monotonic() - began)} ({num_bytes / 1e6:,.1f} MB)",
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


def _is_frozen(job: Job) -> bool:
    """Return whether the one device there is trains nothing but the head."""
    backbone = [*weighted_layers(job.classifier.network).values()][:-1]
    return job.replicas.count == 1 and job.freezing.layers == backbone and not job.freezing.unfreeze_epoch


def _only_flips(job: Job) -> bool:
    layers = job.classifier.augmentation
    return all(isinstance(layer, RandomFlip) and layer.mode == "horizontal" for layer in layers)


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
