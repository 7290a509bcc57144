"""The live line: one line of the terminal, whatever its width."""

import fcntl
import os
import pty
import struct
import termios

import pytest

from app.config import load_experiment
from app.training.checkpoint import Progress
from app.training.progress_display import Display


@pytest.mark.parametrize("columns", [20, 40, 80, 200])
def test_the_live_line_never_wraps(columns, monkeypatch):
    parent, child = pty.openpty()
    fcntl.ioctl(child, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    progress = Progress(epoch=99)
    with os.fdopen(child, "w") as out:
        display = Display(progress, load_experiment("fast_cifar10"), 1_000, 50_000, out)
        monkeypatch.setattr("app.training.progress_display.LINE_SECONDS", 0)
        display.on_epoch_begin(99)
        for progress.step in (500, 600, 700):
            display.on_train_batch_end(progress.step, {"loss": 1.25, "accuracy": 0.5})
        display.on_test_begin()
        shown = os.read(parent, 10_000).decode().split("\r")
    os.close(parent)
    assert max(map(len, shown)) < columns
    assert any(line.startswith("epoch 100/") for line in shown)
    assert (columns < 40) != any("loss 1.2500" in line for line in shown)
    assert (columns < 200) != any(line.rstrip().endswith("left") and "images/s" in line for line in shown)
