"""How much each setting of a sweep matters, by fANOVA."""

import json
from collections.abc import Sequence

from app.config.sweep import Choice, SweepConfig
from app.sweep.trials import Trial
from app.sweep.values import ranked, value_of

LEAST_TRIALS = 10  # finished ones; by fewer the order of the settings is chance


def importances(trials: Sequence[Trial], sweep: SweepConfig) -> dict[str, float] | None:
    """Return the fraction of the objective's variance that each setting explains alone, the largest first.

    A random forest is fitted to the finished trials, and its variance divided among the settings: fANOVA,
    Hutter et al. 2014 (proceedings.mlr.press/v32/hutter14.html), as Optuna implements it. The fractions are
    scaled to a sum of 1. The same trials give the same numbers.

    Returns:
        None where fewer than LEAST_TRIALS trials are finished, or all of them are equally good.
    """
    finished = sorted(ranked(trials, sweep), key=lambda trial: trial.number)
    if len(finished) < LEAST_TRIALS or len({value_of(trial) for trial in finished}) == 1:
        return None
    import optuna

    from app.sweep.engine.decisions import distributions, quiet

    space = sweep.space
    with quiet():
        study = optuna.create_study(direction=sweep.direction)
        for trial in finished:
            params = {
                key: json.dumps(value) if isinstance(space[key], Choice) else value
                for key, value in trial.settings.items()
            }
            study.add_trial(
                optuna.trial.create_trial(
                    params=params, distributions=distributions(space), value=value_of(trial)
                )
            )
        evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
        return optuna.importance.get_param_importances(study, evaluator=evaluator)
