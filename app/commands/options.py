"""Commands and their options: a command is a function, its parameters are options and make's variables.

`data_dir: DataDir = None` is --data-dir on the command line and DATA_DIR for make. Types, choices and
defaults come from the signature, the command's help is the first line of its docstring.
"""

import argparse
import inspect
import shlex
import typing
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, NoReturn, TypeVar

from app import preflight
from app.config import Experiment, load_experiment
from app.config.loader import as_yaml
from app.errors import UserError
from app.machine import check_backend
from app.runs import Run, find_run, list_runs, newest
from app.wording import nearest

DEFAULT_EXPERIMENT = "quickstart"
GIVEN = "GIVEN"  # the names of the variables on make's command line
_YES, _NO = ("1", "yes", "true", "on"), ("", "0", "no", "false", "off")  # of a variable that is a switch
_Function = TypeVar("_Function", bound=Callable[..., int | None])


class Option(NamedTuple):
    """What the annotation of a parameter says besides its type."""

    help: str
    metavar: str | None = None
    positional: bool = False


Exp = Annotated[str | None, Option(f"a name in experiments/ ({DEFAULT_EXPERIMENT})", positional=True)]
Owner = Annotated[str | None, Option("an experiment: its newest finished run", positional=True)]
RunName = Annotated[str | None, Option("a run: <experiment>/<timestamp> or its path", "RUN")]
Set = Annotated[Sequence[str], Option("override keys", "KEY=VALUE ...")]
DataDir = Annotated[str | None, Option("take the images from this folder", "DIR")]
Checkpoint = Annotated[
    Literal["best", "last"] | None, Option("whose weights (those of the headline metrics)")
]
Workers = Annotated[int, Option("worker processes, on this machine", "N")]


COMMANDS: dict[str, Callable[..., int | None]] = {}  # each returns an exit code, or None for 0


def command(function: _Function) -> _Function:
    """Decorate a function that is a command: `prove_resume` is prove-resume."""
    COMMANDS[_dashed(function.__name__)] = function
    return function


def parse(
    arguments: list[str], environment: Mapping[str, str]
) -> tuple[Callable[..., int | None], dict[str, Any]]:
    """Return the command that a command line names and its options; `--from-make COMMAND` reads variables.

    Raises:
        UserError: There is no such command, option or variable, or a value that it cannot have.
    """
    parser = _Parser(
        prog="python -m app", description="Train convolutional networks from YAML files and see their curves."
    )
    group = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, function in COMMANDS.items():
        sentence = (function.__doc__ or "").partition("\n")[0].rstrip(".")
        one = group.add_parser(name, help=sentence[:1].lower() + sentence[1:])
        for flag, settings in _parameters(function).values():
            one.add_argument(flag, **settings)
    if arguments[:1] == ["--from-make"]:
        arguments = [arguments[1], *_from_variables(arguments[1], environment)]
    options = vars(parser.parse_args(arguments))
    return COMMANDS[options.pop("command")], options


def overrides_from(texts: Sequence[str], data_dir: str | None = None, option: str = "--set ") -> list[str]:
    """Return the KEY=VALUE pairs of all texts of an option, split as a shell would, and of --data-dir."""
    advice = "write KEY=VALUE pairs with spaces between them"
    pairs = [pair for text in texts for pair in shell_words(option, text, advice)]
    if data_dir:
        try:
            folder = Path(data_dir).expanduser().resolve()
        except (OSError, ValueError, RuntimeError) as error:  # a circle of links, the home of nobody
            raise UserError(f"--data-dir {data_dir!r}: {error}") from error
        pairs.append(f"dataset.data_dir={as_yaml(str(folder))}")
    return pairs


def checked(experiment: Experiment) -> Experiment:
    """Return an experiment whose data, weights and backend are there, as far as can be seen at once."""
    preflight.check_data(experiment)
    preflight.settle_weights(experiment)
    check_backend()
    return experiment


def check_seeds(command: str, first: int, count: int) -> None:
    """Raise a UserError where there are no seeds, or the last of several would be none."""
    if count < 1:
        raise UserError(f"{command}: SEEDS={count}; train once at least")
    if first + count > 2**32:
        raise UserError(f"{command}: the last of {count} seeds would be above {2**32 - 1}; begin with less")


def shell_words(subject: str, text: str, advice: str) -> list[str]:
    """Return the words of a text, where quotes keep words together; an error ends with `advice`."""
    try:
        return shlex.split(text)
    except ValueError as error:
        raise UserError(f"{subject}{text}: {error}; {advice}") from error


def chosen_experiment(exp: str | None, set_: Sequence[str], data_dir: str | None = None) -> Experiment:
    """Return the experiment that EXP names, changed by SET and DATA_DIR."""
    return load_experiment(exp or DEFAULT_EXPERIMENT, overrides_from(set_, data_dir))


def chosen_run(asking: str, exp: str | None, run: str | None, pick: Callable[[str], Run] = newest) -> Run:
    """Return the run that RUN names, or the one that `pick` picks of EXP; `asking` is the command.

    An unknown experiment is answered with the nearest one.
    """
    if bool(run) == bool(exp):
        raise UserError(f"{asking}: name an experiment (EXP=) or one of its runs (RUN=), one of the two")
    return find_run(run) if run else run_of(exp or "", pick)


def run_of(exp: str, pick: Callable[[str], Run] = newest) -> Run:
    """Return an experiment's run by `pick`; an unknown name is answered with the nearest one."""
    if not list_runs(exp):
        load_experiment(exp)
    return pick(exp)


class _Parser(argparse.ArgumentParser):
    """Raises what is wrong with a command line instead of printing its usage and ending the process."""

    def error(self, message: str) -> NoReturn:
        quotes = ' (quotes keep several values of an option together: --set "a=1 b=2")'
        hint = quotes if message.startswith("unrecognized arguments") else ""
        raise UserError(f"{self.prog}: {message}{hint}; see {self.prog} --help")


def _parameters(function: Callable[..., int | None]) -> dict[str, tuple[str, dict[str, Any]]]:
    """Return what argparse's add_argument takes for each parameter, by make's variables."""
    hints = typing.get_type_hints(function, include_extras=True)
    return {
        name.strip("_").upper(): _parameter(name, hints[name], parameter.default)
        for name, parameter in inspect.signature(function).parameters.items()
    }


def _parameter(name: str, hint: Any, default: Any) -> tuple[str, dict[str, Any]]:
    """Return what add_argument takes for the parameter `name: Annotated[type, Option(...)] = default`."""
    kind, option = typing.get_args(hint)
    if type(None) in typing.get_args(kind):
        kind = typing.get_args(kind)[0]
    settings: dict[str, Any] = {"help": option.help + (f" ({default})" if default else "")}
    if option.positional:
        return name, settings | {"nargs": "?", "metavar": name.upper()}
    settings["dest"] = name
    if kind is bool:
        settings["action"] = "store_true"
    elif typing.get_origin(kind) is Literal:
        settings |= {"choices": typing.get_args(kind), "default": default}
    elif typing.get_origin(kind) is Sequence:
        settings |= {"action": "append", "default": [], "metavar": option.metavar}
    else:
        settings |= {"type": kind, "default": default, "metavar": option.metavar}
    return f"--{_dashed(name)}", settings


def _dashed(name: str) -> str:
    return name.strip("_").replace("_", "-")


def _from_variables(name: str, environment: Mapping[str, str]) -> list[str]:
    """Return the command line that make's variables stand for."""
    known = _parameters(COMMANDS[name])
    given = environment.get(GIVEN, "").split()
    for each in given:
        if each not in known:
            meant = nearest(each, [variable.lower() for variable in known])
            hint = f" (did you mean {meant.upper()}?)" if meant else ""
            if "." in each and "SET" in known:
                hint = f' (keys of the experiment are changed with SET="{each}=...")'
            takes = ", ".join(sorted(known)) or "none"
            raise UserError(f"make {name}: takes no variable {each}{hint}; it takes {takes}")
    options, positional = [], []
    for variable, (flag, settings) in known.items():
        value = environment.get(variable, "")
        if settings.get("action") == "store_true":
            if value.lower() not in (*_YES, *_NO):
                raise UserError(f"make {name}: {variable}={value}: must be 1 or 0")
            options += [flag] * (value.lower() in _YES)
        elif variable in given and not value and settings.get("action") != "append":
            # Of a shell's variable that is not set: the default, another experiment, was not meant.
            raise UserError(f"make {name}: {variable}= is empty; give it a value or leave it out")
        elif "nargs" in settings:
            positional += [value] * bool(value)
        elif value:
            choices, kind = settings.get("choices") or (value,), settings.get("type")
            if value not in choices:
                raise UserError(f"make {name}: {variable}={value}: must be one of {', '.join(choices)}")
            try:
                kind and kind(value)
            except ValueError:
                rule = "a whole number" if kind is int else "a number"
                raise UserError(f"make {name}: {variable}={value}: must be {rule}") from None
            options.append(f"{flag}={value}")
    return [*options, "--", *positional] if positional else options
