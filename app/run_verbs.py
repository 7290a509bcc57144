"""The verbs that look at runs which are there already: from their parsed options to an exit code.

Nothing here imports TensorFlow or Keras at module level, so that the quick verbs answer at once.
"""

import argparse
import sys
from collections.abc import Callable

from app.config import load_experiment
from app.config.wording import unknown_name
from app.data.chosen import find_images
from app.errors import UserError
from app.paths import shown
from app.reports.compare import compare as compare_runs
from app.reports.compare import newest_seeds
from app.reports.plots import draw_history
from app.runs import Run, find_run, list_runs, load_run_experiment, newest_run, read_history, read_json

FORMAT_NAMES = ("keras", "saved_model", "onnx", "tflite")


def newest(experiment_name: str) -> Run:
    """Return an experiment's newest finished run, or its newest where none is finished."""
    runs = list_runs(experiment_name)
    return newest_run(experiment_name, finished=any(run.finished for run in runs) or not runs)


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


def curves(options: argparse.Namespace) -> int:
    """Draw the curves of a run again."""
    run = chosen_run(options)
    experiment = load_run_experiment(run)
    resumed = read_json(run.metrics)["timing"]["resumed_epochs"] if run.finished else []
    draw_history(run, experiment, read_history(run.history), resumed)
    print(f"curves {shown(run.curves)}")
    return 0


def compare(options: argparse.Namespace) -> int:
    """Compare several runs: a picture and a page."""
    chosen = [find_run(name) for name in options.runs.split()]
    for name in options.exps.split():
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
    run = chosen_run(options)
    from app.trained.evaluation import evaluate  # brings up the backend, which takes seconds

    evaluate(run, options.split, options.checkpoint, options.views, sys.stdout)
    return 0


def predict(options: argparse.Namespace) -> int:
    """Tell the classes of any images."""
    if not options.images:
        raise UserError('predict: name the images: IMAGES=photo.jpg, a folder, or a pattern such as "*.jpg"')
    run = chosen_run(options)
    find_images(options.images)
    from app.trained.prediction import predict  # brings up the backend, which takes seconds

    predict(run, options.images, options.checkpoint, sys.stdout)
    return 0


def explain(options: argparse.Namespace) -> int:
    """Draw the filters of the first layer, and where the network looks in some images."""
    if options.images is not None:
        run = chosen_run(options)
    find_images(options.images)
    from app.trained.explanation import explain  # brings up the backend, which takes seconds

    explain(run, options.images, options.checkpoint, sys.stdout)
    return 0


def export(options: argparse.Namespace) -> int:
    """Write a trained network in a format that other programs run."""
    if not options.format:
        raise UserError("export: name a format: FORMAT=keras, saved_model, onnx or tflite")
    if options.format not in FORMAT_NAMES:
        raise UserError(f"FORMAT={options.format}: {unknown_name('format', options.format, FORMAT_NAMES)}")
    run = chosen_run(options)
    from app.trained.export import export  # brings up the backend, which takes seconds

    export(run, options.format, options.checkpoint, sys.stdout)
    return 0
