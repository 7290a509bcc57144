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
from app.drawing.schedule import draw_schedule
from app.files import new_folder
from app.paths import runs_root, shown
from app.training.setup import Job, prepare

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
    if experiment.augmentation:
        _draw_augmentation(folder / "augmentation.png", job)
        print(f"augmentation {shown(folder / 'augmentation.png')}", file=out)
    else:
        print(f"augmentation none: {experiment.name} trains on the images as they are stored", file=out)
    _draw_schedule(folder / "schedule.png", job)
    print(f"schedule {shown(folder / 'schedule.png')}", file=out)
    return folder


def _draw_augmentation(path: Path, job: Job) -> None:
    """Draw a training image as stored, and what a network would see of it in DRAWS epochs."""
    experiment, train = job.experiment, job.dataset.train
    position = epoch_order(experiment.seed, 0, len(train))[:1]
    images, labels = train.take(position)
    flips = experiment.alternating_flip
    flipped = np.zeros(DRAWS, bool)
    for epoch in range(DRAWS if flips else 0):
        flipped[epoch] = flipped_images(experiment.seed, epoch, len(train))[position[0]]
    drawn = augmented(job.classifier.augmentation, images[0], flipped)
    layers = ", ".join(_words(layer) for layer in experiment.augmentation)
    words = [f"epoch {epoch}{', mirrored' * bool(flipped[epoch - 1])}" for epoch in range(1, DRAWS + 1)]
    draw_grid(
        path,
        [images[0], *drawn],
        [f"as stored: {job.dataset.class_names[labels[0]]}", *(words if flips else [""] * DRAWS)],
        f"{experiment.name}: one training image, augmented {DRAWS} times\n{layers}",
        columns=5,
    )


def _words(layer: LayerConfig) -> str:
    arguments = ", ".join(f"{name} {value}" for name, value in layer.arguments.items())
    return f"{layer.name} ({arguments})" if arguments else layer.name


def augmented(layers: Sequence[keras.layers.Layer], image: np.ndarray, flipped: np.ndarray) -> np.ndarray:
    """Return as many augmentations of an image as `flipped` is long.

    Args:
        layers: The augmentation layers in their order.
        image: (height, width, channels), uint8.
        flipped: Which are mirrored beforehand, (n,) bool.

    Returns:
        (n, height, width, channels), uint8: the pixels that the network is given, rounded.
    """
    stored = np.stack([image[:, ::-1] if mirrored else image for mirrored in flipped])
    pixels = keras.ops.convert_to_tensor(stored.astype(np.float32))
    for layer in layers:
        pixels = layer(pixels, training=True)
    return np.round(np.clip(keras.ops.convert_to_numpy(pixels), 0, 255)).astype(np.uint8)


def _draw_schedule(path: Path, job: Job) -> None:
    """Draw the learning rate of every step, with warm-up, peak and end."""
    optimizer, epochs, steps = job.experiment.optimizer, job.experiment.training.epochs, job.steps_per_epoch
    schedule = optimizer.learning_rate
    last = steps * epochs - 1
    taken = np.linspace(0, last, min(last + 1, MOST_POINTS)).round().astype(np.int64)
    turns = [schedule.warmup_epochs * steps - 1, round(getattr(schedule, "peak_epoch", 0) * steps)]
    taken = np.union1d(taken, [step for step in turns if 0 <= step <= last])  # they must not be missed
    rates = np.array([job.learning_rate(int(step)) for step in taken])
    title = (
        f"{job.experiment.name}: learning rate ({schedule.schedule})\n"
        f"{optimizer.name}, {epochs:,} epochs of {steps:,} steps"
    )
    for pattern, factor in optimizer.rate_multipliers.items():
        title += f"; {pattern} {factor:g} times this rate"
    draw_schedule(path, title, taken / steps, rates, epochs, schedule.warmup_epochs)
