"""How much each setting of a sweep matters, by fANOVA."""

from collections.abc import Sequence

from app.config.loader import as_yaml
from app.config.sweep import Choice, SweepConfig
from app.sweep.trials import Trial
from app.sweep.values import choice_labels, ranked, value_of

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

    choices = {key: choice_labels(each) for key, each in sweep.space.items() if isinstance(each, Choice)}
    distributions: dict[str, optuna.distributions.BaseDistribution] = {}
    for key, each in sweep.space.items():
        if isinstance(each, Choice):
            distributions[key] = optuna.distributions.CategoricalDistribution(list(choices[key]))
        elif each.integer:
            distributions[key] = optuna.distributions.IntDistribution(
                int(each.low), int(each.high), log=each.log
            )
        else:
            distributions[key] = optuna.distributions.FloatDistribution(each.low, each.high, log=each.log)
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(direction=sweep.direction)
    optuna.logging.set_verbosity(verbosity)
    for trial in finished:
        params = {key: as_yaml(value) if key in choices else value for key, value in trial.settings.items()}
        study.add_trial(
            optuna.trial.create_trial(params=params, distributions=distributions, value=value_of(trial))
        )
    evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
    return optuna.importance.get_param_importances(study, evaluator=evaluator)
