"""What follows from the rows of a history: the rate on a plateau, and whether training is over."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from app.config import Experiment
from app.config.training import best_mode
from app.reading import Row


def rate_on_plateau(schedule: Mapping[str, Any], rows: Sequence[Row], monitor: str) -> float:
    """Return the learning rate after all epochs of `rows`; `schedule` is a `PlateauSchedule` as a dict."""
    sign = 1.0 if best_mode(monitor) == "max" else -1.0
    rate, best, waited = schedule["peak"], -math.inf, 0
    for row in rows:
        waited += 1
        if sign * row[monitor] > best + schedule["min_delta"]:
            best, waited = sign * row[monitor], 0
        elif waited >= schedule["patience_epochs"] and rate > schedule["end"]:
            rate, waited = max(rate * schedule["factor"], schedule["end"]), 0
    return float(rate)


def is_complete(experiment: Experiment, rows: Sequence[Row]) -> bool:
    """Return whether the history holds all epochs that the experiment asks for, or ends in an early stop."""
    training = experiment.training
    stopping, sign = training.early_stopping, 1.0 if best_mode(training.monitor) == "max" else -1.0
    if stopping is None or len(rows) >= training.num_epochs:
        return len(rows) >= training.num_epochs
    best, waited = -math.inf, 0
    for row in rows:
        waited += 1
        if sign * row[training.monitor] > best + stopping.min_delta:
            best, waited = sign * row[training.monitor], 0
    return waited >= stopping.patience_epochs
