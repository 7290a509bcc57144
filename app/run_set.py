"""Sets of runs: ordinary runs in a folder of their own, found again by their settings and data.

The folder is `runs/<experiment>.<kind>/`, with a record of what the runs belong to in `<kind>.json`. The same
settings, data and starting weights lead to the same folder again, others to one with a further number behind
its name.
"""

import functools
import itertools
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Self, TextIO

from pydantic import ValidationError

from app.config import LABELS, Experiment
from app.data.dataset import Dataset
from app.errors import Interrupted, UserError
from app.files import check_folder, write_json
from app.paths import runs_root, shown
from app.preflight import weights_hash
from app.reading import read_record
from app.records import DatasetRecord, EnvironmentRecord, Fraction, Record
from app.runs import Run, detour, list_whole_runs, load_run_experiment

_Trained = tuple[Experiment, list[str] | None, DatasetRecord]


class ChangedError(UserError):
    """What the runs of a set began with, images or weights, has changed or is gone."""


class SetRecord(Record):
    """What the runs of a folder belong to."""

    advice = "Restore it from a copy, or train all anew in another folder: delete it"

    experiment: str
    begun: str
    settings: dict[str, Any]
    fingerprint: str
    starting_weights: str | None = None  # their hash: a run keeps its name when it is trained further
    # Of folds: their names once all are finished, and when that was, as `begun`.
    runs: list[str] = []
    joined: str = ""
    # Of sweeps, whose `settings` include the block `sweep`.
    overrides: list[str] = []  # the KEY=VALUE changes to the experiment's file that led to the settings
    storage: str = ""  # "SQLite", or the address of the database without its password
    study: str = ""  # the name of the sweep in the storage
    seconds: Fraction = 0.0  # that `make sweep` ran in this folder, all calls together


@dataclass(frozen=True)
class RunSet:
    """A folder with runs; each kind is a class."""

    kind: ClassVar[str]
    # Settings by which a set is not found; images may move, and other machines have theirs elsewhere.
    not_compared: ClassVar[dict[str, Any]] = {**LABELS, "dataset": {"data_dir"}}

    folder: Path
    record: SetRecord

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Return the set in a folder.

        Raises:
            UserError: Its record is missing or damaged.
        """
        return cls(folder, read_record(folder / f"{cls.kind}.json", SetRecord))

    @classmethod
    def all_of(cls, experiment_name: str) -> list[Self]:
        """Return an experiment's sets of this kind, oldest first."""
        check_folder(runs_root())
        pattern = re.compile(re.escape(experiment_name) + rf"\.(\d+-)?{cls.kind}(-\d+)?")
        found = [
            cls.read(path.parent)
            for path in sorted(runs_root().glob(f"*/{cls.kind}.json"))
            if pattern.fullmatch(path.parent.name)
        ]
        return sorted(found, key=lambda each: each.record.begun)

    @classmethod
    def find(cls, experiment: Experiment, fingerprint: str, prefix: str = "") -> Self:
        """Return the newest set of an experiment, its data and starting weights, made where there is none.

        Images may have moved: the settings of the set have the folder where they are now.

        Args:
            experiment: The settings that the set is found by, its `model.weights` those of `settle_weights`.
            fingerprint: Of the data.
            prefix: What stands before the kind in a new folder's name, such as "5-".
        """
        weights = weights_hash(experiment)
        for found in reversed(cls.all_of(experiment.name)):
            same = found.record.fingerprint == fingerprint
            same = same and found.record.starting_weights in (None, weights)  # older records do not say
            if same and found.experiment.agrees_with(experiment, cls.not_compared):
                settings = found.record.settings
                dataset = settings["dataset"] | {"data_dir": experiment.dataset.data_dir}
                record = found.record.model_copy(update={"settings": settings | {"dataset": dataset}})
                return replace(found, record=record)
        first = runs_root() / f"{experiment.name}.{prefix}{cls.kind}"
        runs_root().mkdir(parents=True, exist_ok=True)
        for number in itertools.count(1):
            folder = first if number == 1 else first.with_name(f"{first.name}-{number}")
            try:
                folder.mkdir()
                break
            except FileExistsError:
                continue
        record = SetRecord(
            experiment=experiment.name,
            begun=time.strftime("%F %T"),
            settings=experiment.model_dump(mode="json"),
            fingerprint=fingerprint,
            starting_weights=weights,
        )
        made = cls(folder, record)
        write_json(made.path, record.content)
        return made

    def check_weights(self) -> None:
        """Raise a ChangedError where the weights that its runs start from have changed meanwhile."""
        weights = self.record.starting_weights
        if weights and weights_hash(self.experiment) != weights:
            raise ChangedError(
                f"{shown(self.folder)}: {self.experiment.model.weights} has other weights now; put the old "
                "ones back, and the same command goes on (with the new ones it begins anew in another folder)"
            )

    @property
    def path(self) -> Path:
        """The file of the record."""
        return self.folder / f"{self.kind}.json"

    @property
    def experiment(self) -> Experiment:
        """The settings of the record."""
        try:
            return Experiment.from_json(self.record.settings)
        except ValidationError as error:
            raise UserError(
                f"{shown(self.path)}: settings: not those of an experiment "
                f"({error.error_count()} mistakes). {self.record.advice}"
            ) from error


def run_of(folder_name: str, experiment: Experiment, fingerprint: str | None) -> Run | None:
    """Return the newest run of an experiment in a folder of runs, None where there is none to resume.

    Args:
        folder_name: Its name below `runs/`.
        experiment: Its name does not matter; its `model.weights` are those of `settle_weights`.
        fingerprint: Of its data; None where they are not loaded.
    """
    return next((run for run, why in _runs_of(folder_name, experiment, fingerprint) if why is None), None)


def _runs_of(
    folder_name: str, experiment: Experiment, fingerprint: str | None
) -> Iterator[tuple[Run, str | None]]:
    """Yield the runs of an experiment, newest first, each with the reason why it does not count."""
    for run, (trained, auto, data) in _records(folder_name):
        known = auto is None or auto == experiment.training.auto  # not a variant that names the value
        wanted = experiment.with_epochs_for(data.num_images.train).with_auto_of(trained)
        same = known and trained.agrees_with(wanted, RunSet.not_compared)
        if same and fingerprint in (None, data.fingerprint):
            yield run, detour(run, trained)


def _records(folder_name: str) -> Iterator[tuple[Run, _Trained]]:
    """Yield the whole runs of a folder, newest first, with what `_trained_by` says of each."""
    for run in reversed(list_whole_runs(folder_name)):
        if run.dataset.is_file():
            yield run, _trained_by(run.path, run.experiment.stat().st_mtime_ns)


@functools.lru_cache(maxsize=1000)
def _trained_by(path: Path, changed_ns: int) -> _Trained:
    """Return what a run trains, which keys were auto, and its data.

    Sets of many runs are searched for each of them.
    """
    run = Run(path)
    auto = read_record(run.environment, EnvironmentRecord).auto
    return load_run_experiment(run), auto, read_record(run.dataset, DatasetRecord)


def warn_of_formats(folder_name: str, out: TextIO) -> None:
    """Warn where `precision: auto` came to several formats in the runs of a folder."""
    found = (record for _, record in _records(folder_name))
    formats = {trained.training.precision for trained, auto, _ in found if "precision" in (auto or ())}
    if len(formats) > 1:
        print(
            f"warning: training.precision: auto came to {' and to '.join(sorted(formats))} in these runs, on "
            "different processors; what differs between them may come from that",
            file=out,
        )


def train_or_resume(
    folder_name: str,
    experiment: Experiment,
    dataset: Dataset | None,
    out: TextIO,
    title: str,
    *,
    may_fail: bool = False,
) -> Run:
    """Return the finished run of an experiment in a folder of runs: found, resumed or trained anew.

    Args:
        folder_name: Its name below `runs/`.
        experiment: As for `run_of`.
        dataset: Its data, where they are loaded already.
        out: Where progress is shown.
        title: A line before it, such as "fold 1 of 5".
        may_fail: Whether a run whose loss is no longer finite is returned, too, with its failure.json. It is
            not trained again: it would fail again.

    Raises:
        UserError: As for a training.
        Interrupted: As for a training; the same call goes on.
    """
    fingerprint = dataset.fingerprint if dataset else None
    run = None
    for each, why in _runs_of(folder_name, experiment, fingerprint):
        if why is None:
            run = each
            break
        print(f"{title}: {each.name} does not count: {why}", file=out, flush=True)
    if run and (run.finished or may_fail and run.failure.is_file()):
        how = "is finished" if run.finished else "has failed"
        print(f"{title}: {run.name} {how}", file=out, flush=True)
        if run.finished and not run.report.is_file():  # stopped between its results and its page
            from app.reports.report import write_report

            write_report(run, dataset)
        return run
    print(title, file=out, flush=True)
    from app.training.train import resume, train  # brings up the backend, which takes seconds

    try:
        if run:
            return resume(run, out, dataset=dataset)
        return train(experiment.model_copy(update={"name": folder_name}), out, dataset=dataset)
    except Interrupted as stop:  # whose words go on with this run alone, even to the test split
        raise Interrupted(f"\n{title}: stopped; the same command goes on", stop.exit_code - 128) from stop
    except UserError as error:
        run = run_of(folder_name, experiment, fingerprint) if may_fail else None
        if not (run and run.failure.is_file()):
            raise
        print(error, file=out, flush=True)
        return run
