"""A run that blows up, and the doctor's replay of it."""

import io
import json

import keras
import pytest
from keras import ops

import app.training.train as runner
from app.config import load_experiment
from app.doctor.replay import replay
from app.errors import UserError
from app.runs import Run, list_runs
from models.network import MODELS, Network

STEPS = 7  # of an epoch of `tiny`
STATES = "training.checkpoint_every_minutes=10"  # at the end of epochs


class Trap(keras.layers.Layer):
    """Computes `harm(x, sprung)`, where sprung is 0, and 1 from some training step on.

    So many steps ahead of that a moving statistic, which training does not use, becomes infinite.
    """

    ahead = 0

    def __init__(self, after, harm):
        super().__init__()
        self.after, self.harm = after, harm

    def build(self, input_shape):
        self.count = self.add_weight(shape=(), initializer="zeros", trainable=False)
        self.statistic = self.add_weight(shape=(), name="statistic", initializer="zeros", trainable=False)

    def call(self, x, training=None):
        if training:
            self.count.assign_add(1.0)
            self.statistic.assign(ops.where(self.count > self.after - self.ahead, float("inf"), 0.0))
        return self.harm(x, ops.cast(self.count > self.after, x.dtype))


@pytest.fixture
def blow_up(home, monkeypatch):
    """Trains `tiny` with a network that has a trap between its layers, and returns the run it leaves."""

    def train(after, harm, *overrides):
        class Trapped(Network):
            def __init__(self, num_classes, **kwargs):
                super().__init__(**kwargs)
                self.flatten = keras.layers.Flatten()
                self.blocks = [keras.layers.Dense(16, activation="relu"), keras.layers.Dropout(0.2)]
                self.hidden = keras.layers.Dense(12, activation="relu")
                self.trap = Trap(after, harm)
                self.middle = keras.layers.Dense(12)
                self.head = keras.layers.Dense(num_classes)

            def call(self, x, training=None):
                x = self.blocks[0](self.flatten(x))
                x = self.hidden(self.blocks[1](x, training=training))
                x = self.trap(x, training=training)
                x = x * x
                return self.head(self.middle(x))

            def get_config(self):
                return {"num_classes": self.head.units}

        monkeypatch.setitem(MODELS, "baseline", Trapped)
        with pytest.raises(UserError, match="make doctor RUN=tiny/"):
            runner.train(load_experiment("tiny", [STATES, *overrides]), out=io.StringIO())
        return list_runs("tiny")[-1]

    return train


def overflow(x, sprung):
    return x * ops.exp(1000.0 * sprung)


def harmless(x, sprung):
    return x


def replayed(run):
    out = io.StringIO()
    replay(run, out)
    return out.getvalue()


@pytest.mark.slow
def test_layer_whose_output_overflows_is_named_with_the_sizes_before_it(blow_up, monkeypatch):
    run = blow_up(STEPS + 3, overflow)
    assert json.loads(run.failure.read_text())["step"] == 4
    before = {path: path.stat().st_mtime_ns for path in run.path.rglob("*")}
    text = replayed(run)
    assert "epoch 2, step 3 of 7: loss" in text  # the step before it
    assert "epoch 2, step 4 of 7: not finite first: the output of trap (Trap)" in text
    lines = text.splitlines()
    table = [line.split()[0] for line in lines if line.startswith("  ")]
    assert table[-6:] == ["normalization", "flatten", "blocks.0", "blocks.1", "hidden", "trap"]
    hidden = next(line for line in lines if line.startswith("  hidden")).split()
    assert hidden[1] == "Dense" and 0 < float(hidden[2]) < 10 and 0 < float(hidden[3]) < 1000
    assert "a division by zero" in lines[-1]
    assert before == {path: path.stat().st_mtime_ns for path in run.path.rglob("*")}

    monkeypatch.setattr(Trap, "call", lambda self, x, training=None: x)  # as on another machine
    text = replayed(run)
    assert "The replay stayed finite" in text


def test_layer_whose_gradient_overflows_is_named(blow_up):
    """Its outputs are finite: the slope of the root at 0 is not."""
    run = blow_up(STEPS + 3, lambda x, sprung: x + ops.sqrt(x - ops.stop_gradient(x) + 1.0 - sprung))
    text = replayed(run)
    assert "not finite first: the gradient that trap (Trap) passes back" in text
    assert [line.split()[0] for line in text.splitlines() if line.startswith("  ")] == [
        "layer",
        "trap",
        "middle",
        "head",
    ]
    assert "root" in text.splitlines()[-1]


@pytest.mark.parametrize("overrides", [(), ("training.ema={decay: 0.9}",)], ids=["plain", "ema"])
def test_operation_between_two_layers_is_told_from_them(blow_up, overrides):
    run = blow_up(STEPS + 3, lambda x, sprung: x * (1.0 + 1e30 * sprung), *overrides)
    text = replayed(run)
    assert "not finite first: what goes into middle (Dense)" in text


def test_too_large_a_step_is_named_as_such(blow_up):
    run = blow_up(1000, harmless, "optimizer={name: sgd, learning_rate: 1e30}")
    text = replayed(run)
    assert "lower optimizer.learning_rate (1e+30 in this step)" in text.splitlines()[-1]


@pytest.mark.slow
def test_what_was_not_finite_long_before_the_loss_is_found(blow_up, monkeypatch):
    monkeypatch.setattr(Trap, "ahead", 3)
    run = blow_up(STEPS + 5, overflow)
    text = replayed(run)
    assert "the loss is nan in epoch 2, step 6 of 7" in text
    assert "epoch 2, step 3 of 7: not finite first: trap.statistic, which the forward pass updates" in text


def test_run_that_did_not_blow_up(home):
    run = Run(home / "runs" / "tiny" / "20260101-000000")
    text = replayed(run)
    assert "did not blow up" in text
