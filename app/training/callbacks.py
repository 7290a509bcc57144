"""What happens beside the training steps: records, the best model, an early stop, the finite loss.

The callbacks keep nothing of their own that a resumed run would miss: they read and write `Progress`, and
early stopping and the best epoch follow from its history rows.
"""

import math
import time
from collections.abc import Mapping
from typing import Any, NoReturn

import keras

from app.drawing.curves import draw_curves
from app.errors import UserError
from app.files import atomic_path, write_json
from app.reading import Row, best_row
from app.runs import Run, write_history
from app.training.checkpoint import best_candidate
from app.training.history import is_complete
from app.training.optimizers import follow_history
from app.training.progress_display import Display
from app.training.setup import Job
from models import ImageClassifier


class Recorder(keras.callbacks.Callback):
    """Counts steps; after each epoch adds its row and brings CSV, pictures and best model up to date."""

    def __init__(self, run: Run, job: Job, display: Display):
        """Record into `run`.

        Only the chief writes; the other workers keep the same rows, by which they stop when it does.
        """
        super().__init__()
        self.run, self.job, self.progress, self.display = run, job, job.progress, display
        self.writers: dict[str, Any] = {}  # of TensorBoard

    def on_epoch_begin(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        """Start the clocks; set a learning rate that follows from the epochs before."""
        self.clock = time.monotonic()
        self.before = self.progress.train_seconds
        follow_history(self.job)

    def on_train_batch_end(self, batch: int, logs: Mapping[str, float] | None = None) -> None:
        """Count the step, before other callbacks look at the count; raise where its loss is not finite."""
        progress = self.progress
        progress.step += 1
        progress.train_seconds = self.before + time.monotonic() - self.clock
        if logs is not None and not math.isfinite(logs["loss"]):
            fail(self.run, self.job, f"the loss is {logs['loss']}")

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        """Close the epoch: row, best model, CSV, pictures, TensorBoard, and stop where it is time."""
        assert logs is not None
        job, progress, training = self.job, self.progress, self.job.experiment.training
        num_images = len(job.dataset.train)
        last_step = (epoch + 1) * job.steps_per_epoch - 1
        row: Row = {
            "epoch": epoch + 1,
            **{name: float(logs[name]) for name in ("loss", "accuracy", "val_loss", "val_accuracy")},
            "learning_rate": job.learning_rate(last_step),
            "seconds": round(self.before + time.monotonic() - self.clock, 3),
            "images_per_second": round(num_images / max(progress.train_seconds, 1e-9), 1),
        }
        progress.rows.append(row)
        progress.epoch, progress.step, progress.train_seconds = epoch + 1, 0, 0.0
        is_best = best_row(progress.rows, training.monitor) is row
        if is_best and job.is_chief:
            with atomic_path(best_candidate(self.run, epoch + 1)) as temporary:
                self.model.save(temporary)
        self.display.summary(row, is_best)
        if job.is_chief:
            write_records(self.run, job)
            self._log_scalars(row)
        if is_complete(job.experiment, progress.rows):
            self.model.stop_training = True

    def _log_scalars(self, row: Row) -> None:
        """Add an epoch's values to TensorBoard's event files, where TensorFlow is the backend."""
        if keras.backend.backend() != "tensorflow":
            return
        import tensorflow as tf  # absent where JAX trains

        for name, prefix in (("train", ""), ("validation", "val_")):
            if name not in self.writers:
                self.writers[name] = tf.summary.create_file_writer(str(self.run.tensorboard / name))
            with self.writers[name].as_default(step=row["epoch"]):
                tf.summary.scalar("loss", row[f"{prefix}loss"])
                tf.summary.scalar("accuracy", row[f"{prefix}accuracy"])
                if name == "train":
                    tf.summary.scalar("learning_rate", row["learning_rate"])
            self.writers[name].flush()


def write_records(run: Run, job: Job) -> None:
    """Write history.csv and the curves from the history rows."""
    write_history(run.history, job.progress.rows)
    draw_curves(run, job.experiment, job.progress.rows, job.progress.resumed_epochs)


def fail(run: Run, job: Job, what: str) -> NoReturn:
    """Raise the message for a blow-up that showed after the last step."""
    experiment, epoch, step = job.experiment, job.progress.epoch + 1, job.progress.step
    if step == 0:  # the epoch before has just ended
        epoch, step = epoch - 1, job.steps_per_epoch
    if job.is_chief:
        write_json(run.failure, {"epoch": epoch, "step": step, "what": what})
    causes = [f"a learning rate that is too high (peak {experiment.scaled_optimizer.learning_rate.peak:g})"]
    if experiment.training.precision != "float32":
        causes.append(f"the range of {experiment.training.precision} (try training.precision=float32)")
    if experiment.normalization == "none":
        causes.append("images that are not normalised (normalization: none)")
    if not experiment.scaled_optimizer.learning_rate.warmup_epochs:
        causes.append("no warm-up (learning_rate.warmup_epochs)")
    raise UserError(
        f"{experiment.name}: {what} in epoch {epoch}, step {step} of {job.steps_per_epoch}; "
        f"training stopped.\nLikely causes: {'; '.join(causes)}.\n"
        f"What was saved before is kept in {run.name}. In which layer it began: "
        f"make doctor RUN={run.argument}"
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
