"""Progress on the screen: a bar on a terminal, elsewhere a line every 30 seconds, and one line an epoch."""

import time
from collections.abc import Mapping
from typing import TextIO

import keras
from rich.console import Console
from rich.progress_bar import ProgressBar
from rich.text import Text

from app.config import Experiment
from app.data.progress import LINE_SECONDS, LOG_SECONDS
from app.reading import Row
from app.training.checkpoint import Progress
from app.wording import duration

BAR_COLUMNS = (8, 40)  # least and greatest width of the bar


class Display(keras.callbacks.Callback):
    """A bar on a terminal, elsewhere a line every 30 seconds, and one line an epoch.

    The bar is printed, not kept by a thread of rich's: a killed run leaves no hidden cursor behind.
    """

    def __init__(self, progress: Progress, experiment: Experiment, steps_per_epoch: int, out: TextIO):
        super().__init__()
        self.progress, self.training = progress, experiment.training
        self.accuracy = "accuracy (mixed)" if experiment.mixes_images else "accuracy"
        self.steps_per_epoch, self.out = steps_per_epoch, out
        console = Console(file=out, force_terminal=True) if out.isatty() else None
        self.console = None if console and console.is_dumb_terminal else console
        self.shown_at = time.monotonic()
        self.bar_shown = False

    def on_epoch_begin(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        """Let the speed be measured anew."""
        self.first_step = 0

    def on_train_batch_end(self, batch: int, logs: Mapping[str, float] | None = None) -> None:
        """Show epoch, step, loss, accuracy, images/s and time left, now and then."""
        now = time.monotonic()
        if not self.first_step:  # it may hold the compilation of the step: the clock starts behind it
            self.first_step, self.started = self.progress.step, now
            return
        if logs is None or now - self.shown_at < (LINE_SECONDS if self.console else LOG_SECONDS):
            return
        self.shown_at = now
        done = self.progress.step
        seconds_per_step = (now - self.started) / (done - self.first_step)
        left = (self.training.num_epochs - self.progress.epoch) * self.steps_per_epoch - done
        self._show(
            epoch=f"epoch {self.progress.epoch + 1}/{self.training.num_epochs}",
            step=f"step {done}/{self.steps_per_epoch}",
            loss=f"loss {logs['loss']:.4f}",
            accuracy=f"{self.accuracy} {logs['accuracy']:.4f}",
            speed=f"{self.training.batch_size / seconds_per_step:,.0f} images/s",
            left=f"{duration(left * seconds_per_step)} left",
        )

    def on_test_begin(self, logs: Mapping[str, float] | None = None) -> None:
        """Say what is happening between the last step and the epoch's line."""
        if self.console:
            self._show(epoch=f"epoch {self.progress.epoch + 1}/{self.training.num_epochs}", step="validating")

    def summary(self, row: Row, best: bool) -> None:
        """Print the line of a finished epoch."""
        digits = len(str(self.training.num_epochs))
        self._write(
            f"epoch {row['epoch']:>{digits}}/{self.training.num_epochs}  "
            f"loss {row['loss']:.4f}  {self.accuracy} {row['accuracy']:.4f}  "
            f"val_loss {row['val_loss']:.4f}  val_accuracy {row['val_accuracy']:.4f}  "
            f"lr {row['learning_rate']:.3g}  {row['seconds']:.1f} s  "
            f"{row['images_per_second']:,.0f} images/s{'  best so far' if best else ''}\n"
        )

    def _show(self, **fields: str) -> None:
        """Print a line, on a terminal with a bar, and without the fields for which it is too narrow."""
        console = self.console
        if console is None:
            self._write("  ".join(fields.values()) + "\n")
            return
        least, most = BAR_COLUMNS
        columns = console.width - 1  # in the last one some terminals begin a new line
        for dispensable in ("speed", "step", "left", "accuracy", "loss"):
            if len("  ".join(fields.values())) + 2 + least <= columns:
                break
            fields.pop(dispensable, None)
        text = "  ".join(fields.values())
        bar_columns = min(most, columns - len(text) - 2)
        with console.capture() as capture:
            console.print(Text(text[: columns - 2] + "  ", end=""), end="")
            if bar_columns >= least:
                console.print(
                    ProgressBar(self.steps_per_epoch, self.progress.step, width=bar_columns), end=""
                )
        self._write(capture.get())

    def _write(self, text: str) -> None:
        """Write in place of the bar, if one stands there."""
        start = "\r\x1b[2K" if self.bar_shown else ""
        self.bar_shown = not text.endswith("\n")
        print(start + text, end="", file=self.out, flush=True)
