"""The commands that train an experiment several times: its variants, its folds, the trials of a search.

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
    checked,
    chosen_experiment,
    command,
    overrides_from,
    shell_words,
)
from app.config import load_experiment, load_with_sweep
from app.distributed.cluster import is_alone
from app.errors import UserError
from app.machine import check_backend, usable_cores
from app.process import unheard


@command
@unheard()
def ablate(
    exp: Exp = None,
    without: Annotated[
        str | None, Option("what is taken out: augmentation.LAYER, a key, or KEY=VALUE", "PIECE ...")
    ] = None,
    seeds: Annotated[int, Option("train N runs of each variant, a seed each", "N")] = 3,
    set_: Set = (),
    data_dir: DataDir = None,
) -> None:
    """Train an experiment without each of its pieces, with several seeds, or resume that, and compare."""
    if seeds < 2:
        raise UserError(f"ablate: SEEDS={seeds}; at least 2, as a difference means nothing without a spread")
    if not is_alone():
        raise UserError("ablate: trains several runs, one after the other; several workers train one run")
    from app.ablation.pieces import pieces_of, variants_of

    experiment = chosen_experiment(exp, set_, data_dir)
    check_seeds("ablate", experiment.seed, seeds)
    preflight.check_data(experiment)
    experiment = preflight.settle_weights(experiment)
    advice = "write pieces with spaces between them"
    pieces = shell_words("WITHOUT ", without, advice) if without else pieces_of(experiment)
    if not pieces:
        raise UserError(
            f"ablate: {experiment.name} has no piece that is taken out by default; name some, such as "
            'WITHOUT="optimizer.momentum normalization=unit"'
        )
    variants = {
        name: preflight.settle_weights(each) for name, each in variants_of(experiment, pieces).items()
    }
    check_backend()
    from app.ablation.ablate import ablate

    ablate(experiment, variants, seeds, sys.stdout)


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


@command
@unheard()
def folds(
    exp: Exp = None,
    folds: Annotated[int, Option("number of folds, a run each", "N")] = 5,
    set_: Set = (),
    data_dir: DataDir = None,
) -> None:
    """Train one run a fold, or resume them, and join what they predict of images that they did not see."""
    if folds < 2:
        raise UserError(f"folds: FOLDS={folds}; at least 2, so that one can be trained on and one predicted")
    if not is_alone():
        raise UserError("folds: trains several runs, one after the other; several workers train one run")
    if any(pair.startswith("dataset.fold") for pair in overrides_from(set_)):
        raise UserError("folds: dataset.fold is set here, for each run; FOLDS= is the number of folds")
    overrides = [*set_, f"dataset.fold.of={folds} dataset.fold.index=0"]
    experiment = checked(chosen_experiment(exp, overrides, data_dir))
    from app.labels.folds import train_folds

    train_folds(experiment, sys.stdout)


@command
def labels(
    exp: Annotated[str | None, Option("an experiment: its newest folds", positional=True)] = None,
) -> None:
    """List the training images whose labels are likely wrong, by what the folds predict."""
    if not exp:
        raise UserError("labels: name an experiment whose folds are trained (EXP=)")
    from app.labels.folds import FoldSet
    from app.labels.wrong_labels import write_labels

    if not FoldSet.all_of(exp):
        load_experiment(exp)  # an unknown name is answered with the nearest one
    write_labels(exp, sys.stdout)
