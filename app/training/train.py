"""Train an experiment into a new run folder, or resume a run that was interrupted."""

import contextlib
from collections.abc import Callable, Sequence
from typing import TextIO

import keras
import numpy as np

from app.config import Experiment, dump_experiment
from app.data.dataset import Dataset
from app.data.datasets import load_dataset
from app.distributed.cluster import find_group
from app.distributed.consistency import same_experiment, same_program
from app.distributed.local_workers import progress_output
from app.distributed.process_group import ProcessGroup
from app.files import write_json, write_text
from app.machine import forget_peak_memory
from app.paths import runs_root
from app.preflight import as_trained, check_resumable, settle_weights
from app.reading import Row
from app.reports.report import write_report
from app.runs import Run, create_run, load_run_experiment, locked
from app.training import startup
from app.training.backbone_features import features_once
from app.training.callbacks import Recorder, finish_validation, write_records
from app.training.checkpoint import State, load_state
from app.training.history import is_complete
from app.training.interruptions import message_on_stop, not_deleted
from app.training.progress_display import Display
from app.training.results import print_results, write_results
from app.training.resume import ScheduleFate, agreed_position, longer, restore_last_state
from app.training.setup import Job, prepare
from app.training.state_saver import StateSaver
from models.inspect import summary_of
from models.layers import quick_inference

Watch = Callable[[Run, Sequence[Row]], None]


def train(
    experiment: Experiment,
    out: TextIO | None = None,
    overrides: Sequence[str] | None = None,
    dataset: Dataset | None = None,
    *,
    group: ProcessGroup | None = None,
    watch: Watch | None = None,
) -> Run:
    """Train an experiment into a new run folder.

    All errors of the experiment and the data are raised before the folder is made.

    Args:
        experiment: What to train.
        out: Where progress is shown; the standard output by default.
        overrides: The `key=value` changes to the experiment's file that led to `experiment`, kept so that a
            later edit of the file shows; None where it comes from elsewhere.
        dataset: Its data, where they are loaded already.
        group: The workers; by default those that the environment names.
        watch: Called with the history before the first epoch and, once its state is saved, after each. What
            it raises ends the training there. The page is not written then, and the results are not shown.

    Returns:
        The finished run.

    Raises:
        UserError: Something that the user can mend.
        Interrupted: SIGINT, SIGTERM or SIGHUP; the state is written.
    """
    forget_peak_memory()  # of the runs that this process trained before
    with group or find_group() as group, contextlib.ExitStack() as stack:
        same_program(group)
        same_experiment(group, experiment)
        out = out or progress_output(group, experiment.name)
        if group.is_chief:
            experiment = settle_weights(experiment)
        job = prepare(experiment, group, dataset)
        if group.is_chief:
            environment = job.describe_environment()
            environment |= {"overrides": overrides, "auto": experiment.training.auto}
            data, summary = job.describe_dataset(), summary_of(job.classifier.network)
            run = create_run(experiment.name)
            stack.enter_context(locked(run))
            write_json(run.environment, environment)
            write_json(run.dataset, data)
            for key, text in job.dataset.corrections.items():
                write_text(run.corrections[key], text)
            write_text(run.summary, summary)
            write_text(run.experiment, dump_experiment(job.experiment))  # last: what has it can be resumed
            group.all_gather("run", run.name)
        else:
            run = Run(runs_root() / group.all_gather("run", None)[0])
        group.advice = f"make resume RUN={run.argument} goes on from its last state"
        lines = [f"{experiment.name}: {job.describe()}", f"run {run.name}", *job.warnings()]
        lines += startup.remarks(experiment, job.experiment, len(job.dataset.train))
        print("\n".join(lines), file=out, flush=True)
        return _fit(stack, run, job, None, out, watch)


def resume(
    run: Run | None,
    out: TextIO | None = None,
    *,
    epochs: int | None = None,
    schedule: ScheduleFate | None = None,
    force: bool = False,
    dataset: Dataset | None = None,
    group: ProcessGroup | None = None,
    watch: Watch | None = None,
) -> Run:
    """Resume an interrupted run from its last undamaged state; it ends as if it had never stopped.

    Args:
        run: A run folder; without a state it starts from the beginning, if nothing of it is trained. Only the
            chief needs it, and tells the other workers everything.
        out: Where progress is shown; the standard output by default.
        epochs: Train this many epochs in all instead; a finished run is resumed too.
        schedule: Whether a schedule over the old number of epochs is kept or stretched then.
        force: Go on although data, starting weights or versions have changed.
        dataset: The run's data, where they are loaded already.
        group: The workers, as in `train`.
        watch: As in `train`.

    Returns:
        The finished run.

    Raises:
        UserError: The run is finished or being trained, its data or the libraries have changed, its states
            are damaged, or more epochs cannot be trained.
        Interrupted: As for `train`.
    """
    forget_peak_memory()  # as in `train`
    with group or find_group() as group, contextlib.ExitStack() as stack:
        same_program(group)
        loaded: tuple[State | None, list[str]] = None, []
        if run:
            stack.enter_context(locked(run))
            check_resumable(run, epochs)
            experiment = load_run_experiment(run) if epochs is None else longer(run, epochs, schedule)
            loaded = load_state(run)
            if dataset is None and group.size == 1:
                dataset = load_dataset(as_trained(run).dataset)
            group.all_gather("run", [run.name, experiment.model_dump(mode="json")])
        else:
            name, settings = group.all_gather("run", None)[0]
            run, experiment = Run(runs_root() / name), Experiment.from_json(settings)
        out = out or progress_output(group, experiment.name)
        group.advice = f"make resume RUN={run.argument} goes on from its last state"
        job = prepare(experiment, group, dataset, from_state=loaded[0] is not None)
        if group.is_chief:
            restore_last_state(run, job, loaded, force, out)
        metrics, progress = agreed_position(group, job, loaded[0]), job.progress
        job.replicas.broadcast(job.classifier)
        position = f"at epoch {progress.epoch + 1}, step {progress.step} of {job.steps_per_epoch}"
        if is_complete(job.experiment, progress.rows):
            position = "after the last epoch"
        lines = [f"{run.name}: resumed {position}"]
        lines += startup.remarks(job.experiment, job.experiment, len(job.dataset.train))
        print("\n".join(lines), file=out, flush=True)
        del loaded  # copies of all variables
        return _fit(stack, run, job, metrics, out, watch)


def _fit(
    stack: contextlib.ExitStack,
    run: Run,
    job: Job,
    metrics: Sequence[np.ndarray] | None,
    out: TextIO,
    watch: Watch | None,
) -> Run:
    """Train what is left of a run, and write its results; `stack` ends with the training.

    `metrics` are the metrics' values where the job stands within an epoch. For `watch` see `train`.
    """
    group, experiment, classifier, progress = job.replicas.group, job.experiment, job.classifier, job.progress

    # Records of what is trained already
    if group.is_chief:
        run.failure.unlink(missing_ok=True)  # written again if it happens again
        if progress.rows:  # a kill may have fallen between the records of an epoch and its state
            write_records(run, job)

    # Epochs
    saver = StateSaver(run, job, metrics if progress.step else None)  # of a half-finished epoch
    callbacks = [*callbacks_of(run, job, out), saver]  # last: saves what the others have done
    if watch:
        watch(run, progress.rows)
        after_epoch = keras.callbacks.LambdaCallback(on_epoch_end=lambda *_: watch(run, progress.rows))
        callbacks.append(after_epoch)
    if group.is_chief:  # other machines may have no run folder at all
        stack.enter_context(not_deleted(run))
    whole = is_complete(experiment, progress.rows)  # stopped before its results were written
    feed = contextlib.nullcontext(job) if whole else features_once(job, run, out)
    with quick_inference(), feed as fed, saver.stoppable(), group.watched():
        val_ds, val_steps = fed.validation_batches()
        if progress.step == job.steps_per_epoch:
            finish_validation(classifier, progress.epoch, val_ds, val_steps, callbacks)
        while not is_complete(experiment, progress.rows):
            from_start, until = progress.step == 0, job.begin(progress.epoch)
            classifier.fit(
                fed.batches(progress.epoch, progress.step),
                validation_data=val_ds,
                validation_steps=val_steps,
                initial_epoch=progress.epoch,
                epochs=until if from_start else progress.epoch + 1,
                steps_per_epoch=job.steps_per_epoch - progress.step,
                shuffle=False,  # the order is the pipeline's
                verbose=0,
                callbacks=callbacks,
            )

    saver.stop_if_asked()  # behind the last batch

    # Results
    if job.ema:
        job.ema.put_in_place(True)
    if group.is_chief:
        with job.replicas.local_scope():
            with message_on_stop(
                f"the metrics are not written yet: make resume RUN={run.argument} does that"
            ):
                network = job.replicas.unreplicated(classifier)
                write_results(run, job, network)
            if watch is None:
                with message_on_stop(
                    f"the training is whole; its page is not: make report RUN={run.argument}"
                ):
                    write_report(run, job.dataset)
        if watch is None:
            print_results(run, out)
    group.all_gather("finished", True)  # nobody leaves before the chief has written everything
    job.replicas.shutdown()
    return run


def callbacks_of(run: Run, job: Job, out: TextIO) -> list[keras.callbacks.Callback]:
    """Return the callbacks of a run, in order, but for the `StateSaver`, which comes last."""
    progress = job.progress
    display = Display(progress, job.experiment, job.steps_per_epoch, out)
    return [
        Recorder(run, job, display),
        *job.step_callbacks(progress.epoch * job.steps_per_epoch + progress.step),
        display,
    ]
