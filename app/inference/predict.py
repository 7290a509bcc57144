"""`make predict`: classify any images with a run's network and preprocessing."""

import csv
import itertools
import os
import shutil
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

import numpy as np

from app.data.chosen import find_images, shown_pattern
from app.data.images import BadImageError, ImageFormat, decode_file, listing_of, quiet_pillow
from app.data.listing import folders_of
from app.drawing.canvas import certainty_of, shortened_apart
from app.drawing.image_grid import CAPTION_INCHES, CAPTION_POINTS, draw_grid
from app.errors import UserError
from app.evaluation.metrics import probabilities
from app.files import csv_text, new_folder, write_text
from app.inference.load import CheckpointName, Trained, finite_logits, load_trained
from app.machine import usable_cores
from app.paths import shown
from app.runs import Run
from app.wording import aligned, printable

BATCH_SIZE = 64  # images in memory at a time
TOP = 5
SHEET_IMAGES = 48
SHOWN_ROWS = 10
COLUMNS = (
    "file",
    "class",
    "probability",
    *(name for rank in range(1, TOP + 1) for name in (f"class_{rank}", f"probability_{rank}")),
    "problem",
    "unsure",
)
BadFiles = list[tuple[Path, str]]


@dataclass(frozen=True)
class Prediction:
    """The predicted classes of one file."""

    path: Path
    classes: tuple[str, ...] = ()  # the likeliest first, TOP at most
    probabilities: tuple[float, ...] = ()  # of these classes
    problem: str = ""  # why the file could not be read; there are no classes then
    unsure: bool | None = None  # whether the first probability is too small; None where no threshold is known

    @property
    def certainty(self) -> str:
        """The first probability, and whether it is too small."""
        return certainty_of(self.probabilities[0]) + (" unsure" if self.unsure else "")


def read_images(paths: Sequence[Path], trained: Trained) -> tuple[np.ndarray, BadFiles]:
    """Read image files as the run read its own: the same size, channels and way of resizing.

    Returns:
        The images that can be read, in order, `(n, height, width, channels)` uint8, and the files that
        cannot be read, each with the reason.
    """
    height, width, channels = trained.data.image_shape
    dataset = trained.experiment.dataset
    image_format = ImageFormat(
        (height, width), channels, dataset.interpolation, dataset.resize, dataset.background_colour
    )

    def decode(path: Path) -> np.ndarray | str:
        try:
            return decode_file(path, image_format)
        except BadImageError as error:
            return str(error)

    with quiet_pillow(), ThreadPoolExecutor(usable_cores()) as pool:
        results = list(pool.map(decode, paths))
    images = [result for result in results if not isinstance(result, str)]
    bad = [(path, result) for path, result in zip(paths, results, strict=True) if isinstance(result, str)]
    return np.array(images, np.uint8).reshape(-1, height, width, channels), bad


def predict(
    run: Run,
    images: str,
    checkpoint: CheckpointName | None,
    out: TextIO,
    unsure: float | None = None,
    sort_into: str | None = None,
) -> Path:
    """Predict the classes of the images that `find_images` finds.

    Predictions with a probability below `unsure` are called so, by default below the run's own threshold.
    predictions.csv and contact_sheet.png are written; the first predictions, bad files and paths are printed.
    In a new folder `sort_into`, images are copied into a folder for each class.

    Returns:
        The new folder `<run>/predictions/<stamp>`.

    Raises:
        UserError: No image is found or can be read, the network's outputs are not finite, or there is
            something in `sort_into`.
    """
    target = Path(os.path.expanduser(sort_into)) if sort_into else None
    if target:
        if os.path.lexists(target) and not (target.is_dir() and not os.listdir(target)):
            raise UserError(f"SORT_INTO={printable(str(target))}: is there already; name a new folder")
        place = next(each for each in (target, *target.parents) if each.exists())
        if not (place.is_dir() and os.access(place, os.W_OK)):
            raise UserError(f"SORT_INTO={printable(str(target))}: cannot be written; name another folder")
    paths = find_images(images, out)
    trained = load_trained(run, checkpoint)
    unsure_below = trained.unsure_below(unsure)
    predictions: list[Prediction] = []
    thumbnails: list[np.ndarray] = []
    for start in range(0, len(paths), BATCH_SIZE):
        batch = paths[start : start + BATCH_SIZE]
        pixels, bad = read_images(batch, trained)
        thumbnails.extend(pixels[: SHEET_IMAGES - len(thumbnails)])
        predictions += _predict_batch(trained, batch, pixels, dict(bad), unsure_below)
    good = [each for each in predictions if not each.problem]
    broken = [(each.path, each.problem) for each in predictions if each.problem]
    report_bad_files(broken, len(paths), images, out)
    print(*_table(good), sep="\n", file=out)
    if unsure_below is not None:
        number, limit = sum(bool(each.unsure) for each in good), f"below a probability of {unsure_below:.3f}"
        print(f"unsure ({limit}): {number:,} of {len(good):,}", file=out)
    folder = new_folder(run.path / "predictions")
    write_text(folder / "predictions.csv", _csv(predictions))
    short = shortened_apart(trained.classifier.class_names, CAPTION_INCHES, CAPTION_POINTS)
    captions = [
        f"{printable(each.path.name)}\n{short[each.classes[0]]}\n{each.certainty}"
        for each in good[:SHEET_IMAGES]
    ]
    drawn = f"the first {len(captions)} of {len(good):,} images"
    if len(captions) == len(good):
        drawn = f"all images read ({len(good)})"
    if unsure_below is not None:
        drawn += f"; unsure: below {unsure_below:.3f}"
    title = f"Predicted classes and their probabilities\n{trained.title}; {drawn}"
    draw_grid(folder / "contact_sheet.png", thumbnails, captions, title)
    print(f"predictions {shown(folder / 'predictions.csv')}", file=out)
    print(f"contact sheet {shown(folder / 'contact_sheet.png')}", file=out)
    if target:
        _sort(good, trained.classifier.class_names, target)
        print(f"copies, in a folder for each class, {shown(target)}", file=out)
    return folder


def _sort(predictions: Sequence[Prediction], class_names: Sequence[str], target: Path) -> None:
    """Copy each file to `target`/class/, those whose class is unsure to `target`/unsure/class/."""
    folders = dict(zip(class_names, folders_of(class_names), strict=True))
    aside = "_unsure" if "unsure" in folders.values() else "unsure"
    target.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".tmp-", dir=target) as temporary:
        root = Path(temporary)  # until all are there
        for each in predictions:
            folder = root / (aside if each.unsure else "") / folders[each.classes[0]]
            folder.mkdir(parents=True, exist_ok=True)
            numbers, copy = itertools.count(2), folder / each.path.name
            while copy.exists():  # of another folder
                copy = folder / f"{each.path.stem}-{next(numbers)}{each.path.suffix}"
            shutil.copy2(each.path, copy)
        for folder in root.iterdir():
            folder.replace(target / folder.name)


def _predict_batch(
    trained: Trained,
    paths: Sequence[Path],
    pixels: np.ndarray,
    problems: dict[Path, str],
    unsure_below: float | None,
) -> list[Prediction]:
    """Return a prediction for each file; `pixels` are the images of those without a problem."""
    found = {path: Prediction(path, problem=problem) for path, problem in problems.items()}
    if len(pixels):
        logits = finite_logits(np.asarray(trained.classifier.predict_on_batch(pixels)), trained.run.name)
        order, softmax = np.argsort(-logits, -1, kind="stable"), probabilities(logits, trained.temperature)
        good = [path for path in paths if path not in problems]
        for path, best, of_class in zip(good, order[:, :TOP], softmax, strict=True):
            ranked = tuple(of_class[best].tolist())
            unsure = None if unsure_below is None else ranked[0] < unsure_below
            classes = tuple(trained.classifier.class_names[i] for i in best)
            found[path] = Prediction(path, classes, ranked, unsure=unsure)
    return [found[path] for path in paths]


def report_bad_files(bad: BadFiles, num_paths: int, text: str, out: TextIO) -> None:
    """Name the files that cannot be read; raise if there are no others."""
    if not bad:
        return
    listing = listing_of([(shown(path), reason) for path, reason in bad])
    if len(bad) < num_paths:
        print(f"{len(bad):,} of {num_paths:,} files cannot be read and are left out:\n{listing}", file=out)
    elif num_paths == 1:
        reason = f"{printable(shown(bad[0][0]))} cannot be read: {bad[0][1]}"
        raise UserError(f"IMAGES={shown_pattern(text)}: {reason}")
    else:
        raise UserError(f"IMAGES={shown_pattern(text)}: none of {num_paths:,} files can be read:\n{listing}")


def _csv(predictions: Sequence[Prediction]) -> str:
    """Return COLUMNS and a line a file; texts are quoted, whatever is in them, and numbers are not."""
    rows: list[Sequence[object]] = [COLUMNS]
    for each in predictions:
        name = os.fsencode(each.path).decode("utf-8", "backslashreplace")  # a name may be no UTF-8
        ranks = zip(each.classes, each.probabilities, strict=True)
        pairs = [value for class_name, probability in ranks for value in (class_name, round(probability, 6))]
        pairs += [""] * (2 * TOP - len(pairs))
        unsure = "" if each.unsure is None else "yes" if each.unsure else "no"
        rows.append([name, *pairs[:2], *pairs, each.problem, unsure])
    return csv_text(rows, csv.QUOTE_NONNUMERIC)


def _table(good: Sequence[Prediction]) -> list[str]:
    """Return the first predictions in columns."""
    rows = [("file", "class", "probability")]
    for each in good[:SHOWN_ROWS]:
        name = printable(shown(each.path))
        short = name if len(name) <= 60 else f"...{name[-57:]}"
        rows.append((short, printable(each.classes[0]), each.certainty))
    rest = len(good) - SHOWN_ROWS
    return [*aligned(rows), *([f"and {rest:,} more"] if rest > 0 else [])]
