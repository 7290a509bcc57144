"""The commands that work on runs which are there already.

Nothing here imports TensorFlow or Keras at module level, so that the quick commands answer at once.
"""

import itertools
import os
import sys
from typing import Annotated, Literal

from app.commands.options import Checkpoint, Option, Owner, RunName, chosen_run, command, run_of, shell_words
from app.data.chosen import find_images
from app.drawing.curves import draw_curves
from app.errors import UserError
from app.paths import shown
from app.process import unheard
from app.reading import read_history, read_record
from app.records import EnvironmentRecord, MetricsRecord
from app.reports.compare import compare as compare_runs
from app.reports.compare import newest_seeds
from app.runs import Run, find_run, load_finished, load_run_experiment
from app.wording import unknown_name

Unsure = Annotated[
    float | None, Option("call predictions below this probability unsure (the run's own)", "PROBABILITY")
]
FORMAT_NAMES = ("keras", "saved_model", "onnx", "tflite")
QUOTES = "put a name with spaces into a pair of quotes"


@command
@unheard()
def evaluate(
    exp: Owner = None,
    run: RunName = None,
    checkpoint: Checkpoint = None,
    split: Annotated[Literal["validation", "test"], Option("on which images")] = "validation",
    views: Annotated[
        Literal["none", "flip", "flip_and_shift"], Option("test-time augmentation: views to average")
    ] = "none",
    views_below: Annotated[
        float | None, Option("with --views: only of images whose largest probability is below P", "P")
    ] = None,
) -> None:
    """Evaluate a trained network on the validation or the test images."""
    if views_below is not None and views == "none":
        raise UserError(f"VIEWS_BELOW={views_below:g}: says which images get VIEWS=flip or flip_and_shift")
    if views_below is not None and not 0 < views_below <= 1:
        raise UserError(f"VIEWS_BELOW={views_below:g}: must be a probability above 0 and at most 1")
    chosen = _trained_run("evaluate", exp, run)
    from app.inference.evaluate import evaluate  # brings up the backend, which takes seconds

    evaluate(chosen, split, checkpoint, views, sys.stdout, views_below)


@command
@unheard()
def predict(
    exp: Owner = None,
    run: RunName = None,
    checkpoint: Checkpoint = None,
    images: Annotated[str | None, Option("a file, a folder or a pattern (*.jpg)", "PATH")] = None,
    unsure: Unsure = None,
    sort_into: Annotated[str | None, Option("copy images into this folder, by class", "DIR")] = None,
) -> None:
    """Predict the classes of images."""
    _check_probability(unsure)
    if not images:
        raise UserError('predict: name the images: IMAGES=photo.jpg, a folder, or a pattern such as "*.jpg"')
    chosen = _trained_run("predict", exp, run, images)
    from app.inference.predict import predict  # brings up the backend, which takes seconds

    predict(chosen, images, checkpoint, sys.stdout, unsure, sort_into)


@command
@unheard()
def explain(
    exp: Owner = None,
    run: RunName = None,
    checkpoint: Checkpoint = None,
    images: Annotated[str | None, Option("a file, a folder or a pattern (validation images)", "PATH")] = None,
) -> None:
    """Draw the filters of the first layer and the Grad-CAM of images."""
    chosen = _trained_run("explain", exp, run, images)
    from app.inference.explain import explain  # brings up the backend, which takes seconds

    explain(chosen, images, checkpoint, sys.stdout)


@command
@unheard()
def export(
    exp: Owner = None,
    run: RunName = None,
    checkpoint: Checkpoint = None,
    format: Annotated[str | None, Option("keras, saved_model, onnx or tflite", "FORMAT")] = None,
    unsure: Unsure = None,
) -> None:
    """Write a trained network in a format that other programs run."""
    _check_probability(unsure)
    if not format:
        raise UserError("export: name a format: FORMAT=keras, saved_model, onnx or tflite")
    if format not in FORMAT_NAMES:
        raise UserError(f"FORMAT={format}: {unknown_name('format', format, FORMAT_NAMES)}")
    chosen = _trained_run("export", exp, run)
    from app.inference.export import export  # brings up the backend, which takes seconds

    export(chosen, format, checkpoint, sys.stdout, unsure)


@command
def curves(exp: Owner = None, run: RunName = None) -> None:
    """Draw the curves again from history.csv."""
    chosen = chosen_run("curves", exp, run)
    experiment = load_run_experiment(chosen)
    rows = read_history(chosen.history)
    if chosen.finished:
        resumed = read_record(chosen.metrics, MetricsRecord).timing.resumed_epochs
    else:
        resumes = read_record(chosen.environment, EnvironmentRecord).resumes
        # One after the last epoch is recorded in the next, which there is not.
        last = min(len(rows) + 1, experiment.training.num_epochs)
        resumed = [each.epoch for each in resumes if each.epoch <= last]
    draw_curves(chosen, experiment, rows, resumed)
    print(f"curves {shown(chosen.curves)}")


@command
def report(exp: Owner = None, run: RunName = None) -> None:
    """Write a run's page, report.html, again."""
    chosen = chosen_run("report", exp, run)
    from app.reports.report import write_report  # reads the images, which takes scikit-learn or seconds

    print(f"report {shown(write_report(chosen))}")


@command
def compare(
    runs: Annotated[str, Option("runs: <experiment>/<timestamp> or paths", "RUN ...")] = "",
    exps: Annotated[str, Option("experiments: the newest run of each, or of each seed", "EXP ...")] = "",
) -> None:
    """Compare runs: their curves in one picture, and a page."""
    names = shell_words("RUNS=", runs, QUOTES)
    try:
        chosen = [find_run(name, "RUNS=") for name in names]
    except UserError as error:
        parts = itertools.combinations(range(len(names) + 1), 2)
        if any(end - start > 1 and os.path.isdir(" ".join(names[start:end])) for start, end in parts):
            example = "RUNS=\"'my runs/a/latest' b/latest\""
            raise UserError(f"{error}; quotes keep a path with spaces together: {example}") from error
        raise
    for name in shell_words("EXPS=", exps, QUOTES):
        run_of(name)
        chosen += newest_seeds(name, sys.stdout)
    for line in compare_runs(chosen):
        print(line)


def _check_probability(unsure: float | None) -> None:
    """Raise where UNSURE is no probability."""
    if unsure is not None and not 0.0 <= unsure <= 1.0:  # true, too, where it is no number
        raise UserError(f"UNSURE={unsure:g}: must be a probability, from 0 to 1; for 80 % write UNSURE=0.8")


def _trained_run(asking: str, exp: str | None, run: str | None, images: str | None = None) -> Run:
    """Return a run whose network is to be used; what is wrong with its files or IMAGES is found at once."""
    chosen = chosen_run(asking, exp, run)
    if images is not None:
        find_images(images)
    load_finished(chosen)
    if asking != "evaluate" and not os.access(chosen.path, os.W_OK):  # which prints what it found
        raise UserError(
            f"{shown(chosen.path)}: cannot be written, but {asking} writes there. Copy the run into a "
            "folder of yours, and name the copy by its path: RUN="
        )
    return chosen
