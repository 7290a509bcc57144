"""The commands that compare variants of a recipe.

Nothing here imports TensorFlow or Keras at module level, so that what is wrong is found at once.
"""

import sys
from typing import Annotated

from app import preflight
from app.commands.options import (
    DataDir,
    Exp,
    Option,
    Set,
    check_seeds,
    chosen_experiment,
    command,
    shell_words,
)
from app.distributed.cluster import is_alone
from app.errors import UserError
from app.machine import check_backend
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
    variants = [
        each._replace(experiment=preflight.settle_weights(each.experiment))
        for each in variants_of(experiment, pieces)
    ]
    check_backend()
    from app.ablation.ablate import ablate

    ablate(experiment, variants, seeds, sys.stdout)
