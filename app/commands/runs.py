"""The verbs that look at runs which are there already: from their parsed options to an exit code.

Nothing here imports TensorFlow or Keras at module level, so that the quick verbs answer at once.
"""

import argparse
import itertools
import os
import shlex
import sys
from collections.abc import Callable

from app.config import load_experiment
from app.data.chosen import find_images
from app.drawing.curves import draw_history
from app.errors import UserError
from app.paths import shown
from app.reading import read_history, read_record
from app.records import MetricsRecord
from app.reports.compare import compare as compare_runs
from app.reports.compare import newest_seeds
from app.runs import Run, find_run, list_runs, load_finished, load_run_experiment, newest
from app.wording import unknown_name

FORMAT_NAMES = ("keras", "saved_model", "onnx", "tflite")


def chosen_run(options: argparse.Namespace, pick: Callable[[str], Run] = newest) -> Run:
    """Return the run that EXP or RUN names; of an experiment the one that `pick` picks."""
    if bool(options.run_name) == bool(options.experiment):
        raise UserError(
            f"{options.verb}: name an experiment (EXP=) or one of its runs (RUN=), one of the two"
        )
    return find_run(options.run_name) if options.run_name else _of(options.experiment, pick)


def _of(name: str, pick: Callable[[str], Run]) -> Run:
    """Return an experiment's run by `pick`; an unknown name is answered with the nearest one."""
    if not list_runs(name):
        load_experiment(name)
    return pick(name)


def _trained_run(options: argparse.Namespace) -> Run:
    """Return a run whose network is to be used; what is wrong with its files or IMAGES is found at once."""
    run = chosen_run(options)
    if getattr(options, "images", None) is not None:
        find_images(options.images)
    load_finished(run)
    return run


def curves(options: argparse.Namespace) -> int:
    """Draw the curves of a run again."""
    run = chosen_run(options)
    experiment = load_run_experiment(run)
    resumed = read_record(run.metrics, MetricsRecord).timing.resumed_epochs if run.finished else []
    draw_history(run, experiment, read_history(run.history), resumed)
    print(f"curves {shown(run.curves)}")
    return 0


def _names(variable: str, text: str) -> list[str]:
    """Return the names in a text, split as a shell would, so that one with spaces can be quoted."""
    try:
        return shlex.split(text)
    except ValueError as error:
        raise UserError(
            f"{variable}={text}: {error}; put a name with spaces into a pair of quotes"
        ) from error


def compare(options: argparse.Namespace) -> int:
    """Compare several runs: a picture and a page."""
    names = _names("RUNS", options.runs)
    try:
        chosen = [find_run(name) for name in names]
    except UserError as error:
        parts = itertools.combinations(range(len(names) + 1), 2)
        if any(end - start > 1 and os.path.isdir(" ".join(names[start:end])) for start, end in parts):
            example = "RUNS=\"'my runs/a/latest' b/latest\""
            raise UserError(f"{error}; quotes keep a path with spaces together: {example}") from error
        raise
    for name in _names("EXPS", options.exps):
        _of(name, newest)
        chosen += newest_seeds(name)
    for line in compare_runs(chosen):
        print(line)
    return 0


def report(options: argparse.Namespace) -> int:
    """Write a run's page again."""
    run = chosen_run(options)
    from app.reports.report import write_report  # reads the images, which takes scikit-learn or seconds

    print(f"report {shown(write_report(run))}")
    return 0


def evaluate(options: argparse.Namespace) -> int:
    """Judge a trained network by the validation or the test images."""
    run = _trained_run(options)
    from app.inference.evaluate import evaluate  # brings up the backend, which takes seconds

    evaluate(run, options.split, options.checkpoint, options.views, sys.stdout)
    return 0


def predict(options: argparse.Namespace) -> int:
    """Tell the classes of any images."""
    if not options.images:
        raise UserError('predict: name the images: IMAGES=photo.jpg, a folder, or a pattern such as "*.jpg"')
    run = _trained_run(options)
    from app.inference.predict import predict  # brings up the backend, which takes seconds

    predict(run, options.images, options.checkpoint, sys.stdout)
    return 0


def explain(options: argparse.Namespace) -> int:
    """Draw the filters of the first layer, and where the network looks in some images."""
    run = _trained_run(options)
    from app.inference.explain import explain  # brings up the backend, which takes seconds

    explain(run, options.images, options.checkpoint, sys.stdout)
    return 0


def export(options: argparse.Namespace) -> int:
    """Write a trained network in a format that other programs run."""
    if not options.format:
        raise UserError("export: name a format: FORMAT=keras, saved_model, onnx or tflite")
    if options.format not in FORMAT_NAMES:
        raise UserError(f"FORMAT={options.format}: {unknown_name('format', options.format, FORMAT_NAMES)}")
    run = _trained_run(options)
    from app.inference.export import export  # brings up the backend, which takes seconds

    export(run, options.format, options.checkpoint, sys.stdout)
    return 0
