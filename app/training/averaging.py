"""Exponential moving averages of the weights: beside them while they are trained, or in their place.

Batch normalisation's moving statistics are averaged with the weights. The averages live among the optimizer's
variables, so that a state of the run holds them.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np
from keras import ops

from app.config.training import Ema, Lookahead
from app.distributed.replicas import Replicas, moving_statistics
from app.errors import UserError
from app.training.checkpoint import State
from models import ImageClassifier

_AVERAGE = "moving_average"  # ends the paths of a `MovingAverage`'s variables, and of no others


class MovingAverage(keras.callbacks.Callback):
    """Averages the weights in each step; the average is in their place from validation to the epoch's end.

    That is while the epoch is validated and perhaps saved as the best one. Training goes on from the raw
    weights. Must come after what saves the best weights, and before what saves states.

    The decay rises to its full value: at step t, counted from 0, it is at most (1 + t) / (warmup_steps + t),
    as with `num_updates` of `tf.train.ExponentialMovingAverage`, where warmup_steps is 10. Until then this is
    the polynomial-decay averaging of Shamir and Zhang 2013, arXiv:1212.1824, but for an offset of one step:
    what was averaged is about t / warmup_steps steps old on average, and the initial weights soon drop out.

    Steps are batches, as in schedules; with gradient accumulation those without an update count, too.

    Args:
        classifier: Compiled, its optimizer built. Its training step becomes one that updates the average: it
            is compiled with the step then, and JAX need not put all values into their variables each time.
        config: `TrainingConfig.ema`.
        replicas: Each averages its own copies of the weights.
    """

    def __init__(self, classifier: ImageClassifier, config: Ema, replicas: Replicas):
        """Make the average, equal to the weights; in buffers of its own, as JAX gives each away in a step."""
        super().__init__()
        self.config, self.classifier = config, classifier
        self.in_place = False
        optimizer = classifier.optimizer
        self.weights = list(classifier.network.weights)
        self.averages = _copies(self.weights, optimizer, _AVERAGE)
        self.steps = optimizer.add_variable((), dtype="int", name="averaged_steps")
        # They differ between replicas, and change linearly, as the statistics do.
        statistics = {id(each) for each in moving_statistics(classifier)}
        pairs = zip(self.weights, self.averages, strict=True)
        replicas.averages_of_statistics += [average for weight, average in pairs if id(weight) in statistics]
        self._swap = replicas.on_each(self._exchange)
        if keras.backend.backend() == "jax":
            classifier.train_step = functools.partial(self._stateless_step, classifier.train_step)
        else:  # the last thing in a step, be it Keras' or that of several replicas
            optimizer.apply = functools.partial(self._apply, optimizer.apply)

    def _apply(self, apply: Callable[..., None], *arguments: Any) -> None:
        apply(*arguments)
        self._update()

    def _stateless_step(self, step: Callable[..., Any], state: Any, data: Any) -> Any:
        """Do a step of the JAX trainer, where all variables' values are in `state`."""
        logs, (trainable, non_trainable, optimizer, metrics) = step(state, data)
        classifier, variables = self.classifier, self.classifier.optimizer.variables
        known = [
            *zip(classifier.trainable_variables, trainable, strict=True),
            *zip(classifier.non_trainable_variables, non_trainable, strict=True),
            *zip(variables, optimizer, strict=True),
        ]
        with keras.StatelessScope(state_mapping=known) as scope:
            self._update()
        optimizer = [scope.get_current_value(variable) for variable in variables]
        return logs, (trainable, non_trainable, optimizer, metrics)

    def _update(self) -> None:
        """Move the average towards the weights."""
        warmup = self.config.warmup_steps
        rising = (warmup - 1) / (ops.cast(self.steps, "float32") + warmup)
        fraction = ops.maximum(1 - self.config.decay, rising)
        for weight, average in zip(self.weights, self.averages, strict=True):
            average.assign(average + (weight - average) * fraction)
        self.steps.assign_add(1)

    def _exchange(self) -> None:
        for weight, average in zip(self.weights, self.averages, strict=True):
            kept = ops.copy(weight)
            weight.assign(ops.copy(average))
            average.assign(kept)

    def put_in_place(self, in_place: bool) -> None:
        """Exchange the values of average and weights, unless they are where they shall be."""
        if in_place != self.in_place:
            if keras.backend.backend() == "jax":
                self.classifier.jax_state_sync()  # inside evaluate JAX keeps the values outside the variables
            self._swap()
            self.in_place = in_place

    def on_test_begin(self, logs: Mapping[str, float] | None = None) -> None:
        """Validate the average."""
        self.put_in_place(True)

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        """Go on from the raw weights."""
        self.put_in_place(False)


def averages_in(state: State) -> list[np.ndarray]:
    """Return the average of each weight of the network in a state; nothing where the run has none."""
    pairs = zip(state.paths["optimizer"], state.values["optimizer"], strict=True)
    return [value for path, value in pairs if path.endswith(_AVERAGE)]


class LookaheadAverage(keras.callbacks.Callback):
    """Blends the weights with their average every few steps; must come before what saves them.

    Zhang et al. 2019, "Lookahead Optimizer", arXiv:1907.08610, with a decay that rises over the training as
    in Jordan 2024, arXiv:2404.00498, section 3.4. After the last step of the training the weights are the
    average.

    Args:
        classifier: Compiled, its optimizer built.
        config: `TrainingConfig.lookahead`.
        total_steps: Steps of the whole training.
        replicas: Their moving statistics are made equal before the weights are blended.
    """

    def __init__(self, classifier: ImageClassifier, config: Lookahead, total_steps: int, replicas: Replicas):
        """Make the average, equal to the weights; in buffers of its own, as JAX gives each away in a step.

        Raises:
            UserError: The average would never be updated, and replace the weights at the end.
        """
        super().__init__()
        if config.every_steps > total_steps:
            raise UserError(
                f"training.lookahead.every_steps: received {config.every_steps}, but the whole training has "
                f"{total_steps:,} steps, so that the weights would end as they began; choose fewer"
            )
        self.config, self.total_steps = config, total_steps
        self.average_statistics = functools.partial(replicas.average_statistics, classifier)
        self.position = 0
        self.weights = list(classifier.network.weights)
        self.averages = _copies(self.weights, classifier.optimizer, "average")

    def on_train_batch_end(self, batch: int, logs: Mapping[str, float] | None = None) -> None:
        """Blend where it is time."""
        self.position += 1
        is_last = self.position == self.total_steps
        due = self.position % self.config.every_steps == 0
        if not (due or is_last):
            return
        if keras.backend.backend() == "jax":
            self.model.jax_state_sync()  # inside fit the JAX trainer keeps the values outside the variables
        self.average_statistics()
        decay = self.config.decay * (self.position / self.total_steps) ** self.config.power if due else 1.0
        for weight, average in zip(self.weights, self.averages, strict=True):
            before = ops.convert_to_tensor(average)  # equal ones stay what they are, to the last bit
            blended = before + (ops.convert_to_tensor(weight) - before) * (1.0 - decay)
            average.assign(blended)
            weight.assign(ops.copy(blended))


def _copies(
    weights: list[keras.Variable], optimizer: keras.optimizers.Optimizer, name: str
) -> list[keras.Variable]:
    """Return new variables of the optimizer, equal to the weights."""
    averages = []
    for weight in weights:
        average = optimizer.add_variable_from_reference(weight, name=name)
        average.assign(ops.copy(weight))
        averages.append(average)
    return averages
