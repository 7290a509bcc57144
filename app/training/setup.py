"""An experiment made ready to train: data loaded, classifier compiled, all variables made."""

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np

from app.config import Experiment
from app.data.dataset import Dataset
from app.data.datasets import load_dataset
from app.data.order import epoch_order
from app.data.pipeline import evaluation_batches, num_steps, training_batches
from app.distributed.consistency import same_data
from app.distributed.devices import connect, set_up
from app.distributed.process_group import ProcessGroup
from app.distributed.replicas import Replicas
from app.errors import UserError
from app.preflight import check_dataset
from app.training import startup
from app.training.averaging import LookaheadAverage, MovingAverage
from app.training.checkpoint import Progress
from app.training.freezing import Freezing
from app.training.history import rate_on_plateau
from app.training.optimizers import LearningRate, build_optimizer, optimizer_warnings
from app.training.starting_weights import StartingWeights, constants_of, start_of
from models import ImageClassifier, Normalization, augmentation_layer, build_model
from models.layers import jit_compile
from models.losses import SparseCrossentropy


@dataclass
class Job:
    """An experiment, its precision resolved, with its data loaded and its classifier compiled."""

    experiment: Experiment
    dataset: Dataset
    classifier: ImageClassifier
    constants: dict[str, Any]
    steps_per_epoch: int
    replicas: Replicas
    deterministic: bool
    freezing: Freezing
    start: StartingWeights = StartingWeights()
    lookahead: LookaheadAverage | None = None
    ema: MovingAverage | None = None
    progress: Progress = field(default_factory=Progress)

    @property
    def is_chief(self) -> bool:
        """Whether this process writes the files of the run; where there are several workers, one of them."""
        return self.replicas.group.is_chief

    def learning_rate(self, step: int) -> float:
        """Return the learning rate of a step, counted from 0 over all epochs; with `muon` the kernels'."""
        schedule, training = self.experiment.scaled_optimizer.learning_rate, self.experiment.training
        rate, level = LearningRate(schedule, self.steps_per_epoch, training.num_epochs), None
        if schedule.schedule == "reduce_on_plateau":
            level = rate_on_plateau(rate.schedule, self.progress.rows, training.monitor)
        return rate.at(step, level)

    def batches(self, epoch: int = 0, step: int = 0, epochs: int | None = None) -> Any:
        """Return the training batches from a position (counted from 0) on, of all epochs by default."""
        training = self.experiment.training
        batches = training_batches(
            self.dataset.train,
            seed=self.experiment.seed,
            batch_size=training.batch_size,
            epochs=epochs or training.num_epochs,
            epoch=epoch,
            step=step,
            sampler=self.experiment.dataset.sampler,
            alternating_flip=self.experiment.alternating_flip,
            flip_stream=self.progress.flip_stream,
            shard=self.replicas.shard,
        )
        return self.replicas.feed(batches)

    def validation_batches(self) -> tuple[Any, int]:
        """Return the validation images for `fit` or `evaluate`, and their number of steps."""
        val, size = self.dataset.val, self.experiment.training.batch_size
        batches = evaluation_batches(val, size, shard=self.replicas.shard)
        return self.replicas.feed(batches), num_steps(len(val), size)

    def begin(self, epoch: int) -> int:
        """Freeze what an epoch, counted from 0, has frozen; return up to which epoch that holds."""
        if self.freezing.hold(epoch):
            self.replicas.renew_step(self.classifier)
        return self.freezing.until(self.experiment.training.num_epochs)

    def step_callbacks(self, position: int) -> list[keras.callbacks.Callback]:
        """Return what belongs to the steps themselves, for steps from `position` on, over all epochs."""
        if self.lookahead:
            self.lookahead.position = position
        return [each for each in (self.lookahead, self.ema) if each]

    def describe(self) -> str:
        """Return one line on what will be trained."""
        data, network = self.dataset, self.classifier.network
        return (
            f"{self.experiment.model.name} ({network.count_params():,} parameters{self.freezing.describe()}) "
            f"on {data.source}: "
            f"{len(data.train):,} training and {len(data.val):,} validation images "
            f"({data.split_rule}), {len(data.class_names)} classes"
        )

    def warnings(self) -> Iterator[str]:
        """Yield what a user should know before the training starts, a line each."""
        if self.start.line:
            yield self.start.line
        if skipped := len(self.dataset.skipped):
            yield f"images left out because they cannot be read: {skipped} (dataset.json lists them)"
        yield from self.cautions()

    def cautions(self) -> Iterator[str]:
        """Yield what may make a result worthless, or a setting one without effect, a line each."""
        yield from self.start.warning.splitlines()
        yield from self.dataset.duplicates_warnings()
        yield from optimizer_warnings(self.experiment, self.classifier, self.steps_per_epoch)

    def describe_environment(self) -> dict[str, Any]:
        """Return the content of environment.json: what the run is trained on."""
        environment = startup.describe_environment(self.deterministic) | self.replicas.describe()
        return environment | ({"starting_weights": self.start.record} if self.start.record else {})

    def describe_dataset(self) -> dict[str, Any]:
        """Return the content of dataset.json."""
        kind = {"kind": self.experiment.normalization, "unit": "images scaled to [0, 1]"}
        return self.dataset.as_json() | {"normalization": kind | self.constants}


def prepare(
    experiment: Experiment,
    group: ProcessGroup | None = None,
    dataset: Dataset | None = None,
    *,
    from_state: bool = False,
) -> Job:
    """Load the data, build and compile the classifier with all variables made.

    Args:
        experiment: What to make ready.
        group: The workers that train it, each on all its devices; without it there is a single replica.
        dataset: Its data, where they are loaded already.
        from_state: Whether a state replaces all weights, so that those of `model.weights` are not needed.

    Raises:
        UserError: The experiment, the data or the devices do not allow it, or the workers differ.
    """
    # Devices, number format, seeds
    training = experiment.training
    if group:
        connect(group, training.devices)
    experiment = startup.resolve_precision(experiment, group)
    deterministic = startup.configure(
        seed=experiment.seed, precision=experiment.training.precision,
        devices=training.devices, determinism=training.determinism,
    )  # fmt: skip

    # Data
    if dataset is None:
        dataset = load_dataset(experiment.dataset)
    if group:
        same_data(group, dataset)
    check_dataset(experiment, dataset)
    experiment = experiment.with_epochs_for(len(dataset.train))

    # Replicas
    replicas = set_up(group) if group else Replicas()
    if training.batch_size < replicas.count:
        raise UserError(
            f"training.batch_size: received {training.batch_size}, but there are {replicas.count} replicas; "
            "choose a batch that has an image for each"
        )

    # Network
    constants = constants_of(experiment, dataset)
    steps_per_epoch = num_steps(len(dataset.train), training.batch_size)
    with replicas.scope():
        parts = _make_parts(experiment, dataset, constants)
    start = StartingWeights()
    if replicas.group.is_chief and not from_state:
        with replicas.local_scope():  # the others receive its values
            start = start_of(experiment, parts["network"], dataset)

    # Loss, optimizer, metrics
    with replicas.scope():
        classifier = ImageClassifier(class_names=dataset.class_names, **parts)
        freezing = Freezing(experiment.model, classifier.network)
        settled = (constants, steps_per_epoch, replicas, deterministic, freezing, start)
        job = Job(experiment, dataset, classifier, *settled)
        _compile(job)
    return job


def _make_parts(experiment: Experiment, dataset: Dataset, constants: Mapping[str, Any]) -> dict[str, Any]:
    """Return augmentation, network and normalization, as a classifier takes them."""
    augmentation = []
    for layer in experiment.augmentation_layers:
        with _refusals_of("augmentation"):
            augmentation.append(augmentation_layer(layer.name, **layer.arguments))
    model = experiment.model
    with _refusals_of(f"model.{model.name}"):
        shape, num_classes = dataset.image_shape, len(dataset.class_names)
        network = build_model(model.name, input_shape=shape, num_classes=num_classes, **model.arguments)
    normalization = Normalization(**constants)
    if network.adapt_images:
        order = epoch_order(experiment.seed, 0, dataset.train.labels, experiment.dataset.sampler)
        pixels = normalization(dataset.train.take(order[: network.adapt_images])[0])
        network.adapt(keras.ops.convert_to_numpy(keras.ops.cast(pixels, "float32")))
    return {"network": network, "normalization": normalization, "augmentation": augmentation}


def _compile(job: Job) -> None:
    """Make a classifier ready to fit, with all its variables, on all replicas."""
    training, dataset, classifier = job.experiment.training, job.dataset, job.classifier
    optimizer, network = job.experiment.scaled_optimizer, classifier.network
    with _refusals_of("augmentation"):  # which some refuse only when they see the size of the images
        classifier.build((None, *dataset.image_shape))
    classifier.compile(
        optimizer=build_optimizer(optimizer, job.steps_per_epoch, training.num_epochs, network, job.freezing),
        loss=SparseCrossentropy(
            class_weight=dataset.class_weights(training.class_weight, job.experiment.dataset.sampler),
            **training.loss.model_dump(),
        ),
        metrics=[keras.metrics.SparseCategoricalAccuracy(name="accuracy")],
        jit_compile=jit_compile(),
    )
    if not job.freezing.unfreeze_epoch:  # else the optimizer has variables for what is frozen, too
        job.begin(0)
    # Slots of the optimizer and variables of the metrics come into being here, so that a state fits them.
    classifier.optimizer.build(classifier.trainable_variables)
    # float16's wrapper builds nadam with tracking off, so that its running product would be in no state.
    inner = getattr(classifier.optimizer, "inner_optimizer", None)
    if inner and (product := getattr(inner, "_u_product", None)) is not None:
        inner._track_variable(product)
    if training.lookahead:
        steps = training.num_epochs * job.steps_per_epoch
        job.lookahead = LookaheadAverage(classifier, training.lookahead, steps, job.replicas)
    if training.ema:
        job.ema = MovingAverage(classifier, training.ema, job.replicas)
    job.replicas.make_metrics(classifier, *dataset.train.take(np.arange(1)))
    job.replicas.bind(classifier, training.sync_batch_norm)
    job.replicas.broadcast(classifier)
    job.begin(0)


@contextlib.contextmanager
def _refusals_of(what: str) -> Iterator[None]:
    """Turn a constructor's refusal of a value that the experiment gave into a message for the user."""
    try:
        yield
    except (ValueError, TypeError) as error:
        raise UserError(f"{what}: {error}") from error
