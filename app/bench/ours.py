"""Our own side of the measurement: the whole training step, and its parts one by one."""

import contextlib
import gc
import io
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import ops

from app.data.pipeline import PREFETCH_BATCHES
from app.runs import Run
from app.training.checkpoint import Progress
from app.training.job import Job
from app.training.runner import callbacks_of

PEAK_SIDE = 2048  # of the square matrices whose product shows the processor's peak


class _EnoughError(Exception):
    """Ends a `fit` without the records that an epoch's end writes."""


class _Clock(keras.callbacks.Callback):
    """Notes when steps end, and leaves `fit` after enough of them. Must be the last callback."""

    def __init__(self, steps: int):
        super().__init__()
        self.steps = steps
        self.ends: list[float] = []

    def on_train_batch_end(self, batch: int, logs: Mapping[str, float] | None = None) -> None:
        assert logs is not None
        float(logs["loss"])  # a GPU is waited for here
        self.ends.append(time.perf_counter())
        if len(self.ends) == self.steps:
            raise _EnoughError


def fit_seconds(job: Job, steps: int, folder: Path) -> list[float]:
    """Return the seconds of each of `steps` steps of `fit` as a run takes them, all callbacks included.

    One more step is taken first and not counted: it waits for the first batch.

    Args:
        job: The experiment, prepared.
        steps: Steps to time.
        folder: Takes what the callbacks of a run write.
    """
    run = Run(folder / job.experiment.name / "bench")
    run.states.mkdir(parents=True, exist_ok=True)
    return timed_fit(
        job.classifier,
        steps,
        job.batches(epochs=steps + 1),
        steps_per_epoch=steps + 1,
        shuffle=False,
        callbacks=callbacks_of(run, job, Progress(), None, io.StringIO()),
    )


def timed_fit(
    model: keras.Model, steps: int, *data: Any, callbacks: Sequence[Any] = (), **options: Any
) -> list[float]:
    """Return the seconds of each of `steps` steps of `fit` on `data`, which holds one more, not counted."""
    clock = _Clock(steps + 1)
    with contextlib.suppress(_EnoughError):
        model.fit(*data, epochs=1, verbose=0, callbacks=[*callbacks, clock], **options)
    del data
    gc.collect()  # a pipeline in the middle of its images holds threads and memory
    return np.diff(clock.ends).tolist()


def bare_seconds(job: Job, steps: int) -> list[float]:
    """Return the seconds of each of `steps` compiled steps on one batch that already lies in memory.

    On TensorFlow this is the compiled function alone; on other backends `fit` without callbacks but a clock.
    """
    batch = job.dataset.train.take(np.arange(job.experiment.training.batch_size))
    if keras.backend.backend() != "tensorflow":
        return timed_fit(job.classifier, steps, (batch for _ in range(steps + 1)), shuffle=False)
    import tensorflow as tf  # absent where JAX trains

    job.classifier.make_train_function()
    stream = iter(tf.data.Dataset.from_tensors(batch).repeat())
    return _timed(lambda: float(job.classifier.train_function(stream)["loss"]), steps)


def pipeline_seconds(job: Job, steps: int) -> list[float]:
    """Return the seconds for each batch of the input pipeline alone, once its buffer is empty."""
    batches = job.batches(epochs=steps + 2 * PREFETCH_BATCHES)
    stream = iter(batches)
    for _ in range(2 * PREFETCH_BATCHES):
        next(stream)
    return _timed(lambda: next(stream), steps)


def augmentation_seconds(job: Job, steps: int) -> list[float]:
    """Return the seconds for the augmentation of a batch, compiled; nothing where there is none.

    Only on TensorFlow, where layers can be compiled without a model around them.
    """
    layers = job.classifier.augmentation
    if not layers or keras.backend.backend() != "tensorflow":
        return []
    import tensorflow as tf  # absent where JAX trains

    @tf.function
    def augment(images: Any) -> Any:
        pixels = tf.cast(images, "float32")
        for layer in layers:
            pixels = layer(pixels, training=True)
        return pixels

    images = tf.constant(job.dataset.train.take(np.arange(job.experiment.training.batch_size))[0])
    augment(images)
    return _timed(lambda: augment(images), steps)


def matmul_peak(dtype: str, repeats: int = 12) -> float:
    """Return the largest rate (operations/s) seen for a product of square matrices of `dtype`."""
    random = np.random.default_rng(0).standard_normal((PEAK_SIDE, PEAK_SIDE))
    matrix = ops.cast(ops.convert_to_tensor(random.astype("float32")), dtype)
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf  # absent where JAX trains

        product: Callable[[Any], Any] = tf.function(lambda x: tf.reduce_sum(tf.cast((x @ x)[:1], "float32")))
    else:
        import jax

        product = jax.jit(lambda x: (x @ x)[:1].sum())
    float(product(matrix))
    return 2.0 * PEAK_SIDE**3 / min(_timed(lambda: float(product(matrix)), repeats))


def _timed(action: Callable[[], object], times: int) -> list[float]:
    action()
    seconds = []
    for _ in range(times):
        start = time.perf_counter()
        action()
        seconds.append(time.perf_counter() - start)
    return seconds
