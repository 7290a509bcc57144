"""Run folders: their names, the files in them, and how each file is written whole or not at all."""

import contextlib
import csv
import io
import json
import os
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from app.config import Experiment, load_experiment
from app.errors import UserError
from app.paths import runs_root, shown
from app.reading import HISTORY_COLUMNS, Row, read_history, read_json, read_record  # noqa: F401 - for others
from app.records import DatasetRecord, MetricsRecord

_FOLDER_NAME = re.compile(r"(\d{8}-\d{6})(?:-(\d+))?")


class Run:
    """The folder of one run; whatever is read or written in it has its name here."""

    def __init__(self, path: Path):
        """Name the artefacts of the run folder `path`; nothing is created."""
        self.path = path
        self.name = f"{path.parent.name}/{path.name}"
        self.experiment = path / "experiment.yaml"
        self.dataset = path / "dataset.json"
        self.environment = path / "environment.json"
        self.summary = path / "summary.txt"
        self.history = path / "history.csv"
        self.curves = path / "curves.png"
        self.predictions = path / "predictions.npz"
        self.metrics = path / "metrics.json"
        self.failure = path / "failure.json"
        self.evaluations = path / "evaluations"
        self.report = path / "report.html"
        self.tensorboard = path / "tensorboard"
        self.best_model = path / "checkpoints" / "best.keras"
        self.states = path / "checkpoints" / "last"

    @property
    def finished(self) -> bool:
        """Whether training reached its end; metrics.json is the last file written."""
        return self.metrics.exists()


def create_run(experiment_name: str) -> Run:
    """Make a new, empty run folder and point `runs/<experiment>/latest` at it.

    Raises:
        UserError: The folder cannot be made.
    """
    parent = runs_root() / experiment_name
    try:
        run = Run(new_folder(parent))
        run.states.mkdir(parents=True)
        _point_latest_at(run.path)
    except OSError as error:
        raise UserError(
            f"{shown(parent)}: cannot make a run folder here ({error.strerror}); "
            "free some space or make the folder writable"
        ) from error
    return run


def new_folder(parent: Path) -> Path:
    """Make and return an empty folder of `parent` that is named by the time.

    It sorts behind all that are there, even where the clock was set back or two are made in the same second:
    mkdir decides, not a look beforehand.

    Raises:
        UserError: A file stands where a folder should.
    """
    check_folder(parent)
    parent.mkdir(parents=True, exist_ok=True)
    while True:
        stamp, number = max([_in_order(name) for name in os.listdir(parent)], default=("", 0))
        now = time.strftime("%Y%m%d-%H%M%S")
        path = parent / (now if now > stamp else f"{stamp}-{number + 1}")
        with contextlib.suppress(FileExistsError):
            path.mkdir()
            return path


def _in_order(name: str) -> tuple[str, int]:
    """Return the time and the number in a folder's name; of any other name what sorts before all."""
    match = _FOLDER_NAME.fullmatch(name)
    return (match[1], int(match[2] or 1)) if match else ("", 0)


def check_folder(folder: Path) -> None:
    """Raise a UserError where `folder`, or one above it, is a file."""
    for path in (*reversed(folder.parents), folder):
        if os.path.lexists(path) and not os.path.isdir(path):
            raise UserError(
                f"{shown(path)}: is no folder, but run folders belong there; move it away or rename it"
            )


def _point_latest_at(path: Path) -> None:
    """Move the `latest` link; on file systems without links there is none."""
    link = path.parent / f".latest-{os.getpid()}"
    with contextlib.suppress(OSError):
        link.symlink_to(path.name)
        os.replace(link, path.parent / "latest")


def list_runs(experiment_name: str) -> list[Run]:
    """Return the runs of an experiment, oldest first.

    Raises:
        UserError: A file stands where a folder should.
    """
    folder = runs_root() / experiment_name
    check_folder(folder)
    found = folder.iterdir() if os.path.isdir(folder) else ()  # false, too, for an impossible name
    runs = [path for path in found if _FOLDER_NAME.fullmatch(path.name) and path.is_dir()]
    return [Run(path) for path in sorted(runs, key=lambda path: _in_order(path.name))]


def find_run(name: str) -> Run:
    """Return the run called `<experiment>/<timestamp>`, `<experiment>/latest`, or by its path.

    Raises:
        UserError: There is no such run folder.
    """
    for path in (runs_root() / name, Path(name)):
        if os.path.isfile(path / "experiment.yaml"):  # false, too, for a name that cannot be one
            return Run(path.resolve())
    known = [run.name for run in list_runs(Path(name).parts[0] if Path(name).parts else "")][-5:]
    newest = f"; its newest runs: {', '.join(known)}" if known else ""
    raise UserError(
        f"RUN={name}: no run folder of that name in {shown(runs_root())}; "
        f"a run is named <experiment>/<timestamp> or by its path{newest}"
    )


def newest_run(experiment_name: str, *, finished: bool | None) -> Run:
    """Return the newest finished (or newest unfinished, or with None newest) run of an experiment.

    Raises:
        UserError: There is none.
    """
    runs = list_runs(experiment_name)
    for run in reversed(runs):
        if finished in (run.finished, None) and run.experiment.is_file():
            return run
    kind = {None: "whole", True: "finished", False: "unfinished"}[finished]
    others = f" ({len(runs)} {'unfinished' if finished else 'finished'})" if runs else ""
    advice = "train it first" if finished or not runs else "there is nothing to resume"
    raise UserError(
        f"EXP={experiment_name}: no {kind} run in {shown(runs_root() / experiment_name)}{others}; {advice}"
    )


def load_run_experiment(run: Run, overrides: Sequence[str] = ()) -> Experiment:
    """Return the experiment that a run recorded, under the name of the folder that holds the run."""
    experiment = load_experiment(run.experiment, overrides)
    return experiment.model_copy(update={"name": run.path.parent.name})


def load_finished(run: Run) -> tuple[Experiment, MetricsRecord, DatasetRecord]:
    """Return what a finished run recorded, where its trained network can be used.

    Raises:
        UserError: The run is not finished, or a file of it is missing or damaged.
    """
    if not run.finished:
        raise UserError(f"{run.name}: this run is not finished; finish it first: make resume RUN={run.name}")
    experiment = load_run_experiment(run)
    metrics, dataset = read_record(run.metrics, MetricsRecord), read_record(run.dataset, DatasetRecord)
    if not run.best_model.is_file():
        raise UserError(
            f"{shown(run.best_model)}: no such file; it holds the trained network. Restore it, or train "
            f"anew: make train FROM={run.name}"
        )
    return experiment, metrics, dataset


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Write a file whole or not at all.

    Yields a temporary path beside `path` with the same suffix; when the block ends without an error the
    file is flushed to disk and renamed to `path`. Whatever lay there before stays until that instant.
    """
    temporary = path.with_name(f".tmp-{os.getpid()}-{path.name}")
    try:
        yield temporary
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
        _sync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    """Make a rename in `folder` survive a power cut, where the system can do that."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def remove_temporaries(run: Run) -> None:
    """Delete what a killed process left half-written in a run folder."""
    for folder in (run.path, run.best_model.parent, run.states):
        for path in folder.glob(".tmp-*"):
            path.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write `text` as UTF-8, atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write `content` as indented JSON, atomically. A number that is not finite becomes null."""
    write_text(path, json.dumps(_finite(content), indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def _finite(value: Any) -> Any:
    """Return `value` with infinities and NaN replaced by None: JSON has no word for them."""
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    if isinstance(value, float) and (value != value or abs(value) == float("inf")):
        return None
    return value


def write_history(path: Path, rows: Sequence[Mapping[str, float]]) -> None:
    """Write one CSV line an epoch with HISTORY_COLUMNS, atomically; floats keep every digit."""
    text = io.StringIO()
    writer = csv.DictWriter(text, HISTORY_COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, text.getvalue())
