"""When states are saved and when training stops: on a signal, when it is time, together on all workers."""

import contextlib
import functools
import time
from collections.abc import Mapping, Sequence
from typing import NoReturn

import keras
import numpy as np

from app.errors import Interrupted
from app.machine import peak_memory_megabytes
from app.process import stop_noted
from app.runs import Run
from app.training.callbacks import fail
from app.training.checkpoint import save_state, settle_best
from app.training.history import is_complete
from app.training.setup import Job
from models.variables import metric_values, non_finite_variable, restore_metrics

AGREE_SECONDS = 0.25  # several workers ask each other so often


class StateSaver(keras.callbacks.Callback):
    """Writes states for an exact resume, also at a stop. Must be the last callback."""

    def __init__(self, run: Run, job: Job, resumed_metrics: Sequence[np.ndarray] | None = None):
        """Save into `run`; `resumed_metrics` are the metric values of a half-finished epoch."""
        super().__init__()
        self.run, self.job, self.progress, self.resumed_metrics = run, job, job.progress, resumed_metrics
        self.replicas = job.replicas
        self.every_seconds = 60 * job.experiment.training.checkpoint_every_minutes
        self.saved_at = self.agreed_at = time.monotonic()
        self.batches_to_go = self.batches_between = 1  # from one agreement of the workers to the next
        self.stop_signal = 0

    def stoppable(self) -> contextlib.AbstractContextManager[None]:
        """Let a signal in the block stop the training at the next batch."""
        return stop_noted(functools.partial(setattr, self, "stop_signal"), "stopping at the next batch")

    def on_epoch_begin(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        """Put back the metrics of a half-finished epoch; `fit` has just reset them."""
        if self.resumed_metrics is not None:
            restore_metrics(self.model, self.resumed_metrics)
            self.resumed_metrics = None

    def on_train_batch_end(self, batch: int, logs: Mapping[str, float] | None = None) -> None:
        """Save when it is time, or stop."""
        stop, save = self._agree()
        if stop or save:
            self._save()
        if stop:
            self._stop(stop)

    def on_test_begin(self, logs: Mapping[str, float] | None = None) -> None:
        """Make replicas equal, and see that they are; keep the training metrics, which validation resets."""
        self.replicas.average_statistics(self.model)
        self.replicas.check_in_sync(self.model)
        self.training_metrics = metric_values(self.model)

    def on_test_batch_end(self, batch: int, logs: Mapping[str, float] | None = None) -> None:
        """Stop in the middle of validation; only the validation is done again when the run is resumed."""
        stop, _ = self._agree()
        if stop:
            self._save(self.training_metrics)
            self._stop(stop)

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        """Save the finished epoch; all its records are written by now."""
        self._save()
        if self.job.is_chief:
            settle_best(self.run, self.progress.epoch)
        self.batches_to_go = 1
        stop, _ = self._agree()
        if stop:
            self._stop(stop)

    def stop_if_asked(self) -> None:
        """Stop for a signal that came when there was no batch any more; a resume writes the results."""
        if stop := max(self.replicas.group.all_gather("stop", self.stop_signal)):
            self._stop(stop)

    def _agree(self) -> tuple[int, bool]:
        """Return the signal to stop for, or 0, and whether to save, the same on every worker.

        Several workers ask each other every AGREE_SECONDS or so; the chief says when next.
        """
        now = time.monotonic()
        wish = (self.stop_signal, now - self.saved_at >= self.every_seconds)
        if self.replicas.group.size == 1:
            return wish
        self.batches_to_go -= 1
        if self.batches_to_go:
            return 0, False
        pace, self.agreed_at = (now - self.agreed_at) / self.batches_between, now
        wishes = self.replicas.group.all_gather("wishes", [*wish, round(AGREE_SECONDS / max(pace, 1e-3))])
        self.batches_to_go = self.batches_between = max(1, wishes[0][2])
        return max(stop for stop, *_ in wishes), wishes[0][1]

    def _stop(self, number: int) -> NoReturn:
        where = f"in epoch {self.progress.epoch + 1} after step {self.progress.step}"
        if is_complete(self.job.experiment, self.progress.rows):
            where = "after the last epoch"
        raise Interrupted(
            f"\nstopped {where}; the state is written. Go on with: make resume RUN={self.run.argument}",
            number,
        )

    def _save(self, metrics: Sequence[np.ndarray] | None = None) -> None:
        if self.job.ema:  # stopped in the middle of validation
            self.job.ema.put_in_place(False)
        if name := non_finite_variable(self.model):
            if self.job.is_chief:
                settle_best(self.run, 0)  # what waits for this state holds such values too
            fail(self.run, self.job, f"{name} holds values that are not finite")
        self.replicas.average_statistics(self.model)
        self.progress.peak_memory_megabytes = max(
            peak_memory_megabytes(), self.progress.peak_memory_megabytes
        )
        if metrics is None:
            metrics = metric_values(self.model)  # added up over the workers, all of which take part
        if self.job.is_chief:
            save_state(self.run, self.model, self.progress, metrics)
        self.saved_at = time.monotonic()
