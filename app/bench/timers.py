"""Timers of our own training step, whole and in parts."""

import contextlib
import gc
import inspect
import io
import math
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
from app.training.setup import Job
from app.training.state_saver import StateSaver
from app.training.train import callbacks_of
from models.augmentation import LAYERS, augmentation_layer
from models.augmentation.mixing import augment

_ARGUMENTS = {  # of augmentation layers
    "addition_factor": 0.5, "brightness_factor": 0.2, "degrees": 20, "factor": 0.5, "height_pixels": 3,
    "hue_factor": 0.2, "saturation_factor": 0.4, "threshold_factor": 0.9, "width_pixels": 3,
}  # fmt: skip
PEAK_SIDE = 2048  # of the square matrices whose product shows the processor's peak


class EnoughError(Exception):
    """Ends a `fit` without the records that an epoch's end writes."""


class StepClock(keras.callbacks.Callback):
    """Notes when steps end, and leaves `fit` or `evaluate` after enough. Must be the last callback."""

    def __init__(self, steps: int, budget_seconds: float = math.inf):
        """Stop after `steps`, or so long after the first one, but not before two more steps."""
        super().__init__()
        self.steps, self.budget_seconds = steps, budget_seconds
        self.ends = [time.perf_counter()]  # when the clock was made, and when each step ended
        self.loss = math.nan  # the last one

    def on_train_batch_end(self, batch: int, logs: Mapping[str, float] | None = None) -> None:
        """Leave `fit` where it is enough."""
        if self._note(logs):
            raise EnoughError

    def on_test_batch_end(self, batch: int, logs: Mapping[str, float] | None = None) -> None:
        """Stop `evaluate` where it is enough."""
        self.model.stop_evaluating = self._note(logs)

    def _note(self, logs: Mapping[str, float] | None) -> bool:
        assert logs is not None
        self.loss = float(logs["loss"])  # a GPU is waited for here
        self.ends.append(time.perf_counter())
        steps = len(self.ends) - 1
        return steps == self.steps or (steps > 2 and self.ends[-1] - self.ends[1] > self.budget_seconds)

    @property
    def seconds(self) -> list[float]:
        """Of each step but the first, which is compiled and waits for its batch."""
        return np.diff(self.ends)[1:].tolist()


def fit_seconds(job: Job, steps: int, folder: Path) -> list[float]:
    """Return the seconds of each of `steps` steps of `fit` as a run takes them, all callbacks included.

    One more step is taken first and not counted: it waits for the first batch. What the callbacks of a run
    write goes to `folder`.
    """
    run = Run(folder / job.experiment.name / "bench")
    run.states.mkdir(parents=True, exist_ok=True)
    job.progress = Progress()
    return timed_fit(
        job.classifier,
        steps,
        job.batches(epochs=steps + 1),
        steps_per_epoch=steps + 1,
        shuffle=False,
        callbacks=[*callbacks_of(run, job, io.StringIO()), StateSaver(run, job)],
    )


def timed_fit(
    model: keras.Model, steps: int, *data: Any, callbacks: Sequence[Any] = (), **options: Any
) -> list[float]:
    """Return the seconds of each of `steps` steps of `fit` on `data`, which holds one more, not counted."""
    clock = StepClock(steps + 1)
    with contextlib.suppress(EnoughError):
        model.fit(*data, epochs=1, verbose=0, callbacks=[*callbacks, clock], **options)
    del data
    gc.collect()  # a pipeline in the middle of its images holds threads and memory
    return clock.seconds


def compiled_seconds(job: Job, steps: int) -> list[float]:
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
    stream = iter(job.batches(epochs=steps + 1 + 2 * PREFETCH_BATCHES))
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
    def augmented(images: Any) -> Any:
        return augment(layers, tf.cast(images, "float32"))[0]

    images = tf.constant(job.dataset.train.take(np.arange(job.experiment.training.batch_size))[0])
    augmented(images)
    return _timed(lambda: float(augmented(images)[0, 0, 0, 0]), steps)  # a GPU is waited for here


def compare_augmentation(images: np.ndarray, draws: int) -> dict[str, str]:
    """Compare what each layer draws, compiled, on the default device with what it draws on the CPU.

    Each of the images (images, height, width, channels), uint8, is drawn `draws` times; see `compare_draws`.
    """
    found = {}
    for name, layer in sorted(LAYERS.items()):
        takes = inspect.signature(layer.__init__).parameters
        arguments: dict[str, Any] = {key: value for key, value in _ARGUMENTS.items() if key in takes}
        arguments |= {"factor": [1, 8]} if name == "random_posterization" else {}
        both = []
        for device in (contextlib.nullcontext(), keras.device("cpu:0")):
            with device:
                model = _Augmented(augmentation_layer(name, seed=1, **arguments))
                pixels = model.predict(images.repeat(draws, axis=0).astype("float32"), 256, verbose=0)
            both.append(pixels.reshape(len(images), draws, -1))
        found[name] = compare_draws(*both)
    return found


def compare_draws(ones: np.ndarray, others: np.ndarray) -> str:
    """Return whether draws (images, draws, values) are the same, or else equally distributed.

    The numbers are the fraction of the same values (within half a grey level), the root mean square distance
    of the means in standard errors (1 is expected, more where values move together), and the ratio of the
    standard deviations.
    """
    ones, others = ones.astype("float64"), others.astype("float64")
    same = np.mean(np.abs(ones - others) < 0.5)
    error = np.sqrt((ones.var(axis=1) + others.var(axis=1)) / ones.shape[1] + 1e-6)
    apart = np.sqrt(np.mean(((ones.mean(axis=1) - others.mean(axis=1)) / error) ** 2))
    wider = ones.std(axis=1).mean() / others.std(axis=1).mean()
    equal = same > 0.999 or (apart < 3 and abs(wider - 1) < 0.1)
    numbers = (
        f"{same:.1%} the same, means {apart:.2f} standard errors apart, standard deviations {wider:.3f} to 1"
    )
    return f"{'equal' if equal else 'NOT EQUAL'}: {numbers}"


class _Augmented(keras.Model):
    """A layer as in training, to be compiled by `predict`."""

    def __init__(self, layer: keras.layers.Layer):
        super().__init__()
        self.layer = layer

    def call(self, images: Any) -> Any:
        return self.layer(images, training=True)


def matmul_peak(dtype: str, on_gpu: bool, repeats: int = 12) -> float:
    """Return the most operations/s seen for a product of square matrices of `dtype`."""
    side = PEAK_SIDE * (4 if on_gpu else 1)  # a GPU is through the small one before the next is launched
    random = np.random.default_rng(0).standard_normal((side, side))
    matrix = ops.cast(ops.convert_to_tensor(random.astype("float32")), dtype)

    def product() -> float:
        return float(ops.sum(ops.cast(ops.matmul(matrix, matrix)[:1], "float32")))  # a GPU is waited for here

    return 2.0 * side**3 / min(_timed(product, repeats))


def _timed(action: Callable[[], object], times: int) -> list[float]:
    action()
    ends = [time.perf_counter()]
    for _ in range(times):
        action()
        ends.append(time.perf_counter())
    return np.diff(ends).tolist()
