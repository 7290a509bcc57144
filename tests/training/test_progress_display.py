"""What a user sees while a run trains: a bar that fits the terminal, elsewhere a line now and then."""

import io
import os
import re

import pytest

from app.config import load_experiment
from app.training import progress_display
from app.training.checkpoint import Progress
from app.training.progress_display import Display

LOGS = {"loss": 1.23456, "accuracy": 0.5}
ROW = {"epoch": 1, "loss": 1.0, "accuracy": 0.5, "val_loss": 1.0, "val_accuracy": 0.5,
       "learning_rate": 0.1, "seconds": 1.0, "images_per_second": 10.0}  # fmt: skip


@pytest.fixture(autouse=True)
def impatient(home, monkeypatch):
    for name in ("LINE_SECONDS", "LOG_SECONDS"):
        monkeypatch.setattr(progress_display, name, 0.0)


def show(out):
    """Two steps, validation and the end of an epoch."""
    progress = Progress()
    display = Display(progress, load_experiment("tiny"), 30, out)
    display.on_epoch_begin(0)
    for progress.step in (1, 2):
        display.on_train_batch_end(progress.step, LOGS)
    display.on_test_begin()
    display.summary(ROW, best=True)


@pytest.mark.parametrize("columns", [10, 40, 80, 200])
def test_bar_fits_the_terminal_and_gives_way_to_the_line_of_the_epoch(monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("TERM", "xterm")
    master, slave = os.openpty()
    with open(slave, "w") as out:
        show(out)
        written = ""
        while not written.endswith("best so far\r\n"):  # a busy system hands it over in parts
            written += os.read(master, 100_000).decode()
    os.close(master)
    bar, validating, end = written.split("\r\x1b[2K")
    for line in (bar, validating):
        assert len(re.sub(r"\x1b\[[0-9;]*m", "", line)) < columns
    assert bar.startswith("epoch 1/2"[: columns - 3])
    assert ("images/s" in bar) == (columns > 80) and ("step 2/30" in bar) == (columns > 40)
    assert ("loss 1.2346  " in bar) == (columns > 10) and ("\u2501" in bar) == (columns > 10)
    assert end.startswith("epoch 1/2  loss 1.0000  ") and end.endswith("best so far\r\n")


def test_lines_where_there_is_no_terminal(monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    out = io.StringIO()
    show(out)
    step, epoch = out.getvalue().splitlines()
    assert re.fullmatch(
        "epoch 1/2  step 2/30  loss 1.2346  accuracy 0.5000  [0-9,]+ images/s  [0-9]+ s left", step
    )
    assert epoch.endswith("best so far")
