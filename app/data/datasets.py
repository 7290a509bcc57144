"""Loads a dataset by name, corrects its labels and sets its validation images apart."""

import csv
import dataclasses
import io
import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from app.config.dataset import DatasetConfig
from app.data.dataset import Dataset, Source, Split, fingerprint
from app.data.images import MAX_LISTED
from app.data.sources import LOADERS
from app.data.splits import divide, subsample, subset
from app.errors import UserError
from app.paths import project_root, shown
from app.wording import clipped, printable, received, unknown_name

CORRECTION_COLUMNS = ("image", "given", "suggested", "score")  # `make labels` writes all of them
_Rows = list[tuple[int, dict[str, str]]]  # of a list: number of the line, and its cells by column


def load_dataset(config: DatasetConfig) -> Dataset:
    """Load a dataset, uint8 images of one size, and set its validation images apart.

    Raises:
        UserError: Whatever is wrong with the files or missing.
    """
    return divided(load_source(config), config)


def load_source(config: DatasetConfig) -> Source:
    """Load a dataset as `load_dataset` does, without `exclude` and with `relabel` done, not divided yet."""
    lists = read_corrections(config)  # before any image is decoded
    return _corrected(LOADERS[config.name](config), config, lists)


def read_corrections(config: DatasetConfig) -> dict[str, tuple[str, _Rows]]:
    """Return the text and the lines of the lists that `exclude` and `relabel` name.

    Raises:
        UserError: One cannot be read, or has other columns.
    """
    texts = {key: _read(key, path) for key in ("exclude", "relabel") if (path := getattr(config, key))}
    return {key: (text, _rows(key, getattr(config, key), text)) for key, text in texts.items()}


def divided(source: Source, config: DatasetConfig) -> Dataset:
    """Set validation images apart, and leave what `train_share` does not train on."""
    train, val, test, rule = divide(source, config)
    if (fraction := config.train_share) is not None:
        train = subsample(train, fraction, len(source.train), config.split_seed, len(source.class_names))
        rule += f"; {fraction:.4g} of the training split to train on"
    if config.sampler is not None:
        often = "equally often" if config.sampler == "balanced" else "by the square root of their images"
        rule += f"; training draws classes {often}"
    return Dataset(
        name=config.name,
        class_names=source.class_names,
        train=train,
        val=val,
        test=test,
        source=source.text,
        split_rule=rule,
        fingerprint=fingerprint(source),
        skipped=source.skipped,
        corrections=source.corrections,
    )


def image_names(split: Split) -> list[str]:
    """Return what corrections call the images of a split: the file, or the number where there is none."""
    if split.files:
        return [printable(split.files[row]) for row in split.rows]
    return list(map(str, split.rows.tolist()))


def _corrected(source: Source, config: DatasetConfig, lists: Mapping[str, tuple[str, _Rows]]) -> Source:
    """Return a source whose training images are those of `exclude` fewer, with the labels of `relabel`."""
    if not lists:
        return source
    labels, kept, text = source.train.labels.copy(), np.ones(len(source.train), bool), source.text
    for key, (_, rows) in lists.items():
        path = getattr(config, key)
        found = _corrections(key, path, rows, source, kept)
        if key == "exclude":
            kept[[*found]] = False
        else:
            labels[[*found]] = [*found.values()]
        done = "excluded" if key == "exclude" else "relabelled"
        text += f"; {len(found):,} training images {done} by {printable(path)}"
    train = subset(dataclasses.replace(source.train, labels=labels), kept)
    before, after = (
        np.bincount(each, minlength=len(source.class_names)) for each in (source.train.labels, train.labels)
    )
    if lost := [
        printable(source.class_names[label]) for label in np.flatnonzero((before > 0) & (after == 0))
    ]:
        raise UserError(f"dataset.exclude, dataset.relabel: no training image is left of: {', '.join(lost)}")
    texts = {key: text for key, (text, _) in lists.items()}
    given = source.train.labels[kept]
    return dataclasses.replace(source, train=train, text=text, corrections=texts, given=given)


def _corrections(key: str, path: str, rows: _Rows, source: Source, kept: np.ndarray) -> dict[int, int]:
    """Return the training images that a CSV file names, by position, with the class suggested for each.

    Args:
        key: "exclude" or "relabel", for which the file is read; only the latter needs suggestions.
        path: The file, relative to the project's folder.
        rows: Its lines.
        source: The data, as it is without corrections.
        kept: Which training images the other file does not leave out.

    Raises:
        UserError: Lines do not fit the data; with the first of them.
    """
    positions = {name: position for position, name in enumerate(image_names(source.train))}
    labels = {name: label for label, name in enumerate(source.class_names)}
    found: dict[int, int] = {}
    problems = []
    for number, row in rows:
        try:
            name = printable(row["image"])  # as `image_names` has it
            position = positions.get(name)
            if position is None:
                where = f" in {source.text}" if source.train.files else ""
                raise ValueError(f"image: there is no training image '{clipped(name, 200)}'{where}")
            if position in found:
                raise ValueError(f"image: '{clipped(name, 200)}' is named twice")
            if not kept[position]:
                raise ValueError(f"image: '{clipped(name, 200)}' is excluded by dataset.exclude, too")
            for column in ("given", "suggested"):
                if column in row and row[column] not in labels and (key == "relabel" or column == "given"):
                    words = unknown_name("class", row[column], source.class_names)
                    raise ValueError(f"{column}: {clipped(words, 300)}")
            given = source.class_names[source.train.labels[position]]
            if row.get("given", given) != given:
                raise ValueError(
                    f"given: '{clipped(name, 200)}' is of class {received(given)} in the data; got "
                    f"{received(row['given'])}"
                )
            found[position] = labels[row["suggested"]] if key == "relabel" else source.train.labels[position]
        except ValueError as error:
            problems.append(f"dataset.{key}: {path}:{number}: {error}")
    if problems:
        more = [f"and {len(problems) - MAX_LISTED:,} more"] if len(problems) > MAX_LISTED else []
        raise UserError("\n".join([*map(printable, problems[:MAX_LISTED]), *more]))
    return found


def _read(key: str, path: str) -> str:
    where = f"dataset.{key}: {printable(path)}"
    try:
        file = project_root() / Path(path).expanduser()
        return file.read_text(encoding="utf-8-sig")  # programs for tables write the mark in front
    except UnicodeDecodeError as error:
        raise UserError(f"{where}: no text in UTF-8 (byte {error.start})") from error
    except (OSError, ValueError, RuntimeError) as error:  # also a NUL, or the home of nobody
        reason = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else str(error)
        raise UserError(
            f"{where}: cannot be read ({reason}); a path is relative to {shown(project_root())}"
        ) from error


def _rows(key: str, path: str, text: str) -> _Rows:
    """Return the lines of a file of corrections, each with its number, as mappings of its columns."""
    where = f"dataset.{key}: {printable(path)}"
    required = ("image", "suggested") if key == "relabel" else ("image",)
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    rows: _Rows = []
    try:
        columns = next(reader, [])
        if not set(required) <= set(columns) <= set(CORRECTION_COLUMNS) or len(set(columns)) < len(columns):
            must, may = (", ".join(names) for names in (required, CORRECTION_COLUMNS))
            raise ValueError(
                f"the columns must be {must}, may be {may}, with commas between them; "
                f"got {received(','.join(columns))}"
            )
        for cells in reader:
            if cells and len(cells) != len(columns):
                raise ValueError(f"must have {len(columns)} values, one a column; got {len(cells)}")
            if cells:
                rows.append((reader.line_num, dict(zip(columns, cells, strict=True))))
    except (csv.Error, ValueError) as error:
        raise UserError(f"{where}:{max(reader.line_num, 1)}: {error}") from error
    return rows
