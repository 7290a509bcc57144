"""The learning rate as a function of the step."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops

from app.training.history import rate_on_plateau
from models.variables import assign, inner_optimizer


def follow_history(job: Any) -> None:
    """Set those learning rates of a `Job` that depend on the epochs before."""
    training = job.experiment.training
    optimizer = inner_optimizer(job.classifier)
    for rate in (optimizer._learning_rate, getattr(optimizer, "kernel_rate", None)):
        if isinstance(rate, LearningRate) and rate.level is not None:
            level = rate_on_plateau(rate.schedule, job.progress.rows, training.monitor)
            assign(rate.level, np.asarray(level, np.float32))


class LearningRate(keras.optimizers.schedules.LearningRateSchedule):
    """The learning rate of a step: for an optimizer as a Keras schedule, for records as a number.

    Attributes:
        level: Of a `reduce_on_plateau`, the variable that `follow_history` sets.
    """

    level: keras.Variable | None = None

    def __init__(self, schedule: Any, steps_per_epoch: int, epochs: int):
        self.schedule = schedule.model_dump()
        self.steps_per_epoch = steps_per_epoch
        self.epochs = epochs

    def __call__(self, step):
        """Return the learning rate, a float32 scalar, of the optimizer's integer `step`."""
        step = ops.convert_to_tensor(step)
        level = None if self.level is None else ops.convert_to_tensor(self.level)
        return self._rate(step, level, ops, lambda value: ops.cast(value, "float32"))

    def at(self, step: int, level: float | None = None) -> float:
        """Return it in double precision; `level` is that of `rate_on_plateau`, by default the peak."""
        return float(self._rate(np.int64(step), level, np, np.float64))

    def _rate(self, step: Any, level: Any, xp: Any, real: Callable) -> Any:
        """Compute the learning rate with the functions of `xp`, which is numpy or keras.ops.

        Epochs are found by integer division: it changes at exactly the first step of its epoch.
        """
        schedule, steps_per_epoch, peak = self.schedule, self.steps_per_epoch, self.schedule["peak"]
        last_step = steps_per_epoch * (schedule.get("span_epochs") or self.epochs) - 1
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
            case "reduce_on_plateau":
                rate = peak if level is None else level
        if warmup_steps:
            rate = rate * xp.minimum(real(step + 1) / warmup_steps, 1.0)
        return rate
