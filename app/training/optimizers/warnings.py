"""What a user should know of an optimizer before the training starts."""

from collections.abc import Iterator

import keras

from app.config import Experiment
from app.config.optimizer import NORM_AND_BIAS
from app.training.optimizers.build import ACCUMULATION, unapplied_steps
from app.training.optimizers.variables import fitting
from models.inspect import variable_names
from models.variables import inner_optimizer


def optimizer_warnings(
    experiment: Experiment, classifier: keras.Model, steps_per_epoch: int
) -> Iterator[str]:
    """Yield a line for each setting of an experiment's optimizer that does not do what it seems to.

    Args:
        experiment: The experiment.
        classifier: Compiled; its optimizer is built.
        steps_per_epoch: Batches in an epoch.
    """
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
