import math

import pytest

from app.config import Experiment
from app.reading import best_row
from app.training.history import is_complete
from app.wording import duration

SECTIONS = {
    "name": "x",
    "dataset": {"name": "digits"},
    "model": {"name": "lenet5"},
    "optimizer": {"name": "sgd", "learning_rate": 0.1},
}


def rows(*values):
    return [{"epoch": i + 1, "val_accuracy": value, "val_loss": value} for i, value in enumerate(values)]


def test_best_row_is_the_first_of_equals_and_skips_what_is_not_a_number():
    assert best_row(rows(0.1, 0.5, 0.5, math.nan), "val_accuracy")["epoch"] == 2
    assert best_row(rows(0.4, 0.1, 0.1), "val_loss")["epoch"] == 2
    assert best_row(rows(math.nan), "val_accuracy") is None


@pytest.mark.parametrize(
    ("values", "mode", "patience", "min_delta", "stops"),
    [
        ((0.1, 0.2, 0.2), "max", 2, 0.0, False),
        ((0.1, 0.2, 0.2, 0.2), "max", 2, 0.0, True),
        ((0.1, 0.15, 0.19), "max", 2, 0.1, True),  # gains that are too small do not count
        ((0.1, 0.15, 0.21), "max", 2, 0.1, False),  # but they add up
        ((1.0, 0.9, 0.95, 0.97), "min", 2, 0.0, True),
        ((math.nan, math.nan), "max", 2, 0.0, True),
        ((), "max", 1, 0.0, False),
    ],
)
def test_early_stopping_follows_from_the_history(values, mode, patience, min_delta, stops):
    stopping = {"patience_epochs": patience, "min_delta": min_delta}
    monitor = {"max": "val_accuracy", "min": "val_loss"}[mode]
    training = {"epochs": 9, "batch_size": 1, "monitor": monitor, "early_stopping": stopping}
    experiment = Experiment(**SECTIONS, training=training)
    assert is_complete(experiment, rows(*values)) is stops
    assert is_complete(experiment, rows(*9 * [0.1])) is True


@pytest.mark.parametrize(
    ("seconds", "text"), [(3, "3 s"), (89, "89 s"), (91, "2 min"), (3600, "60 min"), (5400, "1 h 30 min")]
)
def test_duration_reads_like_speech(seconds, text):
    assert duration(seconds) == text
