"""Optimizers by name, and the learning rate as a function of the step."""

import fnmatch
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np
from keras import ops

from app.errors import UserError

ACCUMULATION = "gradient_accumulation_steps"


def build_optimizer(config: Any, steps_per_epoch: int, epochs: int) -> keras.optimizers.Optimizer:
    """Make the optimizer of an experiment.

    `weight_decay` is Keras 3's: decoupled from the gradient (w -= learning_rate * weight_decay * w) and
    applied to every trainable weight, biases and batch normalisation included.

    With `gradient_accumulation_steps` every N steps are one update, by the mean of their gradients. The
    learning rate goes by steps, not by updates.

    Args:
        config: `Experiment.optimizer`: name, learning_rate, arguments.
        steps_per_epoch: Batches in an epoch.
        epochs: Epochs of the whole run.

    Returns:
        The optimizer, not built.

    Raises:
        UserError: The name is unknown, the optimizer does not take the arguments, or would never update.
    """
    known: dict[str, Any] = {
        name.lower(): found for name, found in vars(keras.optimizers).items() if inspect.isclass(found)
    }
    if config.name not in known:
        names = ", ".join(sorted(known))
        raise UserError(f"optimizer.name: Keras {keras.__version__} has {names}; received {config.name!r}")
    schedule = _as_dict(config.learning_rate)
    learning_rate: float | LearningRate = LearningRate(schedule, steps_per_epoch, epochs)
    if schedule["schedule"] == "constant" and not schedule["warmup_epochs"]:
        learning_rate = float(schedule["peak"])
    optimizer, total_steps = known[config.name], steps_per_epoch * epochs
    if unapplied_steps(config, total_steps) == total_steps:
        raise UserError(
            f"optimizer.{ACCUMULATION}: received {config.arguments[ACCUMULATION]}, but the whole training "
            f"has {total_steps:,} steps, so that the weights would never be updated; choose fewer"
        )
    if config.rate_multipliers:
        optimizer = _with_multipliers(optimizer, config.rate_multipliers)
    try:
        return optimizer(learning_rate=learning_rate, **config.arguments)
    except (TypeError, ValueError) as error:
        raise UserError(f"optimizer: {config.name} refuses {dict(config.arguments)}: {error}") from error


def unapplied_steps(config: Any, steps: int) -> int:
    """Return how many of the last of a training's `steps` are too few for a further update of the weights."""
    return steps % (config.arguments.get(ACCUMULATION) or 1)


def _with_multipliers(optimizer: type, multipliers: Mapping[str, float]) -> type:
    """Return the optimizer class with a learning rate of its own for each variable.

    Args:
        optimizer: A Keras optimizer.
        multipliers: Factors by shell patterns of variable paths (`*` matches any text); the first that fits
            a path decides, and where none does the factor is 1. Weight decay keeps the plain learning
            rate, so that a factor of 0 does not freeze a variable.
    """

    class Multiplied(optimizer):
        def build(self, variables):
            super().build(variables)
            fitting = [[p for p in multipliers if fnmatch.fnmatchcase(v.path, p)] for v in variables]
            unused = [p for p in multipliers if not any(p in patterns for patterns in fitting)]
            if unused:
                raise UserError(
                    f"optimizer.rate_multipliers: no variable's path fits {unused[0]!r}; "
                    f"the trained variables are {', '.join(variable.path for variable in variables)}"
                )
            self.factors = [multipliers[patterns[0]] if patterns else 1.0 for patterns in fitting]

        def update_step(self, gradient, variable, learning_rate):
            factor = self.factors[self._get_variable_index(variable)]
            super().update_step(gradient, variable, learning_rate * factor)

    Multiplied.__name__ = optimizer.__name__
    return Multiplied


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
