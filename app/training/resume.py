"""What must hold before a run is resumed, and what may be asked beyond that: more epochs, force."""

import contextlib
import dataclasses
import os
import time
from collections.abc import Mapping, Sequence
from typing import Any, Literal, TextIO

import numpy as np

from app.config import LABELS, Experiment, dump_experiment, load_experiment
from app.config.schedules import SCHEDULE_PATHS
from app.data.order import OLD_FLIP_STREAM
from app.distributed.process_group import ProcessGroup
from app.errors import UserError
from app.evaluation.records import keep_test_evaluations
from app.files import write_json, write_text
from app.paths import experiments_dir, shown
from app.preflight import changed_data, refuse_or_force, settle_weights, train_again
from app.reading import best_row, read_history, read_record
from app.records import DatasetRecord, EnvironmentRecord, MetricsRecord
from app.runs import Run, load_run_experiment, remove_temporaries
from app.training.checkpoint import Progress, State, best_candidate, restore_state, settle_best
from app.training.history import is_complete
from app.training.optimizers import LearningRate
from app.training.setup import Job
from models.augmentation.color_layers import Recolour
from models.variables import assign, inner_optimizer

ScheduleFate = Literal["keep", "stretch"]
FoundState = tuple[State | None, list[str]]
_DECISIVE = ("tensorflow", "keras", "jax", "jaxlib", "numpy")  # another version may compute other numbers


def longer(run: Run, epochs: int, fate: ScheduleFate | None) -> Experiment:
    """Return the experiment of a run with more epochs; nothing is changed yet, see `restore_last_state`.

    Args:
        run: The run, finished or not.
        epochs: Epochs in all.
        fate: What becomes of a schedule that was laid out over the old number of epochs: "keep" leaves it
            there, so the rate stays at its last value; "stretch" lays it out over the new number.

    Raises:
        UserError: There would be nothing to train, this many cannot be trained, or the schedule's fate is
            missing or makes no sense.
    """
    experiment = load_run_experiment(run)
    planned, optimizer = experiment.training.num_epochs, experiment.scaled_optimizer
    rows = read_history(run.history) if run.history.is_file() else []
    if is_complete(load_run_experiment(run, [f"training.epochs={epochs}"]), rows):
        results = "" if run.finished else f"make resume RUN={run.argument} writes its results. "
        raise UserError(
            f"EPOCHS={epochs}: {run.name} was stopped early after {len(rows)} of {planned} epochs, because "
            f"{experiment.training.monitor} no longer improved; more epochs would not be trained. {results}"
            f'Train anew: make train FROM={run.argument} SET="training.epochs={epochs} '
            'training.early_stopping=null"'
        )
    changes = [f"training.epochs={epochs}"]
    schedules = {"optimizer": optimizer.learning_rate}
    if optimizer.others:
        schedules["optimizer.others"] = optimizer.others.learning_rate
    spanning = {key: each for key, each in schedules.items() if each.schedule in ("cosine", "one_cycle")}
    for key, schedule in spanning.items():
        if fate is None:
            stretched = schedule.model_copy(update={"span_epochs": None})
            length = schedule.span_epochs or planned
            kept = LearningRate(schedule.model_copy(update={"span_epochs": length}), 1, epochs).at(length)
            until = "" if run.finished else "goes on as planned, then "
            later = LearningRate(stretched, 1, epochs).at(planned if run.finished else len(rows))
            raise UserError(
                f"EPOCHS={epochs}: the learning rate of {run.name} follows a {schedule.schedule} over "
                f"{length} epochs. Say what becomes of it:\n"
                f"  SCHEDULE=keep     it {until}stays at its last value (about {kept:.3g})\n"
                f"  SCHEDULE=stretch  it is laid out over {epochs} epochs and goes on from about "
                f"{later:.3g}; the epochs already trained stay as they are"
            )
        span = "null" if fate == "stretch" else schedule.span_epochs or planned
        changes.append(f"{key}.learning_rate.span_epochs={span}")
    if fate == "stretch" and not spanning:
        kind = optimizer.learning_rate.schedule
        raise UserError(
            f"SCHEDULE=stretch: the {kind} schedule of {run.name} does not depend on the number "
            "of epochs; leave SCHEDULE out"
        )
    return load_run_experiment(run, changes)


def restore_last_state(run: Run, job: Job, found: FoundState, force: bool, out: TextIO) -> None:
    """Put the last whole state of a run into its classifier, and record that it goes on.

    Everything that could forbid it is looked at before anything in the run folder is changed.

    `job` is its experiment prepared again, perhaps with more epochs; `found` is what `load_state` returned.
    """
    state, damaged = found
    done = read_record(run.metrics, MetricsRecord).timing.epochs if run.finished else 0
    environment = job.describe_environment()
    grave, slight = differences(run, job, environment)
    refuse_or_force(run, grave, force)
    if state:
        training = job.experiment.training
        best = best_row(state.progress.rows, training.monitor)
        if best and not (run.best_model.is_file() or best_candidate(run, int(best["epoch"])).is_file()):
            raise UserError(
                f"{shown(run.best_model)}: no such file; it holds the network of the best epoch so far. Put "
                f"it back, or train anew: {train_again(run)}"
            )
        restore_state(job.classifier, state)
        job.progress = state.progress
        # With fewer images now the epoch under way may be over.
        job.progress.step = min(job.progress.step, job.steps_per_epoch)
        # Schedules go by the optimizer's count, which with other images is not that of this position; float16
        # leaves out steps, so that its count is smaller by right.
        data = read_record(run.dataset, DatasetRecord)
        changed = data.fingerprints_before or data.fingerprint != job.dataset.fingerprint
        if job.experiment.training.precision != "float16" or changed:
            count = inner_optimizer(job.classifier)._iterations
            position = job.progress.epoch * job.steps_per_epoch + job.progress.step
            assign(count, np.asarray(position, count.dtype))
    for line in [*grave, *slight]:
        print(f"{run.name}: {line}; equal bits are not promised", file=out)
    if edited := edited_keys(run, job.experiment):
        print(
            f"{run.name}: experiments/{job.experiment.name}.yaml has changed since ({', '.join(edited)}); "
            "the run goes on with its own experiment.yaml",
            file=out,
        )
    for line in damaged:
        print(line, file=out)
    if (
        damaged
        and state
        and run.best_model.is_file()
        and run.best_model.stat().st_mtime_ns > state.path.stat().st_mtime_ns
    ):
        print(f"{shown(run.best_model)} is of an epoch after that state", file=out)
    mended = [layer.name for layer in job.classifier.augmentation if isinstance(layer, Recolour)]
    if mended and job.progress.flip_stream == OLD_FLIP_STREAM:  # a state from before
        print(
            f"{run.name}: {', '.join(mended)} had faults of Keras when the run began and has none now; "
            "from here on its images are other ones",
            file=out,
        )
    if not is_complete(job.experiment, job.progress.rows):
        job.progress.resumed_epochs.append(job.progress.epoch + 1)
    settle_best(run, job.progress.epoch)
    remove_temporaries(run)
    before = load_run_experiment(run)
    stretched = state and before.schedule_epochs != job.experiment.schedule_epochs
    epochs_before = before.training.num_epochs if stretched else None
    record(run, job, grave, slight, environment, epochs_before)
    if done:
        keep_test_evaluations(run)
        run.report.unlink(missing_ok=True)
        # The metrics of a finished run stay beside the new ones. They go first: a kill in between leaves an
        # unfinished run, which may be resumed with more epochs or without.
        os.replace(run.metrics, run.path / f"metrics-{done}-epochs.json")
    if job.experiment != before:
        write_text(run.experiment, dump_experiment(job.experiment))


def agreed_position(group: ProcessGroup, job: Job, state: State | None) -> list[np.ndarray] | None:
    """Let all workers stand where the chief does; return the values of its state's metrics."""
    metrics = [value.tolist() for value in state.values["metrics"]] if state else None
    fields, metrics = group.all_gather("position", [dataclasses.asdict(job.progress), metrics])[0]
    job.progress = Progress(**fields)
    return metrics and [np.array(value, np.float32) for value in metrics]


def differences(run: Run, job: Job, environment: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """Compare what a run began with and what it would go on with (`Job.describe_environment`).

    Returns:
        What forbids going on: other data, starting weights, backend or versions; and what only makes equal
        bits uncertain: another commit of this program, another processor, other threads.
    """
    then = read_record(run.environment, EnvironmentRecord)
    recorded, forced = then.content, {line for each in then.resumes for line in each.forced}
    grave = changed_data(run, job.dataset)
    slight: list[str] = []
    if weights := environment.get("starting_weights", {}).get("sha256"):  # begins anew: there is no state
        before = recorded.get("starting_weights", {}).get("sha256", weights)
        if before != weights:
            name = job.experiment.model.weights
            grave.append(
                f"model.weights: {name} has hash {weights[:12]} here, {before[:12]} when the run began"
            )
    for name, before, now in [
        ("backend", recorded["backend"], environment["backend"]),
        *((name, recorded["versions"].get(name), environment["versions"].get(name)) for name in _DECISIVE),
    ]:
        unused = name.startswith("jax") and environment["backend"] != "jax"
        line = f"{name}: {now} here, {before} when the run began"
        if before != now and not unused:
            (slight if line in forced else grave).append(line)
    for name, now in environment["onednn"].items():
        before = recorded.get("onednn", {}).get(name, "not recorded")  # as older runs did not
        line = f"{name}: {now} here, {before} when the run began"
        if before != now:
            (slight if before == "not recorded" or line in forced else grave).append(line)
    began, now = (str(each.get("commit")).removesuffix("+changes") for each in (recorded, environment))
    if began != now:
        slight.append(f"this program: commit {now} here, {began} when the run began")
    for name in ("devices", "cpu", "threads", "deterministic", "workers", "replicas"):
        before = recorded.get(name, 1)  # older runs had one worker and one replica, and did not say so
        if before != environment[name]:
            slight.append(f"{name}: {environment[name]} here, {before} when the run began")
    return grave, slight


def record(
    run: Run,
    job: Job,
    forced: Sequence[str],
    differs: Sequence[str],
    environment_now: Mapping[str, Any],
    epochs_before: int | None,
) -> None:
    """Add this resume to environment.json, and changed data to dataset.json."""
    progress, environment = job.progress, read_record(run.environment, EnvironmentRecord).content
    trained = progress.epoch or progress.step
    if not trained:  # it begins anew, on this machine and these images alone
        environment, forced, differs = {**environment, **environment_now}, (), ()
    entry = {"time": time.strftime("%F %T"), "epoch": progress.epoch + 1, "step": progress.step}
    entry |= {name: environment_now[name] for name in ("commit", "workers", "replicas")}
    entry["epochs_before"] = epochs_before
    entry |= {name: list(lines) for name, lines in (("forced", forced), ("differs", differs)) if lines}
    environment.setdefault("resumes", []).append(entry)
    write_json(run.environment, environment)
    dataset = read_record(run.dataset, DatasetRecord)
    if dataset.fingerprint != job.dataset.fingerprint:
        before = [*dataset.fingerprints_before, dataset.fingerprint] if trained else []
        write_json(run.dataset, job.describe_dataset() | {"fingerprints_before": before})
        for key, text in job.dataset.corrections.items():
            write_text(run.corrections[key], text)


def edited_keys(run: Run, experiment: Experiment) -> list[str]:
    """Return what the experiment's file says otherwise than when the run began, as dotted keys.

    Nothing where the file is gone, or the run was trained from another run.
    """
    overrides = read_record(run.environment, EnvironmentRecord).overrides
    if overrides is None or not (experiments_dir() / f"{experiment.name}.yaml").is_file():
        return []
    try:
        now = load_experiment(experiment.name, overrides)
    except UserError:
        return ["has errors now"]
    # Where its images lie now, and what `longer` may have changed.
    spans = (".".join((*path, "span_epochs")) for path in SCHEDULE_PATHS)
    expected = {"dataset.data_dir", "training.epochs", *spans}
    if (now.model.weights or "").endswith("/latest"):  # the run recorded what that was
        expected.add("model.weights")
    with contextlib.suppress(UserError):  # the run that a path leads to may be gone
        now = settle_weights(now)
    before, after = experiment.flat(LABELS), now.with_auto_of(experiment).flat(LABELS)
    return [key for key in before | after if before.get(key) != after.get(key) and key not in expected]
