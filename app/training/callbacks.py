"""What happens beside the training steps: records, the best model, stops, states.

The callbacks keep nothing of their own that a resumed run would miss: they read and write `Progress`, and
early stopping and the best epoch follow from its history rows.
"""

import math
import time
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

import keras

from app.config import Experiment
from app.distributed.replicas import Replicas
from app.drawing.curves import draw_history
from app.errors import UserError
from app.files import atomic_path, write_json
from app.reading import Row
from app.runs import Run, write_history
from app.training.checkpoint import Progress
from app.training.history import best_row, is_complete
from app.training.progress_display import Display
from models import ImageClassifier


class Recorder(keras.callbacks.Callback):
    """Counts steps; after each epoch adds its row and brings CSV, pictures and best model up to date."""

    def __init__(
        self,
        run: Run,
        progress: Progress,
        experiment: Experiment,
        display: Display,
        learning_rate: Callable[[int], float],
        writes: bool,
    ):
        """Record into `run`; `learning_rate(step)` is the rate of a step counted over all epochs.

        Only the chief `writes`; the other workers keep the same rows, by which they stop when it does.
        """
        super().__init__()
        self.run, self.progress, self.experiment = run, progress, experiment
        self.display, self.learning_rate, self.writes = display, learning_rate, writes
        self.tensorboard = ScalarLog(run)

    def on_epoch_begin(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        """Start the clocks."""
        self.clock = time.monotonic()
        self.before = self.progress.train_seconds

    def on_train_batch_end(self, batch: int, logs: Mapping[str, float] | None = None) -> None:
        """Count the step; runs before the other callbacks look at the count."""
        self.progress.step += 1
        self.progress.train_seconds = self.before + time.monotonic() - self.clock

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        """Close the epoch: row, best model, CSV, pictures, TensorBoard, and stop where it is time."""
        assert logs is not None
        progress, training = self.progress, self.experiment.training
        row: Row = {
            "epoch": epoch + 1,
            **{name: float(logs[name]) for name in ("loss", "accuracy", "val_loss", "val_accuracy")},
            "learning_rate": self.learning_rate((epoch + 1) * self.display.steps - 1),
            "seconds": round(self.before + time.monotonic() - self.clock, 3),
            "images_per_second": round(self.display.images / max(progress.train_seconds, 1e-9), 1),
        }
        progress.rows.append(row)
        progress.epoch, progress.step, progress.train_seconds = epoch + 1, 0, 0.0
        is_best = best_row(progress.rows, training.monitor, training.mode) is row
        if is_best and self.writes:
            with atomic_path(self.run.best_model) as temporary:
                self.model.save(temporary)
        self.display.summary(row, is_best)
        if self.writes:
            write_records(self.run, progress, self.experiment)
            self.tensorboard.write(row)
        if is_complete(self.experiment, progress.rows):
            self.model.stop_training = True


def write_records(run: Run, progress: Progress, experiment: Experiment) -> None:
    """Write history.csv and the curves from the history rows."""
    write_history(run.history, progress.rows)
    draw_history(run, experiment, progress.rows, progress.resumed_epochs)


class ScalarLog:
    """TensorBoard event files of training and validation; nothing where TensorFlow is not the backend."""

    def __init__(self, run: Run):
        """Write below `run.tensorboard`."""
        self.folder = run.tensorboard
        self.writers: dict[str, Any] = {}

    def write(self, row: Row) -> None:
        """Add one epoch's values."""
        if keras.backend.backend() != "tensorflow":
            return
        import tensorflow as tf  # absent where JAX trains

        for name, prefix in (("train", ""), ("validation", "val_")):
            writer = self.writers.get(name)
            if writer is None:
                writer = self.writers[name] = tf.summary.create_file_writer(str(self.folder / name))
            with writer.as_default(step=row["epoch"]):
                tf.summary.scalar("loss", row[f"{prefix}loss"])
                tf.summary.scalar("accuracy", row[f"{prefix}accuracy"])
                if name == "train":
                    tf.summary.scalar("learning_rate", row["learning_rate"])
            writer.flush()


class SyncReplicas(keras.callbacks.Callback):
    """Makes all replicas equal before validation, and sees that they are."""

    def __init__(self, replicas: Replicas):
        """SyncReplicas the differences between `replicas`."""
        super().__init__()
        self.replicas = replicas

    def on_test_begin(self, logs: Mapping[str, float] | None = None) -> None:
        """Average the moving statistics; compare all weights bit by bit."""
        self.replicas.average_statistics(self.model)
        self.replicas.check_in_sync(self.model)


class FiniteLoss(keras.callbacks.Callback):
    """Stops a run whose loss or weights are no longer numbers, and leaves failure.json for the doctor."""

    def __init__(self, run: Run, progress: Progress, experiment: Experiment, steps: int, writes: bool):
        """Name the run, epoch and step in the message; only the chief `writes`."""
        super().__init__()
        self.run, self.progress, self.experiment, self.steps = run, progress, experiment, steps
        self.writes = writes

    def on_train_batch_end(self, batch: int, logs: Mapping[str, float] | None = None) -> None:
        """Raise at the first step whose loss is NaN or infinite."""
        if logs is not None and not math.isfinite(logs["loss"]):
            self.fail(f"the loss is {logs['loss']}", self.progress.epoch + 1, self.progress.step)

    def fail(self, what: str, epoch: int, step: int) -> NoReturn:
        """Raise the message for a blow-up that showed after a step of an epoch, both counted from 1."""
        experiment = self.experiment
        if self.writes:
            write_json(self.run.failure, {"epoch": epoch, "step": step, "what": what})
        causes = [f"a learning rate that is too high (peak {experiment.optimizer.learning_rate.peak:g})"]
        if experiment.training.precision != "float32":
            causes.append(f"the range of {experiment.training.precision} (try training.precision=float32)")
        if experiment.normalization == "none":
            causes.append("images that are not normalised (normalization: none)")
        causes.append("no warm-up (learning_rate.warmup_epochs)")
        raise UserError(
            f"{experiment.name}: {what} in epoch {epoch}, step {step} of {self.steps}; training stopped.\n"
            f"Likely causes: {'; '.join(causes)}.\n"
            f"What was saved before is kept in {self.run.name}. In which layer it began: "
            f"make doctor RUN={self.run.name}"
        )


def finish_validation(
    classifier: ImageClassifier,
    epoch: int,
    val_ds: Any,
    val_steps: int,
    callbacks: list[keras.callbacks.Callback],
) -> None:
    """Close an epoch that was stopped in the middle of its validation: all its steps are done."""
    together = keras.callbacks.CallbackList(callbacks, model=classifier)
    together.on_epoch_begin(epoch)
    logs = {name: float(value) for name, value in classifier.get_metrics_result().items()}
    validation = classifier.evaluate(val_ds, steps=val_steps, verbose=0, return_dict=True, callbacks=together)
    together.on_epoch_end(epoch, logs | {f"val_{name}": value for name, value in validation.items()})
