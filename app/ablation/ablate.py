"""`make ablate`: a recipe, and the recipe without each of its pieces, with several seeds of each.

The runs are a set (app/run_set.py) in `runs/<experiment>.ablation/`, with a table and a picture.
"""

import math
from collections.abc import Mapping, Sequence
from typing import TextIO

from app.ablation.effects import draw_effects
from app.ablation.results import Result, results_of, sentences, table
from app.config import Experiment
from app.data.datasets import load_dataset
from app.errors import UserError
from app.evaluation.significance import Difference
from app.files import csv_text, write_text
from app.paths import shown
from app.reading import read_record
from app.records import MetricsRecord
from app.reports.cells import percent
from app.run_set import RunSet, run_of, train_or_resume, warn_of_formats
from app.runs import Run, list_runs, locked
from app.training.setup import prepare
from app.wording import duration

WHOLE = "whole recipe"


class AblationSet(RunSet):
    """A folder with the runs of all variants and seeds."""

    kind = "ablation"


def ablate(experiment: Experiment, variants: Mapping[str, Experiment], num_seeds: int, out: TextIO) -> None:
    """Train all variants with all seeds, or resume that, and compare them; what is finished stays.

    Args:
        experiment: The whole recipe; its `seed` is the first one.
        variants: The recipe without a piece each, by name.
        num_seeds: Runs of each, at least 2.
        out: Receives what was done.

    Raises:
        UserError: Something that the user can mend, before anything is written.
        Interrupted: As for a training; the same call goes on.
    """
    dataset, every = load_dataset(experiment.dataset), {WHOLE: experiment, **variants}
    images = {}
    for name, each in every.items():  # else the whole recipe would be trained before one turns out impossible
        same = each.dataset == experiment.dataset
        try:
            images[name] = prepare(each, dataset=dataset if same else None).dataset
        except UserError as error:
            raise UserError(f"{name}: {error}") from error
    found = AblationSet.find(experiment, dataset.fingerprint)
    seeds = range(experiment.seed, experiment.seed + num_seeds)
    print(
        f"beside the whole recipe: {', '.join(variants)}\n"
        f"{_plan(found, [*every.values()], seeds, len(dataset.train))}\n"
        f"runs in {shown(found.folder)}; the same command resumes them",
        file=out,
        flush=True,
    )
    accuracies: dict[str, list[float]] = {name: [] for name in every}
    results: list[Result] = []
    with locked(Run(found.folder)):
        for number, seed in enumerate(seeds, 1):  # so that whatever there is compares the same seeds
            for name, each in every.items():
                one = each.model_copy(update={"seed": seed})
                title = f"seed {seed} ({number} of {num_seeds}), {name}"
                data, may_fail = images[name], name != WHOLE
                found.check_weights()
                run = train_or_resume(found.folder.name, one, data, out, title, may_fail=may_fail)
                accuracies[name].append(_accuracy(run))
            results = results_of(accuracies)
            if number > 1:
                _write(found, experiment, seeds[:number], results)
    print("\n".join(["", *table(results), "", *sentences(results)]), file=out)
    warn_of_formats(found.folder.name, out)
    on = "test" if experiment.dataset.validates_on_test else "validation"
    print(
        f"Accuracy is that of the {on} split, as the runs report it.\n"
        f"picture {shown(found.folder / 'ablation.png')}\ntable {shown(found.folder / 'ablation.csv')}",
        file=out,
    )


def _plan(found: AblationSet, every: Sequence[Experiment], seeds: Sequence[int], num_images: int) -> str:
    """Return how many runs there are, how many have ended, and how long the others will take."""
    runs = [
        run_of(
            found.folder.name,
            each.model_copy(update={"seed": seed}),
            found.record.fingerprint if each.dataset == every[0].dataset else None,
        )
        for seed in seeds
        for each in every
    ]
    done = sum(run is not None and (run.finished or run.failure.is_file()) for run in runs)
    line = f"{len(every)} variants with {len(seeds)} seeds are {len(runs)} runs, {done} of them done"
    folders = every[0].name, found.folder.name
    known = [run for name in folders for run in list_runs(name) if run.finished]
    if known and done < len(runs):
        timing = read_record(known[-1].metrics, MetricsRecord).timing
        planned = every[0].with_epochs_for(num_images).training.num_epochs
        seconds = timing.seconds / timing.epochs * planned
        left = duration(seconds * (len(runs) - done))
        line += f"; the others take about {left}, as {known[-1].name} took {duration(timing.seconds)}"
    return line


def _accuracy(run: Run) -> float:
    """Return the headline accuracy of a run; NaN where it failed."""
    return read_record(run.metrics, MetricsRecord).headline.val_accuracy if run.finished else math.nan


def _write(
    found: AblationSet, experiment: Experiment, seeds: Sequence[int], results: Sequence[Result]
) -> None:
    """Write ablation.csv and ablation.png."""
    numbers = ["mean", "standard_deviation", "difference", *Difference._fields[1:]]
    rows: list[list[object]] = [["variant", *numbers, *(f"seed_{seed}" for seed in seeds)]]
    for each in results:
        cells = [each.mean, each.std, *each.difference, *each.accuracies]
        rows.append([each.name, *("" if cell != cell else cell for cell in cells)])
    write_text(found.folder / "ablation.csv", csv_text(rows))
    split = "test" if experiment.dataset.validates_on_test else "validation"
    legend = f"{len(seeds)} seeds; bars are 95 % intervals, which go on where there is an arrow"
    title = f"{experiment.name}: each piece taken out in turn\n{legend}"
    label = f"{split} accuracy, percentage points from the whole recipe ({percent(results[0].mean)})"
    draw_effects(found.folder / "ablation.png", title, label, results)
