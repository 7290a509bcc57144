"""The command that searches settings.

Nothing here imports TensorFlow, Keras or Optuna at module level, so that what is wrong is found at once.
"""

import sys
from typing import Annotated

from app import preflight
from app.commands.options import (
    DEFAULT_EXPERIMENT,
    DataDir,
    Exp,
    Option,
    Set,
    check_seeds,
    command,
    overrides_from,
    shell_words,
)
from app.config import load_with_sweep
from app.distributed.cluster import is_alone
from app.errors import UserError
from app.machine import check_backend, usable_cores
from app.process import unheard


@command
@unheard()
def sweep(
    exp: Exp = None,
    space: Annotated[
        str, Option("search these keys: ranges such as log(1e-4,1e-1), lists of choices", "KEY=RANGE ...")
    ] = "",
    trials: Annotated[int | None, Option("short for --set sweep.trials=N", "N")] = None,
    jobs: Annotated[int, Option("trials at a time, on this machine", "N")] = 1,
    storage: Annotated[
        str | None, Option("postgresql://user:password@host/database, where several machines share a sweep")
    ] = None,
    set_: Set = (),
    data_dir: DataDir = None,
) -> None:
    """Train an experiment with many settings, or resume that, and say which are the best beyond noise."""
    advice = "write KEY=RANGE pairs with spaces between them, and quotes around what holds spaces"
    searched = [f"sweep.space.{pair}" for pair in shell_words("SPACE=", space, advice)]
    overrides = overrides_from(set_, data_dir)
    chosen = [f"sweep.trials={trials}"] if trials is not None else []
    experiment = load_with_sweep(exp or DEFAULT_EXPERIMENT, [*overrides, *searched, *chosen])
    if experiment.sweep is None:
        raise UserError(
            f"sweep: {experiment.name} has no section `sweep`; name what is to be searched: "
            'SPACE="optimizer.learning_rate.peak=log(1e-4,1e-1)"'
        )
    if not 1 <= jobs <= (cores := usable_cores()):
        raise UserError(f"sweep: JOBS={jobs}; choose 1 to {cores}, a core for each worker of this machine")
    if not is_alone():
        raise UserError(
            "sweep: several workers train one run. For a sweep on several machines start it on each by "
            "itself, without TF_CONFIG and in no job step of several tasks, with the same STORAGE="
        )
    check_seeds("sweep", experiment.seed + 1, experiment.sweep.seeds)
    preflight.check_data(experiment)
    check_backend()
    from app.sweep.sweep import sweep

    sweep(experiment, overrides, jobs, storage, sys.stdout)
