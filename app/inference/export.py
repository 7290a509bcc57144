"""A trained network as a file for other programs: raw uint8 images in, class probabilities out.

Normalisation and softmax are inside, everything is computed in float32, and the batch size is open. Before a
file gets its place it is run, by the library that others will run it with, on real images, and compared with
the network.
"""

import contextlib
import importlib.util
import os
import platform
import secrets
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO, TypeVar

import keras
import numpy as np

from app.backend import silence
from app.data.images import RESAMPLING
from app.errors import UserError
from app.evaluation.metrics import probabilities
from app.files import new_folder, write_json, write_text
from app.inference.export_formats import FORMATS, Format, Runner
from app.inference.load import CheckpointName, Trained, batches_of, load_split, load_trained
from app.machine import package_versions
from app.paths import shown
from app.runs import Run
from app.wording import install_extra
from models import ImageClassifier
from models.deployed import in_float32, with_probabilities

TOLERANCE = 1e-4  # largest difference of a probability; float32 kernels of different libraries differ by less
CHECKED_IMAGES = 64
BATCH_SIZE = 21  # the first image is a batch by itself, so the open batch size is tried as well
Result = TypeVar("Result")


def export(
    run: Run, format: str, checkpoint: CheckpointName | None, out: TextIO, unsure: float | None = None
) -> Path:
    """Write a network for other programs, with class_names.txt and export.json, once it is checked.

    `format` is a key of FORMATS. The probability below which a prediction is to be called unsure is kept in
    export.json: `unsure`, or else the run's own.

    Returns:
        The new folder `<run>/exports/<stamp>`.

    Raises:
        UserError: The format cannot be written here, or what was written does not agree with the network;
            nothing is kept.
    """
    chosen = _available(format)
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf  # here, because other backends may run without TensorFlow

        # GPUs would round float32 factors to ten bits, which no exported file could reproduce.
        tf.config.experimental.enable_tensor_float_32_execution(False)
    trained = load_trained(run, checkpoint, precision="float32")
    height, width, channels = trained.data.image_shape
    shape = (height, width, channels)
    classifier = in_float32(trained.classifier, shape)
    images, origin = _check_images(trained, out)
    expected = _reference(trained, classifier, images, out)
    model = with_probabilities(classifier, shape, trained.temperature)
    unsure_below = trained.unsure_below(unsure)
    parent = run.path / "exports"
    temporary = parent / f".tmp-{secrets.token_hex(4)}"
    try:
        temporary.mkdir(parents=True)
        path = temporary / chosen.filename
        _quietly(f"FORMAT={format}: cannot be written", lambda: chosen.write(model, str(path)))
        computed = _quietly(f"FORMAT={format}: cannot be run", lambda: _run(chosen.runner(temporary), images))
        difference = float("inf")
        if computed.shape == expected.shape and computed.dtype == np.float32:  # as export.json states
            difference = float(np.max(np.abs(computed - expected)))
        if not difference <= TOLERANCE:  # true, too, where it is no number
            raise UserError(
                f"{run.name}: {chosen.filename} does not compute what the network does: on "
                f"{len(images)} {origin} the probabilities differ by up to {difference:.2g}, "
                f"more than {TOLERANCE}; nothing was kept"
            )
        write_text(temporary / "class_names.txt", "\n".join(classifier.class_names) + "\n")
        check = {"images": len(images), "from": origin, "largest_difference": difference}
        check["allowed_difference"] = TOLERANCE
        description = _description(trained, format, chosen, unsure_below)
        write_json(temporary / "export.json", description | {"check": check})
        folder = new_folder(parent)
        os.replace(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        with contextlib.suppress(OSError):
            parent.rmdir()  # if nothing is in it
    print(
        f"{trained.title}: {format}, raw uint8 images (batch, {height}, {width}, {channels}) in, "
        f"probabilities of {len(classifier.class_names)} classes out, any batch size\n"
        f"checked on {len(images)} {origin}: probabilities differ from the network's by up to "
        f"{difference:.1e} (allowed: {TOLERANCE})\n"
        f"export {shown(folder / chosen.filename)}\n"
        f"how to run it: {shown(folder / 'export.json')}",
        file=out,
    )
    return folder


def _available(format: str) -> Format:
    """Return the format of that name, a key of FORMATS, if this installation can write and run it."""
    chosen, backend = FORMATS[format], keras.backend.backend()
    if format != "keras" and backend != "tensorflow":
        raise UserError(
            f"FORMAT={format}: is written by TensorFlow; received KERAS_BACKEND={backend}. Leave "
            "KERAS_BACKEND out: a run's files are the same on either backend"
        )
    if missing := [name for name in chosen.modules if importlib.util.find_spec(name) is None]:
        needed = f"{install_extra('export')} (missing: {', '.join(missing)})"
        raise UserError(f"FORMAT={format} needs the extra 'export': {needed}")
    return chosen


def _check_images(trained: Trained, out: TextIO) -> tuple[np.ndarray, str]:
    """Return images for the check, and what they are: from all over the validation split, or random."""
    try:
        split = load_split(trained, "validation")[1]
    except UserError as error:
        shape, reason = (CHECKED_IMAGES, *trained.data.image_shape), str(error).splitlines()[0]
        print(f"no validation images, so random ones are used for the check: {reason}", file=out)
        return np.random.default_rng(0).integers(0, 256, shape, np.uint8), "random images"
    positions = np.unique(np.linspace(0, len(split) - 1, CHECKED_IMAGES).astype(int))
    return split.take(positions)[0], "validation images"


def _reference(trained: Trained, classifier: ImageClassifier, images: np.ndarray, out: TextIO) -> np.ndarray:
    """Return the probabilities that the file must reproduce; print what float32 changes, if anything.

    They are the trained network's own. One that was trained in lower precision is replaced by its copy in
    float32, `classifier`.
    """
    temperature = trained.temperature
    expected = _softmax(trained.classifier, images, temperature)
    precision = trained.experiment.training.precision
    if precision == "float32":
        return expected
    mixed, expected = expected, _softmax(classifier, images, temperature)
    others = int(np.sum(mixed.argmax(-1) != expected.argmax(-1)))
    print(
        f"trained in {precision}; exported to compute in float32, which changes probabilities by up to "
        f"{np.max(np.abs(mixed - expected)):.1e} and the class of {others} of {len(expected)} images",
        file=out,
    )
    return expected


def _softmax(classifier: ImageClassifier, images: np.ndarray, temperature: float) -> np.ndarray:
    """Return the probabilities of a classifier, which ends in logits."""
    logits = _run(lambda batch: keras.ops.convert_to_numpy(classifier(batch, training=False)), images)
    return probabilities(logits, temperature)


def _run(run: Runner, images: np.ndarray) -> np.ndarray:
    """Return the outputs for images, run in batches of different sizes."""
    return np.concatenate([run(batch) for batch in (images[:1], *batches_of(images[1:], BATCH_SIZE))])


def _quietly(what: str, work: Callable[[], Result]) -> Result:
    """Call `work` with the output of the libraries hidden, unless it fails."""
    try:
        with silence(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return work()
    except (OSError, MemoryError):
        raise
    except Exception as error:  # converters and interpreters raise whatever they trip over
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UserError(f"{what}: {reason}; nothing was kept") from error


def _description(trained: Trained, format: str, chosen: Format, unsure_below: float | None) -> dict[str, Any]:
    """Return the content of export.json without the check."""
    shape = trained.data.image_shape
    packages = ("keras", "tensorflow", "numpy", *(name.replace("_", "-") for name in chosen.modules))
    return {
        "run": trained.run.name,
        "checkpoint": trained.checkpoint,
        "epoch": trained.epoch,
        "weights": trained.experiment.training.weights,
        "format": format,
        "file": chosen.filename,
        "input": {
            "shape": [None, *shape],
            "dtype": "uint8",
            "values": "batch, height, width, channels; pixels from 0 to 255, normalisation is inside",
        },
        "output": {
            "shape": [None, len(trained.classifier.class_names)],
            "dtype": "float32",
            "values": "probabilities, classes in the order of class_names.txt",
        },
        "temperature": trained.temperature,
        "unsure_below": unsure_below,
        "trained_in": trained.experiment.training.precision,
        "computes_in": "float32",
        "versions": {"python": platform.python_version(), **package_versions(packages)},
        "how_to_run": _how_to_run(trained, chosen, unsure_below),
    }


def _how_to_run(trained: Trained, chosen: Format, unsure_below: float | None) -> list[str]:
    """Return lines of Python that classify a photograph, read as the run read its images."""
    height, width, channels = trained.data.image_shape
    dataset = trained.experiment.dataset
    mode = "L" if channels == 1 else "RGB"
    limit = f"probabilities[0].max() < {unsure_below}"
    fit = "ImageOps.fit(image, " if dataset.resize == "crop" else "image.resize("
    return [
        "from pathlib import Path",
        "import numpy as np",
        "from PIL import Image, ImageOps",
        'image = ImageOps.exif_transpose(Image.open("photo.jpg"))',
        'if image.mode.startswith("I;16"):',
        '    image = Image.fromarray((np.asarray(image) >> 8).astype("uint8"))',
        "if image.has_transparency_data:",
        f'    canvas = Image.new("RGBA", image.size, {dataset.background_colour})',
        '    canvas.alpha_composite(image.convert("RGBA"))',
        "    image = canvas",
        f'image = image.convert("{mode}")',
        f"image = {fit}({width}, {height}), Image.Resampling.{RESAMPLING[dataset.interpolation].name})",
        f"images = np.asarray(image){'[None, :, :, None]' if channels == 1 else '[None]'}",
        *chosen.load,
        *chosen.run,
        'names = Path("class_names.txt").read_text(encoding="utf-8").splitlines()',
        "print(names[probabilities[0].argmax()], probabilities[0].max())",
        *([f'print("unsure" if {limit} else "sure")'] if unsure_below is not None else []),
    ]
