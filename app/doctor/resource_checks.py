"""What a run takes of the machine it is on: disk, memory and time."""

import contextlib
import gc
import math
import statistics
from collections.abc import Iterable

import keras
import numpy as np

from app.bench.timers import EnoughError, StepClock
from app.doctor.data_checks import CheckResult
from app.training.backbone_features import feature_bytes, usable_halves
from app.training.checkpoint import KEPT_STATES
from app.training.setup import Job
from app.wording import duration
from models.inspect import named_layers

TIMED_STEPS = 40
QUICK_EPOCH = 5.0  # seconds; writing curves and states counts beside them


def num_bytes(variables: Iterable[keras.Variable]) -> int:
    """Return the memory that variables take."""
    return sum(math.prod(variable.shape) * np.dtype(variable.dtype).itemsize for variable in variables)


def disk_need(job: Job) -> int:
    """Return the bytes that a run folder may come to: states, the best model, predictions, records."""
    classifier = job.classifier
    state = num_bytes(classifier.variables) + num_bytes(classifier.optimizer.variables)
    best = num_bytes(classifier.network.variables)
    predictions = 2 * 4 * len(job.dataset.val) * len(job.dataset.class_names)
    # A state and a best model are written before their predecessors go.
    return (KEPT_STATES + 1) * state + 2 * best + predictions + 5_000_000


def memory_need(job: Job) -> int:
    """Return roughly the bytes that training will take beyond what the prepared job holds already."""
    classifier, training = job.classifier, job.experiment.training
    width = 4 if training.precision == "float32" else 2
    layers = [layer for _, layer in named_layers(classifier.network)]
    shapes = [getattr(getattr(layer, "output", None), "shape", ()) for layer in layers]  # () if never called
    values = [math.prod(size or 1 for size in shape[1:]) for shape in shapes]  # for one image
    # What each layer put out, and as much again for activation functions and gradients under way. Below what
    # is trained nothing is kept for a gradient: there is what goes into a layer, and what comes out.
    below = [] if job.experiment.model.unfreeze_epoch else list(map(id, job.freezing.below))
    start = next((i for i, each in enumerate(layers) if each.weights and id(each) not in below), 0)
    passed = max(values[:start], default=0)
    activations = 2 * (passed + sum(values[start:])) * training.batch_size * width
    gradients = num_bytes(classifier.trainable_variables)
    state = num_bytes(classifier.variables) + num_bytes(classifier.optimizer.variables)  # copied to be saved
    halves = usable_halves(job)
    features = feature_bytes(job, halves) if halves else 0
    return activations + gradients + state + features + 300_000_000  # the backend's own


def check_room(subject: str, need_bytes: int, free_bytes: int, advice: str) -> CheckResult:
    """Compare what is needed with what is free: short is a FAIL, less than half as much again a warning."""
    sizes = need_bytes, free_bytes
    need, free = (f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.0f} MB" for size in sizes)
    measured = f"about {need} needed, {free} free"
    if 1.5 * need_bytes <= free_bytes:
        return CheckResult("ok", subject, measured)
    return CheckResult("FAIL" if need_bytes > free_bytes else "warn", subject, measured, advice)


def check_speed(job: Job, budget_seconds: float = 4.0) -> CheckResult:
    """Time real steps and validation batches, and tell how long the whole run takes here."""
    training, steps = job.experiment.training, TIMED_STEPS + 1
    clock, batches = StepClock(steps, budget_seconds), job.batches(epochs=steps)
    with contextlib.suppress(EnoughError):
        job.classifier.fit(
            batches, steps_per_epoch=steps, epochs=1, shuffle=False, verbose=0, callbacks=[clock]
        )
    if not math.isfinite(clock.loss):
        measured = f"the loss is {clock.loss} within {len(clock.ends) - 1} steps"
        advice = "Lower optimizer.learning_rate, or warm it up (warmup_epochs)"
        return CheckResult("FAIL", "speed", measured, advice)
    val_batches, val_steps = job.validation_batches()
    job.classifier.evaluate(val_batches, verbose=0, callbacks=[StepClock(1)])  # compiles
    validation = StepClock(steps, budget_seconds / 3)
    job.classifier.evaluate(val_batches, verbose=0, callbacks=[validation])
    del batches, val_batches  # a pipeline in the middle of its images holds threads and memory
    gc.collect()
    step = _seconds_per_step(clock)
    epoch = job.steps_per_epoch * step + val_steps * _seconds_per_step(validation)
    most = "at most " if training.early_stopping or job.experiment.model.unfreeze_epoch else ""
    measured = (
        f"{step:.3g} s a step of {training.batch_size} images, {duration(epoch)} an epoch, "
        f"{most}about {duration(training.num_epochs * epoch)} for {training.num_epochs} epochs"
    )
    if usable_halves(job):
        measured += "; less, as the frozen backbone is computed once for all epochs"
    elif epoch < QUICK_EPOCH:
        measured += ", plus what each epoch writes"
    return CheckResult("ok", "speed", measured)


def _seconds_per_step(clock: StepClock) -> float:
    """Return the median of the later steps: the first ones find their batches waiting."""
    seconds = clock.seconds or [clock.ends[1] - clock.ends[0]]
    return statistics.median(seconds[len(seconds) // 2 :])
