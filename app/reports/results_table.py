"""The README's table of results, written from run folders; no figure in it is typed by hand."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.config import Experiment, list_experiments, load_experiment
from app.errors import UserError
from app.paths import experiments_dir, project_root, shown
from app.runs import Run, list_runs, load_run_experiment, read_json, write_text

START = "<!-- make results writes from here -->"
END = "<!-- to here -->"
HEADINGS = (
    "experiment", "network", "data", "validated on", "epochs", "last epoch", "best epoch", "test",
    "source: last, best", "seconds an epoch", "machine",
)  # fmt: skip
_ALIGNMENTS = ("", "", "", "", "-:", "-:", "-:", "-:", "-:", "-:", "")
_EPOCHS_COLUMN = HEADINGS.index("epochs")
# What a run may change without training another recipe.
FREE_SETTINGS: dict[str, Any] = {
    "name": True,
    "description": True,
    "reference": True,
    "dataset": {"data_dir"},
    "training": {"epochs", "checkpoint_every_minutes", "devices"},
}
_MEASURED = re.compile(r"(# make train.*?  measured: ).*")


@dataclass(frozen=True)
class Result:
    """One line of the table, and the words for the experiment's own file."""

    cells: tuple[str, ...]
    words: str


def write_results_table() -> list[str]:
    """Write the table into README.md, and each figure into the second line of its experiment's file.

    An experiment's line comes from its finished run with the most epochs, of equal ones the newest, if it
    trained the recipe that the file has now. A line that is already there stays where no run here has as
    many epochs.

    Returns:
        What was taken and what was left out, for people.

    Raises:
        UserError: README.md has no place for the table, or an experiment has errors.
    """
    readme = project_root() / "README.md"
    before, old, after = _parts(readme)
    kept = {row[0]: row for row in map(_cells, old.splitlines()) if row and row[0].startswith("`")}
    said, rows, missing = [], [], []
    for name in list_experiments():
        row = kept.get(f"`{name}`")
        experiment = load_experiment(name)
        run, remarks = _choose(experiment)
        said += remarks
        if run is not None:
            result = _result(experiment, run)
            if row is None or _epochs(result.cells) >= _epochs(row):
                row = result.cells
                _write_measured(experiments_dir() / f"{name}.yaml", result.words)
                said.append(f"{name}: {result.words} ({run.name})")
            else:
                said.append(f"{name}: the line of {row[_EPOCHS_COLUMN]} epochs stays; {run.name} has fewer")
        if row is None:
            missing.append(f"`{name}`")
        else:
            rows.append(row)
    rule = [f"---{alignment[-1:]}" for alignment in _ALIGNMENTS]
    lines = [f"| {' | '.join(cells)} |" for cells in (HEADINGS, rule, *rows)]
    not_run = f"\nNot run yet: {', '.join(missing)}.\n" if missing else ""
    table = "\n".join(lines) + "\n" + not_run
    write_text(readme, f"{before}{START}\n\n{table}\n{END}{after}")
    return [*said, f"table in {shown(readme)}: {len(rows)} of {len(rows) + len(missing)} experiments"]


def _parts(readme: Path) -> tuple[str, str, str]:
    """Return the README's text before, between and behind the marks."""
    try:
        text = readme.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise UserError(f"{shown(readme)}: cannot be read ({error})") from error
    before, start, rest = text.partition(START)
    old, end, after = rest.partition(END)
    if not start or not end:
        raise UserError(
            f"{shown(readme)}: no place for the results; write the lines {START} and {END} where they belong"
        )
    return before, old, after


def _cells(line: str) -> tuple[str, ...]:
    """Return the cells of a table's line, none for another line or one of another table."""
    cells = tuple(cell.strip() for cell in line.strip().strip("|").split("|"))
    return cells if line.startswith("|") and len(cells) == len(HEADINGS) else ()


def _epochs(cells: Sequence[str]) -> int:
    """Return how many epochs a line's run had."""
    match = re.match(r"\d+", cells[_EPOCHS_COLUMN])
    return int(match[0]) if match else 0


def _choose(experiment: Experiment) -> tuple[Run | None, list[str]]:
    """Return the run whose figures count for an experiment, and a remark on each that does not train it."""
    chosen, most, remarks = None, 0, []
    for run in list_runs(experiment.name):
        if not run.finished:
            continue
        try:
            trained = load_run_experiment(run)
        except UserError as error:
            remarks.append(f"{run.name}: left out; its experiment cannot be read ({error})")
            continue
        wanted = experiment.with_auto_as(trained.training.precision)
        if trained.model_dump(exclude=FREE_SETTINGS) != wanted.model_dump(exclude=FREE_SETTINGS):
            remarks.append(f"{run.name}: left out; it trained another recipe than the file has now")
        elif (epochs := read_json(run.metrics)["timing"]["epochs"]) >= most:
            chosen, most = run, epochs
    return chosen, remarks


def _result(experiment: Experiment, run: Run) -> Result:
    """Return an experiment's line, from what its run left behind."""
    metrics, dataset = read_json(run.metrics), read_json(run.dataset)
    last, best, test = metrics["final"], metrics["best"], metrics["test"]
    on_test = metrics["headline"]["which"] == "last epoch"
    counts = dataset["num_images"]
    epochs = f"{metrics['timing']['epochs']} of {experiment.training.epochs}"
    seconds = f"{metrics['timing']['seconds_per_epoch']:,.0f}"
    headline = percent(metrics["headline"]["val_accuracy"])
    if views := metrics.get("test_time_views"):
        headline += f" ({percent(views['val_accuracy'])} with test-time views)"
    cells = (
        f"`{experiment.name}`",
        experiment.model.name + "".join(f", {k} {v}" for k, v in experiment.model.arguments.items()),
        f"{data_name(dataset)}, {counts['train']:,} + {counts['val']:,} images",
        "test" if on_test else "validation",
        epochs,
        headline if on_test else percent(last["val_accuracy"]),
        f"{percent(best['val_accuracy'])} ({best['epoch']})" if best else "",
        percent(test["accuracy"]) if test else "",
        source_cell(experiment),
        seconds,
        _machine(read_json(run.environment), load_run_experiment(run)),
    )
    split = "test" if on_test else "validation"
    return Result(cells, f"{headline} on {split}, {epochs} epochs of {seconds} s")


def percent(share: float | None) -> str:
    """Return a share in percent; nothing for none."""
    return "" if share is None else f"{100 * share:.2f} %"


def data_name(dataset: dict) -> str:
    """Return the data's name, with the kind of files where they are not the published arrays."""
    kind = re.search(r"\((?:\d+ )?(\.\w+) files\)", dataset["source"])
    folder = re.search(r"class folders in (\S+)", dataset["source"])
    name = Path(folder[1]).name if folder and dataset["name"] == "image_folder" else dataset["name"]
    return f"{name} as {kind[1]}" if kind else name


def source_figures(experiment: Experiment) -> str:
    """Return the source's last and best accuracy, as far as it gives them."""
    reference = experiment.reference
    if reference is None:
        return ""
    last = reference.last_val_accuracy or reference.val_accuracy
    best, epoch = reference.best_val_accuracy, reference.best_epoch
    words = [percent(last), percent(best) + (f" ({epoch})" if best and epoch else "")]
    return ", ".join(word for word in words if word)


def source_cell(experiment: Experiment) -> str:
    """Return the source's figures for a table, which has no room for the data that they were reached on."""
    figures, reference = source_figures(experiment), experiment.reference
    return f"{figures} on other data" if figures and reference and reference.data else figures


def _machine(environment: dict, experiment: Experiment) -> str:
    """Return processor, accelerators, backend and precision in a few words."""
    cpu = environment["cpu"]
    model = re.sub(r"\((?:R|TM)\)|@.*| CPU| Processor", "", cpu["model"]).strip()
    accelerators = [device for device in environment["devices"] if device.upper() != "CPU"]
    backend = environment["backend"]
    version = environment["versions"].get(backend, "")
    workers = environment.get("workers", 1)
    together = [f"{workers} workers"] if workers > 1 else []
    processor, precision = f"{cpu['count']} x {model}", experiment.training.precision
    return ", ".join([processor, *accelerators, *together, f"{backend} {version}", precision])


def _write_measured(path: Path, words: str) -> None:
    """Put `words` behind `measured:` in the second line of an experiment's file, if it has that."""
    lines = path.read_text(encoding="utf-8").split("\n")
    if len(lines) > 1 and (match := _MEASURED.fullmatch(lines[1])):
        text = "\n".join([lines[0], match[1] + words, *lines[2:]])
        if lines[1] != match[1] + words:
            write_text(path, text)
