"""`make preview`: what can be seen of an experiment before it is trained, as two pictures."""

from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

import keras
import numpy as np

from app.config import Experiment
from app.config.schema import LayerConfig
from app.data.order import epoch_order, flipped_images
from app.drawing.canvas import (
    BLACK,
    BLUE,
    GREY,
    LEAST_WIDTH,
    MARGIN,
    VERMILION,
    draw_heading,
    heading_inches,
    new_figure,
    save_figure,
    set_up_panel,
)
from app.drawing.image_grid import draw_grid
from app.files import new_folder
from app.paths import runs_root, shown
from app.training.optimizers import learning_rate_at
from app.training.setup import Job, prepare

DRAWS = 24
MOST_POINTS = 20_000  # of the learning rate's curve


def preview(experiment: Experiment, out: TextIO) -> Path:
    """Draw augmentations of a training image, and the learning rate over all epochs.

    Args:
        experiment: What is to be trained.
        out: Receives a line a picture.

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
    _draw_schedule(folder / "schedule.png", experiment, job.steps_per_epoch)
    print(f"schedule {shown(folder / 'schedule.png')}", file=out)
    return folder


def _draw_augmentation(path: Path, job: Job) -> None:
    """Draw a training image as stored, and what a network would see of it in so many epochs."""
    experiment, train = job.experiment, job.dataset.train
    position = epoch_order(experiment.seed, 0, len(train))[:1]
    images, labels = train.take(position)
    flips = experiment.alternating_flip
    flipped = np.zeros(DRAWS, bool)
    if flips:
        flipped[:] = [
            flipped_images(experiment.seed, epoch, len(train))[position[0]] for epoch in range(DRAWS)
        ]
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


def _draw_schedule(path: Path, experiment: Experiment, steps: int) -> None:
    """Draw the learning rate of every step, with warm-up, peak and end."""
    schedule, epochs = experiment.optimizer.learning_rate, experiment.training.epochs
    last = steps * epochs - 1
    taken = np.linspace(0, last, min(last + 1, MOST_POINTS)).round().astype(np.int64)
    warmup = schedule.warmup_epochs
    turns = [warmup * steps - 1, round(getattr(schedule, "peak_epoch", 0) * steps)]  # must not be missed
    taken = np.union1d(taken, [step for step in turns if 0 <= step <= last])
    rates = np.array([learning_rate_at(schedule, int(step), steps, epochs) for step in taken])

    layers = [
        f"{pattern} {factor:g} times this rate"
        for pattern, factor in experiment.optimizer.rate_multipliers.items()
    ]
    title = (
        f"{experiment.name}: learning rate ({schedule.schedule})\n"
        f"{experiment.optimizer.name}, {epochs:,} epochs of {steps:,} steps"
        + "".join(f"; {words}" for words in layers)
    )
    width, height = LEAST_WIDTH + 1.0, 4.8
    figure = new_figure(width, height)
    draw_heading(figure, title)
    head = heading_inches(title) + 0.5
    axes = figure.add_axes((0.115, 0.6 / height, 0.855, 1 - (0.6 + head) / height))
    set_up_panel(axes)
    axes.set_ylabel("learning rate")
    passed = taken / steps  # epochs before each step
    axes.plot(passed, rates, "-", color=BLUE, linewidth=2.0, zorder=3)
    axes.set_xlim(-0.02 * epochs, 1.02 * epochs)
    axes.set_ylim(0, 1.08 * max(float(rates.max()), 1e-12))
    if warmup:
        axes.axvspan(0, warmup, color="#E8E8E8", zorder=0, label=f"warm-up to epoch {warmup}")
    for at, marker, colour, name in (
        (0, "o", GREY, "start"),
        (int(rates.argmax()), "^", VERMILION, "peak"),
        (len(rates) - 1, "s", BLACK, "end"),
    ):
        if name == "peak" and at in (0, len(rates) - 1):
            continue
        where = f" at epoch {passed[at]:.3g}" if name == "peak" else ""
        axes.plot(
            [passed[at]], [rates[at]], marker, color=colour, markersize=9, linestyle="none", zorder=4,
            clip_on=False, label=f"{name}: {rates[at]:.3g}{where}",
        )  # fmt: skip
    figure.legend(
        *axes.get_legend_handles_labels(), loc="upper left", ncols=4, frameon=False, fontsize=9,
        bbox_to_anchor=(MARGIN / width, 1 - (head - 0.42) / height), borderaxespad=0.0, borderpad=0.0,
    )  # fmt: skip
    save_figure(figure, path)
