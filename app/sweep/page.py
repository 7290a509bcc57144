"""`sweep.html`: everything about a sweep on one page, with pictures, written from its files alone."""

import statistics
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from app.config import Experiment
from app.config.loader import as_yaml
from app.config.sweep import SweepConfig, written
from app.paths import runs_root
from app.reports import html as page
from app.reports.cells import percent
from app.runs import Run, load_run_experiment
from app.sweep.drawings import draw_importance, draw_progress, draw_slice, draw_trial_curves
from app.sweep.finalists import FinalistsRecord, read_finalists
from app.sweep.importance import LEAST_TRIALS, importances
from app.sweep.parallel import draw_parallel
from app.sweep.trials import SweepSet, Trial, read_trials
from app.sweep.values import ranked, setting_text, value_of, value_text
from app.sweep.verdict import finalist_sentences, finalist_table
from app.sweep.winner import winner_file
from app.wording import duration

IMPORTANCE_EVERY = 5  # finished trials, while others are trained, which wait for it
REWRITTEN_SECONDS = 120  # at least, from one time to the next: a page takes some seconds


def is_due(folder: Path) -> bool:
    """Return whether the page of a running sweep was last written REWRITTEN_SECONDS ago, or never."""
    path = folder / "sweep.html"
    return not path.is_file() or abs(time.time() - path.stat().st_mtime) >= REWRITTEN_SECONDS


def write_sweep(folder: Path) -> Path:
    """Write sweep.html and its pictures into the folder of a sweep; a later call replaces them.

    Returns:
        The page.

    Raises:
        UserError: A file of the sweep is missing or damaged.
    """
    path, found = folder / "sweep.html", SweepSet.read(folder)
    page.write_page(path, f"Sweep of {found.record.experiment}", _parts(found))
    return path


def _parts(found: SweepSet) -> Iterator[str]:
    """Yield the sections of the page; pictures are drawn on the way."""
    folder, experiment = found.folder, found.experiment
    assert experiment.sweep is not None
    sweep, trials, finalists = experiment.sweep, read_trials(folder), read_finalists(folder)
    best_first = ranked(trials, sweep)
    states = Counter(trial.state for trial in trials)
    yield page.paragraph(experiment.description)
    yield page.paragraph(f"Folder {folder.name}", faint=True)
    yield page.tiles(_tiles(trials, best_first, finalists, sweep))
    yield page.paragraph(
        f"Trials: {', '.join(f'{count} {state}' for state, count in states.most_common())}. Objective: "
        f"{sweep.objective}, to {sweep.direction}. Sampler: {sweep.sampler}. Pruner: {sweep.pruner}."
    )
    if any(trial.state in ("running", "waiting") for trial in trials[: sweep.trials]):
        more = ", with a larger sweep.budget_minutes once that is spent" if sweep.budget_minutes else ""
        yield page.paragraph(f"The sweep is not finished; the command that started it goes on{more}.")

    if finalists and finalists.finished != len(best_first):
        yield page.paragraph(
            f"The finalists are those of the first {finalists.finished} finished trials; the command that "
            f"started the sweep trains those of all {len(best_first)}."
        )
    if finalists:
        yield page.heading("The best with other seeds")
        yield from map(page.paragraph, finalist_sentences(finalists, sweep))
        head, rows, numbers = finalist_table(finalists, trials, sweep)
        yield page.table(list(map(_breakable, head)), rows, numbers, one_line=True)
    if best_first:
        number = finalists.finalists[0].trial if finalists else best_first[0].number
        (winner,) = (trial for trial in trials if trial.number == number)
        yield from _winner(experiment, sweep, found.record.overrides, winner, finalists)

    if any(trial.values for trial in trials):
        yield page.heading("Pictures")
        yield from _pictures(folder, sweep, trials, best_first)
    yield page.heading("Trials")
    yield _table(trials, best_first, sweep)
    if failed := [trial for trial in trials if trial.state == "failed"]:
        yield page.heading("Failures")
        rows = [[str(trial.number), trial.reason or "", trial.run or ""] for trial in failed]
        yield page.table(("trial", "reason", "run"), rows, (0,))
    yield page.heading("What was searched")
    settings = [(_breakable(key), as_yaml(written(each))) for key, each in sweep.space.items()]
    yield page.table(("setting", "values"), settings)


def _tiles(
    trials: Sequence[Trial],
    best_first: Sequence[Trial],
    finalists: FinalistsRecord | None,
    sweep: SweepConfig,
) -> list[tuple[str, str]]:
    """Return the numbers that matter most."""
    found = []
    if best_first:
        words = f"{sweep.objective} of trial {best_first[0].number}, the best of {len(best_first)}"
        found.append((value_text(value_of(best_first[0]), sweep), words))
    if finalists and finalists.finalists[0].values:
        best = finalists.finalists[0]
        words = f"trial {best.trial} with other seeds (n = {len(best.values)})"
        found.append((value_text(best.mean, sweep), words))
        if finalists.test:
            found.append((percent(statistics.mean(finalists.test)), f"test accuracy of trial {best.trial}"))
    found.append((str(len(best_first)), "finished trials"))
    found.append((duration(sum(trial.seconds for trial in trials)), "training, all trials together"))
    return found


def _winner(
    experiment: Experiment,
    sweep: SweepConfig,
    overrides: Sequence[str],
    winner: Trial,
    finalists: FinalistsRecord | None,
) -> Iterator[str]:
    """Yield the section with the settings that were chosen."""
    yield page.heading(f"The settings of trial {winner.number}")
    if finalists is None:
        yield page.paragraph(
            "The best so far. Its value is the best of many, so with other seeds it will be worse on average."
        )
    value = value_text(value_of(winner), sweep)
    comment = f"Trial {winner.number} of the sweep {winner.run}: {sweep.objective} {value}."
    text, command = winner_file(experiment, overrides, winner.settings, comment)
    yield page.paragraph(f"As an experiment, to be saved as experiments/{experiment.name}_best.yaml:")
    yield page.code(text)
    again = [command] if command else []
    if winner.run and Run(runs_root() / winner.run).experiment.is_file():  # or it is on another machine
        again += [f"make train FROM={winner.run}"] * (command is None)
        trained = load_run_experiment(Run(runs_root() / winner.run))
        optimizer, others = trained.optimizer, trained.optimizer.others
        rates = [optimizer.learning_rate, *([others.learning_rate] if others else [])]
        schedule = " SCHEDULE=stretch" * any(hasattr(rate, "span_epochs") for rate in rates)
        if not trained.training.early_stopping:  # which may have ended it
            again.append(f"make resume RUN={winner.run} EPOCHS={2 * trained.training.num_epochs}{schedule}")
    if again:
        yield page.paragraph(
            "Trained again, and its run trained further:" if len(again) > 1 else "Trained again:"
        )
        yield page.code("\n".join(again))


def _pictures(
    folder: Path, sweep: SweepConfig, trials: Sequence[Trial], best_first: Sequence[Trial]
) -> Iterator[str]:
    """Draw the pictures and yield them."""
    shown = []
    draw_progress(folder / "progress.png", trials, sweep)
    shown.append(page.picture(folder / "progress.png", "The objective by number of the trial"))
    draw_trial_curves(folder / "curves.png", trials, sweep)
    shown.append(page.picture(folder / "curves.png", "The objective by epoch of all trials"))
    path, under_way = folder / "importance.png", any(each.state in ("running", "waiting") for each in trials)
    if not under_way or not path.is_file() or len(best_first) % IMPORTANCE_EVERY == 0:
        if found := importances(trials, sweep):
            draw_importance(path, found, len(best_first))
    if path.is_file():
        caption = (
            "How much of the variance of the objective a setting explains by itself "
            "(fANOVA, Hutter et al. 2014), as a fraction of their sum."
        )
        shown.append(page.picture(path, "Importance of each setting", caption))
    for number, key in enumerate(sweep.space):
        path = folder / f"slice-{number}.png"
        draw_slice(path, key, trials, sweep)
        shown.append(page.picture(path, f"The objective by {key}"))
    yield page.side_by_side(shown)
    if len(best_first) < LEAST_TRIALS:
        yield page.paragraph(
            f"The importance of settings is shown from {LEAST_TRIALS} finished trials on.", faint=True
        )
    if len(best_first) > 1:
        path = folder / "parallel.png"
        draw_parallel(path, trials, sweep)
        caption = "One line a finished trial, the darker the better; the best is orange."
        yield page.picture(path, "Settings and objective of all finished trials", caption)


def _table(trials: Sequence[Trial], best_first: Sequence[Trial], sweep: SweepConfig) -> str:
    """Return the table of trials, the best first, those that did not finish behind."""
    others = [trial for trial in trials if trial not in best_first]
    rows = []
    for trial in [*best_first, *others]:
        finished, last = trial.state == "finished", value_text(value_of(trial), sweep)
        epochs = f", {trial.epochs}" + (f", {last}" if last else "")
        rows.append(
            [
                str(trial.number),
                last if finished else "",
                trial.state if finished or trial.state == "waiting" else trial.state + epochs,
                *(setting_text(trial.settings[key], searched) for key, searched in sweep.space.items()),
                duration(trial.seconds),
                trial.run or "",
            ]
        )
    head = ["trial", sweep.objective, "state", *map(_breakable, sweep.space), "time", "run"]
    return page.table(head, rows, (0, 1, len(head) - 2), one_line=True)


def _breakable(key: str) -> str:
    """Return a dotted key that a narrow column may break behind its dots."""
    return key.replace(".", ".\N{ZERO WIDTH SPACE}")
