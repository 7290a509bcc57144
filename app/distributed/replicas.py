"""Data parallelism: replicas of one network on the devices of one or several machines, trained in sync.

TensorFlow's `tf.distribute` does the work: MirroredStrategy for several devices of one process,
MultiWorkerMirroredStrategy for several processes. Keras 3.15 cannot `fit` under the second (its issue 20585)
and clips gradients before it sums them, so the steps of a classifier with several replicas are compiled here,
for the instance. For JAX see `jax_replicas`.
"""

import contextlib
import functools
import hashlib
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import ops

from app.classifier_files import load_classifier
from app.data.pipeline import Shard
from app.distributed.process_group import ProcessGroup
from app.distributed.replica_step import apply_accumulated, test_step, train_step
from app.errors import UserError
from models import ImageClassifier
from models.variables import inner_optimizer, state_variables

_SEED_STEP = 0x9E3779B9  # 2**32 / golden ratio, as in SplitMix: seeds of successive replicas lie far apart


class Replicas:
    """The replicas of one training, and the operations that involve all of them.

    Args:
        group: The workers.
        strategy: TensorFlow's strategy; None for a single replica, or on JAX.
        count: Number of replicas on all workers.
    """

    def __init__(self, group: ProcessGroup | None = None, strategy: Any = None, count: int = 1):
        self.group, self.strategy, self.count = group or ProcessGroup(), strategy, count
        if strategy is not None:  # all workers have equally many batches: no need to ask
            strategy.extended.experimental_enable_get_next_as_optional = False
        self.averages_of_statistics: list[Any] = []  # variables; averaged over the replicas, too
        self._average: Any = None

    @property
    def shard(self) -> Shard | None:
        """What this worker computes of each batch; None where it computes all of it."""
        if self.strategy is None:
            return None
        own = self.count // self.group.size
        return Shard(self.count, range(self.group.index * own, (self.group.index + 1) * own))

    def scope(self) -> contextlib.AbstractContextManager[Any]:
        """Return the context to make variables in, with a copy for each replica."""
        return self.strategy.scope() if self.strategy else contextlib.nullcontext()

    def local_scope(self) -> contextlib.AbstractContextManager[Any]:
        """Return the context to make variables in for this worker alone; not within `scope`."""
        return contextlib.nullcontext()

    def feed(self, batches: Any) -> Any:
        """Return this worker's batches as a dataset that `fit` and `evaluate` distribute to the replicas."""
        if self.strategy is None:
            return batches
        return self.strategy.distribute_datasets_from_function(lambda context: batches)

    def make_metrics(self, classifier: ImageClassifier, images: np.ndarray, labels: np.ndarray) -> None:
        """Make the variables of a compiled classifier's metrics; within `scope`."""
        if self.strategy is None:
            classifier.test_on_batch(images, labels)
            classifier.reset_metrics()
        else:
            classifier._symbolic_build(data_batch=(images, labels))

    def bind(self, classifier: ImageClassifier, sync_batch_norm: bool) -> None:
        """Make `fit` and `evaluate` of a compiled classifier, all its variables made, run on all replicas.

        Only attributes of the instance are changed; they are not saved with it.
        """
        if self.strategy is None:
            return
        for layer in _layers(classifier):
            if sync_batch_norm and isinstance(layer, keras.layers.BatchNormalization):
                layer.synchronized = True
            for generator in layer._seed_generators:
                generator.next = _own_stream(generator)
        # Keras would take a batch to build what is built, and sum gradients that are sums already.
        classifier._maybe_symbolic_build = lambda **_: None
        optimizer = inner_optimizer(classifier)
        optimizer._all_reduce_sum_gradients = list
        if optimizer.gradient_accumulation_steps:
            optimizer._backend_apply_gradients = functools.partial(apply_accumulated, optimizer)
        self.renew_step(classifier)
        classifier.test_function = self._compiled(classifier, test_step)

    def renew_step(self, classifier: ImageClassifier) -> None:
        """Let the steps be compiled anew, where other variables are trained than before."""
        classifier.train_function = self._compiled(classifier, train_step) if self.strategy else None
        if self.strategy is None:  # JAX lists what is trained and what is not in that of validation, too
            classifier.test_function = None
        self._average = None

    def _compiled(self, classifier: ImageClassifier, step: Any) -> Any:
        """Compile `step(classifier, images, labels, weights, size)` for all replicas."""
        import tensorflow as tf

        @tf.function(autograph=False, reduce_retracing=True)
        def function(iterator: Any) -> Any:
            logs = self.strategy.run(lambda data: step(classifier, *data), args=(next(iterator),))
            return {name: self.strategy.experimental_local_results(value)[0] for name, value in logs.items()}

        return function

    def describe(self) -> dict[str, Any]:
        """Return the entries of environment.json on workers and replicas."""
        hosts = sorted({address.rpartition(":")[0] for address in self.group.addresses} - {""})
        return {"workers": self.group.size, "replicas": self.count} | ({"hosts": hosts} if hosts else {})

    def unreplicated(self, classifier: ImageClassifier) -> ImageClassifier:
        """Return a copy of the classifier that a worker can use without the others; within `local_scope`."""
        if self.count == 1:
            return classifier
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "classifier.keras"
            classifier.save(path)
            return load_classifier(path)

    def on_each(self, function: Callable[[], None]) -> Callable[[], None]:
        """Return a function that runs `function`, which changes variables, on each replica's copies."""
        if self.strategy is None:
            return function
        import tensorflow as tf

        return tf.function(lambda: self.strategy.run(function), autograph=False)

    def average_statistics(self, classifier: ImageClassifier) -> None:
        """Average the moving statistics over the replicas; until then each has those of its own images.

        They change linearly, so it does not matter when, or how often, this is done.
        """
        if self.strategy is None:
            return
        if self._average is None:
            self._average = self._averaging(moving_statistics(classifier) + self.averages_of_statistics)
        self._average()

    def _averaging(self, variables: list[Any]) -> Any:
        import tensorflow as tf

        def in_replica() -> None:
            context = tf.distribute.get_replica_context()
            means = context.all_reduce("MEAN", [tf.identity(each.value) for each in variables])
            for variable, mean in zip(variables, means, strict=True):
                variable.assign(mean)

        return self.on_each(in_replica) if variables else lambda: None

    def broadcast(self, classifier: ImageClassifier) -> None:
        """Copy the chief's values of all variables but the metrics' to all replicas."""
        if self.strategy is None or self.group.size == 1:
            return
        import tensorflow as tf

        variables = state_variables(classifier)

        def in_replica() -> None:
            context = tf.distribute.get_replica_context()
            is_first = tf.equal(context.replica_id_in_sync_group, 0)
            for variable in variables:
                value = tf.convert_to_tensor(variable.value)
                sent = tf.where(is_first, value, tf.zeros_like(value))
                if value.dtype.is_integer:
                    sent = tf.cast(sent, "int64")
                variable.assign(tf.cast(context.all_reduce("SUM", sent), value.dtype))

        self.on_each(in_replica)()

    def check_in_sync(self, classifier: ImageClassifier) -> None:
        """Check that all replicas are in sync: their variables are equal bit for bit.

        Raises:
            UserError: They are not; names the first variable that differs, and where.
        """
        if self.count == 1:
            return
        variables = state_variables(classifier)
        own = [[_digest(copy) for copy in self.copies(each)] for each in variables]
        gathered = self.group.all_gather("weights", own)
        for index, theirs in enumerate(gathered):
            for variable, expected, received in zip(variables, gathered[0], theirs, strict=True):
                if set(received) != {expected[0]}:
                    where = self.group.name(index) if self.group.size > 1 else "one of the devices"
                    raise UserError(
                        f"{variable.path}: {where} holds other values than the first replica; training "
                        "stopped, as they no longer train one network. The last state is from before that; "
                        "look at that machine's memory and at its versions"
                    )

    def shutdown(self) -> None:
        """Disconnect from the other workers at the end of the training."""

    def copies(self, variable: Any) -> Iterable[Any]:
        """Return a variable's copies on this worker's replicas."""
        return getattr(variable.value, "values", [variable.value])


def _digest(values: Any) -> str:
    return hashlib.sha256(ops.convert_to_numpy(values).tobytes()).hexdigest()[:16]


def _own_stream(generator: Any) -> Any:
    """Return `generator.next` with other seeds on each replica; the first has those of a single device."""

    def next_seed(ordered: bool = True) -> Any:
        import tensorflow as tf

        seed = type(generator).next(generator, ordered)
        context = tf.distribute.get_replica_context()
        if context is None:
            return seed
        number = ops.cast(context.replica_id_in_sync_group, seed.dtype)
        return seed + number * ops.convert_to_tensor(np.array([_SEED_STEP, 0]), dtype=seed.dtype)

    return next_seed


def _layers(classifier: ImageClassifier) -> Iterable[Any]:
    return classifier._flatten_layers(include_self=True, recursive=True)


def moving_statistics(classifier: ImageClassifier) -> list[Any]:
    """Return the moving means and variances of batch normalisation that is not frozen."""
    layers = [each for each in _layers(classifier) if isinstance(each, keras.layers.BatchNormalization)]
    moving = [layer for layer in layers if layer.trainable]
    return [variable for layer in moving for variable in (layer.moving_mean, layer.moving_variance)]
