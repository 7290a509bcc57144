"""What pages and tables say of trials: which are best, values of the objective, settings in a few words."""

import math
from collections.abc import Sequence
from typing import Any

from app.config.loader import as_yaml
from app.config.sweep import Choice, Range, SweepConfig
from app.sweep.trials import Trial


def ranked(trials: Sequence[Trial], sweep: SweepConfig) -> list[Trial]:
    """Return the finished trials, the best first; of equals the one that was proposed first."""
    sign = -1 if sweep.direction == "maximize" else 1
    finished = [trial for trial in trials if trial.state == "finished" and math.isfinite(value_of(trial))]
    return sorted(finished, key=lambda trial: (sign * value_of(trial), trial.number))


def value_of(trial: Trial) -> float:
    """Return the objective that counts; of a trial that did not finish the last epoch's; NaN for none."""
    if trial.value is not None:
        return trial.value
    return next((value for value in reversed(trial.values) if value is not None), math.nan)


def in_percent(sweep: SweepConfig) -> bool:
    """Return whether the objective is a fraction that people give in percent."""
    return sweep.objective.endswith("accuracy")


def value_text(value: float, sweep: SweepConfig) -> str:
    """Return a value of the objective in words; nothing for NaN."""
    if math.isnan(value):
        return ""
    return f"{100 * value:.2f} %" if in_percent(sweep) else f"{value:.4f}"


def difference_text(difference: float, sweep: SweepConfig, *, signed: bool = False) -> str:
    """Return a difference of two values, or a standard deviation, in words; nothing for NaN."""
    if math.isnan(difference):
        return ""
    sign = "+" if signed else ""
    return f"{100 * difference:{sign}.2f} points" if in_percent(sweep) else f"{difference:{sign}.4f}"


def choice_labels(choice: Choice) -> dict[str, str]:
    """Return a label for each value, itself in YAML; for lists the names in them, where these differ."""
    texts = [as_yaml(value) for value in choice.values]
    names = [_names(value) for value in choice.values]
    return dict(zip(texts, names if len(set(names)) == len(names) else texts, strict=True))


def setting_text(value: Any, searched: Range | Choice) -> str:
    """Return a trial's value of a setting that was searched in a range or among choices."""
    if isinstance(searched, Choice):
        return choice_labels(searched)[as_yaml(value)]
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _names(value: Any) -> str:
    """Return a list of layers by their names alone, anything else as YAML."""
    if not isinstance(value, list | tuple):
        return as_yaml(value)
    return (
        ", ".join(next(iter(item)) if isinstance(item, dict) else as_yaml(item) for item in value) or "none"
    )
