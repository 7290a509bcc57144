"""Layers that networks share, each at the speed of one pass over its data.

Forward and back, at the sizes of our networks, each measured at least as quick as Keras' own with oneDNN's
instructions limited to AVX2, to AVX512_CORE and not at all; so none of them is left out on any processor.
"""

import contextlib
import functools
import math
from collections.abc import Callable, Iterator
from typing import Any, Literal

import keras
from keras import ops

_modes = {"stock": False, "quick inference": False}


def stock_layers() -> contextlib.AbstractContextManager[None]:
    """Let all that asks `computes_quickly` compute as Keras' own does, e.g. to measure what it gains.

    What is traced inside the block stays as it is.
    """
    return _in_mode("stock")


def quick_inference() -> contextlib.AbstractContextManager[None]:
    """Let inference, too, use what no other program could run from a saved file; for validation.

    What is traced inside the block stays as it is.
    """
    return _in_mode("quick inference")


@contextlib.contextmanager
def _in_mode(name: str) -> Iterator[None]:
    before, _modes[name] = _modes[name], True
    try:
        yield
    finally:
        _modes[name] = before


def computes_quickly() -> bool:
    """Whether the quick paths, which are written for TensorFlow, may be taken."""
    return keras.backend.backend() == "tensorflow" and not _modes["stock"]


class BatchNormalization(keras.layers.BatchNormalization):
    """Keras' batch normalisation, computed by TensorFlow's fused kernel where there is one.

    Arguments, weights and results are those of `keras.layers.BatchNormalization`, which splits the work into
    many small operations. The kernel is used on TensorFlow for (batch, height, width, channels) in float32,
    bfloat16 or float16, normalised over the last axis. Everything else (other backends, masks,
    renormalisation, statistics synchronised between replicas, 16 bits on a CPU unless channels come in
    sixteens, XLA, and moving statistics on a GPU that has to be deterministic) takes Keras' own path; the
    statistics of several replicas are brought together in one exchange, where Keras takes three.
    """

    def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        """Normalise `inputs`; in training with the batch's statistics, else with the moving ones."""
        batch_statistics = bool(training and self.trainable)
        if mask is not None or not self._is_fusible(inputs) or not (batch_statistics or _has_any_gradient()):
            return super().call(inputs, training=training, mask=mask)

        import tensorflow as tf  # here, because other backends may run without TensorFlow

        empty = tf.zeros([0])  # the kernel wants no moving statistics while it computes the batch's
        channels = inputs.shape[-1:]
        outputs, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
            x=inputs,
            scale=ops.cast(self.gamma, "float32") if self.scale else tf.ones(channels),
            offset=ops.cast(self.beta, "float32") if self.center else tf.zeros(channels),
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

    def _moments(self, inputs: Any, mask: Any) -> Any:
        """Return mean and variance over the batch; over that of all replicas if `synchronized`.

        Keras' synchronised E[x^2] - E[x]^2 would lose a small variance beside a large mean. Here the replicas
        exchange centred moments, which Chan, Golub and LeVeque 1983 (doi:10.2307/2683386) combine.
        """
        if mask is not None or _modes["stock"]:
            return super()._moments(inputs, mask)
        context = None
        if self.synchronized and keras.backend.backend() == "tensorflow":  # JAX computes the whole batch
            import tensorflow as tf

            context = tf.distribute.get_replica_context()
        if context is None or context.num_replicas_in_sync == 1:
            return ops.moments(inputs, axes=self._reduction_axes)
        mean, variance = tf.nn.moments(inputs, self._reduction_axes)
        count = tf.fill(tf.shape(mean), tf.cast(tf.size(inputs) / tf.size(mean), inputs.dtype))
        # A replica without images has no moments, and counts for nothing.
        moments = tf.math.multiply_no_nan(tf.stack([count, mean, variance]), tf.minimum(count, 1.0))
        own = tf.one_hot(context.replica_id_in_sync_group, context.num_replicas_in_sync, dtype=inputs.dtype)
        everyones = context.all_reduce("SUM", own[:, None, None] * moments)  # (replica, moment, channel)
        counts, means, variances = tf.unstack(everyones, axis=1)
        total = tf.reduce_sum(counts, axis=0)
        mean = tf.reduce_sum(counts * means, axis=0) / total
        squares = tf.reduce_sum(counts * (variances + tf.square(means - mean)), axis=0)
        return mean, squares / total

    def _is_fusible(self, inputs: Any) -> bool:
        plain = not (self.synchronized or self.renorm)
        images = len(inputs.shape) == 4 and self.axis in (-1, 3)
        dtype = keras.backend.standardize_dtype(inputs.dtype)
        known = dtype in ("float32", "bfloat16", "float16") and dtype == self.compute_dtype
        # In bfloat16 the kernel is slow on a CPU unless channels come in sixteens.
        even = dtype == "float32" or inputs.shape[-1] % 16 == 0
        return computes_quickly() and plain and images and known and (even or sees_gpu()) and not _in_xla()

    def _update(self, moving: Any, value: Any) -> None:
        moving.assign(ops.cast(moving, "float32") * self.momentum + value * (1.0 - self.momentum))


class Conv2D(keras.layers.Conv2D):
    """Keras' convolution, with a quicker gradient of its kernel where a CPU computes in bfloat16.

    Arguments, weights and results are those of `keras.layers.Conv2D`. On TensorFlow without a GPU, for many
    channels on a small map at stride 1, the kernel's gradient is one matrix product for each of its places;
    TensorFlow's own took up to five times as long (4x4 maps of 512 channels; see `make bench`).
    """

    def convolution_op(self, inputs: Any, kernel: Any) -> Any:
        """Convolve (batch, height, width, channels) with the kernel; the bias comes later."""
        if isinstance(inputs, keras.KerasTensor) or not self._is_small_map(inputs.shape):
            return super().convolution_op(inputs, kernel)
        return _small_map_convolution()(inputs, ops.cast(kernel, inputs.dtype))

    def _is_small_map(self, shape: Any) -> bool:
        if self.compute_dtype != "bfloat16" or not computes_quickly():
            return False
        simple = self.padding == "same" and {*self.strides, *self.dilation_rate, self.groups} == {1}
        odd = all(side % 2 for side in self.kernel_size)
        small = None not in shape[1:] and shape[1] * shape[2] <= 64 and min(shape[3], self.filters) >= 256
        return simple and odd and small and not sees_gpu()


def sees_gpu() -> bool:
    """Whether TensorFlow computes on a GPU."""
    import tensorflow as tf  # here, because other backends may run without TensorFlow

    return bool(tf.config.get_visible_devices("GPU"))


def jit_compile() -> Literal["auto", False]:
    """Return what a model is to be compiled with: for "auto" Keras counts GPUs that are hidden, too."""
    return "auto" if keras.backend.backend() != "tensorflow" or sees_gpu() else False


def _in_xla() -> bool:
    """Whether what is traced is for XLA, which makes of the kernel's variance E[x^2] - E[x]^2."""
    import tensorflow as tf
    from tensorflow.python.ops import control_flow_util  # where TensorFlow's own strategies ask for it

    return control_flow_util.GraphOrParentsInXlaContext(tf.compat.v1.get_default_graph())


def _has_any_gradient() -> bool:
    """Whether the kernel has a gradient with moving statistics: on a GPU, none that is deterministic."""
    from tensorflow.python.framework.config import is_op_determinism_enabled  # as Keras asks for it

    return not (sees_gpu() and is_op_determinism_enabled())


@functools.cache
def _small_map_convolution() -> Callable[[Any, Any], Any]:
    """Return the convolution of stride 1 and equal size, with its own gradient."""
    import tensorflow as tf

    @tf.custom_gradient
    def convolve(images: Any, kernel: Any) -> Any:
        def gradients(upstream: Any) -> tuple[Any, Any]:
            of_images = tf.raw_ops.Conv2DBackpropInput(
                input_sizes=tf.shape(images),
                filter=kernel,
                out_backprop=upstream,
                strides=[1, 1, 1, 1],
                padding="SAME",
            )
            rows, columns, channels, filters = kernel.shape
            height, width = images.shape[1:3]
            border = [[0, 0], [rows // 2] * 2, [columns // 2] * 2, [0, 0]]
            padded = tf.pad(images, border)
            flat = tf.reshape(upstream, [-1, filters])
            products = [
                tf.matmul(
                    tf.reshape(padded[:, row : row + height, column : column + width], [-1, channels]),
                    flat,
                    transpose_a=True,
                )
                for row in range(rows)
                for column in range(columns)
            ]
            return of_images, tf.reshape(tf.stack(products), kernel.shape)

        return tf.nn.conv2d(images, kernel, 1, "SAME"), gradients

    return convolve


class Gelu(keras.layers.Layer):
    """The Gaussian error linear unit, x * P(X <= x) for a standard normal X, exact (not its tanh form).

    In training on TensorFlow it is one compiled pass forward and one back, where Keras takes about fifteen;
    so it is in inference inside `quick_inference`. Elsewhere, and on other backends, it is `keras.ops.gelu`,
    so that saved models hold standard operations.
    Hendrycks and Gimpel 2016, arXiv:1606.08415.
    """

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        """Map each value; shape and dtype stay."""
        symbolic = isinstance(inputs, keras.KerasTensor)
        if (training or _modes["quick inference"]) and computes_quickly() and not symbolic:
            return _compiled_gelu()(inputs)
        return ops.gelu(inputs, approximate=False)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Return the shape unchanged."""
        return input_shape


@functools.cache
def _compiled_gelu() -> Callable[[Any], Any]:
    """Return the activation with its own derivative, both computed in float32 inside one kernel."""
    import tensorflow as tf

    def probability(x: Any) -> Any:
        return 0.5 + 0.5 * tf.math.erf(x * math.sqrt(0.5))

    @tf.function(jit_compile=True, reduce_retracing=True)
    def forward(inputs: Any) -> Any:
        x = tf.cast(inputs, "float32")
        return tf.cast(x * probability(x), inputs.dtype)

    @tf.function(jit_compile=True, reduce_retracing=True)
    def backward(inputs: Any, upstream: Any) -> Any:
        x = tf.cast(inputs, "float32")
        slope = probability(x) + x * tf.exp(-0.5 * x * x) / math.sqrt(2.0 * math.pi)
        return tf.cast(tf.cast(upstream, "float32") * slope, inputs.dtype)

    @tf.custom_gradient
    def gelu(inputs: Any) -> Any:
        return forward(inputs), lambda upstream: backward(inputs, upstream)

    return gelu
