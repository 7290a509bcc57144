"""Run folders: how they are made and found, the names of their files, history.csv, and the lock of a run."""

import contextlib
import fcntl
import json
import os
import re
import secrets
import shlex
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from app.config import Experiment, load_experiment
from app.errors import UserError
from app.files import check_folder, csv_text, new_folder, timestamp_key, write_text
from app.paths import runs_root, shown
from app.reading import HISTORY_COLUMNS, read_record
from app.records import DatasetRecord, EnvironmentRecord, MetricsRecord


class Run:
    """The folder of one run; every file in it has its name here."""

    def __init__(self, path: Path):
        """Name the artefacts of the run folder `path`; nothing is created."""
        self.path = path
        self.name = f"{path.parent.name}/{path.name}"
        self.experiment = path / "experiment.yaml"
        self.dataset = path / "dataset.json"
        self.environment = path / "environment.json"
        self.corrections = {key: path / f"{key}.csv" for key in ("exclude", "relabel")}
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
    def argument(self) -> str:
        """What commands take as `RUN=`: its name, of a run elsewhere its path."""
        return shlex.quote(self.name_or_path)

    @property
    def name_or_path(self) -> str:
        """Its name, by which it is found in `runs/`; of a run elsewhere its path."""
        inside = self.path.parent.parent.resolve() == runs_root().resolve()
        return self.name if inside else str(self.path)

    @property
    def state_files(self) -> list[Path]:
        """The states, oldest first; a user's copies beside them are none."""
        names = re.compile(r"state-\d{5,}-\d{7,}\.npz")  # of epoch and step
        return sorted(path for path in self.states.glob("state-*.npz") if names.fullmatch(path.name))

    @property
    def finished(self) -> bool:
        """Whether training reached its end, after which metrics.json is written."""
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
        link, latest = parent / f".latest-{secrets.token_hex(4)}", parent / "latest"
        # On file systems without links there is none; a copy that is being trained stays where it is.
        with contextlib.suppress(OSError, UserError):
            if latest.is_dir() and not latest.is_symlink():  # a copy, of what follows links such as scp -r
                with locked(Run(latest)):
                    latest.rename(parent / f"latest-before-{run.path.name}")
            link.symlink_to(run.path.name)
            os.replace(link, latest)
    except OSError as error:
        raise UserError(
            f"{shown(parent)}: cannot make a run folder here ({error.strerror}); "
            "free some space or make the folder writable"
        ) from error
    return run


def list_runs(experiment_name: str) -> list[Run]:
    """Return the runs of an experiment, oldest first.

    Raises:
        UserError: A file stands where a folder should.
    """
    folder = runs_root() / experiment_name
    check_folder(folder)
    found = folder.iterdir() if os.path.isdir(folder) else ()  # false, too, for an impossible name
    runs = [path for path in found if timestamp_key(path.name)[0] and path.is_dir()]
    return [Run(path) for path in sorted(runs, key=lambda path: timestamp_key(path.name))]


def list_whole_runs(experiment_name: str) -> list[Run]:
    """Return those of `list_runs` that began: experiment.yaml is the last file that makes a folder a run."""
    return [run for run in list_runs(experiment_name) if run.experiment.is_file()]


def find_run(name: str, asked: str = "RUN=") -> Run:
    """Return the run `<experiment>/<timestamp>`, `<experiment>/latest`, or by its path; `asked` is by what.

    Raises:
        UserError: There is no such run folder.
    """
    name = os.path.expanduser(name)
    for path in (runs_root() / name, Path(name)):
        if os.path.isfile(path / "experiment.yaml"):  # false, too, for a name that cannot be one
            return Run(path.resolve())
    if Path(name).name == "latest":  # which leads to a run that never began, or the file system has no links
        parent = Path(name).parent
        if whole := [*list_whole_runs(str(parent.absolute())), *list_whole_runs(str(parent))]:
            return whole[-1]
    known = [run.name for run in list_whole_runs(Path(name).parts[0] if Path(name).parts else "")][-5:]
    newest = f"; its newest runs: {', '.join(known)}" if known else ""
    raise UserError(
        f"{asked}{name}: no run folder of that name in {shown(runs_root())}; "
        f"a run is named <experiment>/<timestamp> or by its path{newest}"
    )


def newest_run(experiment_name: str, *, finished: bool | None) -> Run:
    """Return the newest finished (or newest unfinished, or with None newest) run of an experiment.

    Raises:
        UserError: There is none.
    """
    runs = list_whole_runs(experiment_name)
    for run in reversed(runs):
        if finished in (run.finished, None):
            return run
    kind = {None: "whole", True: "finished", False: "unfinished"}[finished]
    others = f" ({len(runs)} {'unfinished' if finished else 'finished'})" if runs else ""
    advice = "train it first" if finished or not runs else "there is nothing to resume"
    raise UserError(
        f"EXP={experiment_name}: no {kind} run in {shown(runs_root() / experiment_name)}{others}; {advice}"
    )


def newest(experiment_name: str) -> Run:
    """Return an experiment's newest finished run, or its newest where none is finished."""
    runs = list_whole_runs(experiment_name)
    return newest_run(experiment_name, finished=any(run.finished for run in runs) or not runs)


def load_run_experiment(run: Run, overrides: Sequence[str] = ()) -> Experiment:
    """Return the experiment that a run recorded, under the name of the folder that holds the run."""
    experiment = load_experiment(run.experiment, overrides)
    return experiment.model_copy(update={"name": run.path.parent.name or run.path.name})


def detour(run: Run, experiment: Experiment) -> str | None:
    """Return why a run is not what a training of its experiment from the start gives; None where it is.

    Its resumes may have gone on with other images (`FORCE=1`), or with a schedule for more epochs.
    """
    if read_record(run.dataset, DatasetRecord).fingerprints_before:
        return "it was trained on other images before"
    resumes = read_record(run.environment, EnvironmentRecord).resumes
    planned = experiment.training.num_epochs  # still the same where a resume with more ended before it began
    stretched = any(each.epochs_before not in (None, planned) for each in resumes)
    return "its schedule was one for fewer epochs before" if stretched else None


def load_finished(run: Run) -> tuple[Experiment, MetricsRecord, DatasetRecord]:
    """Return the experiment, metrics.json and dataset.json of a finished run.

    Raises:
        UserError: The run is not finished, or a file of it is missing or damaged.
    """
    if not run.finished:
        raise UserError(
            f"{run.name}: this run is not finished; finish it first: make resume RUN={run.argument}"
        )
    experiment = load_run_experiment(run)
    metrics, dataset = read_record(run.metrics, MetricsRecord), read_record(run.dataset, DatasetRecord)
    if not run.best_model.is_file():
        raise UserError(
            f"{shown(run.best_model)}: no such file; it holds the trained network. Restore it, or train "
            f"anew: make train FROM={run.argument}"
        )
    return experiment, metrics, dataset


def remove_temporaries(run: Run) -> None:
    """Delete what a killed process left half-written in a run folder."""
    for folder in (run.path, run.best_model.parent, run.states):
        for path in folder.glob(".tmp-*"):
            path.unlink(missing_ok=True)


def write_history(path: Path, rows: Sequence[Mapping[str, float]]) -> None:
    """Write one CSV line an epoch with HISTORY_COLUMNS, atomically; floats keep every digit."""
    lines = ([row[column] for column in HISTORY_COLUMNS] for row in rows)
    write_text(path, csv_text([HISTORY_COLUMNS, *lines]))


@contextlib.contextmanager
def locked(run: Run) -> Iterator[None]:
    """Hold a run folder for this process; the file `lock` in it says who holds it.

    The system ties the lock to the open file, so that of a process that was killed is free at once, whatever
    the file still says.

    Raises:
        UserError: Another process trains this run.
    """
    path = run.path / "lock"
    file = _open_locked(path, run)
    try:
        owner = {"pid": os.getpid(), "host": socket.gethostname(), "since": time.strftime("%F %T")}
        os.ftruncate(file, 0)
        os.write(file, (json.dumps(owner) + "\n").encode())
        yield
    finally:
        with contextlib.suppress(OSError):
            path.unlink()
        os.close(file)


def _open_locked(path: Path, run: Run) -> int:
    """Return a descriptor of the file with the lock on it."""
    while True:
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(file)
            raise UserError(f"{run.name}: {_owner(path)}; wait until it ends, or stop it first") from None
        except OSError:  # a file system without locks
            return file
        with contextlib.suppress(OSError):
            if os.fstat(file).st_ino == os.stat(path).st_ino:
                return file
        os.close(file)  # the former owner removed the file between our opening and locking it


def _owner(path: Path) -> str:
    """Return who holds the lock, in words."""
    try:
        owner = json.loads(path.read_text(encoding="utf-8"))
        return f"being trained by process {owner['pid']} on {owner['host']} since {owner['since']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "being trained by another process"
