"""Optimizers by name, with what an experiment may say of single variables."""

import dataclasses
from collections.abc import Iterator
from typing import Any

import keras

from app.config import Experiment
from app.config.optimizer import NORM_AND_BIAS
from app.errors import UserError
from app.training.freezing import Freezing
from app.training.optimizers.adam import with_fused_update
from app.training.optimizers.learning_rate import LearningRate
from app.training.optimizers.muon import KernelSteps, with_muon
from app.training.optimizers.sgd import CoupledSGD
from app.training.optimizers.variables import fitting, with_late, with_patterns
from models.inspect import distances_from_head, variable_names
from models.variables import inner_optimizer

ACCUMULATION = "gradient_accumulation_steps"


def build_optimizer(
    config: Any,
    steps_per_epoch: int,
    epochs: int,
    network: keras.Model | None = None,
    freezing: Freezing | None = None,
) -> keras.optimizers.Optimizer:
    """Make the optimizer of an experiment.

    `weight_decay` is Keras 3's: decoupled from the gradient (w -= learning_rate * weight_decay * w), or
    PyTorch's where `decoupled` is false, and applied to every trainable weight but for those of `no_decay`.

    `muon` trains the kernels, `others` names the optimizer of everything else; both are one object, with one
    count of steps.

    With `gradient_accumulation_steps` every N steps are one update, by the mean of their gradients. The
    learning rate goes by steps, not by updates.

    Args:
        config: `Experiment.scaled_optimizer`.
        steps_per_epoch: Batches in an epoch.
        epochs: Epochs of the whole run.
        network: Whose variables it will train; without it they are known by their paths alone.
        freezing: Which of them it will train later than the others.

    Returns:
        The optimizer, not built.

    Raises:
        UserError: The optimizer does not take the arguments, or would never update.
    """
    known: dict[str, Any] = {name.lower(): found for name, found in vars(keras.optimizers).items()}
    plain = config.others or config  # of all variables, or of those that muon leaves
    schedule = plain.learning_rate
    learning_rate: float | LearningRate = LearningRate(schedule, steps_per_epoch, epochs)
    if schedule.schedule == "constant" and not schedule.warmup_epochs:
        learning_rate = float(schedule.peak)
    optimizer, arguments = known[plain.name] if plain.decoupled else CoupledSGD, dict(plain.arguments)
    total_steps = steps_per_epoch * epochs
    if unapplied_steps(config, total_steps) == total_steps:
        raise UserError(
            f"optimizer.{ACCUMULATION}: received {config.arguments[ACCUMULATION]}, but the whole training "
            f"has {total_steps:,} steps, so that the weights would never be updated; choose fewer"
        )
    optimizer = with_fused_update(optimizer)
    names = variable_names(network) if network else {}
    if freezing and freezing.unfreeze_epoch:
        late = [id(variable) for variable in freezing.frozen]
        optimizer = with_late(optimizer, late, (freezing.unfreeze_epoch - 1) * steps_per_epoch)
    if config.rate_multipliers or config.no_decay or config.layer_decay or config.others:
        distances = distances_from_head(network) if network and config.layer_decay else {}
        layer_factors = {variable: config.layer_decay**distance for variable, distance in distances.items()}
        patterns = config.rate_multipliers, config.no_decay_patterns
        optimizer = with_patterns(optimizer, *patterns, names, layer_factors)
    rates = [learning_rate]
    if config.others:
        of_kernels = [field.name for field in dataclasses.fields(KernelSteps)]
        steps = KernelSteps(**{key: config.arguments[key] for key in of_kernels if key in config.arguments})
        arguments |= {key: value for key, value in config.arguments.items() if key not in of_kernels}
        rates.append(LearningRate(config.learning_rate, steps_per_epoch, epochs))
        optimizer = with_muon(optimizer, rates[1], steps)
    try:
        made = optimizer(learning_rate=learning_rate, **arguments)
    except (TypeError, ValueError) as error:
        raise UserError(f"optimizer: {plain.name} refuses {arguments}: {error}") from error
    for rate in rates:
        if isinstance(rate, LearningRate) and rate.schedule["schedule"] == "reduce_on_plateau":
            peak = keras.initializers.Constant(rate.schedule["peak"])
            rate.level = made.add_variable((), peak, aggregation="only_first_replica", name="plateau")
    return made


def optimizer_warnings(
    experiment: Experiment, classifier: keras.Model, steps_per_epoch: int
) -> Iterator[str]:
    """Yield a line for each setting of a built optimizer that does not do what it seems to."""
    config, training = experiment.optimizer, experiment.training
    steps = steps_per_epoch * training.num_epochs
    if left := unapplied_steps(config, steps):
        every = config.arguments[ACCUMULATION]
        yield f"the last {left} of {steps:,} steps are not applied: {ACCUMULATION} is {every}"
    scaled = experiment.scaled_optimizer
    for key, given, used in (("", config, scaled), ("others.", config.others, scaled.others)):
        if given and used and given.learning_rate.per_images:
            rate = f"{given.learning_rate.peak:g} for {given.learning_rate.per_images:,} images"
            now = f"{used.learning_rate.peak:g} for batches of {training.batch_size:,}"
            yield f"optimizer.{key}learning_rate.peak: {rate} is {now}"
    optimizer = inner_optimizer(classifier)
    if optimizer is not classifier.optimizer and config.arguments.get("loss_scale_factor"):
        yield f"optimizer.loss_scale_factor has no effect: with {training.precision} the scale is dynamic"
    if config.no_decay and not optimizer.weight_decay:
        yield "optimizer.no_decay has no effect: there is no weight_decay"
    elif config.no_decay != NORM_AND_BIAS:  # which need not have all of its kinds
        names = variable_names(classifier.network)
        for pattern in config.no_decay:
            if not fitting(pattern, optimizer._trainable_variables, names):
                yield f"optimizer.no_decay: no variable's path fits {pattern!r}"


def unapplied_steps(config: Any, steps: int) -> int:
    """Return how many of the last of a training's `steps` are too few for a further update of the weights."""
    return steps % (config.arguments.get(ACCUMULATION) or 1)
