"""`make preview`: what can be seen of an experiment before it is trained, as two pictures."""

from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

import keras
import numpy as np

from app.config import Experiment
from app.config.schema import LayerConfig
from app.data.order import epoch_order, flipped_images
from app.drawing.image_grid import draw_grid
from app.drawing.rates import draw_schedule
from app.files import new_folder
from app.paths import runs_root, shown
from app.training.setup import Job, prepare
from models.augmentation.mixing import Mixing, augment, blend

DRAWS = 24
MOST_POINTS = 20_000  # of the learning rate's curve


def preview(experiment: Experiment, out: TextIO) -> Path:
    """Draw augmentations of a training image, and the learning rate over all epochs; print a line a picture.

    Returns:
        The new folder of the pictures, in `runs/previews/`.

    Raises:
        UserError: The experiment cannot be made ready to train; nothing is written then.
    """
    job = prepare(experiment)
    folder = new_folder(runs_root() / "previews")
    if sampler := experiment.dataset.sampler:
        labels = job.dataset.train.labels
        drawn = labels[epoch_order(experiment.seed, 0, labels, sampler)]
        stored, seen = np.bincount(labels), np.bincount(drawn)
        print(
            f"sampler {sampler}: classes have {stored.min():,} to {stored.max():,} images; "
            f"an epoch shows {seen.min():,} to {seen.max():,} of each",
            file=out,
        )
    if experiment.augmentation:
        _draw_augmentation(folder / "augmentation.png", job)
        print(f"augmentation {shown(folder / 'augmentation.png')}", file=out)
    else:
        print(f"augmentation none: {experiment.name} trains on the images as they are stored", file=out)
    _draw_schedule(folder / "schedule.png", job)
    print(f"schedule {shown(folder / 'schedule.png')}", file=out)
    return folder


def _draw_augmentation(path: Path, job: Job) -> None:
    """Draw a training image as stored, and what a network would see of it in DRAWS epochs.

    Where images are mixed, each time with the next image in the order of training.
    """
    experiment, train = job.experiment, job.dataset.train
    positions = np.resize(
        epoch_order(experiment.seed, 0, train.labels, experiment.dataset.sampler), DRAWS + 1
    )
    images, labels = train.take(positions)
    names = [job.dataset.class_names[label] for label in labels]
    flips = experiment.alternating_flip
    flipped = np.zeros((DRAWS, DRAWS + 1), bool)  # epochs, images
    if flips:
        for epoch in range(DRAWS):
            flipped[epoch] = flipped_images(experiment.seed, epoch, len(train))[positions]
    layers = job.classifier.augmentation
    others = [layer for layer in layers if not isinstance(layer, Mixing)]
    drawn = augmented(others, images[0], flipped[:, 0])
    words = [f"epoch {epoch}{', mirrored' * bool(flipped[epoch - 1, 0])}" for epoch in range(1, DRAWS + 1)]
    words = words if flips else [""] * DRAWS
    if mixing := [layer for layer in layers if isinstance(layer, Mixing)]:
        partners = augmented(others, images[1:], np.diagonal(flipped, 1))
        drawn, weights = map(keras.ops.convert_to_numpy, blend(mixing, drawn, partners))
        for index, weight in enumerate(weights):
            percent = round(100 * float(weight))
            words[index] += f"\n{percent}% {names[0]}"
            words[index] += f"\n{100 - percent}% {names[index + 1]}" if weight < 1 else ""
        words = [each.lstrip() for each in words]
    title = ", ".join(_words(layer) for layer in experiment.augmentation)
    draw_grid(
        path,
        [images[0], *drawn],
        [f"as stored: {names[0]}", *words],
        f"{experiment.name}: one training image, augmented {DRAWS} times\n{title}",
        columns=5,
    )


def _words(layer: LayerConfig) -> str:
    arguments = ", ".join(f"{name} {value}" for name, value in layer.arguments.items())
    return f"{layer.name} ({arguments})" if arguments else layer.name


def augmented(layers: Sequence[keras.layers.Layer], image: np.ndarray, flipped: np.ndarray) -> np.ndarray:
    """Return as many augmentations of an image as `flipped` is long.

    Args:
        layers: The augmentation layers in their order.
        image: (height, width, channels), uint8; or as many images.
        flipped: Which are mirrored beforehand, (n,) bool.

    Returns:
        (n, height, width, channels), uint8: the pixels that the network is given, rounded.
    """
    stored = np.where(flipped[:, None, None, None], image[..., ::-1, :], image)
    pixels, _ = augment(layers, keras.ops.convert_to_tensor(stored.astype(np.float32)))
    return np.round(keras.ops.convert_to_numpy(pixels)).astype(np.uint8)


def _draw_schedule(path: Path, job: Job) -> None:
    """Draw the learning rate of every step, with warm-up, peak and end."""
    experiment, steps = job.experiment, job.steps_per_epoch
    optimizer, epochs = experiment.scaled_optimizer, experiment.training.num_epochs
    schedule = optimizer.learning_rate
    last = steps * epochs - 1
    taken = np.linspace(0, last, min(last + 1, MOST_POINTS)).round().astype(np.int64)
    turns = [schedule.warmup_epochs * steps - 1, round(getattr(schedule, "peak_epoch", 0) * steps)]
    taken = np.union1d(taken, [step for step in turns if 0 <= step <= last])  # they must not be missed
    rates = np.array([job.learning_rate(int(step)) for step in taken])
    layers = [
        f"{pattern} {factor:g} times this rate" for pattern, factor in optimizer.rate_multipliers.items()
    ]
    if optimizer.layer_decay:
        layers.append(f"{optimizer.layer_decay:g} times the rate for each part below the head")
    lines = [
        f"{experiment.name}: learning rate ({schedule.schedule})",
        "; ".join([f"{optimizer.name}, {epochs:,} epochs of {steps:,} steps", *layers]),
    ]
    if others := optimizer.others:
        rate = others.learning_rate
        values = rate.model_dump(exclude={"schedule"}, exclude_defaults=True)
        texts = {key: f"{value:g}" if isinstance(value, float) else value for key, value in values.items()}
        words = ", ".join(f"{key} {text}" for key, text in texts.items())
        lines.append(f"this is the rate of kernels; the rest, {others.name}: {rate.schedule}, {words}")
    if schedule.schedule == "reduce_on_plateau":
        lines.append(
            f"its reductions follow from the training: {schedule.factor:g} times after "
            f"{schedule.patience_epochs} epochs without a better {experiment.training.monitor}"
        )
    title = "\n".join(lines)
    draw_schedule(path, title, taken / steps, rates, epochs, schedule.warmup_epochs)
