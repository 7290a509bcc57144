"""The learning rate as a function of the step."""

from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np
from keras import ops


def learning_rate_at(schedule: Any, step: int, steps_per_epoch: int, epochs: int) -> float:
    """Return the learning rate of one step.

    Args:
        schedule: A schedule of app.config, or its dict.
        step: Optimizer steps taken before, from 0.
        steps_per_epoch: Optimizer steps in an epoch.
        epochs: Epochs of the whole run.
    """
    return float(_learning_rate(_as_dict(schedule), np.int64(step), steps_per_epoch, epochs, np, np.float64))


@keras.saving.register_keras_serializable("app")
class LearningRate(keras.optimizers.schedules.LearningRateSchedule):
    """`learning_rate_at` as a Keras schedule, in float32.

    Args:
        schedule: A schedule of app.config, or its dict.
        steps_per_epoch: Optimizer steps in an epoch.
        epochs: Epochs of the whole run.
    """

    def __init__(self, schedule: Any, steps_per_epoch: int, epochs: int):
        self.schedule = _as_dict(schedule)
        self.steps_per_epoch = steps_per_epoch
        self.epochs = epochs

    def __call__(self, step):
        """Return the learning rate, a float32 scalar, of the optimizer's integer `step`."""
        step = ops.convert_to_tensor(step)
        return _learning_rate(self.schedule, step, self.steps_per_epoch, self.epochs, ops, _float32)

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return {"schedule": self.schedule, "steps_per_epoch": self.steps_per_epoch, "epochs": self.epochs}


def _learning_rate(
    schedule: Mapping[str, Any], step: Any, steps_per_epoch: int, epochs: int, xp: Any, real: Callable
) -> Any:
    """Compute the learning rate with the functions of `xp`, which is numpy or keras.ops.

    Epochs are found by integer division: it changes at exactly the first step of its epoch.
    """
    peak = schedule["peak"]
    last_step = steps_per_epoch * (schedule.get("span_epochs") or epochs) - 1
    warmup_steps = schedule["warmup_epochs"] * steps_per_epoch

    def progress(start, end):
        """From 0 at step `start` to 1 at step `end`, and constant outside."""
        return xp.clip(real(step - start) / max(end - start, 1), 0.0, 1.0)

    match schedule["schedule"]:
        case "constant":
            rate = peak
        case "cosine":
            falling = 0.5 + 0.5 * xp.cos(np.pi * progress(warmup_steps, last_step))
            rate = schedule["end"] + (peak - schedule["end"]) * falling
        case "step":
            rate = peak
            for boundary in schedule["boundaries_epochs"]:
                rate = rate * xp.where(step // steps_per_epoch >= boundary, schedule["factor"], 1.0)
        case "exponential":
            decay_steps = schedule["decay_epochs"] * steps_per_epoch
            exponent = real(step // decay_steps) if schedule["staircase"] else real(step) / decay_steps
            rate = peak * xp.power(schedule["factor"], exponent)
        case "one_cycle":
            peak_step = round(schedule["peak_epoch"] * steps_per_epoch)
            rising = schedule["start"] + (peak - schedule["start"]) * progress(0, peak_step)
            falling = peak + (schedule["end"] - peak) * progress(peak_step, last_step)
            rate = xp.where(step < peak_step, rising, falling)
        case unknown:
            raise ValueError(f"schedule must be known. Received: {unknown!r}")
    if warmup_steps:
        rate = rate * xp.minimum(real(step + 1) / warmup_steps, 1.0)
    return rate


def _float32(value: Any) -> Any:
    return ops.cast(value, "float32")


def _as_dict(schedule: Any) -> dict[str, Any]:
    return dict(schedule) if isinstance(schedule, Mapping) else schedule.model_dump()
