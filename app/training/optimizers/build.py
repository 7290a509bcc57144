"""Optimizers by name, with what an experiment may say of single variables."""

import inspect
from typing import Any

import keras

from app.errors import UserError
from app.training.optimizers.learning_rate import LearningRate
from app.training.optimizers.sgd import CoupledSGD
from app.training.optimizers.variables import with_multipliers, with_no_decay

ACCUMULATION = "gradient_accumulation_steps"


def build_optimizer(config: Any, steps_per_epoch: int, epochs: int) -> keras.optimizers.Optimizer:
    """Make the optimizer of an experiment.

    `weight_decay` is Keras 3's: decoupled from the gradient (w -= learning_rate * weight_decay * w), or
    PyTorch's where `decoupled` is false, and applied to every trainable weight but for those of `no_decay`.

    With `gradient_accumulation_steps` every N steps are one update, by the mean of their gradients. The
    learning rate goes by steps, not by updates.

    Args:
        config: `Experiment.optimizer`.
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
    schedule = config.learning_rate
    learning_rate: float | LearningRate = LearningRate(schedule, steps_per_epoch, epochs)
    if schedule.schedule == "constant" and not schedule.warmup_epochs:
        learning_rate = float(schedule.peak)
    optimizer = known[config.name] if config.decoupled else CoupledSGD
    total_steps = steps_per_epoch * epochs
    if unapplied_steps(config, total_steps) == total_steps:
        raise UserError(
            f"optimizer.{ACCUMULATION}: received {config.arguments[ACCUMULATION]}, but the whole training "
            f"has {total_steps:,} steps, so that the weights would never be updated; choose fewer"
        )
    if config.no_decay:
        optimizer = with_no_decay(optimizer, config.no_decay_patterns)
    if config.rate_multipliers:
        optimizer = with_multipliers(optimizer, config.rate_multipliers)
    try:
        return optimizer(learning_rate=learning_rate, **config.arguments)
    except (TypeError, ValueError) as error:
        raise UserError(f"optimizer: {config.name} refuses {dict(config.arguments)}: {error}") from error


def unapplied_steps(config: Any, steps: int) -> int:
    """Return how many of the last of a training's `steps` are too few for a further update of the weights."""
    return steps % (config.arguments.get(ACCUMULATION) or 1)
