"""What happens beside the training steps: records, the best model, stops, states.

The callbacks keep nothing of their own that a resumed run would miss: they read and write `Progress`, and
early stopping and the best epoch follow from its history rows.
"""

import math
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from types import FrameType
from typing import Any, NoReturn

import keras
import numpy as np

from app.config import Experiment
from app.errors import Interrupted, UserError
from app.reports.plots import draw_history
from app.runs import Row, Run, atomic_path, write_history, write_json
from app.training.checkpoint import (
    Progress,
    metric_values,
    non_finite_variable,
    restore_metrics,
    save_state,
)
from app.training.display import Display
from app.training.history import best_row, is_complete


class Recorder(keras.callbacks.Callback):
    """Counts steps; after each epoch adds its row and brings CSV, pictures and best model up to date."""

    def __init__(
        self,
        run: Run,
        progress: Progress,
        experiment: Experiment,
        display: Display,
        learning_rate: Callable[[int], float],
    ):
        """Record into `run`; `learning_rate(step)` is the rate of a step counted over all epochs."""
        super().__init__()
        self.run, self.progress, self.experiment = run, progress, experiment
        self.display, self.learning_rate = display, learning_rate
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
        if is_best:
            with atomic_path(self.run.best_model) as temporary:
                self.model.save(temporary)
        self.display.summary(row, is_best)
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


class FiniteLoss(keras.callbacks.Callback):
    """Stops a run whose loss or weights are no longer numbers, and leaves failure.json for the doctor."""

    def __init__(self, run: Run, progress: Progress, experiment: Experiment, steps: int):
        """Name the run, epoch and step in the message."""
        super().__init__()
        self.run, self.progress, self.experiment, self.steps = run, progress, experiment, steps

    def on_train_batch_end(self, batch: int, logs: Mapping[str, float] | None = None) -> None:
        """Raise at the first step whose loss is NaN or infinite."""
        if logs is not None and not math.isfinite(logs["loss"]):
            self.fail(f"the loss is {logs['loss']}", self.progress.epoch + 1, self.progress.step)

    def fail(self, what: str, epoch: int, step: int) -> NoReturn:
        """Raise the message for a blow-up that showed after a step of an epoch, both counted from 1."""
        experiment = self.experiment
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


class StateSaver(keras.callbacks.Callback):
    """Writes states for an exact resume, turns a signal into a clean stop. Must be the last callback."""

    def __init__(
        self,
        run: Run,
        progress: Progress,
        every_seconds: float,
        finite: FiniteLoss,
        resumed_metrics: Sequence[np.ndarray] | None = None,
    ):
        """Save every so many seconds.

        `finite` raises where the weights are not; `resumed_metrics` are the metric values of a half-finished
        epoch.
        """
        super().__init__()
        self.run, self.progress, self.every_seconds, self.finite = run, progress, every_seconds, finite
        self.resumed_metrics = resumed_metrics
        self.saved_at = time.monotonic()
        self.stop_signal = 0
        self.previous_handlers: dict[int, Any] = {}

    def __enter__(self) -> "StateSaver":
        """Take over SIGINT and SIGTERM."""
        for number in (signal.SIGINT, signal.SIGTERM):
            try:
                self.previous_handlers[number] = signal.signal(number, self._on_signal)
            except ValueError:  # not the main thread: whoever runs the thread handles signals
                break
        return self

    def __exit__(self, *_: object) -> None:
        """Give the signals back."""
        for number, handler in self.previous_handlers.items():
            signal.signal(number, handler)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        """Ask for a stop at the next batch; a second signal ends the process at once."""
        self.stop_signal = number
        for each in self.previous_handlers:
            signal.signal(each, signal.SIG_DFL)  # Python's own handler would wait for the step to end
        print("\nstopping at the next batch; again to stop at once ...", file=sys.stderr, flush=True)

    def on_epoch_begin(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        """Put back the metrics of a half-finished epoch; `fit` has just reset them."""
        if self.resumed_metrics is not None:
            restore_metrics(self.model, self.resumed_metrics)
            self.resumed_metrics = None

    def on_train_batch_end(self, batch: int, logs: Mapping[str, float] | None = None) -> None:
        """Save when it is time, or stop."""
        if self.stop_signal:
            self._save()
            self._stop()
        if time.monotonic() - self.saved_at >= self.every_seconds:
            self._save()

    def on_test_begin(self, logs: Mapping[str, float] | None = None) -> None:
        """Keep the training metrics; validation resets them."""
        self.training_metrics = metric_values(self.model)

    def on_test_batch_end(self, batch: int, logs: Mapping[str, float] | None = None) -> None:
        """Stop in the middle of validation; only the validation is done again when the run is resumed."""
        if self.stop_signal:
            self._save(self.training_metrics)
            self._stop()

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        """Save the finished epoch; all its records are written by now."""
        self._save()
        if self.stop_signal:
            self._stop()

    def _stop(self) -> NoReturn:
        raise Interrupted(
            f"\nstopped in epoch {self.progress.epoch + 1} after step {self.progress.step}; "
            f"the state is written. Go on with: make resume RUN={self.run.name}",
            self.stop_signal,
        )

    def _save(self, metrics: Sequence[np.ndarray] | None = None) -> None:
        if name := non_finite_variable(self.model):
            progress, steps = self.progress, self.finite.steps
            epoch, step = (
                (progress.epoch, steps) if progress.step == 0 else (progress.epoch + 1, progress.step)
            )
            self.finite.fail(f"{name} holds values that are not finite", epoch, step)
        save_state(self.run, self.model, self.progress, metrics)
        self.saved_at = time.monotonic()
