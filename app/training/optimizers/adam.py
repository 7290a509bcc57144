"""Adam, updated in one pass over a variable and its two averages."""

from typing import Any

import keras
from keras import ops

from models.layers import computes_quickly


def with_fused_update(optimizer: type) -> type:
    """Return the optimizer class with TensorFlow's one kernel for Adam's update, where there is one.

    Keras makes about ten operations of it, which read and write the variable and its averages again and
    again: where batches are small, that is much of a step. Arguments, variables and formula are Keras'; only
    1 - beta_2, which the kernel takes in float32, is rounded (for 0.999 by 1.3e-5 of itself).

    Args:
        optimizer: A Keras optimizer; what is not Adam or AdamW stays as it is.
    """
    if not issubclass(optimizer, keras.optimizers.Adam):
        return optimizer

    class Fused(optimizer):
        def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
            """Update one variable by its gradient, which is float32 as it is."""
            if self.amsgrad or not computes_quickly():
                super().update_step(gradient, variable, learning_rate)
                return
            import tensorflow as tf  # here, because other backends may run without TensorFlow

            index = self._get_variable_index(variable)
            step = ops.cast(self.iterations + 1, variable.dtype)
            tf.raw_ops.ResourceApplyAdam(
                var=variable.handle,
                m=self._momentums[index].value.handle,
                v=self._velocities[index].value.handle,
                beta1_power=ops.power(self.beta_1, step),
                beta2_power=ops.power(self.beta_2, step),
                lr=ops.cast(learning_rate, variable.dtype),
                beta1=self.beta_1,
                beta2=self.beta_2,
                epsilon=self.epsilon,
                grad=ops.cast(gradient, variable.dtype),
            )

    Fused.__name__ = optimizer.__name__
    return Fused
