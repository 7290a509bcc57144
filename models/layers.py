"""Layers that two or more networks share: batch normalisation in one kernel."""

from typing import Any

import keras
from keras import ops


@keras.saving.register_keras_serializable("models")
class BatchNormalization(keras.layers.BatchNormalization):
    """Keras' batch normalisation, computed by TensorFlow's fused kernel where there is one.

    Arguments, weights and results are those of `keras.layers.BatchNormalization`, which splits the work into
    many small operations. The kernel is used on TensorFlow for (batch, height, width, channels) in float32,
    bfloat16 or float16, normalised over the last axis with scale and centre. Everything else (other
    backends, masks, renormalisation, statistics synchronised between replicas) takes Keras' own path.
    """

    def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        """Normalises `inputs`; in training with the batch's statistics, else with the moving ones."""
        if mask is not None or not self._is_fusible(inputs):
            return super().call(inputs, training=training, mask=mask)

        import tensorflow as tf  # here, because other backends may run without TensorFlow

        batch_statistics = bool(training and self.trainable)
        empty = tf.zeros([0])  # the kernel wants no moving statistics while it computes the batch's
        outputs, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
            x=inputs,
            scale=ops.cast(self.gamma, "float32"),
            offset=ops.cast(self.beta, "float32"),
            mean=empty if batch_statistics else ops.cast(self.moving_mean, "float32"),
            variance=empty if batch_statistics else ops.cast(self.moving_variance, "float32"),
            epsilon=self.epsilon,
            is_training=batch_statistics,
        )
        if batch_statistics:
            num_values = tf.cast(tf.size(inputs) // tf.shape(inputs)[-1], "float32")
            # The kernel divides the squared deviations by n - 1, Keras by n.
            self._update(self.moving_mean, mean)
            self._update(self.moving_variance, variance * tf.maximum(num_values - 1.0, 1.0) / num_values)
        return outputs

    def _is_fusible(self, inputs: Any) -> bool:
        plain = self.scale and self.center and not (self.synchronized or self.renorm)
        images = len(inputs.shape) == 4 and self.axis in (-1, 3)
        dtype = keras.backend.standardize_dtype(inputs.dtype)
        known = dtype in ("float32", "bfloat16", "float16") and dtype == self.compute_dtype
        return keras.backend.backend() == "tensorflow" and plain and images and known

    def _update(self, moving: Any, value: Any) -> None:
        moving.assign(ops.cast(moving, "float32") * self.momentum + value * (1.0 - self.momentum))
