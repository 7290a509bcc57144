"""Stochastic gradient descent as PyTorch defines it."""

from typing import Any

import keras
from keras import ops


class CoupledSGD(keras.optimizers.SGD):
    """`torch.optim.SGD`: weight decay passes through the momentum, and the learning rate does not.

    Gradients are clipped first, g = gradient + weight_decay * w, v = momentum * v + g, and then
    w -= learning_rate * v, or learning_rate * (g + momentum * v) with `nesterov`. Keras' momentum holds
    products with the learning rates of their steps, and differs where the rate changes.
    """

    def _apply_weight_decay(self, variables: Any) -> None:
        """Leave weight decay to `update_step`; Keras' would change the weights here."""

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Update one variable."""
        gradient = ops.cast(gradient, variable.dtype)
        if self.weight_decay and self._use_weight_decay(variable):
            gradient = ops.add(gradient, ops.multiply(variable, self.weight_decay))
        if self.momentum:
            velocity = self.momentums[self._get_variable_index(variable)]
            updated = ops.add(ops.multiply(velocity, self.momentum), gradient)
            self.assign(velocity, updated)
            gradient = ops.add(gradient, ops.multiply(updated, self.momentum)) if self.nesterov else updated
        self.assign_sub(variable, ops.multiply(gradient, ops.cast(learning_rate, variable.dtype)))
