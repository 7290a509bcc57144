"""`reduce_on_plateau`: Keras' callback gives the same rates, and the rate follows from the history alone."""

import io

import keras
import numpy as np
import pytest

import app.training.train as runner
from app.config import load_experiment
from app.config.schedules import PlateauSchedule
from app.reading import read_history
from app.training.history import rate_on_plateau
from tests.training.stopped_runs import assert_same_bits, stopped_run

PLATEAU = (
    "optimizer.learning_rate={schedule: reduce_on_plateau, peak: 0.004, factor: 0.5, patience_epochs: 1, \
min_delta: 100.0, end: 0.0015, warmup_epochs: 1}"
)
LOSS = "training.monitor=val_loss"


def rates_of_keras(values, mode, schedule):
    """The learning rate of each epoch, and of the one after the last, under Keras' own callback."""
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(schedule.peak), "mse")
    callback = keras.callbacks.ReduceLROnPlateau(
        monitor="val_accuracy" if mode == "max" else "val_loss",
        mode=mode,
        factor=schedule.factor,
        patience=schedule.patience_epochs,
        min_delta=schedule.min_delta,
        min_lr=schedule.end,
    )
    callback.set_model(model)
    callback.on_train_begin()
    rates = [float(model.optimizer.learning_rate)]
    for epoch, value in enumerate(values):
        callback.on_epoch_end(epoch, {callback.monitor: value})
        rates.append(float(model.optimizer.learning_rate))
    return rates


@pytest.mark.parametrize("mode", ["max", "min"])
@pytest.mark.parametrize("patience", [1, 2, 5])
@pytest.mark.parametrize("min_delta", [0.0, 0.15])
def test_rates_are_those_of_keras_callback(mode, patience, min_delta):
    schedule = PlateauSchedule(peak=0.1, factor=0.3, patience_epochs=patience, min_delta=min_delta, end=0.002)
    sign = 1 if mode == "max" else -1
    values = np.random.default_rng(patience).normal(size=40).cumsum() * 0.1 * sign
    name = "val_accuracy" if mode == "max" else "val_loss"
    rows = [{name: float(value)} for value in values]
    ours = [rate_on_plateau(schedule.model_dump(), rows[:n], name) for n in range(len(rows) + 1)]
    np.testing.assert_allclose(ours, rates_of_keras(values, mode, schedule), rtol=1e-6)
    assert len(set(ours)) > 2 and ours[-1] >= 0.002


@pytest.mark.slow
def test_run_records_the_rates_it_trains_with_and_resumes_to_the_same_bits(home, monkeypatch):
    rates = {}

    class Watch(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            rates[int(self.model.optimizer.iterations) - 1] = float(self.model.optimizer.learning_rate)

    original = runner.callbacks_of
    monkeypatch.setattr(runner, "callbacks_of", lambda *given: [*original(*given), Watch()])
    straight = runner.train(load_experiment("tiny", [PLATEAU, LOSS, "training.epochs=4"]), out=io.StringIO())
    recorded = [row["learning_rate"] for row in read_history(straight.history)]
    assert recorded == [0.004, 0.004, 0.002, 0.0015]  # no loss falls by 2 after the first epoch
    steps = len(rates) // 4
    # The schedule is asked for the step to come: that of an epoch's last step stands before it.
    assert [rates[(epoch + 1) * steps - 2] for epoch in range(1, 4)] == pytest.approx(recorded[1:])
    assert rates[steps - 3] == pytest.approx(0.004 * (steps - 1) / steps)  # warm-up

    run = stopped_run(load_experiment("tiny", [PLATEAU, LOSS, "training.epochs=4"]), 2 * steps + 2)
    assert_same_bits(straight, runner.resume(run, out=io.StringIO()))
