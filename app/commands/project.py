"""The commands that look at experiment files, the networks and the table of results."""

import sys
from typing import Annotated

from app.commands.options import DataDir, Option, Set, command, overrides_from
from app.config import dump_experiment, list_experiments, load_experiment, load_with_sweep, misnamed_files
from app.errors import UserError
from app.preflight import check_data
from app.reports.results_table import write_results_table
from app.runs import list_whole_runs
from app.wording import counted


@command
def check(
    exp: Annotated[str | None, Option("a name in experiments/ (all)", positional=True)] = None,
    set_: Set = (),
    data_dir: DataDir = None,
    show: Annotated[bool, Option("print it as YAML with all that it inherits, and the defaults")] = False,
) -> None:
    """Check one experiment file, or all."""
    if show and not exp:
        raise UserError("check: SHOW prints one experiment; name it (EXP=)")
    names = [exp] if exp else list_experiments()
    overrides = overrides_from(set_, data_dir)
    problems = [] if exp else [*misnamed_files().values()]
    for name in names:
        try:
            experiment = load_with_sweep(name, overrides)
            if data_dir:
                check_data(experiment)
            if show:
                print(dump_experiment(experiment, mark_defaults=True), end="")
        except UserError as error:
            problems += str(error).split("\n")
    if problems:
        raise UserError("\n".join(dict.fromkeys(problems)))  # a mistake in SET= once
    if not show:
        print(f"{counted(len(names), 'experiment')} checked, no error")


@command
def list_() -> None:
    """List the experiments and their runs."""
    names = list_experiments()
    width = max(map(len, names), default=0)
    for name in names:
        runs = list_whole_runs(name)
        count = counted(len(runs), "run") if runs else ""
        try:
            about = load_experiment(name).description
        except UserError:
            about = "has errors: see `make check`"
        print(f"{name:<{width}}  {count:>7}  {about}")
    for line in misnamed_files().values():
        print(line)


@command
def models(
    network: Annotated[str | None, Option("print this one layer by layer", positional=True)] = None,
) -> int:
    """List the networks, their sizes and whether they equal the sources'."""
    from app.training import startup  # first: it keeps TensorFlow quiet while it comes up

    startup.configure(seed=0, precision="float32", devices="cpu")
    from app.reports.networks import print_layers, print_networks

    if network:
        print_layers(network, sys.stdout)
        return 0
    return 0 if print_networks(sys.stdout) else 1


@command
def results() -> None:
    """Write the tables in experiments/README.md and models/README.md from the run folders."""
    print("\n".join(write_results_table()))
