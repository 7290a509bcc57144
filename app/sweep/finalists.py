"""The best trials of a sweep again with other seeds: which differ beyond noise, and what the choice cost.

The value by which a trial was chosen is the best of many, so it is optimistic; its settings with other seeds
are less so: the best of the finalists is a choice again. The test split is free of both; it is evaluated
once, for the settings that these seeds choose.
"""

import io
import math
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

from app.config import Experiment, trial_experiment
from app.config.dataset import DatasetConfig
from app.config.sweep import SweepConfig
from app.evaluation.records import evaluations_on_test
from app.files import write_json
from app.paths import runs_root
from app.preflight import settle_weights
from app.reading import read_record
from app.records import Count, FailureRecord, MetricsRecord, Record
from app.run_set import train_or_resume, warn_of_formats
from app.runs import Run, find_run
from app.sweep.trials import Images, Trial
from app.sweep.values import ranked, value_of

FILE = "finalists.json"


class FinalistRecord(Record):
    """A trial with other seeds; values are those of the objective."""

    trial: Count
    value: float  # by which it was chosen
    values: list[float]  # one for each run that finished
    runs: list[str]
    failures: list[str]  # of the other seeds, in words

    @property
    def mean(self) -> float:
        """The mean over the seeds; NaN where none finished."""
        return statistics.mean(self.values) if self.values else math.nan

    @property
    def std(self) -> float:
        """Their standard deviation; NaN where there are fewer than two."""
        return statistics.stdev(self.values) if len(self.values) > 1 else math.nan


class FinalistsRecord(Record):
    """finalists.json: the best trials with other seeds, the best of them by these seeds first."""

    advice = "Delete it, and `make sweep` writes it again from the runs"

    finished: Count  # trials that they were chosen from
    finalists: list[FinalistRecord]
    test: list[float]  # accuracies of the first one's runs on the test split
    no_test: str | None  # why there are none
    evaluations: Count = 1  # of each of these runs on it, at most, by hand too
    tested: list[Count]  # all trials that the test split was evaluated for, in earlier calls or by hand too


def read_finalists(folder: Path) -> FinalistsRecord | None:
    """Return finalists.json of a sweep's folder, None where there is none."""
    path = folder / FILE
    return read_record(path, FinalistsRecord) if path.is_file() else None


def train_finalists(
    folder: Path, experiment: Experiment, trials: Sequence[Trial], out: TextIO
) -> FinalistsRecord | None:
    """Train the best trials with other seeds, or resume that; evaluate the best of them on the test split.

    Args:
        folder: Of the sweep; the runs lie in it beside those of the trials.
        experiment: What the settings of trials change, with its `sweep`.
        trials: All trials.
        out: Receives progress.

    Returns:
        The content of finalists.json; None where no trial finished or no finalists are asked for.

    Raises:
        UserError: The images have changed, or a run cannot be trained. Where its loss blew up, that is
            recorded instead.
        Interrupted: As for a training; the same call goes on.
    """
    sweep = experiment.sweep
    assert sweep is not None
    best = ranked(trials, sweep)
    chosen = best[: sweep.finalists]
    if not chosen:
        return None
    runs: dict[int, list[tuple[int, Run]]] = {trial.number: [] for trial in chosen}
    images = Images(folder, experiment)
    # None is the seed that the trials were chosen by.
    seeds = range(experiment.seed + 1, experiment.seed + 1 + sweep.seeds)
    # Seed by seed, so that what there is after an interruption compares the same seeds.
    pairs = [(seed, trial) for seed in seeds for trial in chosen]
    for number, (seed, trial) in enumerate(pairs, 1):
        title = f"finalist run {number} of {len(pairs)}: trial {trial.number} with seed {seed}"
        one = trial_experiment(experiment, trial.settings).model_copy(update={"seed": seed})
        dataset = images.of(one.dataset)
        run = train_or_resume(folder.name, settle_weights(one), dataset, out, title, may_fail=True)
        runs[trial.number].append((seed, run))
    finalists = [_finalist(trial, runs[trial.number], sweep) for trial in chosen]
    sign = -1 if sweep.direction == "maximize" else 1
    finalists.sort(key=lambda each: (len(each.failures), sign * each.mean, each.trial))
    settings = next(trial.settings for trial in chosen if trial.number == finalists[0].trial)
    data = trial_experiment(experiment, settings).dataset  # runs may have found the images elsewhere
    test = [_test_accuracy(find_run(name), data) for name in finalists[0].runs if images.has_test]
    evaluations = max((len(evaluations_on_test(find_run(name))) for name in finalists[0].runs), default=0)
    no_test = (
        None if test else "no run with another seed finished" if images.has_test else "the data have none"
    )
    before = read_finalists(folder)
    tested = set(before.tested) if before else set()
    # Runs that were evaluated by hand count as well; those of trials may lie on another machine.
    names = [(each.trial, name) for each in finalists for name in each.runs]
    names += [(trial.number, trial.run) for trial in best if trial.run]
    for number, name in names:
        run = Run(runs_root() / name)
        if run.finished and evaluations_on_test(run):
            tested.add(number)
    record = FinalistsRecord(
        finished=len(best),
        finalists=finalists,
        test=test,
        no_test=no_test,
        evaluations=evaluations,
        tested=sorted(tested),
    )
    write_json(folder / FILE, record.content)
    warn_of_formats(folder.name, out)
    return record


def _finalist(trial: Trial, runs: Sequence[tuple[int, Run]], sweep: SweepConfig) -> FinalistRecord:
    """Return what became of a trial with other seeds."""
    values, names, failures = [], [], []
    for seed, run in runs:
        if not run.finished:
            failure = read_record(run.failure, FailureRecord)
            failures.append(f"seed {seed}: {failure.what} in epoch {failure.epoch}, {run.name}")
        elif (value := read_record(run.metrics, MetricsRecord).headline.content.get(sweep.objective)) is None:
            failures.append(f"seed {seed}: {sweep.objective} is not finite, {run.name}")
        else:
            values.append(value)
            names.append(run.name)
    return FinalistRecord(
        trial=trial.number, value=value_of(trial), values=values, runs=names, failures=failures
    )


def _test_accuracy(run: Run, data: DatasetConfig) -> float:
    """Return the accuracy of a run's best checkpoint on the test split, which is evaluated only once."""
    for each in evaluations_on_test(run):
        if each.get("checkpoint", "best") == "best" and each.get("test_time_views", "none") == "none":
            return each["accuracy"]
    from app.inference.evaluate import evaluate

    return evaluate(run, "test", "best", "none", io.StringIO(), config=data)["accuracy"]
