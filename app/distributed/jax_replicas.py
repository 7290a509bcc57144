"""Replicas on JAX: one program over the devices of all workers, with Keras' DataParallel."""

import contextlib
from collections.abc import Iterable, Iterator
from typing import Any

import jax
import keras
from jax.experimental import multihost_utils

from app.distributed.process_group import ProcessGroup
from app.distributed.replicas import Replicas
from models import ImageClassifier
from models.variables import assign, state_variables


class JaxReplicas(Replicas):
    """One replica for each device of JAX, on all workers.

    Every worker prepares whole batches. They are split inside the step, where they may be uneven. A step
    computes what a single device would, batch normalisation and random draws included.
    """

    def __init__(self, group: ProcessGroup):
        """Replicate all variables that are made from now on over all devices."""
        devices = keras.distribution.list_devices()
        super().__init__(group, None, len(devices))
        self.distribution = _WholeBatches(devices=devices, auto_shard_dataset=False)
        keras.distribution.set_distribution(self.distribution)

    def bind(self, classifier: ImageClassifier, sync_batch_norm: bool) -> None:
        """Make each device compute its shard of a batch."""
        call = classifier.call
        classifier.call = (  # type: ignore[method-assign]
            lambda images, training=False: call(self._split(images), training=training)
        )

    def _split(self, images: Any) -> Any:
        axes = [self.distribution.batch_dim_name, *[None] * (len(images.shape) - 1)]
        layout = keras.distribution.TensorLayout(axes, self.distribution.device_mesh)
        return keras.distribution.distribute_tensor(images, layout)

    @contextlib.contextmanager
    def local_scope(self) -> Iterator[None]:
        """Make variables for this worker alone within this context."""
        keras.distribution.set_distribution(None)
        try:
            yield
        finally:
            keras.distribution.set_distribution(self.distribution)

    def broadcast(self, classifier: ImageClassifier) -> None:
        """Copy the chief's values of all variables but the metrics' to all workers."""
        if self.group.size == 1:
            return
        variables = state_variables(classifier)
        values = multihost_utils.broadcast_one_to_all([variable.numpy() for variable in variables])
        for variable, value in zip(variables, values, strict=True):
            assign(variable, value)

    def shutdown(self) -> None:
        """Disconnect from the other workers, which JAX would otherwise take for a failure."""
        if self.group.size > 1:
            jax.distributed.shutdown()

    def copies(self, variable: Any) -> Iterable[Any]:
        """Return a variable's copies on this worker's devices."""
        return [shard.data for shard in variable.value.addressable_shards]


class _WholeBatches(keras.distribution.DataParallel):
    """Data parallelism that copies whole batches to all devices; the classifier splits them.

    Keras lays out all batches like the first, but the size of the last need not be a multiple of the devices.
    """

    def get_data_layout(self, data_shape: Any) -> Any:
        """Return the layout of a whole batch on every device."""
        return keras.distribution.TensorLayout([None] * len(data_shape), self.device_mesh)
