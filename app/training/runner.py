"""The main job: train an experiment into a run folder, or take up a run that was stopped."""

import sys
from dataclasses import dataclass
from typing import Any, TextIO

import keras
import numpy as np

from app.config import Experiment, dump_experiment
from app.data.datasets import Dataset, load_dataset, normalization_constants
from app.data.pipeline import evaluation_batches, num_steps, training_batches
from app.errors import UserError
from app.paths import data_root, shown
from app.runs import Run, create_run, find_run, load_run_experiment, read_json, remove_temporaries, write_json, write_text
from app.training import startup
from app.training.callbacks import FiniteLoss, Recorder, StateSaver, is_complete, write_records
from app.training.checkpoint import Progress, State, load_state, restore_metrics, restore_state
from app.training.display import Display
from app.training.losses import SparseCrossentropy, balanced_class_weight
from app.training.optimizers import build_optimizer, learning_rate_at
from app.training.results import print_results, write_results
from models import ImageClassifier, Normalization, augmentation_layer, build_model


def train(experiment: Experiment, out: TextIO | None = None) -> Run:
    """Train an experiment into a new run folder.

    Everything that can be wrong with the experiment or the data is found before the folder is made.

    Args:
        experiment: What to train.
        out: Where progress is shown; the standard output by default.

    Returns:
        The finished run.

    Raises:
        UserError: Something that the user can mend.
        Interrupted: SIGINT or SIGTERM; the state is written.
    """
    out = out or sys.stdout
    job = _prepare(experiment)
    run = create_run(experiment.name)
    write_text(run.experiment, dump_experiment(experiment))
    write_json(run.environment, startup.describe_environment(job.deterministic))
    write_json(run.dataset, job.describe_dataset())
    write_text(run.summary, _summary(job.classifier.network))
    print(f"{experiment.name}: {job.describe()}\nrun {run.name}", file=out, flush=True)
    return _fit(run, job, Progress(), None, out)


def resume(run: Run, out: TextIO | None = None) -> Run:
    """Take up a stopped run where its last whole state stands; it ends as if it had never stopped.

    Args:
        run: A run folder with or without a state; without one it starts from the beginning.
        out: Where progress is shown; the standard output by default.

    Returns:
        The finished run.

    Raises:
        UserError: The run is finished, its data have changed, or its states are damaged.
        Interrupted: As for `train`.
    """
    out = out or sys.stdout
    if run.finished:
        raise UserError(f"{run.name}: this run is finished; its curves are in {shown(run.curves)}")
    experiment = load_run_experiment(run)
    job = _prepare(experiment)
    recorded = read_json(run.dataset)["fingerprint"]
    if recorded != job.dataset.fingerprint:
        raise UserError(
            f"{run.name}: the data have changed since this run began (fingerprint {job.dataset.fingerprint[:12]}, "
            f"recorded {recorded[:12]} in {shown(run.dataset)}); restore them, or train anew with FROM={run.name}"
        )
    remove_temporaries(run)
    state, damaged = load_state(run)
    for line in damaged:
        print(line, file=out)
    progress = state.progress if state else Progress()
    if state:
        restore_state(job.classifier, state)
    progress.resumed_epochs.append(progress.epoch + 1)
    print(
        f"{run.name}: resumed at epoch {progress.epoch + 1}, step {progress.step} of {job.steps}",
        file=out,
        flush=True,
    )
    return _fit(run, job, progress, state, out)


@dataclass
class _Job:
    """An experiment with its data loaded and its classifier compiled."""

    experiment: Experiment
    dataset: Dataset
    classifier: ImageClassifier
    constants: dict[str, Any]
    steps: int
    deterministic: bool

    def describe(self) -> str:
        """Return one line on what will be trained."""
        data, network = self.dataset, self.classifier.network
        return (
            f"{self.experiment.model.name} ({network.count_params():,} parameters) on {data.source}: "
            f"{len(data.train):,} training and {len(data.val):,} validation images "
            f"({data.split_rule}), {len(data.class_names)} classes"
        )

    def describe_dataset(self) -> dict[str, Any]:
        """Return the content of dataset.json."""
        kind = {"kind": self.experiment.normalization, "unit": "images scaled to [0, 1]"}
        return self.dataset.as_json() | {"normalization": kind | self.constants}


def _prepare(experiment: Experiment) -> _Job:
    """Load the data, build and compile the classifier with all variables made."""
    training = experiment.training
    deterministic = startup.configure(seed=experiment.seed, precision=training.precision, devices=training.devices)
    dataset = load_dataset(experiment.dataset, data_root())
    if training.batch_size > len(dataset.train):
        raise UserError(
            f"training.batch_size: received {training.batch_size}, but there are only {len(dataset.train)} "
            "training images; choose a batch no larger than that"
        )
    constants = normalization_constants(experiment.normalization, dataset.train)
    model = experiment.model
    try:
        network = build_model(
            model.name, input_shape=dataset.image_shape, num_classes=len(dataset.class_names), **model.arguments
        )
    except (ValueError, TypeError) as error:
        raise UserError(f"model: cannot build {model.name} for {dataset.image_shape} images: {error}") from error
    if model.weights:
        _start_from(find_run(model.weights), network, dataset.class_names)
    classifier = ImageClassifier(
        network,
        class_names=dataset.class_names,
        normalization=Normalization(**constants),
        augmentation=[augmentation_layer(layer.name, **layer.arguments) for layer in experiment.augmentation],
    )
    classifier.build((None, *dataset.image_shape))
    steps = num_steps(len(dataset.train), training.batch_size)
    weights = None
    if training.class_weight == "balanced":
        weights = balanced_class_weight(dataset.train.labels, len(dataset.class_names))
    classifier.compile(
        optimizer=build_optimizer(experiment.optimizer, steps_per_epoch=steps, epochs=training.epochs),
        loss=SparseCrossentropy(
            label_smoothing=training.loss.label_smoothing,
            softmax_before_loss=training.loss.softmax_before_loss,
            class_weight=weights,
        ),
        metrics=[keras.metrics.SparseCategoricalAccuracy(name="accuracy")],
    )
    # Slots of the optimizer and variables of the metrics come into being here, so that a state fits them.
    classifier.optimizer.build(classifier.trainable_variables)
    images, labels = dataset.train.take(np.arange(1))
    classifier.test_on_batch(images, labels)
    classifier.reset_metrics()
    return _Job(experiment, dataset, classifier, constants, steps, deterministic)


def _start_from(run: Run, network: keras.Model, class_names: tuple[str, ...]) -> None:
    """Copy the best weights of another run into `network`; the head stays new where the classes differ."""
    if not run.best_model.is_file():
        raise UserError(f"model.weights: {run.name} has no {run.best_model.name} yet; train it first")
    trained = keras.saving.load_model(run.best_model)
    theirs, ours = trained.network.weights, network.weights
    if type(trained.network) is not type(network) or len(theirs) != len(ours):
        raise UserError(
            f"model.weights: {run.name} holds a {type(trained.network).__name__} with {len(theirs)} weights, "
            f"the experiment makes a {type(network).__name__} with {len(ours)}; both must be the same network"
        )
    head = network.trainable_weights[-2:] if tuple(trained.class_names) != class_names else []
    new = {variable.path for variable in head}
    for source, variable in zip(theirs, ours, strict=True):
        if variable.path in new:
            continue
        if source.shape != variable.shape:
            raise UserError(
                f"model.weights: {variable.path} has shape {tuple(source.shape)} in {run.name}, "
                f"{tuple(variable.shape)} here; use the same model arguments and image size"
            )
        variable.assign(source)


def _fit(run: Run, job: _Job, progress: Progress, state: State | None, out: TextIO) -> Run:
    """Train from `progress` to the end and write what a finished run holds."""
    experiment, dataset, classifier = job.experiment, job.dataset, job.classifier
    training = experiment.training
    if progress.rows:  # a kill may have fallen between the records of an epoch and its state
        write_records(run, progress, experiment)
    display = Display(progress, experiment, job.steps, len(dataset.train), out)
    half_epoch = state is not None and progress.step > 0
    saver = StateSaver(
        run,
        progress,
        every_seconds=60 * training.checkpoint_every_minutes,
        resumed_metrics=state.values["metrics"] if state and half_epoch else None,
    )
    recorder = Recorder(
        run,
        progress,
        experiment,
        display,
        lambda step: learning_rate_at(experiment.optimizer.learning_rate, step, job.steps, training.epochs),
    )
    callbacks = [recorder, FiniteLoss(run, progress, experiment, job.steps), display, saver]
    val_ds = evaluation_batches(dataset.val, training.batch_size)
    with saver:
        if half_epoch and progress.step == job.steps:
            _finish_validation(classifier, progress.epoch, val_ds, callbacks)
        while not is_complete(experiment, progress.rows):
            whole = progress.step == 0
            classifier.fit(
                training_batches(
                    dataset.train,
                    seed=experiment.seed,
                    batch_size=training.batch_size,
                    epochs=training.epochs,
                    epoch=progress.epoch,
                    step=progress.step,
                ),
                validation_data=val_ds,
                initial_epoch=progress.epoch,
                epochs=training.epochs if whole else progress.epoch + 1,
                steps_per_epoch=job.steps - progress.step,
                shuffle=False,  # the order is the pipeline's
                verbose=0,
                callbacks=callbacks,
            )
    write_results(run, experiment, dataset, classifier, progress)
    print_results(run, out)
    return run


def _finish_validation(
    classifier: ImageClassifier, epoch: int, val_ds: Any, callbacks: list[keras.callbacks.Callback]
) -> None:
    """Close an epoch that was stopped in the middle of its validation: all its steps are done."""
    together = keras.callbacks.CallbackList(callbacks, model=classifier)
    together.on_epoch_begin(epoch)
    logs = {name: float(value) for name, value in classifier.get_metrics_result().items()}
    validation = classifier.evaluate(val_ds, verbose=0, return_dict=True, callbacks=together)
    together.on_epoch_end(epoch, logs | {f"val_{name}": value for name, value in validation.items()})


def _summary(network: keras.Model) -> str:
    """Return the table of layers, shapes and parameter counts."""
    lines: list[str] = []
    network.summary(expand_nested=True, line_length=110, print_fn=lambda line, **_: lines.append(line))
    return "\n".join(lines) + "\n"
