"""Progress on the screen: a live line on a terminal, elsewhere a line now and then, and one line an epoch."""

import os
import time
from collections.abc import Mapping
from typing import TextIO

import keras

from app.config import Experiment
from app.reading import Row
from app.training.checkpoint import Progress
from app.wording import duration

LINE_SECONDS = 0.2  # a live line is redrawn this often
LOG_SECONDS = 30.0  # and where the output is no terminal, a line is printed this often


class Display(keras.callbacks.Callback):
    """A live line on a terminal, elsewhere a line every 30 seconds, and one line an epoch."""

    def __init__(self, progress: Progress, experiment: Experiment, steps: int, images: int, out: TextIO):
        """Show the progress of epochs of `steps` steps over `images` images on `out`."""
        super().__init__()
        self.progress, self.training = progress, experiment.training
        self.steps, self.images, self.out = steps, images, out
        self.live = out.isatty()
        self.shown_at = time.monotonic()
        self.width = 0

    def on_epoch_begin(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        """Let the speed be measured anew."""
        self.first_step = 0

    def on_train_batch_end(self, batch: int, logs: Mapping[str, float] | None = None) -> None:
        """Show epoch, step, loss, accuracy, images/s and time left, now and then."""
        now = time.monotonic()
        if not self.first_step:  # it may hold the compilation of the step: the clock starts behind it
            self.first_step, self.started = self.progress.step, now
            return
        if logs is None or now - self.shown_at < (LINE_SECONDS if self.live else LOG_SECONDS):
            return
        self.shown_at = now
        done = self.progress.step
        seconds_per_step = (now - self.started) / (done - self.first_step)
        left = (self.training.epochs - self.progress.epoch) * self.steps - done
        speed = self.training.batch_size / seconds_per_step
        parts = [
            f"epoch {self.progress.epoch + 1}/{self.training.epochs}",
            f"step {done}/{self.steps}",
            f"loss {logs['loss']:.4f}",
            f"accuracy {logs['accuracy']:.4f}",
            f"{speed:,.0f} images/s",
            f"{duration(left * seconds_per_step)} left",
        ]
        if self.live:  # a line that wraps cannot be written over
            for least in (4, 1, -1, -1, -1):  # images/s, the step, then from the end
                if len("  ".join(parts)) >= self._columns():
                    del parts[least]
        self._write("  ".join(parts), end="" if self.live else "\n")

    def on_test_begin(self, logs: Mapping[str, float] | None = None) -> None:
        """Say what is happening between the last step and the epoch's line."""
        if self.live:
            self._write(f"epoch {self.progress.epoch + 1}/{self.training.epochs}  validating", end="")

    def summary(self, row: Row, best: bool) -> None:
        """Print the line of a finished epoch."""
        digits = len(str(self.training.epochs))
        self._write(
            f"epoch {row['epoch']:>{digits}}/{self.training.epochs}  "
            f"loss {row['loss']:.4f}  accuracy {row['accuracy']:.4f}  "
            f"val_loss {row['val_loss']:.4f}  val_accuracy {row['val_accuracy']:.4f}  "
            f"lr {row['learning_rate']:.3g}  {row['seconds']:.1f} s  "
            f"{row['images_per_second']:,.0f} images/s{'  best so far' if best else ''}",
            end="\n",
        )

    def _columns(self) -> int:
        """Return the width of the terminal, which may change while it trains; 80 where it does not tell."""
        try:
            return os.get_terminal_size(self.out.fileno()).columns or 80
        except OSError:
            return 80

    def _write(self, text: str, end: str) -> None:
        """Write over the live line, if one stands there."""
        start = f"\r{' ' * self.width}\r" if self.width else ""
        text = text if end else text[: self._columns() - 1]
        self.width = 0 if end else len(text)
        print(start + text, end=end, file=self.out, flush=True)
