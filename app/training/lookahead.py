"""Weight averaging while training: every few steps the weights become their exponential moving average.

Zhang et al. 2019, "Lookahead Optimizer", arXiv:1907.08610, with a decay that rises over the training as in
Jordan 2024, arXiv:2404.00498, section 3.4. As there, batch normalisation's moving statistics are averaged
with the weights.
"""

from collections.abc import Callable, Mapping
from typing import Any

import keras
from keras import ops


class LookaheadAverage(keras.callbacks.Callback):
    """Blends the weights with their average at the ends of steps; must come before what saves them.

    The average lives among the optimizer's variables, so that a state of the run holds it. After the last
    step of the training the weights are the average.

    Args:
        network: Whose weights are averaged; built.
        optimizer: Of the classifier; built.
        config: `TrainingConfig.lookahead`.
        total_steps: Steps of the whole training.
        average_statistics: Called before the weights are blended; makes those of all replicas equal.
    """

    def __init__(
        self,
        network: keras.Model,
        optimizer: keras.optimizers.Optimizer,
        config: Any,
        total_steps: int,
        average_statistics: Callable[[], None],
    ):
        """Make the average, equal to the weights; in buffers of its own, as JAX gives each away in a step."""
        super().__init__()
        self.config, self.total_steps = config, total_steps
        self.average_statistics = average_statistics
        self.position = 0
        self.weights = list(network.weights)
        self.averages = []
        for weight in self.weights:
            average = optimizer.add_variable_from_reference(weight, name="average")
            average.assign(ops.copy(weight))
            self.averages.append(average)

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
            blended = ops.convert_to_tensor(average) * decay + ops.convert_to_tensor(weight) * (1.0 - decay)
            average.assign(blended)
            weight.assign(ops.copy(blended))
