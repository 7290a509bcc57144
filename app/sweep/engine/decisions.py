"""What Optuna decides: the settings of the next trial, and whether to prune one.

Both are computed in a study in memory that holds copies of all trials, from seeds and numbers, so that they
do not depend on who asks, or how often: a sweep that was killed goes on as it would have.
"""

import json
import math
import random
from collections.abc import Iterable, Mapping, Sequence
from itertools import product
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial

from app.config.sweep import MAX_COMBINATIONS, Choice, Range, SweepConfig

MAX_ATTEMPTS = 20  # at settings that no trial has had
RUNG = "completed_rung_"  # attributes of a trial in which successive halving keeps values

optuna.logging.set_verbosity(optuna.logging.WARNING)


def distributions(space: Mapping[str, Range | Choice]) -> dict[str, BaseDistribution]:
    """Return a search space as Optuna's distributions; a choice is the JSON text of its value."""
    return {key: _distribution(spec) for key, spec in space.items()}


def settings_of(params: Mapping[str, Any], space: Mapping[str, Range | Choice]) -> dict[str, Any]:
    """Return the values of the keys that parameters in Optuna's storage stand for."""
    return {
        key: json.loads(params[key]) if isinstance(spec, Choice) else params[key]
        for key, spec in space.items()
    }


def propose(config: SweepConfig, seed: int, trials: Sequence[FrozenTrial]) -> dict[str, Any] | None:
    """Return parameters that no trial has, for the one after `trials`, all by number; None for no more."""
    tried = {_key(trial.params) for trial in trials}
    combinations = _combinations(config)
    if config.sampler != "grid":
        for attempt in range(MAX_ATTEMPTS):
            if combinations is not None and len(tried) >= len(combinations):
                return None
            entropy = [seed, len(trials), attempt]
            params = _sample(config, int(np.random.SeedSequence(entropy).generate_state(1)[0]), trials)
            if _key(params) not in tried:
                return params
        if combinations is None and config.sampler == "tpe":  # which keeps to what it knows
            return propose(config.model_copy(update={"sampler": "random"}), seed, trials)
    random.Random(seed).shuffle(combinations := combinations or [])
    return next((each for each in combinations if _key(each) not in tried), None)


def prunes(
    config: SweepConfig, name: str, epochs: int, trials: Sequence[FrozenTrial], number: int,
    values: Sequence[float],
) -> tuple[bool, dict[str, Any]]:  # fmt: skip
    """Return whether to prune a trial, and the attributes that other trials are compared by.

    Args:
        config: The sweep.
        name: Of the study; Optuna's Hyperband divides trials into brackets by it.
        epochs: Planned for a trial.
        trials: All so far, by number.
        number: The trial in question.
        values: Its objective after each epoch so far.
    """
    if config.pruner == "none" or not values:
        return False, {}
    halving = config.pruner == "hyperband"
    pruner = (
        optuna.pruners.HyperbandPruner(min_resource=1, max_resource=epochs)
        if halving
        else optuna.pruners.MedianPruner(n_warmup_steps=math.ceil(epochs / 4) + 1)
    )
    sampler = optuna.samplers.RandomSampler(seed=0)  # a study has to have one
    memory = optuna.create_study(study_name=name, direction=config.direction, sampler=sampler, pruner=pruner)
    for each in trials:
        memory.add_trial(_copy(each, TrialState.WAITING if each.number == number else each.state))
    trial, pruned = memory.ask(), False  # the one that waits
    for epoch, value in enumerate(values, start=1):
        trial.report(value, epoch)
        if halving or epoch == len(values):  # halving remembers what it saw before
            pruned = bool(trial.should_prune())
    kept = memory.get_trials(deepcopy=False)[number].system_attrs
    return pruned, {key: value for key, value in kept.items() if key.startswith(RUNG)}


def _copy(trial: FrozenTrial, state: TrialState) -> FrozenTrial:
    """Return a copy for a study in memory; one that waits has no history, others do not wait."""
    params: dict[str, Any] = {"params": trial.params, "distributions": trial.distributions}
    if state == TrialState.WAITING and trial.state != state:
        return create_trial(state=state, **params)
    state = TrialState.RUNNING if state == TrialState.WAITING else state
    attributes = {key: value for key, value in trial.system_attrs.items() if key.startswith(RUNG)}
    values = trial.values if state == TrialState.COMPLETE else None
    steps = trial.intermediate_values
    return create_trial(
        state=state, values=values, intermediate_values=steps, system_attrs=attributes, **params
    )


def _sample(config: SweepConfig, seed: int, trials: Sequence[FrozenTrial]) -> dict[str, Any]:
    """Return what the sampler draws; trials that wait count as running."""
    samplers = optuna.samplers
    sampler = samplers.TPESampler(seed=seed) if config.sampler == "tpe" else samplers.RandomSampler(seed=seed)
    memory = optuna.create_study(direction=config.direction, sampler=sampler)
    memory.add_trials([_copy(each, each.state) for each in trials])
    return memory.ask(distributions(config.space)).params


def _distribution(spec: Range | Choice) -> BaseDistribution:
    if isinstance(spec, Choice):
        return CategoricalDistribution([json.dumps(value) for value in spec.values])
    if spec.integer:
        return IntDistribution(int(spec.low), int(spec.high), log=spec.log)
    return FloatDistribution(spec.low, spec.high, log=spec.log)


def _combinations(config: SweepConfig) -> list[dict[str, Any]] | None:
    """Return all combinations of a space, None where there are too many to list."""
    if (config.num_combinations or math.inf) > MAX_COMBINATIONS:
        return None
    values: list[Iterable[Any]] = [
        map(json.dumps, spec.values) if isinstance(spec, Choice) else spec.values or ()
        for spec in config.space.values()
    ]
    return [dict(zip(config.space, each, strict=True)) for each in product(*values)]


def _key(params: Mapping[str, Any]) -> str:
    return json.dumps(params, sort_keys=True)
