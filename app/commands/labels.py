"""The commands that find wrong labels.

Nothing here imports TensorFlow or Keras at module level, so that what is wrong is found at once.
"""

import sys
from typing import Annotated

from app import preflight
from app.commands.options import DataDir, Exp, Option, Set, chosen_experiment, command, overrides_from
from app.config import load_experiment
from app.distributed.cluster import is_alone
from app.errors import UserError
from app.machine import check_backend
from app.process import unheard


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
    experiment = chosen_experiment(exp, [*set_, f"dataset.fold.of={folds} dataset.fold.index=0"], data_dir)
    preflight.check_data(experiment)
    preflight.settle_weights(experiment)
    check_backend()
    from app.labels.folds import train_folds

    train_folds(experiment, sys.stdout)


@command
def labels(
    exp: Annotated[str | None, Option("an experiment: its newest folds", positional=True)] = None,
) -> None:
    """List the training images whose labels are likely wrong, by what the folds predict."""
    if not exp:
        raise UserError("labels: name an experiment whose folds are trained (EXP=)")
    from app.labels.folds import list_fold_sets
    from app.labels.wrong_labels import write_labels

    if not list_fold_sets(exp):
        load_experiment(exp)  # an unknown name is answered with the nearest one
    write_labels(exp, sys.stdout)
