"""Before a long run: does everything look as it should, and how long will it take?"""

import gc
from collections.abc import Iterator
from typing import TextIO

import keras
import numpy as np

from app.config import Experiment
from app.config.schema import ALTERNATING_FLIP
from app.doctor import data_checks, resource_checks, statistics_checks, trial_checks
from app.doctor.data_checks import CheckResult
from app.errors import UserError, is_memory_error
from app.machine import accelerators, available_memory_bytes, free_disk_bytes
from app.paths import runs_root, shown
from app.training import startup
from app.training.setup import Job, prepare

SMALLER = "Choose a smaller training.batch_size or dataset.image_size"


def examine(experiment: Experiment, out: TextIO) -> bool:
    """Look for what would spoil a run, and print a line a check, as soon as it is known: ok, warn or FAIL.

    Nothing is trained that anybody keeps, and no run folder is made; the one file written is a picture of
    augmented images in `runs/doctor/`.

    Returns:
        Whether there was no FAIL.
    """
    levels = []
    for result in _results(experiment):
        print(result, file=out, flush=True)
        levels.append(result.level)
    failed, warned = levels.count("FAIL"), levels.count("warn")
    verdict = f"{failed} FAIL, {warned} warn" if failed or warned else "no fault found"
    print(f"{experiment.name}: {verdict}", file=out, flush=True)
    return not failed


def _results(experiment: Experiment) -> Iterator[CheckResult]:
    """Yield the result of each check, the quick ones first."""
    try:
        job = prepare(experiment)
    except UserError as error:
        yield CheckResult("FAIL", "start", str(error))
        return
    dataset, training = job.dataset, experiment.training
    job.begin(job.experiment.training.num_epochs - 1)  # which trains the most
    images, labels = trial_checks.trial_batch(job)
    names = [dataset.class_names[label] for label in labels]
    picture = runs_root() / "doctor" / f"{experiment.name}-augmentation.png"
    yield data_checks.check_data(dataset)
    for line in job.cautions():
        yield CheckResult("warn", "settings", line.removeprefix("warning: "))
    yield data_checks.check_images(dataset, images)
    yield data_checks.check_classes(dataset, training.class_weight, experiment.dataset.sampler)
    layers, flips = job.classifier.augmentation, [ALTERNATING_FLIP] * experiment.alternating_flip
    yield data_checks.check_augmentation(layers, images, names, picture, experiment.name, flips)
    normalized = keras.ops.convert_to_numpy(keras.ops.cast(job.classifier.normalization(images), "float32"))
    largest = data_checks.largest_input(dataset.train, job.constants)
    yield data_checks.check_pixels(normalized, experiment.normalization, largest)
    yield statistics_checks.check_batch_norm(job)
    yield _check_precision(experiment, job.experiment)
    cards = len(accelerators(job.describe_environment()["devices"]))
    if cards > 1:
        advice = "make train divides each batch among all of them: memory and time are others there"
        yield CheckResult("warn", "devices", f"tried on one of {cards}", advice)
    if experiment.model.weights:
        yield data_checks.check_rate(job)
    free, advice = free_disk_bytes(runs_root()), f"Free space in {shown(runs_root())}"
    yield resource_checks.check_room("disk", resource_checks.disk_need(job), free, advice)
    if not cards:  # these have a memory of their own; steps show whether it suffices
        need, free = resource_checks.memory_need(job), available_memory_bytes()
        memory = resource_checks.check_room("memory", need, free, SMALLER)
        yield memory
        if memory.level == "FAIL":
            reason = "left out, as the system might end a process that takes too much"
            yield CheckResult("warn", "trial checks", reason)
            return
    yield from _trial_checks(job, images, labels)


def _check_precision(asked: Experiment, resolved: Experiment) -> CheckResult:
    """Say which number format is used, and whether another would be faster here."""
    training = asked.training
    advice = startup.precision_advice(training.precision, training.devices) or ""
    here = f" is {resolved.training.precision} here" if training.precision == "auto" else ""
    fine = not advice or training.precision == "float32"
    return CheckResult("ok" if fine else "warn", "precision", training.precision + here, advice)


def _trial_checks(job: Job, images: np.ndarray, labels: np.ndarray) -> Iterator[CheckResult]:
    """Yield what is learnt by computing; the memory of each check is free again before the next."""
    try:
        logits, loss, gradients = trial_checks.first_step(job, images, labels)
        yield trial_checks.check_first_loss(job, loss)
        yield trial_checks.check_logits(job, logits)
        yield trial_checks.check_gradients(job, gradients, images, labels)
        del logits, gradients
        gc.collect()
        yield trial_checks.check_overfitting(job, images, labels)
        yield resource_checks.check_speed(job)
    except Exception as error:
        if not is_memory_error(error):
            raise
        measured = "the memory is too small for a training step"
        yield CheckResult("FAIL", "memory", measured, SMALLER)
