"""`make labels`: training images whose labels are likely wrong, on a page and in a list to edit."""

import base64
import html
import io
import os
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, TextIO

import numpy as np
from PIL import Image

from app.data.dataset import Source, fingerprint
from app.data.datasets import CORRECTION_COLUMNS, image_names, load_source
from app.errors import UserError
from app.evaluation.metrics import probabilities
from app.files import csv_text, write_text
from app.labels.folds import FoldSet
from app.paths import project_root, shown
from app.preflight import as_trained
from app.reading import read_predictions
from app.reports import html as page
from app.wording import install_extra, printable

MOST_SHOWN = 200  # images on the page; the list has all
LARGEST_PIXELS = 160  # of a picture on the page
SMALL_PIXELS = 64  # an image up to this is enlarged without a blur


class Suspect(NamedTuple):
    """An image whose label is likely wrong."""

    position: int  # in the training split
    name: str  # its file or number
    given: str
    suggested: str
    given_probability: float
    suggested_probability: float


def write_labels(experiment_name: str, out: TextIO) -> list[Suspect]:
    """Write labels.csv and labels.html into the folder of the folds that `make folds` began or joined last.

    Args:
        experiment_name: The experiment.
        out: Receives their paths.

    Returns:
        The images, those whose labels are the least probable first.

    Raises:
        UserError: The folds are missing, unfinished or of other data, or the extra is not installed.
    """
    found = _finished_folds(experiment_name)
    folder = found.experiment.dataset.data_dir
    if folder and not os.path.exists(project_root() / Path(folder).expanduser()):
        raise UserError(
            f"labels: {printable(folder)}, on which the folds in {shown(found.folder)} were trained, is not "
            f"there. If the images were moved, this finds the folds again: {_command(found, 'their place')}"
        )
    config = found.experiment.dataset
    if first := found.run_of(0):  # which has copies of the lists, should these have been edited since
        own = as_trained(first).dataset
        config = config.model_copy(update={"exclude": own.exclude, "relabel": own.relabel})
    source = load_source(config)
    if fingerprint(source) != found.record.fingerprint:
        raise UserError(
            f"labels: the training images have changed since the folds in {shown(found.folder)} were "
            f"trained; put the old ones back, or train folds of the new ones: {_command(found)}"
        )
    labels, logits = read_predictions(found.predictions, "best", len(source.class_names))
    if not np.array_equal(labels, source.train.labels):
        raise UserError(f"{shown(found.predictions)} is of other images; {_command(found)} writes it again")
    softmax = probabilities(logits)
    suspects = _suspects(source, softmax)
    listing, path = found.folder / "labels.csv", found.folder / "labels.html"
    text = _listing(source, suspects, softmax)
    edited = listing.exists() and listing.read_bytes() != text.encode()
    if not edited:
        write_text(listing, text)
    accuracy = float(np.mean(logits.argmax(-1) == labels))
    title = f"{experiment_name}: labels that are likely wrong"
    page.write_page(path, title, _parts(found, source, suspects, accuracy))
    print(
        f"{len(suspects):,} of {len(labels):,} labels are likely wrong\n"
        f"list {shown(listing)}{' (edited since it was written; it stays as it is)' if edited else ''}\n"
        f"page {shown(path)}",
        file=out,
    )
    return suspects


def _command(found: FoldSet, folder: str | None = None) -> str:
    command = f"make folds EXP={found.record.experiment} FOLDS={found.number}"
    place = folder or found.experiment.dataset.data_dir
    command += f" DATA_DIR={shlex.quote(place)}" if place else ""
    return f"{command} (with its SET, where it had one)"


def _finished_folds(experiment_name: str) -> FoldSet:
    """Return the folds that `make folds` began or joined last, where all of them are finished."""
    sets = FoldSet.all_of(experiment_name)
    if not sets:
        raise UserError(
            f"labels: {experiment_name} has no folds yet; train them: "
            f"make folds EXP={experiment_name} FOLDS=5"
        )
    # Both write the record; going back to older images or another number joins folds that were begun earlier.
    # The time of the file, which a copy may lose, tells those of the same second apart.
    records = [(max(each.record.begun, each.record.joined), each.path.stat().st_mtime_ns) for each in sets]
    found = sets[records.index(max(records))]
    runs = [found.run_of(index) for index in range(found.number)]
    if missing := [str(index + 1) for index, run in enumerate(runs) if not (run and run.finished)]:
        raise UserError(
            f"labels: of the {found.number} folds in {shown(found.folder)}, {', '.join(missing)} "
            f"{'is' if len(missing) == 1 else 'are'} not finished; the command that began them goes on: "
            f"{_command(found)}"
        )
    if not (found.record.runs and found.predictions.is_file()):  # stopped after the last fold, or deleted
        raise UserError(f"labels: {shown(found.predictions)} is missing; {_command(found)} writes it")
    return found


def _suspects(source: Source, softmax: np.ndarray) -> list[Suspect]:
    """Return the images that confident learning finds, by the probability of the given label.

    Northcutt et al. 2021, arXiv:1911.00068.

    Args:
        source: The data.
        softmax: (training images, classes), by networks that did not see the image.
    """
    try:
        from cleanlab.filter import find_label_issues
    except ImportError as error:
        raise UserError(
            f"labels: needs the extra 'labels', which `make labels` installs: {install_extra('labels')}"
        ) from error

    labels, names = source.train.labels, source.class_names
    order = find_label_issues(labels, softmax, return_indices_ranked_by="self_confidence", n_jobs=1)
    files = image_names(source.train)
    return [
        Suspect(
            position=int(position),
            name=files[position],
            given=names[labels[position]],
            suggested=names[row.argmax()],
            given_probability=float(row[labels[position]]),
            suggested_probability=float(row.max()),
        )
        for position, row in zip(order, softmax[order], strict=True)
    ]


def _listing(source: Source, suspects: list[Suspect], softmax: np.ndarray) -> str:
    """Return the CSV file that `dataset.exclude` and `dataset.relabel` take.

    It takes the place of the list that `relabel` names already, and keeps what of that is not suspected.
    """
    names, files, labels = source.class_names, image_names(source.train), source.train.labels
    given = labels if source.given is None else source.given
    wanted = {each.position: each.suggested for each in suspects}
    for position in np.flatnonzero(labels != given).tolist():
        wanted.setdefault(position, names[labels[position]])
    rows: list[tuple[str, ...]] = [CORRECTION_COLUMNS]
    for position, suggested in wanted.items():
        label = given[position]
        rows.append((files[position], names[label], suggested, f"{softmax[position, label]:.6f}"))
    return csv_text(rows)


def _parts(found: FoldSet, source: Source, suspects: list[Suspect], accuracy: float) -> Iterator[str]:
    """Yield the sections of the page."""
    listing = (found.folder / "labels.csv").relative_to(project_root())
    yield page.paragraph(
        f"{len(suspects):,} of {len(source.train):,} training images of {source.text}. Each was "
        f"predicted by the one of {len(found.record.runs)} networks that was not trained on it, at its best "
        f"epoch by {found.experiment.training.monitor}; they are right for {100 * accuracy:.2f} % of all. "
        "Below the image are its label with the probability that the network gives it, and the class that "
        "the network suggests. The least probable labels come first. Not all of them are wrong: the image "
        "may be an unusual one."
    )
    yield page.paragraph(
        "Delete the lines of labels.csv whose labels are right after all, or correct what is suggested. Then "
        "train with the suggested classes, or leave the images out, by a line in the experiment:"
    )
    earlier = found.experiment.dataset.relabel
    leave_out = "" if earlier else f"\n  # or\n  exclude: {listing}"
    yield page.code(f"dataset:\n  relabel: {listing}{leave_out}")
    if earlier:
        yield page.paragraph(
            f"The list holds the corrections of {earlier}, too, and takes its place. An image whose line is "
            "deleted has the label of its folder again: where the label below is another one, and right, "
            "write that under suggested instead."
        )
    if excluded := found.experiment.dataset.exclude:
        yield page.paragraph(
            f"The images of {excluded} are not in it: keep that line, or add its lines here."
        )
    yield page.heading("Images" if len(suspects) <= MOST_SHOWN else f"The first {MOST_SHOWN} images")
    shown_ones = suspects[:MOST_SHOWN]
    images = source.train.images_at(np.array([each.position for each in shown_ones], np.int64))
    cells = [_cell(number, *pair) for number, pair in enumerate(zip(shown_ones, images, strict=True), 1)]
    yield f'<div class="tiles">{"".join(cells)}</div>' if cells else page.paragraph("None.")


def _cell(number: int, suspect: Suspect, pixels: np.ndarray) -> str:
    """Return an image with what is said of it."""
    picture = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
    picture.thumbnail((LARGEST_PIXELS, LARGEST_PIXELS))
    content = io.BytesIO()
    picture.save(content, "PNG")
    data = base64.b64encode(content.getvalue()).decode()
    style = ' style="image-rendering: pixelated"' if max(picture.size) <= SMALL_PIXELS else ""
    name, given, suggested = (
        html.escape(printable(text)) for text in (suspect.name, suspect.given, suspect.suggested)
    )
    return (
        f'<div class="tile"><img src="data:image/png;base64,{data}" alt="{name}"{style}>'
        f"<span>{number}. {name}<br>label {given}: {100 * suspect.given_probability:.1f} %</span>"
        f"<b>{suggested}</b><span>suggested: {100 * suspect.suggested_probability:.1f} %</span></div>\n"
    )
