"""The one way to read a file of a run: JSON as a typed record, history.csv as rows.

A file may have been edited, torn or written by another program: whatever is wrong with it becomes one message
that names file, key or line, what was there, and what to do.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
from pydantic import ValidationError

from app.config.training import best_mode
from app.errors import UserError
from app.files import read_bytes
from app.paths import shown
from app.records import FROM_STATE, Record
from app.wording import broken_rule, clipped, printable, received, with_received

HISTORY_COLUMNS = (
    "epoch",
    "loss",
    "accuracy",
    "val_loss",
    "val_accuracy",
    "learning_rate",
    "seconds",
    "images_per_second",
)
_MAY_BE_INFINITE = ("loss", "accuracy", "val_loss", "val_accuracy")  # or NaN, where training blew up
_HISTORY_ADVICE = f"Restore it from a copy; where the run is not finished, {FROM_STATE}"

Row = dict[str, float]
RecordType = TypeVar("RecordType", bound=Record)


def parse_record(content: bytes, kind: type[RecordType]) -> RecordType:
    """Return the record that JSON text holds.

    Raises:
        ValueError: It is no such record; the message begins with the dotted key, where there is one.
    """
    try:
        return kind.model_validate_json(content)
    except ValidationError as error:
        first, *others = error.errors(include_url=False)
    key = ""
    for step in first["loc"]:
        key += f"[{step}]" if isinstance(step, int) else f".{printable(clipped(step))}" if key else step
    if first["type"] == "json_invalid":
        what = f"no JSON that this program would write ({first['ctx']['error']})"
    elif first["type"] == "missing":
        what = "is missing"
    else:
        what = with_received(broken_rule(first), first["input"])
    more = f" (and {len(others)} more)" if others else ""
    raise ValueError((f"{key}: {what}" if key else what) + more)


def read_record(path: Path, kind: type[RecordType]) -> RecordType:
    """Return the content of a JSON file of a run.

    Raises:
        UserError: The file is missing, unreadable or not what this program writes.
    """
    try:
        return parse_record(read_bytes(path), kind)
    except ValueError as error:
        if isinstance(error, UserError):
            if path.exists() or kind.advice.startswith("Delete"):
                raise
            raise UserError(f"{error}. {kind.advice}") from error
        raise UserError(f"{shown(path)}: {error}. {kind.advice}") from error


def read_json(path: Path) -> dict[str, Any]:
    """Return the content of a JSON file that has no record of its own."""
    return read_record(path, Record).content


def read_history(path: Path) -> list[Row]:
    """Return the rows of a history.csv, `epoch` as an int and everything else as a float.

    Raises:
        UserError: The file is missing or not a history.
    """
    if not path.exists():
        raise UserError(f"{shown(path)}: no such file; the run has not finished an epoch yet")
    try:
        head, *lines = read_bytes(path).decode("utf-8").split("\n")
    except UnicodeDecodeError as error:
        raise UserError(f"{shown(path)}: no text in UTF-8 ({error.reason}). {_HISTORY_ADVICE}") from error
    rows: list[Row] = []
    number, columns = 1, ",".join(HISTORY_COLUMNS)
    try:
        if head.removesuffix("\r") != columns:
            raise ValueError(with_received(f"the columns must be {columns}", head))
        for line in lines:
            number += 1
            if cells := line.removesuffix("\r"):
                rows.append(_history_row(cells.split(","), len(rows) + 1))
    except ValueError as error:
        raise UserError(f"{shown(path)}:{number}: {error}. {_HISTORY_ADVICE}") from error
    return rows


def _history_row(cells: list[str], epoch: int) -> Row:
    """Return a line's values; `epoch` is the one it must be of."""
    if len(cells) != len(HISTORY_COLUMNS):
        raise ValueError(f"must have {len(HISTORY_COLUMNS)} values; got {len(cells)}")
    if cells[0] != str(epoch):
        raise ValueError(f"epoch: must be {epoch}, one line for each in order; got {received(cells[0])}")
    row: Row = {"epoch": epoch}
    for name, cell in zip(HISTORY_COLUMNS[1:], cells[1:], strict=True):
        try:
            value = float(cell or "nan")
        except ValueError:
            raise ValueError(f"{name}: must be a number; got {received(cell)}") from None
        if not math.isfinite(value) and name not in _MAY_BE_INFINITE:
            raise ValueError(f"{name}: must be a finite number; got {received(cell)}")
        row[name] = value
    return row


def best_row(rows: Sequence[Row], monitor: str) -> Row | None:
    """Return the row of the best epoch (the first of equals), None where no value is finite."""
    finite = [row for row in rows if math.isfinite(row.get(monitor, math.nan))]
    return (max if best_mode(monitor) == "max" else min)(finite, key=lambda row: row[monitor], default=None)


def read_predictions(
    path: Path, checkpoint: Literal["best", "last"], num_classes: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return labels (images,) and logits (images, classes) of predictions.npz.

    Raises:
        UserError: The file is missing, damaged or of other data.
    """
    try:
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as arrays:
            labels, logits = arrays["labels"], arrays[f"{checkpoint}_logits"]
        if labels.ndim != 1 or logits.shape != (len(labels), num_classes) or not logits.size:
            raise ValueError(
                f"labels {labels.shape} and logits {logits.shape} do not fit {num_classes} classes"
            )
        if labels.dtype.kind not in "iu" or logits.dtype.kind != "f":
            raise ValueError(f"labels of {labels.dtype} and logits of {logits.dtype}")
        if not np.isfinite(logits).all() or labels.min() < 0 or labels.max() >= num_classes:
            raise ValueError("labels that are no class, or logits that are not finite")
    except FileNotFoundError as error:
        raise UserError(f"{shown(path)} is missing") from error
    except Exception as error:  # a damaged archive raises nearly anything
        reason = "no arrays of numbers" if "pickle" in str(error) else error
        raise UserError(f"{shown(path)} is damaged ({reason})") from error
    return labels, logits
