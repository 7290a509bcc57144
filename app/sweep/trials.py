"""The trials of a sweep as everything but its engine sees them: sweep.json and trials.json of its folder."""

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple

from app.config import Experiment
from app.config.dataset import DatasetConfig
from app.data.dataset import Dataset
from app.data.datasets import load_dataset
from app.errors import UserError
from app.files import write_json
from app.paths import shown
from app.reading import read_record
from app.records import Count, Record
from app.run_set import ChangedError, RunSet
from app.wording import counted

TrialState = Literal["waiting", "running", "finished", "pruned", "failed"]


class Trial(NamedTuple):
    """One set of settings, and how far its training came."""

    number: Count
    settings: dict[str, Any]  # JSON values by dotted key
    state: TrialState
    values: tuple[float | None, ...]  # the objective after each epoch; None where it is not finite
    value: float | None  # the objective of the run's headline epoch, of finished trials only
    reason: str | None  # of a failure
    run: str | None
    seconds: float  # of training, all attempts together

    @property
    def epochs(self) -> str:
        """How many it was trained, in words."""
        return counted(len(self.values), "epoch")


class SweepSet(RunSet):
    """The folder of a sweep. It stays the same for more trials, another budget and other finalists."""

    kind = "sweep"
    not_compared: ClassVar[dict[str, Any]] = {
        **RunSet.not_compared,
        "sweep": {"trials", "budget_minutes", "finalists", "seeds"},
    }


class _TrialsRecord(Record):
    """trials.json: what the storage held when a trial last began or ended."""

    advice = "Delete it, and `make sweep` writes it again"

    trials: list[Trial]


class Images:
    """The images of a sweep but the test split, loaded once for trials in a row that prepare them alike."""

    def __init__(self, folder: Path, base: Experiment):
        """Load for the trials in `folder`, whose settings change `base`."""
        self.folder, self.base = folder, base
        self.has_test = False  # whether there is one: at the end of each run it would be evaluated
        self._loaded: tuple[DatasetConfig, Dataset] | None = None

    def of(self, config: DatasetConfig) -> Dataset:
        """Return those of a trial; where it prepares them otherwise than the sweep, nothing is known of them.

        Raises:
            ChangedError: They, or the weights that trials start from, have changed since the sweep began, or
                cannot be loaded any more.
        """
        found = SweepSet.read(self.folder)
        found.check_weights()
        if self._loaded is None or self._loaded[0] != config:
            self._loaded = None  # before others take its memory
            try:
                dataset = load_dataset(config)
            except UserError as error:
                if config != self.base.dataset and _can_be_loaded(self.base.dataset):
                    raise  # these settings alone cannot
                raise ChangedError(f"{shown(self.folder)}: {error}") from error
            if config == self.base.dataset and dataset.fingerprint != found.record.fingerprint:
                raise ChangedError(
                    f"{shown(self.folder)}: the images ({dataset.source}) have changed since this sweep "
                    "began; put the old ones back, and the same command goes on (with the new ones it "
                    "begins anew in another folder)"
                )
            self.has_test = dataset.test is not None
            self._loaded = config, dataclasses.replace(dataset, test=None)
        return self._loaded[1]


def _can_be_loaded(config: DatasetConfig) -> bool:
    try:
        load_dataset(config)
    except UserError:
        return False
    return True


def read_trials(folder: Path) -> list[Trial]:
    """Return the trials of a sweep by number; none before the first has begun.

    Raises:
        UserError: trials.json is damaged.
    """
    file = folder / "trials.json"
    return read_record(file, _TrialsRecord).trials if os.path.lexists(file) else []


def write_trials(folder: Path, trials: Sequence[Trial]) -> None:
    """Write trials.json."""
    write_json(folder / "trials.json", {"trials": [trial._asdict() for trial in trials]})
