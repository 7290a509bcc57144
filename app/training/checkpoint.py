"""Exact resume: everything a training run needs to go on with the same bits, in one file per state.

A state is an uncompressed .npz: every variable of the model (weights, moving statistics, random
generators), of the optimizer and of the metrics, and a JSON header with position and history. The
zip format carries a CRC-32 of every member, so a torn or flipped file is recognised when it is read.
Early stopping and the best epoch need no place here: both follow from the history rows. The model of the
best epoch takes its place once that epoch is in a state.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import keras
import numpy as np

from app.data.order import FLIP_STREAM, OLD_FLIP_STREAM
from app.errors import UserError
from app.files import atomic_path, replace_file
from app.paths import shown
from app.preflight import train_again
from app.reading import Row
from app.runs import Run
from models.variables import assign, variable_groups

FORMAT_VERSION = 1
KEPT_STATES = 2
_HEADER = "header"


@dataclass
class Progress:
    """Where training stands.

    Attributes:
        epoch: Finished epochs; the epoch under way has this number, counted from 0.
        step: Finished steps of the epoch under way.
        rows: One history row a finished epoch.
        train_seconds: Time spent on the training steps of the epoch under way.
        feature_seconds: Time spent on features of a frozen backbone, before the epochs.
        resumed_epochs: Epochs (from 1) in which training was resumed.
        flip_stream: Random stream of an alternating flip, see `app.data.order`.
        peak_memory_megabytes: Of the processes that trained it until now.
    """

    epoch: int = 0
    step: int = 0
    rows: list[Row] = field(default_factory=list)
    train_seconds: float = 0.0
    feature_seconds: float = 0.0
    resumed_epochs: list[int] = field(default_factory=list)
    flip_stream: int = FLIP_STREAM
    peak_memory_megabytes: int = 0


@dataclass(frozen=True)
class State:
    """A state read back: where training stood, and the values of all variables by group."""

    path: Path
    progress: Progress
    paths: dict[str, list[str]]
    values: dict[str, list[np.ndarray]]


def save_state(run: Run, model: keras.Model, progress: Progress, metrics: Sequence[np.ndarray]) -> None:
    """Write the state of training into `checkpoints/last/`, atomically, and delete old ones.

    Optimizer and metrics of `model` are built; `metrics` are the values to store for the latter.
    """
    groups = variable_groups(model)
    path = run.states / f"state-{progress.epoch:05d}-{progress.step:07d}.npz"
    header = {
        "format_version": FORMAT_VERSION,
        "progress": asdict(progress),
        "paths": {name: [variable.path for variable in group] for name, group in groups.items()},
    }
    values = {
        name: list(metrics) if name == "metrics" else [variable.numpy() for variable in group]
        for name, group in groups.items()
    }
    arrays = {f"{name}/{i:05d}": value for name, group in values.items() for i, value in enumerate(group)}
    arrays[_HEADER] = np.frombuffer(json.dumps(header).encode(), dtype=np.uint8)
    with atomic_path(path) as temporary:
        np.savez(temporary, allow_pickle=False, **arrays)
    for old in run.state_files[:-KEPT_STATES]:
        old.unlink(missing_ok=True)


def best_candidate(run: Run, epoch: int) -> Path:
    """Return where the model of an epoch, from 1, that is the best so far waits for its state."""
    return run.best_model.with_name(f"best-{epoch:05d}.keras")


def settle_best(run: Run, epoch: int) -> None:
    """Let the model that waits take the place of the best one, now that its epoch is in a state.

    Until then the epoch may be lost, and its repetition need not be the best, or the same. Models of other
    epochs that were lost are deleted. `epoch` counts the finished epochs in the newest state.
    """
    for waiting in run.best_model.parent.glob("best-*.keras"):
        if not re.fullmatch(r"best-\d{5,}\.keras", waiting.name):
            continue  # a user's copy
        if waiting == best_candidate(run, epoch):
            replace_file(waiting, run.best_model)
        else:
            waiting.unlink(missing_ok=True)


def load_state(run: Run) -> tuple[State | None, list[str]]:
    """Return the newest whole state of a run (None if it has none yet) and a line for each damaged one.

    Raises:
        UserError: States exist, but none can be read.
    """
    files = run.state_files
    damaged: list[str] = []
    for path in reversed(files):
        try:
            return _read_state(path), damaged
        except MemoryError:
            raise
        except Exception as error:  # a damaged archive raises nearly anything
            damaged.append(
                f"{shown(path)}: damaged ({type(error).__name__}: {error}); using the state before it"
            )
    if files:
        raise UserError(
            "\n".join(line.replace("using the state before it", "cannot be resumed") for line in damaged)
            + f"\n`{train_again(run)}` trains the same experiment from the start"
        )
    return None, damaged


def _read_state(path: Path) -> State:
    """Read a state file; reading a member of the zip checks its CRC."""
    with np.load(path, allow_pickle=False) as arrays:
        header = json.loads(arrays[_HEADER].tobytes())
        if (version := header["format_version"]) != FORMAT_VERSION:
            raise ValueError(f"format version {version}, this program reads {FORMAT_VERSION}")
        paths = header["paths"]
        values = {
            name: [arrays[f"{name}/{i:05d}"] for i in range(len(group))] for name, group in paths.items()
        }
    progress = Progress(**{"flip_stream": OLD_FLIP_STREAM, **header["progress"]})
    return State(path, progress, paths, values)


def restore_state(model: keras.Model, state: State) -> None:
    """Put the values of `state` into a model of the same experiment, but for the metrics'.

    These are reset by `fit` anyway, and all workers together have to put them back: see `restore_metrics`.

    Raises:
        UserError: The state belongs to another network or optimizer.
    """
    groups = variable_groups(model)
    for name, group in groups.items():
        have = [(variable.path, tuple(variable.shape)) for variable in group]
        stored = [(p, v.shape) for p, v in zip(state.paths[name], state.values[name], strict=True)]
        if have != stored:
            at = next((i for i, (a, b) in enumerate(zip(have, stored, strict=False)) if a != b), None)
            first = (
                f"{len(stored)} variables, the experiment makes {len(have)}"
                if at is None
                else f"{stored[at]}, the experiment makes {have[at]}"
            )
            raise UserError(
                f"{shown(state.path)}: does not fit the experiment's {name}: it holds {first}. The program "
                "may have changed: environment.json names the commit that the run began with"
            )
    for name in ("model", "optimizer"):
        for variable, value in zip(groups[name], state.values[name], strict=True):
            assign(variable, value)
