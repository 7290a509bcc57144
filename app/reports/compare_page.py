"""The page of a comparison, and its table in plain text for the terminal."""

import statistics
from collections.abc import Callable, Sequence
from pathlib import Path

from app.config.arguments import l2_penalty
from app.machine import accelerators
from app.reports import html as page
from app.reports.cells import data_name, percent, seconds_text, source_cell
from app.reports.compare_chance import all_on_same_images
from app.reports.compare_groups import Group, differing_settings
from app.wording import aligned

MOST_LETTERS = 90  # of a heading that fits over the picture
# Heading, whether the cells are flush right, and the cell of a group.
_Column = tuple[str, bool, Callable[[Group], str]]


def write_comparison(
    path: Path, groups: Sequence[Group], picture: Path, found: Sequence[str], remarks: Sequence[str]
) -> None:
    """Write the page of a comparison, with sentences on chance and remarks on how these are to be read."""
    head, rows, numbers = results(groups)
    for row in rows:
        row[0] = row[0].replace(" ", "\N{NO-BREAK SPACE}")
    runs = [
        (
            trial.run.name,
            str(trial.experiment.seed),
            percent(trial.accuracy),
            f"{len(trial.rows)}{'' if trial.finished else ', unfinished'}",
        )
        for group in groups
        for trial in group.trials
    ]
    parts = [
        page.tiles(_tiles(groups)),
        page.picture(picture, f"Curves of {', '.join(group.label for group in groups)}", _caption(groups)),
        page.heading("Results"),
        page.table(head, rows, numbers),
        page.paragraph(" ".join(_notes(groups)), faint=True),
        page.heading("Settings that differ"),
        _settings(groups),
        page.heading("Is the difference significant?"),
        *map(page.paragraph, found or ["There are no two to compare."]),
        page.paragraph(" ".join(remarks), faint=True) if remarks else "",
        page.heading("Runs"),
        page.table(("run", "seed", "accuracy", "epochs"), runs, (1, 2, 3)),
    ]
    page.write_page(path, title(groups), parts)


def title(groups: Sequence[Group]) -> str:
    """Return the heading of picture and page, short enough for both."""
    names = dict.fromkeys(data_name(group.first.experiment, group.first.dataset) for group in groups)
    data = ", ".join(names)
    kind = "recipes" if any(len(group.trials) > 1 for group in groups) else "runs"
    count = f"{len(groups)} {kind} compared" if len(groups) > 1 else f"{len(groups[0].trials)} seeds"
    choices = [f"{count} on {data}", count]
    if len(groups) <= 2:
        choices.insert(0, f"{' and '.join(group.label for group in groups)} on {data}")
    return next(words for words in choices if len(words) <= MOST_LETTERS)


def plain_table(groups: Sequence[Group]) -> list[str]:
    """Return the results as lines for a terminal."""
    head, rows, numbers = results(groups)
    return aligned([row[:-1] for row in (head, *rows)], numbers)  # the network's arguments may be long


def results(groups: Sequence[Group]) -> tuple[list[str], list[list[str]], list[int]]:
    """Return the table of results.

    Returns:
        The headings, a row of texts for each group, and which columns (from 0) are flush right. A column in
        which nobody has anything is left out.
    """
    used = [column for column in _COLUMNS if any(column[2](group) for group in groups)]
    rows = [[cell(group) for _, _, cell in used] for group in groups]
    return [head for head, _, _ in used], rows, [number for number, (_, right, _) in enumerate(used) if right]


def _network(group: Group) -> str:
    model = group.first.experiment.model
    return model.name + "".join(f", {key} {value}" for key, value in model.arguments.items())


def _split(group: Group) -> str:
    return "test" if group.on_test else "validation"


def _mean(fractions: Sequence[float]) -> str:
    return percent(statistics.mean(fractions)) if fractions else ""


def _range(fractions: Sequence[float]) -> str:
    return f"{100 * min(fractions):.2f} to {100 * max(fractions):.2f}"


def _accuracy(group: Group) -> str:
    words = _mean(group.accuracies)
    state = "failed" if group.first.run.failure.is_file() else "unfinished"
    return words if group.first.finished else f"{words} ({state})".strip()


def _spread(group: Group) -> str:
    accuracies = group.accuracies
    return f"{_range(accuracies)}, n = {len(accuracies)}" if len(accuracies) > 1 else ""


def _mean_of(*keys: str) -> Callable[[Group], str]:
    """Return a column's cells: a fraction of metrics.json; of several seeds the mean and the range."""

    def cell(group: Group) -> str:
        fractions = group.metrics(*keys)
        return _mean(fractions) + (f" ({_range(fractions)})" if len(fractions) > 1 else "")

    return cell


def _epochs(group: Group) -> str:
    done = sorted({len(trial.rows) for trial in group.trials})
    words = f"{done[0]} to {done[-1]}" if len(done) > 1 else str(done[0])
    return f"{words} of {group.first.experiment.training.num_epochs}"


def _count(*keys: str) -> Callable[[Group], str]:
    """Return a column's cells: a whole number of metrics.json, the same for all seeds."""
    return lambda group: next((f"{number:,.0f}" for number in group.metrics(*keys)), "")


_COLUMNS: tuple[_Column, ...] = (
    ("run", False, lambda group: group.label),
    ("accuracy", True, _accuracy),
    ("smallest to largest", True, _spread),
    ("with test-time views", True, _mean_of("test_time_views", "val_accuracy")),
    ("test accuracy", True, _mean_of("test", "accuracy")),
    ("validated on", False, _split),
    ("epochs", True, _epochs),
    ("parameters", True, _count("parameters", "total")),
    ("MACs", True, _count("parameters", "macs")),
    ("seconds an epoch", True, lambda group: seconds_text(group.seconds)),
    ("source: last, best", False, lambda group: source_cell(group.first.experiment)),
    ("network", False, _network),
)


def _tiles(groups: Sequence[Group]) -> list[tuple[str, str]]:
    """Return what matters most: of one recipe its spread, of several who leads in what."""
    if len(groups) == 1:
        accuracies = groups[0].accuracies
        return [
            (_mean(accuracies), f"accuracy on {_split(groups[0])}, mean of {len(accuracies)} seeds"),
            (f"{_range(accuracies)} %", "smallest and largest"),
            (f"{100 * statistics.stdev(accuracies):.2f}", "standard deviation, in points"),
        ]
    found = []
    finished = [group for group in groups if group.first.finished]
    if len(finished) == len(groups) and all_on_same_images(groups):
        means = [statistics.mean(group.accuracies) for group in groups]
        best = groups[means.index(max(means))]
        leads = best.label if means.count(max(means)) == 1 else "several"
        found.append((_mean(best.accuracies), f"highest accuracy on {_split(best)}: {leads}"))
    sizes = [group.metrics("parameters", "total")[0] for group in finished]  # of all seeds the same
    if any(size != sizes[0] for size in sizes):
        least = finished[sizes.index(min(sizes))]
        leads = least.label if sizes.count(min(sizes)) == 1 else "several"
        found.append((_count("parameters", "total")(least), f"fewest parameters: {leads}"))
    timed = [group for group in groups if group.first.seconds]
    if timed and len(_processors(groups)) < 2:
        quick = min(timed, key=lambda group: group.seconds)
        found.append((f"{seconds_text(quick.seconds)} s", f"shortest epoch: {quick.label}"))
    return found


def _processors(groups: Sequence[Group]) -> set[tuple[str, ...]]:
    """Return the processors, cores, workers and accelerators that runs were trained with."""
    found = [trial.environment for group in groups for trial in group.trials]
    return {
        (each.cpu.model, str(each.cpu.count), str(each.workers), *accelerators(each.devices))
        for each in found
    }


def _caption(groups: Sequence[Group]) -> str:
    """Return how the picture is to be read."""
    words = "Bold: training. Thin and dashed: validation."
    if any(len(group.trials) > 1 for group in groups):
        words += " Several seeds: their mean, in a band from the smallest to the largest"
        uneven = any(len({len(trial.rows) for trial in group.trials}) > 1 for group in groups)
        words += ", as far as the shortest run goes." if uneven else "."
    return words


def _notes(groups: Sequence[Group]) -> list[str]:
    """Return what a reader of the table has to know."""
    notes = ["Accuracy is the best epoch's; where the test split serves for validation, the last epoch's."]
    if not all(group.first.finished for group in groups):
        notes.append("Of an unfinished run it is that of its last epoch so far.")
    if any(len(group.trials) > 1 for group in groups):
        notes.append("Of several seeds, n of them: the mean, the smallest and the largest.")
    if len(_processors(groups)) > 1:
        notes.append(
            "Trained on different processors, cores or workers: seconds an epoch are not comparable."
        )
    every = [group.first.experiment for group in groups]
    if len({(each.training.loss.softmax_before_loss, l2_penalty(each.model)) for each in every}) > 1:
        notes.append(
            "Losses are not comparable: they hold different L2 penalties (model.head_l2), or some apply "
            "softmax twice."
        )
    if not all_on_same_images(groups):
        notes.append(
            "Not all are known to be validated on the same images: "
            "their accuracies are not comparable as such."
        )
    return notes


def _settings(groups: Sequence[Group]) -> str:
    """Return the table of settings that differ."""
    if len(groups) == 1:
        seeds = ", ".join(str(trial.experiment.seed) for trial in groups[0].trials)
        return page.paragraph(f"The seed alone: {seeds}.")
    rows = differing_settings(groups)
    if not rows:
        return page.paragraph("None.")
    return page.table(("setting", *(group.label for group in groups)), [(key, *cells) for key, cells in rows])
