"""What the doctor sees without training: data, augmentation, pixels, the rate of pretrained weights.

Every check returns a `CheckResult`: a line of the report.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import keras
import numpy as np

from app.data.dataset import Dataset, Split
from app.drawing.image_grid import draw_grid
from app.paths import shown
from app.training.setup import Job
from models.augmentation.mixing import Mixing, augment
from models.inspect import variable_names, weighted_layers
from models.variables import inner_optimizer

IMBALANCE = 10.0  # the largest class against the smallest
LARGEST_INPUT = 50.0  # of the network; a pixel of 8 bits is rarely 20 standard deviations from the mean
SAMPLE_VALUES = 4_000_000  # pixel values of training images that are looked at for it
DRAWS = 8  # before an augmentation layer is said to do nothing
DRAWN_IMAGES = 8  # in one row, and augmented below it
# Rules of thumb, above what authors fine-tune with in batches of 512: SGD with momentum 0.9 and 0.003 in the
# code of "Big Transfer" (Kolesnikov et al. 2020, arXiv:1912.11370), AdamW with 5e-5 in that of ConvNeXt
# (Liu et al. 2022, arXiv:2201.03545).
SGD_LIMIT = 0.2  # of the rate divided by 1 - momentum: 0.02 with momentum 0.9
ADAPTIVE_LIMIT = 1e-3
ADAPTIVE = ("adam", "adamax", "adamw", "lion", "nadam", "rmsprop")


@dataclass(frozen=True)
class CheckResult:
    """What a check found: how bad it is, what was measured, and what to do about it unless it is fine."""

    level: Literal["ok", "warn", "FAIL"]
    subject: str
    measured: str
    advice: str = ""

    def __str__(self) -> str:
        """Return the line that is printed."""
        return f"{self.level:<4}  {self.subject:<12}  {'. '.join(filter(None, (self.measured, self.advice)))}"


def ok_or_warn(subject: str, measured: str, advice: str) -> CheckResult:
    """Return a warning where there is something to advise."""
    return CheckResult("warn" if advice else "ok", subject, measured, advice)


def check_data(dataset: Dataset) -> CheckResult:
    """Say what was found and loaded."""
    splits = {"training": dataset.train, "validation": dataset.val, "test": dataset.test}
    counts = ", ".join(f"{len(split):,} {name}" for name, split in splits.items() if split is not None)
    skipped = f", {len(dataset.skipped)} unreadable files left out" if dataset.skipped else ""
    measured = f"{dataset.source}: {counts} images{skipped}, fingerprint {dataset.fingerprint[:12]}"
    return CheckResult("ok", "data", measured)


def check_images(dataset: Dataset, images: np.ndarray) -> CheckResult:
    """Find images, here some of a dataset, that were scaled to [0, 1] before they were stored as uint8."""
    height, width, channels = dataset.image_shape
    measured = f"{height}x{width}x{channels}, uint8, from {images.min()} to {images.max()} in those drawn"
    advice = "They look as if they had been scaled to [0, 1]. Give images as uint8 from 0 to 255"
    return ok_or_warn("images", measured, advice if images.max() <= 1 else "")


def check_classes(
    dataset: Dataset, class_weight: str | Mapping[str, float] | None, sampler: str | None
) -> CheckResult:
    """Compare the numbers of training images of the largest and the smallest class.

    `class_weight` and `sampler` are the experiment's.
    """
    counts = np.bincount(dataset.train.labels, minlength=len(dataset.class_names))
    low, high = int(counts.argmin()), int(counts.argmax())
    names, measured = dataset.class_names, f"{len(counts)}, each of {counts[low]:,} images"
    if counts[low] == 0:
        measured = f"{names[low]} has no image to train on"
        return CheckResult("warn", "classes", measured, "Add some, or remove the class")
    if counts[low] != counts[high]:
        smallest, largest = (f"{counts[each]:,} ({names[each]})" for each in (low, high))
        measured = f"{len(counts)}, from {smallest} to {largest} images"
    if counts[high] > IMBALANCE * counts[low] and not (class_weight or sampler):
        advice = (
            "Set training.class_weight or dataset.sampler: balanced, or add images of the smaller classes"
        )
        return CheckResult("warn", "classes", measured, advice)
    if class_weight:
        measured += ", weighted to count equally" if class_weight == "balanced" else ", weighted by name"
    return CheckResult("ok", "classes", measured + (f", drawn by the sampler {sampler}" if sampler else ""))


def check_augmentation(
    layers: Sequence[keras.layers.Layer],
    images: np.ndarray,
    names: Sequence[str],
    path: Path,
    title: str,
    others: Sequence[str] = (),
) -> CheckResult:
    """Draw uint8 images before and after augmentation, and find layers that do nothing or harm.

    `others` are what the pipeline does before, by name.
    """
    subject, pixels = "augmentation", images.astype(np.float32)
    idle = []
    for layer in layers:
        given = pixels
        for _ in range(DRAWS):
            pixels = keras.ops.convert_to_numpy(layer(given, training=True))
            if not np.abs(pixels - given).max() < 0.5:  # grey levels; also where they are NaN
                break
        else:
            idle.append(layer.name)
        if not np.isfinite(pixels).all():
            measured = f"{layer.name} makes pixels that are not finite"
            advice = "Check its arguments; NaN pixels make every weight NaN"
            return CheckResult("FAIL", subject, measured, advice)
    if any(isinstance(layer, Mixing) for layer in layers):  # those act together, none on what another mixed
        pixels = keras.ops.convert_to_numpy(augment(layers, images.astype(np.float32))[0])
    after = np.clip(pixels, 0, 255)
    path.parent.mkdir(parents=True, exist_ok=True)
    columns = min(DRAWN_IMAGES, len(images))
    drawn = [*images[:columns], *np.round(after[:columns]).astype(np.uint8)]
    captions = [*(f"{name}\nas stored" for name in names[:columns]), *["augmented"] * columns]
    draw_grid(path, drawn, captions, title, columns=columns)
    picture = f"look at {shown(path)}"
    if idle:
        advice = f"Check the arguments, or leave it out; {picture}"
        return CheckResult("warn", subject, f"{', '.join(idle)} left all images unchanged", advice)
    left = float(after.std() / max(images.std(), 1e-9))
    if layers and left < 0.2:
        advice = f"Check its strength; {picture}"
        return CheckResult("warn", subject, f"leaves {left:.0%} of the images' contrast", advice)
    known = ", ".join([*others, *(layer.name for layer in layers)])
    return CheckResult("ok", subject, f"{known or 'none'}; {picture}")


def check_pixels(normalized: np.ndarray, kind: str, largest: float) -> CheckResult:
    """Find inputs of the network that are far from mean 0 and standard deviation 1, or huge.

    `normalized` is a batch as the network gets it, `kind` the experiment's `normalization`; for `largest`, of
    all training images, see `largest_input`.
    """
    values = normalized.astype(np.float32)
    mean, std = float(values.mean()), float(values.std())
    measured = f"normalization {kind}: mean {mean:.3g}, std {std:.3g}, largest {largest:,.1f}"
    if kind == "per_pixel" and not largest <= LARGEST_INPUT:
        measured += f" in training images (limit {LARGEST_INPUT:g})"
        advice = "Some pixels hardly differ between images. Set normalization: per_channel"
        return CheckResult("warn", "pixels", measured, advice)
    usual = kind == "pretrained" or (abs(mean) < 3 and 0.03 < std < 5)  # Keras' ResNets take -124 to 151
    fine = np.isfinite(values).all() and usual
    advice = "" if fine else "Set normalization: per_channel, which gives about 0 and 1"
    return ok_or_warn("pixels", measured, advice)


def largest_input(split: Split, constants: Mapping[str, Any]) -> float:
    """Return the largest |pixel - mean| / std over images of a split, evenly taken where they are many."""
    count = max(1, min(len(split), SAMPLE_VALUES // math.prod(split.images.shape[1:])))
    images, _ = split.take(np.linspace(0, len(split) - 1, count).astype(int))
    ends = np.stack([images.min(axis=0), images.max(axis=0)]) / 255  # the extremes of each pixel suffice
    return float(np.max(np.abs(ends - np.array(constants["mean"])) / np.array(constants["deviation"])))


def check_rate(job: Job) -> CheckResult:
    """Find a learning rate that spoils weights that were trained before, all but the head's."""
    subject, config, network = "rate", job.experiment.scaled_optimizer, job.classifier.network
    optimizer = inner_optimizer(job.classifier)
    names, head = variable_names(network), [*weighted_layers(network)][-1]
    variables = optimizer._trainable_variables
    factors = getattr(optimizer, "factors", [1.0] * len(variables))
    body = [
        factor
        for variable, factor in zip(variables, factors, strict=True)
        if not names[id(variable)].startswith(f"{head}.")
    ]
    if not body:
        return CheckResult("ok", subject, "only the head is trained")
    rate = config.learning_rate.peak * max(body)
    measured = f"{config.name} with at most {rate:g} below the head"
    if config.name == "sgd":
        limit = SGD_LIMIT * (1 - config.arguments.get("momentum", 0.0))
    elif config.name in ADAPTIVE:
        limit = ADAPTIVE_LIMIT
    else:
        layers = weighted_layers(network).values()
        norms = [each for each in layers if isinstance(each, keras.layers.BatchNormalization)]
        absorbed = config.name != "muon" or any(each.trainable for each in norms)
        advice = "muon rescales all kernels in its first step, which only trained normalisations make up for"
        return ok_or_warn(subject, measured, "" if absorbed else advice)
    advice = (
        f"Above about {limit:.2g} little is left of the weights of {job.experiment.model.weights}. Lower "
        "optimizer.learning_rate; the head may keep it by optimizer.rate_multipliers"
    )
    return ok_or_warn(subject, measured, advice if rate > limit * (1 + 1e-6) else "")
