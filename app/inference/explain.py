"""`make explain`: the filters of the first convolution, and Grad-CAM of some images."""

from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

import keras
import numpy as np
from matplotlib import colormaps
from PIL import Image

from app.data.chosen import find_images
from app.drawing.canvas import certainty_of, shortened_apart
from app.drawing.image_grid import CAPTION_POINTS, draw_grid
from app.errors import UserError
from app.evaluation.image_sheets import NAME_INCHES
from app.evaluation.metrics import probabilities
from app.files import new_folder
from app.inference.gradcam import Attention, first_kernel, grad_cam
from app.inference.load import CheckpointName, Trained, load_split, load_trained
from app.inference.predict import read_images, report_bad_files
from app.paths import shown
from app.runs import Run
from app.wording import printable

VALIDATION_IMAGES = 12
MOST_IMAGES = 24
MOST_FILTERS = 256
OVERLAY_PIXELS = 224  # least height and width of the picture under a heat map
HEAT_OPACITY = 0.6


def explain(run: Run, images: str | None, checkpoint: CheckpointName | None, out: TextIO) -> Path:
    """Draw the filters of the first convolution, and Grad-CAM of some images; print a line a picture.

    The images are files, see `app.data.chosen.find_images`; validation images of all classes by default.

    Returns:
        The new folder `<run>/explanations/<stamp>`.

    Raises:
        UserError: The run is not finished, there are no such images, or the network has no maps.
    """
    if keras.backend.backend() != "tensorflow":
        raise UserError(
            f"explain: it needs TensorFlow, and KERAS_BACKEND is '{keras.backend.backend()}' here; unset it: "
            "a run that was trained on another backend can be explained, too"
        )
    paths = find_images(images, out) if images is not None else []
    trained = load_trained(run, checkpoint)
    labels: list[str] = []
    if images is None:
        pixels, labels, files = _validation_images(trained)
    else:
        tried = paths[:MOST_IMAGES]
        pixels, bad = read_images(tried, trained)
        if len(paths) > len(tried):
            print(f"only the first {len(tried)} of {len(paths):,} files are drawn", file=out)
        report_bad_files(bad, len(tried), images, out)
        files = [printable(path.name) for path in tried if path not in dict(bad)]
    attention = grad_cam(trained.classifier, pixels, trained.run.name)
    kernel = first_kernel(trained.classifier, pixels[0])
    folder = new_folder(run.path / "explanations")
    if kernel is not None:
        _draw_filters(folder / "filters.png", kernel, trained.title)
        print(f"filters {shown(folder / 'filters.png')}", file=out)
    _draw_attention(folder / "gradcam.png", pixels, files, labels, attention, trained)
    print(f"grad-cam {shown(folder / 'gradcam.png')}", file=out)
    return folder


def _validation_images(trained: Trained) -> tuple[np.ndarray, list[str], list[str]]:
    """Return validation images spread over the classes, their classes, and their files if they have any."""
    dataset, split = load_split(trained, "validation")
    chosen = spread_over_classes(split.labels, VALIDATION_IMAGES)
    pixels, labels = split.take(chosen)
    files = [printable(Path(name).name) for name in split.files_at(chosen)]
    return pixels, [dataset.class_names[label] for label in labels], files


def spread_over_classes(labels: np.ndarray, number: int) -> np.ndarray:
    """Return positions of `number` images: of each class as many as of any other, or of classes far apart."""
    by_class = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    if len(by_class) > number:
        by_class = [by_class[at] for at in np.linspace(0, len(by_class) - 1, number).round().astype(int)]
    turns = [
        positions[turn] for turn in range(number) for positions in by_class if turn < len(positions)
    ]  # the first of each class, the second of each, ...
    return np.array(turns[:number], np.int64)


def filter_tiles(kernel: np.ndarray) -> list[np.ndarray]:
    """Return a picture (height, width, channels) uint8 of each filter, its values stretched to 0 to 255.

    Args:
        kernel: (height, width, inputs, outputs). Three inputs are shown as colours, else their mean in grey.
    """
    values = kernel if kernel.shape[2] == 3 else kernel.mean(axis=2, keepdims=True)
    values = np.moveaxis(values, -1, 0)  # (filters, height, width, channels)
    low, span = (function(values, axis=(1, 2, 3), keepdims=True) for function in (np.min, np.ptp))
    stretched = np.where(span > 0, (values - low) / np.maximum(span, 1e-30), 0.5)
    return list(np.round(255 * stretched).astype(np.uint8))


def _draw_filters(path: Path, kernel: np.ndarray, title: str) -> None:
    height, width, inputs, number = kernel.shape
    kinds = {1: "", 3: "; the three inputs as red, green and blue"}
    kind = kinds.get(inputs, f"; mean over {inputs} inputs")
    drawn = filter_tiles(kernel)[:MOST_FILTERS]
    first = f"the first {len(drawn)} of " if number > len(drawn) else ""
    draw_grid(
        path,
        drawn,
        [""] * len(drawn),
        f"{title}: {first}{number} filters of the first convolution\n"
        f"{height} x {width} pixels, each stretched from its least to its greatest value{kind}",
        columns=8 if number <= 64 else 16,
    )


def overlay(image: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """Return an image in grey under its heat map, which goes from black over red to yellow.

    Args:
        image: (height, width, channels), uint8; enlarged where it is small.
        heat: (rows, columns), 0 or more.

    Returns:
        (height, width, 3), uint8.
    """
    factor = max(1, -(-OVERLAY_PIXELS // min(image.shape[:2])))
    large = image.repeat(factor, axis=0).repeat(factor, axis=1)
    gray = large.astype(np.float32).mean(axis=-1, keepdims=True) / 255.0
    size = large.shape[1], large.shape[0]
    smooth = np.asarray(Image.fromarray(heat.astype(np.float32)).resize(size, Image.Resampling.BILINEAR))
    colours = colormaps["inferno"](smooth / max(float(heat.max()), 1e-30))[..., :3]
    return np.round(255 * (HEAT_OPACITY * colours + (1 - HEAT_OPACITY) * gray)).astype(np.uint8)


def _draw_attention(
    path: Path,
    images: np.ndarray,
    files: Sequence[str],
    labels: Sequence[str],
    attention: Attention,
    trained: Trained,
) -> None:
    """Draw each image, captioned with its file and class where they are known, beside its overlay."""
    names = trained.classifier.class_names  # all of them: a name is the same in every picture
    short = shortened_apart(names, NAME_INCHES - 0.15, CAPTION_POINTS)  # beside the cross of a mistake
    predicted = attention.logits.argmax(-1)
    confidence = probabilities(attention.logits, trained.temperature).max(axis=-1)
    tiles: list[np.ndarray] = []
    captions: list[str] = []
    wrong: list[bool] = []
    for number, image in enumerate(images):
        taken, heat = names[predicted[number]], attention.heat[number]
        unsupported = "" if heat.any() else "\nno region supports it"
        tiles += [image, overlay(image, heat)]
        truth = [f"truth: {short[label]}" for label in labels[number : number + 1]]
        captions += [
            "\n".join([*files[number : number + 1], *truth]),
            f"predicted: {short[taken]}\nwith {certainty_of(confidence[number])}{unsupported}",
        ]
        wrong += [False, bool(labels) and taken != labels[number]]
    rows, columns = attention.heat.shape[1:]
    draw_grid(
        path,
        tiles,
        captions,
        f"{trained.title}: the regions that support the predicted class\n"
        f"Grad-CAM on the {rows} x {columns} {attention.maps}\n"
        "brighter regions support it more (in each image from 0 to the greatest)",
        wrong=wrong,
    )
