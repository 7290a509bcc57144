"""The table of results in experiments/README.md, written from run folders; nothing in it is typed by hand."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from app.config import Experiment, list_experiments, load_experiment
from app.errors import UserError
from app.files import split_at_marks, write_text
from app.machine import describe_machine
from app.paths import experiments_dir, shown
from app.reading import read_record
from app.records import DatasetRecord, EnvironmentRecord, MetricsRecord
from app.reports.cells import FREE_SETTINGS, data_name, percent, source_cell
from app.runs import Run, list_runs, load_run_experiment

START = "<!-- make results writes from here -->"
END = "<!-- to here -->"
HEADINGS = (
    "experiment", "network", "data", "validated on", "epochs", "last epoch", "best epoch", "test",
    "source: last, best", "seconds an epoch", "machine",
)  # fmt: skip
_RULE = ("---",) * 4 + ("---:",) * 6 + ("---",)
_EPOCHS_COLUMN = HEADINGS.index("epochs")


@dataclass(frozen=True)
class _Finished:
    """A finished run with its records."""

    run: Run
    experiment: Experiment
    metrics: MetricsRecord
    dataset: DatasetRecord
    environment: EnvironmentRecord


def write_results_table() -> list[str]:
    """Write the table into experiments/README.md.

    An experiment's line comes from its finished run with the most epochs, of equal ones the newest, if it
    trained the recipe that the file has now. A line that is already there stays where no run here has as
    many epochs.

    Returns:
        What was taken and what was left out, for people.

    Raises:
        UserError: The page has no place for the table, or an experiment has errors.
    """
    page = experiments_dir() / "README.md"
    try:
        text = page.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise UserError(f"{shown(page)}: cannot be read ({error})") from error
    before, old, after = split_at_marks(text, START, END, f"{shown(page)}: no place for the results")
    kept = {row[0]: row for row in map(_cells, old.splitlines()) if row and row[0].startswith("`")}
    said, rows, missing = [], [], []
    for name in list_experiments():
        row = kept.get(f"`{name}`")
        experiment = load_experiment(name)
        chosen, remarks = _choose(experiment)
        said += remarks
        if chosen is not None:
            cells, words = _result(experiment, chosen)
            if row is None or _epochs(cells) >= _epochs(row):
                row = cells
                said.append(f"{name}: {words} ({chosen.run.name})")
            else:
                stays = f"the line of {row[_EPOCHS_COLUMN]} epochs stays"
                said.append(f"{name}: {stays}; {chosen.run.name} has fewer")
        if row is None:
            missing.append(f"`{name}`")
        else:
            rows.append(row)
    lines = [f"| {' | '.join(cells)} |" for cells in (HEADINGS, _RULE, *rows)]
    not_run = f"\nNot run yet: {', '.join(missing)}.\n" if missing else ""
    table = "\n".join(lines) + "\n" + not_run
    write_text(page, f"{before}{START}\n\n{table}\n{END}{after}")
    return [*said, f"table in {shown(page)}: {len(rows)} of {len(rows) + len(missing)} experiments"]


def _cells(line: str) -> tuple[str, ...]:
    """Return the cells of a table's line, none for another line or one of another table."""
    cells = tuple(cell.strip() for cell in line.strip().strip("|").split("|"))
    return cells if line.startswith("|") and len(cells) == len(HEADINGS) else ()


def _epochs(cells: Sequence[str]) -> int:
    """Return how many epochs a line's run had."""
    match = re.match(r"\d+", cells[_EPOCHS_COLUMN])
    return int(match[0]) if match else 0


def _choose(experiment: Experiment) -> tuple[_Finished | None, list[str]]:
    """Return the run whose metrics count for an experiment, and a remark on each that is left out."""
    chosen, remarks = None, []
    for run in list_runs(experiment.name):
        if not run.finished:
            continue
        try:
            finished = _Finished(
                run,
                load_run_experiment(run),
                read_record(run.metrics, MetricsRecord),
                read_record(run.dataset, DatasetRecord),
                read_record(run.environment, EnvironmentRecord),
            )
        except UserError as error:
            remarks.append(f"{run.name}: left out; it cannot be read ({error})")
            continue
        trained = finished.experiment
        wanted = experiment.with_auto_of(trained)
        if trained.model_dump(exclude=FREE_SETTINGS) != wanted.model_dump(exclude=FREE_SETTINGS):
            remarks.append(f"{run.name}: left out; it trained another recipe than the file has now")
        elif chosen is None or finished.metrics.timing.epochs >= chosen.metrics.timing.epochs:
            chosen = finished
    return chosen, remarks


def _result(experiment: Experiment, finished: _Finished) -> tuple[tuple[str, ...], str]:
    """Return the cells of an experiment's line from what its run left behind, and a summary in words."""
    metrics, counts = finished.metrics, finished.dataset.num_images
    best, test = metrics.best, metrics.test
    planned = experiment.with_epochs_for(counts.train).training.num_epochs
    epochs = f"{metrics.timing.epochs} of {planned}"
    seconds = f"{metrics.timing.seconds_per_epoch:,.0f}"
    headline = percent(metrics.headline.val_accuracy)
    if views := metrics.test_time_views:
        headline += f" ({percent(views.val_accuracy)} with test-time views)"
    data = data_name(finished.experiment, finished.dataset).replace("|", "&#124;")  # no border of a cell
    cells = (
        f"`{experiment.name}`",
        experiment.model.name + "".join(f", {k} {v}" for k, v in experiment.model.arguments.items()),
        f"{data}, {counts.train:,} + {counts.val:,} images",
        metrics.split,
        epochs,
        headline if metrics.on_test else percent(metrics.final.val_accuracy),
        f"{percent(best.val_accuracy)} ({best.epoch})" if best else "",
        percent(test.accuracy) if test else "",
        source_cell(experiment),
        seconds,
        f"{describe_machine(finished.environment)}, {finished.experiment.training.precision}",
    )
    return cells, f"{headline} on {metrics.split}, {epochs} epochs of {seconds} s"
