"""How much each setting of a sweep matters, by fANOVA."""

import json
import math
from collections.abc import Sequence
from typing import Any

from app.config.sweep import Choice, Range, SweepConfig
from app.sweep.trials import Trial
from app.sweep.values import ranked, value_of

LEAST_TRIALS = 10  # finished ones; by fewer the order of the settings is chance


def importances(trials: Sequence[Trial], sweep: SweepConfig) -> dict[str, float] | None:
    """Return the fraction of the objective's variance that each setting explains alone, the largest first.

    A random forest is fitted to the finished trials, and its variance divided among the settings: fANOVA,
    Hutter et al. 2014 (proceedings.mlr.press/v32/hutter14.html), as Optuna implements it. Optuna averages
    over ranges on a linear scale; logarithmic ones are handed over as logarithms, so that each decade counts
    alike. The fractions are scaled to a sum of 1. The same trials give the same numbers.

    Returns:
        None where fewer than LEAST_TRIALS trials are finished, or all of them are equally good.
    """
    finished = sorted(ranked(trials, sweep), key=lambda trial: trial.number)
    if len(finished) < LEAST_TRIALS or len({value_of(trial) for trial in finished}) == 1:
        return None
    import optuna

    from app.sweep.engine.decisions import distributions

    space = dict(sweep.space)
    for key, spec in space.items():
        if isinstance(spec, Range) and spec.log:
            space[key] = Range(math.log(spec.low), math.log(spec.high))
    study = optuna.create_study(direction=sweep.direction)
    for trial in finished:
        params = {key: _coordinate(value, sweep.space[key]) for key, value in trial.settings.items()}
        study.add_trial(
            optuna.trial.create_trial(
                params=params, distributions=distributions(space), value=value_of(trial)
            )
        )
    evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
    return optuna.importance.get_param_importances(study, evaluator=evaluator)


def _coordinate(value: Any, spec: Range | Choice) -> Any:
    if isinstance(spec, Choice):
        return json.dumps(value)
    return math.log(value) if spec.log else value
