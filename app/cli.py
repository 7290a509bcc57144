"""The command line: its verbs and options, and where an error becomes a message and an exit code.

Nothing here imports TensorFlow or Keras at module level, so that help, `list` and `check` answer at once.
"""

import argparse
import errno
import gc
import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from app import run_verbs, verbs
from app.errors import Interrupted, UserError
from app.paths import shown
from app.verbs import DEFAULT_EXPERIMENT
from app.workers.team import Team


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb.

    Args:
        arguments: Command line without the program's name; the process's own by default.

    Returns:
        Exit code: 0, 2 for an error that the user can mend, 130 after ctrl-C, 143 after SIGTERM.
    """
    try:
        code = _run(_parser().parse_args(arguments))
    except Exception:
        if Team.opened:  # else the process would wait for the other workers
            traceback.print_exc()
            _ended(1)
        raise
    # An input pipeline that an error left standing must go before Python does, or TensorFlow warns of it.
    gc.collect()
    return _ended(code)


def _ended(code: int) -> int:
    """Return the exit code; one of several workers ends with it at once.

    TensorFlow would wait for pipelines in the middle of their images, and for workers that have left, up to
    half a minute.
    """
    if Team.opened:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    return code


def _run(options: argparse.Namespace) -> int:
    """Run the verb that `options` name; turn what goes wrong into a message and an exit code."""
    try:
        return options.run(options)
    except (UserError, Interrupted) as error:
        print(error, file=sys.stderr)
        return _ended(error.exit_code)
    except KeyboardInterrupt:
        print("\nstopped", file=sys.stderr)
        return 130
    except BrokenPipeError:
        sys.stderr.close()
        return 0
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS, errno.EPERM):
            raise
        where = shown(Path(error.filename)) if isinstance(error.filename, str) else "a file of the run"
        print(
            f"{where}: cannot be read or written ({error.strerror}); what was written before is intact. "
            "Free some space or make the folder writable; `make resume` then goes on from the last state",
            file=sys.stderr,
        )
        return UserError.exit_code


def _parser() -> argparse.ArgumentParser:
    """Return the parser of all verbs."""
    parser = argparse.ArgumentParser(
        prog="python -m app", description="Train convolutional networks from YAML files and see their curves."
    )
    group = parser.add_subparsers(dest="verb", required=True, metavar="VERB")

    verb = group.add_parser("train", help="train an experiment into a new run folder")
    _add_experiment(verb)
    verb.add_argument(
        "--from", dest="from_run", metavar="RUN", help="train the experiment of an earlier run again"
    )
    _add_overrides(verb)
    _add_data_dir(verb)
    verb.add_argument("--seeds", type=int, default=1, metavar="N", help="train so many runs, a seed each (1)")
    _add_workers(verb)
    verb.set_defaults(run=verbs.train)

    verb = group.add_parser("preview", help="draw augmented images and the learning rate before any training")
    _add_experiment(verb)
    _add_overrides(verb)
    _add_data_dir(verb)
    verb.set_defaults(run=verbs.preview)

    verb = group.add_parser("resume", help="go on with a run that was stopped")
    _add_run_choice(verb, "its newest unfinished run (with --epochs: its newest run)")
    verb.add_argument("--epochs", type=int, metavar="N", help="train to so many epochs in all")
    verb.add_argument(
        "--schedule", choices=("keep", "stretch"), help="with --epochs: what becomes of the learning rate"
    )
    verb.add_argument("--force", action="store_true", help="go on although data or versions have changed")
    _add_workers(verb)
    verb.set_defaults(run=verbs.resume)

    verb = group.add_parser("doctor", help="check an experiment before a long run, or why a run blew up")
    verb.add_argument("experiment", nargs="?", metavar="EXP", help="an experiment to check")
    verb.add_argument("--run", dest="run_name", metavar="RUN", help="a run whose loss was no longer finite")
    _add_overrides(verb)
    _add_data_dir(verb)
    verb.set_defaults(run=verbs.doctor)

    verb = group.add_parser(
        "prove-resume", help="train straight and with kills, and compare the two runs bit by bit"
    )
    _add_experiment(verb)
    verb.add_argument("--kills", type=int, default=5, metavar="N", help="how often to kill (5)")
    verb.add_argument("--seed", type=int, default=0, metavar="N", help="draws the instants (0)")
    _add_overrides(verb)
    verb.set_defaults(run=verbs.prove_resume)

    verb = group.add_parser("bench", help="measure how fast an experiment trains here, and against others")
    _add_experiment(verb)
    verb.add_argument("--against", default="", metavar="RIVAL ...", help="keras, torch or both, in turns")
    verb.add_argument("--rounds", type=int, default=7, metavar="N", help="how often each has a turn (7)")
    _add_overrides(verb)
    _add_data_dir(verb)
    _add_workers(verb)
    verb.set_defaults(run=verbs.bench)

    _add_run_verbs(group)

    verb = group.add_parser("check", help="check one experiment file, or all")
    verb.add_argument("experiment", nargs="?", metavar="EXP", help="a name in experiments/ (all)")
    _add_overrides(verb)
    verb.set_defaults(run=verbs.check)

    verb = group.add_parser("list", help="list the experiments and their runs")
    verb.set_defaults(run=verbs.list_all)

    verb = group.add_parser(
        "models", help="list the networks, their sizes and whether they equal the sources'"
    )
    verb.add_argument("network", nargs="?", metavar="NETWORK", help="print this one layer by layer")
    verb.set_defaults(run=verbs.models)

    verb = group.add_parser("results", help="write the README's table of results from the run folders")
    verb.set_defaults(run=verbs.results)
    return parser


def _add_run_verbs(group: Any) -> None:
    """Add the verbs that look at runs which are there already."""
    verb = group.add_parser("evaluate", help="judge a trained network by the validation or the test images")
    _add_run_choice(verb)
    _add_checkpoint(verb)
    verb.add_argument("--split", choices=("validation", "test"), default="validation", help="by which images")
    verb.add_argument(
        "--views",
        choices=("none", "flip", "flip_and_shift"),
        default="none",
        help="test-time views to average",
    )
    verb.set_defaults(run=run_verbs.evaluate)

    verb = group.add_parser("predict", help="tell the classes of any images")
    _add_run_choice(verb)
    _add_checkpoint(verb)
    verb.add_argument("--images", metavar="PATH", help="a file, a folder or a pattern (*.jpg)")
    verb.set_defaults(run=run_verbs.predict)

    verb = group.add_parser("explain", help="draw the first filters, and where the network looks (Grad-CAM)")
    _add_run_choice(verb)
    _add_checkpoint(verb)
    verb.add_argument("--images", metavar="PATH", help="a file, a folder or a pattern (validation images)")
    verb.set_defaults(run=run_verbs.explain)

    verb = group.add_parser("export", help="write a trained network in a format that other programs run")
    _add_run_choice(verb)
    _add_checkpoint(verb)
    verb.add_argument("--format", metavar="FORMAT", help="keras, saved_model, onnx or tflite")
    verb.set_defaults(run=run_verbs.export)

    verb = group.add_parser("curves", help="draw the curves again from history.csv")
    _add_run_choice(verb)
    verb.set_defaults(run=run_verbs.curves)

    verb = group.add_parser("report", help="write a run's page, report.html, again")
    _add_run_choice(verb)
    verb.set_defaults(run=run_verbs.report)

    verb = group.add_parser("compare", help="compare runs: their curves in one picture, and a page")
    verb.add_argument("--runs", default="", metavar="RUN ...", help="runs: <experiment>/<timestamp> or paths")
    verb.add_argument(
        "--exps", default="", metavar="EXP ...", help="experiments: the newest run of each, or of each seed"
    )
    verb.set_defaults(run=run_verbs.compare)


def _add_checkpoint(verb: argparse.ArgumentParser) -> None:
    """Let a verb take the weights of the best or of the last epoch."""
    verb.add_argument(
        "--checkpoint", choices=("best", "last"), help="whose weights (those of the headline figure)"
    )


def _add_experiment(verb: argparse.ArgumentParser) -> None:
    """Let a verb take an experiment, the quick start by default."""
    verb.add_argument(
        "experiment", nargs="?", metavar="EXP", help=f"a name in experiments/ ({DEFAULT_EXPERIMENT})"
    )


def _add_overrides(verb: argparse.ArgumentParser) -> None:
    """Let a verb change keys of its experiment."""
    verb.add_argument("--set", action="append", default=[], metavar="KEY=VALUE ...", help="override keys")


def _add_data_dir(verb: argparse.ArgumentParser) -> None:
    """Let a verb find the images elsewhere."""
    verb.add_argument("--data-dir", metavar="DIR", help="take the images from this folder")


def _add_workers(verb: argparse.ArgumentParser) -> None:
    """Let a verb try out several workers on one machine."""
    verb.add_argument(
        "--workers", type=int, default=1, metavar="N", help="worker processes, on this machine (1)"
    )


def _add_run_choice(verb: argparse.ArgumentParser, which: str = "its newest run") -> None:
    """Let a verb take an experiment or one of its runs."""
    verb.add_argument("experiment", nargs="?", metavar="EXP", help=f"an experiment: {which}")
    verb.add_argument(
        "--run", dest="run_name", metavar="RUN", help="a run: <experiment>/<timestamp> or its path"
    )
