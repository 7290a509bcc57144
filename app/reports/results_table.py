"""The tables of results, written from run folders; nothing in them is typed by hand."""

import re
import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path

from app.config import Experiment, list_experiments, load_experiment
from app.errors import UserError
from app.evaluation.records import evaluations_on_test
from app.files import split_at_marks, write_text
from app.machine import describe_machine
from app.paths import experiments_dir, project_root, shown
from app.reports.cells import FREE_SETTINGS, data_name, percent, seconds_text, source_cell
from app.reports.compare_groups import Trial, finished_trials
from app.runs import detour

START = "<!-- make results writes from here -->"
END = "<!-- to here -->"
HEADINGS = (
    "experiment", "network", "data", "validated on", "epochs", "seeds", "last epoch", "best epoch", "test",
    "source: last, best", "seconds an epoch", "machine",
)  # fmt: skip
_RULE = ("---",) * 4 + ("---:",) * 7 + ("---",)
# The table of models/README.md: whole trainings on all training images, by network.
NETWORK_HEADINGS = ("network", "experiment", "data", "validated on", "epochs", "seeds", "last epoch", "test")


_FREE = FREE_SETTINGS | {"seed": True}
_KIND = ("images", "number format", "machine", "starting weights")
_Cells = dict[str, str]


def write_results_table() -> list[str]:
    """Write the tables into experiments/README.md, and into models/README.md where there is one.

    An experiment's line comes from its finished runs of the recipe that the file has now, the newest of each
    seed: those of all its epochs, or else of the most. A line that is already there, of another machine
    perhaps, stays where it has more of these epochs.

    Returns:
        What was taken and what was left out, for people.

    Raises:
        UserError: A page has no place for its table, or an experiment has errors.
    """
    page, networks_page = experiments_dir() / "README.md", project_root() / "models" / "README.md"
    before, old, after = _split(page)
    networks = _split(networks_page) if networks_page.is_file() else None
    kept = {row["experiment"]: row for row in map(_cells, old.splitlines()) if row}
    said, rows, whole, missing = [], [], [], []
    for name in list_experiments():
        row = kept.get(f"`{name}`")
        experiment = load_experiment(name)
        chosen, remarks = _choose(experiment)
        said += remarks
        if chosen:
            new, words = _result(experiment, chosen)
            runs = ", ".join(each.run.name for each in chosen)
            (trained, planned), (known, planned_then) = _epochs(new), _epochs(row) if row else (0, 0)
            longer = (known == planned, known) > (trained == planned, trained)
            if row and longer and planned_then == planned:
                said.append(f"{name}: the line of {row['epochs']} epochs stays; {runs}: {trained}")
            else:
                row = new
                said.append(f"{name}: {words} ({runs})")
        elif row and remarks:
            said.append(f"{name}: the line of {row['epochs']} epochs stays; no finished run here counts")
        if row is None:
            missing.append(f"`{name}`")
        else:
            rows.append(row)
            if len(set(_epochs(row))) == 1 and experiment.dataset.train_share is None:
                whole.append(row)
    not_run = f"\nNot run as they are: {', '.join(missing)}.\n" if missing else ""
    table = _table(HEADINGS, _RULE, rows)
    write_text(page, f"{before}{START}\n\n{table}{not_run}\n{END}{after}")
    if networks:
        rule = ("---",) * 4 + ("---:",) * 4
        table = _table(NETWORK_HEADINGS, rule, sorted(whole, key=lambda row: row["network"]))
        write_text(networks_page, f"{networks[0]}{START}\n\n{table}\n{END}{networks[2]}")
    return [*said, f"table in {shown(page)}: {len(rows)} of {len(rows) + len(missing)} experiments"]


def _split(page: Path) -> tuple[str, str, str]:
    """Return what a page holds before, in and after its table."""
    try:
        text = page.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise UserError(f"{shown(page)}: cannot be read ({error})") from error
    return split_at_marks(text, START, END, f"{shown(page)}: no place for the results")


def _table(headings: Sequence[str], rule: Sequence[str], rows: Sequence[_Cells]) -> str:
    lines = (headings, rule, *([row[heading] for heading in headings] for row in rows))
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def _cells(line: str) -> _Cells | None:
    """Return the cells of a table's line, None for another line or one of another table."""
    cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
    is_row = line.startswith("| `") and len(cells) == len(HEADINGS)
    return dict(zip(HEADINGS, cells, strict=True)) if is_row else None


def _epochs(row: _Cells) -> tuple[int, int]:
    """Return how many epochs a line's runs were to be trained, and how many the recipe has."""
    match = re.fullmatch(r"(?:\d+ to )?(\d+) of (\d+)", row["epochs"].partition(",")[0])
    return (int(match[1]), int(match[2])) if match else (0, 0)


def _planned(trial: Trial) -> int:
    """Return the epochs of a run's training, which may have stopped early."""
    return trial.experiment.training.num_epochs


def _kind(trial: Trial) -> tuple[str | None, ...]:
    """Return what must be equal in runs of which means are taken, as `_KIND` names it."""
    machine, precision = describe_machine(trial.environment), trial.experiment.training.precision
    return trial.dataset.fingerprint, precision, machine, trial.starting_weights


def _choose(experiment: Experiment) -> tuple[list[Trial], list[str]]:
    """Return the runs whose metrics count for an experiment, and a remark on each that is left out.

    They have the data, number format, machine and starting weights of the newest of them, and as many epochs.
    """
    finished, remarks = finished_trials(experiment.name)
    found = []
    for each in finished:
        run, trained = each.run, each.experiment
        wanted = experiment.with_auto_of(trained)
        latest = (wanted.model.weights or "").endswith("/latest")  # any run of that experiment
        free = _FREE | ({"model": {"weights"}} if latest else {})
        starts = {Path(one.model.weights or "").parent.name for one in (trained, wanted) if latest}
        if why := detour(run, trained):
            remarks.append(f"{run.name}: left out; {why}")
        elif len(starts) > 1 or not trained.agrees_with(wanted, free):
            remarks.append(f"{run.name}: left out; it trained another recipe than the file has now")
        else:
            found.append(each)
    if not found:
        return [], remarks
    planned = experiment.with_epochs_for(found[-1].dataset.num_images.train).training.num_epochs
    most = max(map(_planned, found), key=lambda epochs: (epochs == planned, epochs))
    longest = [each for each in found if _planned(each) == most]
    alike = [each for each in longest if _kind(each) == _kind(longest[-1])]
    newest = {each.experiment.seed: each for each in alike}
    chosen = sorted(newest.values(), key=alike.index)  # the newest is to be the last
    for each in found:
        if each not in chosen:
            pairs = zip(_KIND, _kind(each), _kind(longest[-1]), strict=True)
            others = " and ".join(name for name, its, theirs in pairs if its != theirs)
            why = f"other {others}" if others else "other epochs, or the same seed"
            remarks.append(f"{each.run.name}: left out; {why}, beside {chosen[-1].run.name}")
    return chosen, remarks


def _result(experiment: Experiment, chosen: Sequence[Trial]) -> tuple[_Cells, str]:
    """Return the cells of an experiment's line from what its runs left behind, and a summary in words."""
    newest = chosen[-1]
    metrics, counts = [each.metrics for each in chosen if each.metrics], newest.dataset.num_images
    planned = experiment.with_epochs_for(counts.train).training.num_epochs
    trained = sorted({each.timing.epochs for each in metrics})
    stopped = f", stopped after {' to '.join(map(str, {trained[0]: 0, trained[-1]: 0}))}"
    epochs = f"{_planned(newest)} of {planned}{stopped if trained != [_planned(newest)] else ''}"
    split = metrics[-1].split
    seconds = seconds_text(statistics.median(each.timing.seconds_per_epoch for each in metrics))
    last = _mean(each.final.val_accuracy for each in metrics)
    headline = _mean(each.headline.val_accuracy for each in metrics)
    best = _mean(each.best.val_accuracy for each in metrics if each.best)
    if len(chosen) == 1 and metrics[0].best:
        best += f" ({metrics[0].best.epoch})"
    test = _mean(each.test.accuracy for each in metrics if each.test)
    found = [each.test_time_views for each in metrics if each.test_time_views]
    if len(found) == len(metrics):
        headline += f" ({_mean(each.val_accuracy for each in found)} with test-time views)"
        of_test = [each.test_accuracy for each in found if each.test_accuracy is not None]
        test += f" ({_mean(of_test)} with test-time views)" if of_test else ""
    evaluations = max(len(evaluations_on_test(each.run)) for each in chosen)
    test += f", evaluated {evaluations} times" if evaluations > 1 else ""
    data = data_name(newest.experiment, newest.dataset).replace("|", "&#124;")  # no border of a cell
    row = (
        f"`{experiment.name}`",
        experiment.model.name + "".join(f", {k} {v}" for k, v in experiment.model.arguments.items()),
        f"{data}, {counts.train:,} + {counts.val:,} images",
        split,
        epochs,
        f"{len(chosen)}",
        headline if metrics[-1].on_test else last,
        best,
        test,
        source_cell(experiment).replace("|", "&#124;"),
        seconds,
        f"{describe_machine(newest.environment)}, {newest.experiment.training.precision}",
    )
    words = f"{headline} on {split}, {epochs} epochs of {seconds} s"
    return dict(zip(HEADINGS, row, strict=True)), words


def _mean(fractions: Iterable[float]) -> str:
    """Return fractions in percent, several as mean and standard deviation; nothing for none."""
    values = list(fractions)
    if len(values) < 2:
        return percent(values[0]) if values else ""
    return f"{100 * statistics.mean(values):.2f} ± {100 * statistics.stdev(values):.2f} %"
