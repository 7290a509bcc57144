"""The command line: verbs, and the one place that turns an error into a message and an exit code.

Nothing here imports TensorFlow or Keras at module level, so that help, `list` and `check` answer at once.
"""

import argparse
import errno
import gc
import json
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from app.config import list_experiments, load_experiment
from app.errors import Interrupted, UserError
from app.paths import shown
from app.reports.compare import draw_comparison
from app.reports.plots import draw_history
from app.reports.results_table import write_results_table
from app.runs import Run, find_run, list_runs, load_run_experiment, newest_run, read_history, read_json

DEFAULT_EXPERIMENT = "quickstart"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb.

    Args:
        arguments: Command line without the program's name; the process's own by default.

    Returns:
        Exit code: 0, 2 for an error that the user can mend, 130 after ctrl-C, 143 after SIGTERM.
    """
    code = _run(_parser().parse_args(arguments))
    # An input pipeline that an error left standing must go before Python does, or TensorFlow warns of it.
    gc.collect()
    return code


def _run(options: argparse.Namespace) -> int:
    """Run the verb that `options` name; turn what goes wrong into a message and an exit code."""
    try:
        return options.run(options)
    except (UserError, Interrupted) as error:
        print(error, file=sys.stderr)
        return error.exit_code
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
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")

    verb = verbs.add_parser("train", help="train an experiment into a new run folder")
    verb.add_argument(
        "experiment", nargs="?", metavar="EXP", help=f"a name in experiments/ ({DEFAULT_EXPERIMENT})"
    )
    verb.add_argument(
        "--from", dest="from_run", metavar="RUN", help="train the experiment of an earlier run again"
    )
    verb.add_argument("--set", action="append", default=[], metavar="KEY=VALUE ...", help="override keys")
    verb.add_argument("--data-dir", metavar="DIR", help="take the images from this folder")
    verb.set_defaults(run=_train)

    verb = verbs.add_parser("resume", help="go on with a run that was stopped")
    _add_run_choice(verb, "its newest unfinished run (with --epochs: its newest run)")
    verb.add_argument("--epochs", type=int, metavar="N", help="train to so many epochs in all")
    verb.add_argument(
        "--schedule", choices=("keep", "stretch"), help="with --epochs: what becomes of the learning rate"
    )
    verb.add_argument("--force", action="store_true", help="go on although data or versions have changed")
    verb.set_defaults(run=_resume)

    verb = verbs.add_parser(
        "prove-resume", help="train straight and with kills, and compare the two runs bit by bit"
    )
    verb.add_argument(
        "experiment", nargs="?", metavar="EXP", help=f"a name in experiments/ ({DEFAULT_EXPERIMENT})"
    )
    verb.add_argument("--kills", type=int, default=5, metavar="N", help="how often to kill (5)")
    verb.add_argument("--seed", type=int, default=0, metavar="N", help="draws the instants (0)")
    verb.add_argument("--set", action="append", default=[], metavar="KEY=VALUE ...", help="override keys")
    verb.set_defaults(run=_prove_resume)

    verb = verbs.add_parser("curves", help="draw the curves again from history.csv")
    _add_run_choice(verb, "its newest run")
    verb.set_defaults(run=_curves)

    verb = verbs.add_parser("compare", help="draw the curves of several runs over each other")
    verb.add_argument("--runs", default="", metavar="RUN ...", help="runs: <experiment>/<timestamp> or paths")
    verb.add_argument("--exps", default="", metavar="EXP ...", help="experiments: the newest run of each")
    verb.set_defaults(run=_compare)

    verb = verbs.add_parser("check", help="check one experiment file, or all")
    verb.add_argument("experiment", nargs="?", metavar="EXP", help="a name in experiments/ (all)")
    verb.add_argument("--set", action="append", default=[], metavar="KEY=VALUE ...", help="override keys")
    verb.set_defaults(run=_check)

    verb = verbs.add_parser("list", help="list the experiments and their runs")
    verb.set_defaults(run=_list)

    verb = verbs.add_parser(
        "models", help="list the networks, their sizes and whether they equal the sources'"
    )
    verb.add_argument("network", nargs="?", metavar="NETWORK", help="print this one layer by layer")
    verb.set_defaults(run=_models)

    verb = verbs.add_parser("results", help="write the README's table of results from the run folders")
    verb.set_defaults(run=_results)
    return parser


def _add_run_choice(verb: argparse.ArgumentParser, which: str) -> None:
    """Let a verb take an experiment or one of its runs."""
    verb.add_argument("experiment", nargs="?", metavar="EXP", help=f"an experiment: {which}")
    verb.add_argument(
        "--run", dest="run_name", metavar="RUN", help="a run: <experiment>/<timestamp> or its path"
    )


def _overrides(options: argparse.Namespace) -> list[str]:
    """Return the KEY=VALUE pairs of all --set options, split as a shell would."""
    pairs: list[str] = []
    for text in options.set:
        try:
            pairs += shlex.split(text)
        except ValueError as error:
            raise UserError(
                f"--set {text}: {error}; write KEY=VALUE pairs with spaces between them"
            ) from error
    return pairs


def _train(options: argparse.Namespace) -> int:
    overrides = _overrides(options)
    if options.data_dir:
        folder = Path(options.data_dir).expanduser().resolve()
        overrides.append(f"dataset.data_dir={json.dumps(str(folder))}")
    if options.from_run and options.experiment:
        raise UserError("train: received both EXP and FROM; EXP trains a file, FROM the experiment of a run")
    if options.from_run:
        run = find_run(options.from_run)
        experiment = load_run_experiment(run, overrides)
    else:
        experiment = load_experiment(options.experiment or DEFAULT_EXPERIMENT, overrides)
    from app.training.runner import train  # brings up the backend, which takes seconds

    train(experiment, overrides=None if options.from_run else overrides)
    return 0


def _resume(options: argparse.Namespace) -> int:
    run = _chosen_run(options, _newest if options.epochs else lambda name: newest_run(name, finished=False))
    from app.training.runner import resume  # brings up the backend, which takes seconds

    resume(run, epochs=options.epochs, schedule=options.schedule, force=options.force)
    return 0


def _prove_resume(options: argparse.Namespace) -> int:
    if options.kills < 1:
        raise UserError(f"prove-resume: KILLS={options.kills}; kill once at least")
    from app.prove import prove_resume

    name = options.experiment or DEFAULT_EXPERIMENT
    return 0 if prove_resume(name, _overrides(options), options.kills, options.seed, sys.stdout) else 1


def _curves(options: argparse.Namespace) -> int:
    run = _chosen_run(options, _newest)
    experiment = load_run_experiment(run)
    resumed = read_json(run.metrics)["timing"]["resumed_epochs"] if run.finished else []
    draw_history(run, experiment, read_history(run.history), resumed)
    print(f"curves {shown(run.curves)}")
    return 0


def _compare(options: argparse.Namespace) -> int:
    chosen = [find_run(name) for name in options.runs.split()]
    for name in options.exps.split():
        if not list_runs(name):
            load_experiment(name)  # an unknown name is answered with the nearest one
        chosen.append(_newest(name))
    print(f"curves {shown(draw_comparison(chosen))}")
    return 0


def _newest(experiment_name: str) -> Run:
    """Return an experiment's newest finished run, or its newest where none is finished."""
    runs = list_runs(experiment_name)
    return newest_run(experiment_name, finished=any(run.finished for run in runs) or not runs)


def _chosen_run(options: argparse.Namespace, newest: Callable[[str], Run]) -> Run:
    """Return the run that EXP or RUN names."""
    if bool(options.run_name) == bool(options.experiment):
        raise UserError(
            f"{options.verb}: name an experiment (EXP=) or one of its runs (RUN=), one of the two"
        )
    if options.run_name:
        return find_run(options.run_name)
    if not list_runs(options.experiment):
        load_experiment(options.experiment)  # an unknown name is answered with the nearest one
    return newest(options.experiment)


def _check(options: argparse.Namespace) -> int:
    names = [options.experiment] if options.experiment else list_experiments()
    problems = []
    for name in names:
        try:
            load_experiment(name, _overrides(options))
        except UserError as error:
            problems.append(str(error))
    if problems:
        raise UserError("\n".join(problems))
    print(f"{len(names)} experiment{'s' if len(names) != 1 else ''} checked, no error")
    return 0


def _list(options: argparse.Namespace) -> int:
    names = list_experiments()
    width = max(map(len, names), default=0)
    for name in names:
        runs = list_runs(name)
        count = f"{len(runs)} run{'s' if len(runs) != 1 else ''}" if runs else ""
        try:
            about = load_experiment(name).description
        except UserError:
            about = "has errors: see `make check`"
        print(f"{name:<{width}}  {count:>7}  {about}")
    return 0


def _models(options: argparse.Namespace) -> int:
    import app.training  # noqa: F401  (keeps TensorFlow quiet while it comes up)
    from app.reports.networks import print_layers, print_networks

    if options.network:
        print_layers(options.network, sys.stdout)
        return 0
    return 0 if print_networks(sys.stdout) else 1


def _results(options: argparse.Namespace) -> int:
    print("\n".join(write_results_table()))
    return 0
