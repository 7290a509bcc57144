"""What is compared: runs with what they left behind, seeds of one recipe together, and their settings."""

import itertools
import math
import statistics
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from app.config import Experiment
from app.errors import UserError
from app.paths import shown
from app.reading import Row, read_history, read_record
from app.records import DatasetRecord, MetricsRecord
from app.reports.cells import FREE_SETTINGS, data_name
from app.runs import Run, load_run_experiment

# What may differ between the seeds of one recipe; their epochs must be the same.
_SEED_ONLY = FREE_SETTINGS | {"seed": True, "training": FREE_SETTINGS["training"] - {"epochs"}}
_NO_SETTINGS: dict[str, Any] = {
    "name": True,
    "description": True,
    "reference": True,
    "training": {"checkpoint_every_minutes", "mode"},  # the mode follows from what is monitored
}
_SECTIONS = list(Experiment.model_fields)


@dataclass(frozen=True)
class Trial:
    """One run and what it left behind.

    Attributes:
        run: Its folder.
        experiment: What was trained.
        rows: Its history, one epoch at least.
        metrics: Its metrics.json, None where it is not finished.
        dataset: Its dataset.json, None where it has none.
    """

    run: Run
    experiment: Experiment
    rows: list[Row]
    metrics: MetricsRecord | None
    dataset: DatasetRecord | None

    @property
    def finished(self) -> bool:
        """Whether training reached its end."""
        return self.metrics is not None

    @property
    def num_epochs(self) -> int:
        """The epochs that are done."""
        return int(self.rows[-1]["epoch"])

    @property
    def accuracy(self) -> float | None:
        """The headline accuracy; of an unfinished run the last epoch's."""
        if self.finished:
            return self.metric("headline", "val_accuracy")
        last = self.rows[-1]["val_accuracy"]
        return last if math.isfinite(last) else None

    @property
    def seconds(self) -> float | None:
        """Seconds that an epoch took."""
        if self.finished:
            return self.metric("timing", "seconds_per_epoch")
        return statistics.median(row["seconds"] for row in self.rows)

    def metric(self, *keys: str) -> float | None:
        """Return a number of metrics.json, None where there is none."""
        value: Any = self.metrics
        for key in keys:
            value = getattr(value, key, None)
        return value


@dataclass(frozen=True)
class Group:
    """A run, or finished runs of one recipe that differ by their seed alone, ordered by it."""

    label: str
    trials: tuple[Trial, ...]

    @property
    def first(self) -> Trial:
        """The only run, or the one with the smallest seed."""
        return self.trials[0]

    @property
    def accuracies(self) -> list[float]:
        """The headline accuracies."""
        return [trial.accuracy for trial in self.trials if trial.accuracy is not None]

    def metrics(self, *keys: str) -> list[float]:
        """Return a number of metrics.json, of each run that has it."""
        return [number for trial in self.trials if (number := trial.metric(*keys)) is not None]

    @property
    def data(self) -> str:
        """The name of the data."""
        return data_name(self.first.experiment, self.first.dataset)


def gather(runs: Iterable[Run]) -> list[Group]:
    """Read runs and put the seeds of one recipe together, in the order of the first of each.

    A run that is named twice counts once. Unfinished runs stay alone, and so do runs that repeat a seed.

    Raises:
        UserError: A run has not finished an epoch, or a file of it cannot be read.
    """
    buckets: list[list[Trial]] = []
    for run in {run.path.resolve(): run for run in runs}.values():
        trial = _read(run)
        fitting = (bucket for bucket in buckets if trial.finished and same_but_for_seed(bucket[0], trial))
        bucket = next(fitting, None)
        if bucket is None:
            buckets.append([trial])
        else:
            bucket.append(trial)
    members: list[tuple[Trial, ...]] = []
    for bucket in buckets:
        if len({trial.experiment.seed for trial in bucket}) == len(bucket):
            members.append(tuple(sorted(bucket, key=lambda trial: trial.experiment.seed)))
        else:
            members += [(trial,) for trial in bucket]
    labels = _labels([trials[0].run for trials in members])
    return [
        Group(f"{label} ({len(trials)} seeds)" if len(trials) > 1 else label, trials)
        for label, trials in zip(labels, members, strict=True)
    ]


def same_but_for_seed(one: Trial, other: Trial) -> bool:
    """Return whether two runs are finished and trained one recipe on the same images."""
    return (
        one.finished
        and other.finished
        and one.experiment.name == other.experiment.name
        and (one.dataset and one.dataset.fingerprint) == (other.dataset and other.dataset.fingerprint)
        and one.experiment.model_dump(exclude=_SEED_ONLY) == other.experiment.model_dump(exclude=_SEED_ONLY)
    )


def read_trial(run: Run, rows: list[Row]) -> Trial:
    """Read what a run left behind besides its history.

    Raises:
        UserError: A file of it cannot be read.
    """
    return Trial(
        run,
        load_run_experiment(run),
        rows,
        metrics=read_record(run.metrics, MetricsRecord) if run.finished else None,
        dataset=read_record(run.dataset, DatasetRecord) if run.dataset.exists() else None,
    )


def _read(run: Run) -> Trial:
    rows = read_history(run.history)
    if not rows:
        raise UserError(f"compare: {run.name} has not finished an epoch yet")
    return read_trial(run, rows)


def _labels(runs: Sequence[Run]) -> list[str]:
    """Return the experiments' names; with the time, or the whole path, where one occurs twice."""
    choices = [(run.path.parent.name, run.name, shown(run.path)) for run in runs]
    counts = [Counter(level) for level in zip(*choices, strict=True)]
    return [
        next((name for name, count in zip(choice, counts, strict=True) if count[name] == 1), choice[-1])
        for choice in choices
    ]


def differing_settings(groups: Sequence[Group]) -> list[tuple[str, list[str]]]:
    """Return the settings that are not the same in all groups: dotted key, and a text for each group.

    An argument left out has its default; other settings that a group does not have are "-".
    """
    flat = [
        [(trial.experiment, trial.experiment.flat(exclude=_NO_SETTINGS)) for trial in group.trials]
        for group in groups
    ]
    every = list(itertools.chain(*flat))
    keys = dict.fromkeys(key for _, settings in every for key, value in settings.items() if value is not None)

    def text(experiment: Experiment, settings: dict[str, Any], key: str) -> str:
        if settings.get(key) is not None:
            return _text(settings[key])
        section, _, argument = key.partition(".")
        if section in ("model", "optimizer"):
            name = getattr(experiment, section).name
            others = (getattr(other, section) for other, _ in every)
            if any(other.name == name and argument in other.arguments for other in others):
                return "default"
        return "-"

    def part(key: str) -> str:  # keeps the keys of a schedule together
        return ".".join(key.split(".")[:2])

    parts = list(dict.fromkeys(map(part, keys)))
    rows = []
    for key in sorted(keys, key=lambda key: (_SECTIONS.index(key.split(".")[0]), parts.index(part(key)))):
        cells = [", ".join(dict.fromkeys(text(*settings, key) for settings in each)) for each in flat]
        if len(set(cells)) > 1:
            rows.append((key, cells))
    return rows


def _text(value: Any) -> str:
    """Return a setting in a few words."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:g}" if float(f"{value:g}") == value else repr(value)
    if isinstance(value, Mapping):  # a layer
        arguments = ", ".join(f"{key}={_text(item)}" for key, item in value["arguments"].items())
        return f"{value['name']}({arguments})" if arguments else value["name"]
    return (", ".join(map(_text, value)) or "none") if isinstance(value, list) else str(value)
