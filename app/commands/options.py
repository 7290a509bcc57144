"""The verbs of the command line and their options, which make's variables are derived from."""

import argparse
from collections.abc import Mapping
from typing import Any, NoReturn

from app.commands import runs as run_verbs
from app.commands import train as verbs
from app.commands.train import DEFAULT_EXPERIMENT
from app.errors import UserError
from app.wording import nearest

GIVEN = "GIVEN"  # the names of the variables on make's command line
_NO = ("", "0", "no", "false")  # of a variable that switches something on


class _Parser(argparse.ArgumentParser):
    """Raises what is wrong with a command line instead of printing its usage and ending the process."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{self.prog}: {message}; see {self.prog} --help")


def parse(arguments: list[str], environment: Mapping[str, str]) -> argparse.Namespace:
    """Return the options of a command line, or, for `--from-make VERB`, of make's variables.

    Raises:
        UserError: There is no such verb, option or variable, or a value that it cannot have.
    """
    parser, by_name = _parser()
    if arguments[:1] == ["--from-make"]:
        verb = arguments[1]
        arguments = [verb, *_from_variables(verb, variables(by_name[verb]), environment)]
    return parser.parse_args(arguments)


def variables(verb: argparse.ArgumentParser) -> dict[str, argparse.Action]:
    """Return make's variables of a verb: SET for --set, EXP for the argument EXP."""
    named = {
        (action.option_strings[-1][2:] if action.option_strings else str(action.metavar)): action
        for action in verb._actions
        if action.dest != "help"
    }
    return {name.upper().replace("-", "_"): action for name, action in named.items()}


def all_variables() -> set[str]:
    """Return make's variables of all verbs."""
    return {name for verb in _parser()[1].values() for name in variables(verb)}


def _from_variables(
    verb: str, known: Mapping[str, argparse.Action], environment: Mapping[str, str]
) -> list[str]:
    """Return the command line that make's variables stand for."""
    for name in environment.get(GIVEN, "").split():
        if name not in known:
            meant = nearest(name, [each.lower() for each in known])
            hint = f" (did you mean {meant.upper()}?)" if meant else ""
            if "." in name and "SET" in known:
                hint = f' (keys of the experiment are changed with SET="{name}=...")'
            takes = ", ".join(sorted(known)) or "none"
            raise UserError(f"make {verb}: takes no variable {name}{hint}; it takes {takes}")
    options, positional = [], []
    for name, action in known.items():
        value = environment.get(name, "")
        if action.nargs == 0:
            options += [action.option_strings[-1]] * (value.lower() not in _NO)
        elif value:
            if action.option_strings:
                options.append(f"{action.option_strings[-1]}={value}")
            else:
                positional.append(value)
    return [*options, "--", *positional] if positional else options


def _parser() -> tuple[_Parser, dict[str, _Parser]]:
    """Return the parser of all verbs, and those of each."""
    parser = _Parser(
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
    verb.add_argument("--epochs", metavar="N", help="short for --set training.epochs=N")
    verb.add_argument("--seed", metavar="N", help="short for --set seed=N")
    verb.add_argument("--seeds", type=int, default=1, metavar="N", help="train so many runs, a seed each (1)")
    _add_workers(verb)
    verb.set_defaults(run=verbs.train, goes_on_unheard=True)

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
    verb.set_defaults(run=verbs.resume, goes_on_unheard=True)

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
    verb.set_defaults(run=verbs.prove_resume, goes_on_unheard=True)

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
    _add_data_dir(verb)
    verb.set_defaults(run=verbs.check)

    verb = group.add_parser("list", help="list the experiments and their runs")
    verb.set_defaults(run=verbs.list_all)

    verb = group.add_parser(
        "models", help="list the networks, their sizes and whether they equal the sources'"
    )
    verb.add_argument("network", nargs="?", metavar="NETWORK", help="print this one layer by layer")
    verb.set_defaults(run=verbs.models)

    verb = group.add_parser("results", help="write the table in experiments/README.md from the run folders")
    verb.set_defaults(run=verbs.results)
    return parser, group.choices


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
