"""What is compared: runs with what they left behind, seeds of one recipe together, and their settings."""

import functools
import itertools
import math
import statistics
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from app.config import LABELS, Experiment
from app.errors import UserError
from app.paths import shown
from app.reading import Row, read_history, read_json, read_record
from app.records import DatasetRecord, EnvironmentRecord, MetricsRecord
from app.reports.cells import FREE_SETTINGS
from app.runs import Run, detour, list_runs, load_run_experiment

# What may differ between the seeds of one recipe; their epochs must be the same, and their images, which
# the lists of `exclude` and `relabel` are a part of.
_SEED_ONLY = FREE_SETTINGS | {
    "seed": True,
    "training": FREE_SETTINGS["training"] - {"epochs"},
    "dataset": {"data_dir", "exclude", "relabel"},
}
_NO_SETTINGS: dict[str, Any] = {**LABELS, "training": {"checkpoint_every_minutes"}}


@dataclass(frozen=True)
class Trial:
    """One run and what it left behind."""

    run: Run
    experiment: Experiment
    metrics: MetricsRecord | None  # None where it is not finished
    dataset: DatasetRecord
    environment: EnvironmentRecord

    @functools.cached_property
    def rows(self) -> list[Row]:
        """Its history."""
        return read_history(self.run.history)

    @property
    def finished(self) -> bool:
        """Whether training reached its end."""
        return self.metrics is not None

    @property
    def starting_weights(self) -> str | None:
        """The hash of the weights that it began with, None where it is not known."""
        return self.environment.starting_weights.get("sha256")

    @property
    def accuracy(self) -> float | None:
        """The headline accuracy; of an unfinished run the last epoch's."""
        if self.metrics:
            return self.metrics.headline.val_accuracy
        last = self.rows[-1]["val_accuracy"]
        return last if math.isfinite(last) else None

    @property
    def seconds(self) -> float:
        """Seconds that an epoch took."""
        if self.metrics:
            return self.metrics.timing.seconds_per_epoch
        return statistics.median(row["seconds"] for row in self.rows)


@dataclass(frozen=True)
class Group:
    """A run, or finished runs of one recipe that differ by their seed alone, ordered by it."""

    name: str
    trials: tuple[Trial, ...]

    @property
    def label(self) -> str:
        """The name, and the number of seeds where there are several."""
        return f"{self.name} ({len(self.trials)} seeds)" if len(self.trials) > 1 else self.name

    @property
    def first(self) -> Trial:
        """The only run, or the one with the smallest seed."""
        return self.trials[0]

    @property
    def on_test(self) -> bool:
        """Whether the test split served for validation."""
        return self.first.experiment.dataset.validates_on_test

    @property
    def accuracies(self) -> list[float]:
        """The headline accuracies."""
        return [trial.accuracy for trial in self.trials if trial.accuracy is not None]

    @property
    def seconds(self) -> float:
        """Seconds that an epoch took, the median of the runs."""
        return statistics.median(trial.seconds for trial in self.trials)

    def metrics(self, *keys: str) -> list[float]:
        """Return the number under these keys of metrics.json, of each run that has it."""
        values: list[Any] = [trial.metrics for trial in self.trials]
        for key in keys:
            values = [getattr(value, key, None) for value in values]
        return [value for value in values if value is not None]


def gather(runs: Iterable[Run]) -> list[Group]:
    """Read runs and put the seeds of one recipe together, in the order of the first of each.

    A run that is named twice counts once. Unfinished runs stay alone, and so do runs that repeat a seed.

    Raises:
        UserError: A run has not finished an epoch, or a file of it cannot be read.
    """
    buckets: list[list[Trial]] = []
    for run in {run.path.resolve(): run for run in runs}.values():
        trial = read_trial(run)
        if not trial.rows:
            raise UserError(f"compare: {run.name} has not finished an epoch yet")
        for bucket in buckets:
            if same_but_for_seed(bucket[0], trial):
                bucket.append(trial)
                break
        else:
            buckets.append([trial])
    members: list[tuple[Trial, ...]] = []
    for bucket in buckets:
        if len({trial.experiment.seed for trial in bucket}) == len(bucket):
            members.append(tuple(sorted(bucket, key=lambda trial: trial.experiment.seed)))
        else:
            members += [(trial,) for trial in bucket]
    # A group has its experiment's name; with the time, or the path of its folder, where that occurs twice.
    runs = [trials[0].run for trials in members]
    choices = [(run.path.parent.name, run.name, shown(run.path)) for run in runs]
    counts = Counter(itertools.chain(*choices))
    return [
        Group(next((name for name in names if counts[name] == 1), names[-1]), trials)
        for names, trials in zip(choices, members, strict=True)
    ]


def same_but_for_seed(one: Trial, other: Trial) -> bool:
    """Return whether two finished runs trained one recipe from the same weights on the same images."""
    return (
        one.finished
        and other.finished
        and one.experiment.name == other.experiment.name
        and one.dataset.fingerprint == other.dataset.fingerprint
        and one.experiment.agrees_with(other.experiment, _SEED_ONLY)
        and not any(detour(each.run, each.experiment) for each in (one, other))
        and chose_settings(one) == chose_settings(other)
        and one.starting_weights == other.starting_weights
    )


def chose_settings(trial: Trial) -> bool:
    """Return whether it is a trial of a sweep: chosen by its accuracy, unlike the finalists beside it."""
    record = trial.run.path.parent / "sweep.json"
    return record.is_file() and read_json(record).get("settings", {}).get("seed") == trial.experiment.seed


def finished_trials(experiment_name: str) -> tuple[list[Trial], list[str]]:
    """Return an experiment's finished runs, oldest first, and a remark on each failed or unreadable one."""
    found, remarks = [], []
    for run in list_runs(experiment_name):
        if run.failure.is_file():
            remarks.append(f"{run.name}: left out; its loss was no longer finite")
        if run.finished:
            try:
                found.append(read_trial(run))
            except UserError as error:
                remarks.append(f"{run.name}: left out; it cannot be read ({error})")
    return found, remarks


def read_trial(run: Run) -> Trial:
    """Read what a run left behind; its history when it is asked for.

    Raises:
        UserError: A file of it cannot be read.
    """
    return Trial(
        run,
        load_run_experiment(run),
        metrics=read_record(run.metrics, MetricsRecord) if run.finished else None,
        dataset=read_record(run.dataset, DatasetRecord),
        environment=read_record(run.environment, EnvironmentRecord),
    )


def differing_settings(groups: Sequence[Group]) -> list[tuple[str, list[str]]]:
    """Return the settings that are not the same in all groups: dotted key, and a text for each group.

    An argument left out has its default; other settings that a group does not have are "-". Starting weights
    and data have the beginning of their hash: a run keeps its name when it is trained further, a folder when
    images are added.
    """
    every = [trial.experiment for group in groups for trial in group.trials]

    def texts(trial: Trial) -> dict[str, str]:
        experiment, start = trial.experiment, trial.starting_weights
        flat = experiment.flat(exclude=_NO_SETTINGS)
        found = {key: _text(value) for key, value in flat.items() if value is not None}
        counts, data = trial.dataset.num_images, trial.dataset.fingerprint
        found["dataset.images"] = f"{counts.train:,} + {counts.val:,} (hash {data[:12]})"
        if experiment.model.weights and start:
            found["model.weights"] += f" (hash {start[:12]})"
        for section, other in itertools.product(("model", "optimizer"), every):
            if getattr(other, section).name == getattr(experiment, section).name:
                for argument in getattr(other, section).arguments:
                    found.setdefault(f"{section}.{argument}", "default")
        return found

    settings = [[texts(trial) for trial in group.trials] for group in groups]
    keys = dict.fromkeys(itertools.chain(*itertools.chain(*settings)))
    places = list(Experiment.model_fields)
    places += dict.fromkeys(".".join(key.split(".")[:2]) for key in keys)  # of a schedule together
    rows = []
    for key in sorted(keys, key=lambda key: [places.index(".".join(key.split(".")[:n])) for n in (1, 2)]):
        cells = [", ".join(dict.fromkeys(each.get(key, "-") for each in group)) for group in settings]
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
        arguments = ", ".join(f"{key}={_text(item)}" for key, item in value.items() if key != "name")
        return f"{value['name']}({arguments})" if arguments else value["name"]
    return (", ".join(map(_text, value)) or "none") if isinstance(value, list) else str(value)
