"""The learning-rate range test: what curves suggest, and one from end to end."""

import io

import keras
import numpy as np
import pytest
from keras import ops
from PIL import Image

from app import cli
from app.config import load_experiment
from app.config.schema import ModelConfig
from app.doctor import find_rate
from app.doctor.find_rate import LOWEST, TIMED_STEPS, RangeTest, changes
from app.doctor.rate_range import RateRange, rate_range
from app.errors import UserError
from app.training.setup import prepare
from models.network import MODELS, Network

RATES = np.geomspace(1e-6, 10, 150)
NOISE = np.random.default_rng(0).normal(0, 0.05, len(RATES))


def falling_at(rate, fall=1.5):
    """A loss of 2.3 that falls by `fall`, fastest at a rate."""
    return 2.3 - fall / (1 + (rate / RATES) ** 2) + NOISE


@pytest.mark.parametrize("rate", [1e-4, 1e-3, 1e-2])
def test_the_peak_is_a_tenth_of_where_the_loss_rises(rate):
    losses = falling_at(rate) + np.where(RATES > 60 * rate, 1.0, 0.0)
    found = rate_range(RATES, losses)
    assert rate / 2 < found.steepest < 2 * rate
    assert found.rises and found.steepest < found.lowest < found.end
    assert 40 * rate < found.end < 90 * rate
    assert found.peak == pytest.approx(found.end / 10)
    assert found.span[0] <= found.peak <= found.span[1]


@pytest.mark.parametrize("end", [np.inf, 1e30])
def test_a_loss_that_explodes_right_behind_its_descent(end):
    losses = falling_at(1e-2)
    losses[RATES > 0.03] = end
    found = rate_range(RATES, losses)
    assert found.rises and 0.02 < found.end < 0.06 and 5e-3 < found.steepest < 0.03
    assert found.span == (found.peak, found.lowest)  # from below the steepest descent, to be safe


def test_the_peak_is_no_higher_than_where_the_loss_is_lowest():
    found = RateRange(steepest=0.01, lowest=0.3, end=5.0, rises=True)
    assert found.peak == 0.3 and found.span == (0.01, 0.3)


def test_a_loss_that_never_rises():
    found = rate_range(RATES, falling_at(1e-2))
    assert not found.rises and found.end == RATES[-1] and found.steepest <= found.peak <= found.lowest


@pytest.mark.parametrize("slope", [0.0, 0.3])
def test_nothing_is_suggested_where_the_loss_never_falls(slope):
    assert rate_range(RATES, 2.3 + NOISE + slope * np.log10(RATES / RATES[0])) is None


def test_a_lucky_step_is_no_fall():
    losses = 2.3 + NOISE
    losses[100] = 0.5
    assert rate_range(RATES, losses) is None


def test_one_step_that_jumps_does_not_hide_what_is_beside_it():
    losses = falling_at(1e-3)
    losses[np.searchsorted(RATES, 0.01)] = 1e9
    assert 5e-4 < rate_range(RATES, losses).steepest < 2e-3


def test_suggested_settings_keep_the_proportions_and_can_be_set():
    for name in ("fast_cifar10_muon", "finetune_folder", "lenet5_cifar10"):
        experiment = load_experiment(name, ["optimizer.learning_rate.per_images=32"])
        before = experiment.scaled_optimizer
        changed = load_experiment(
            name, ["optimizer.learning_rate.per_images=32", *changes(experiment, 0.5)]
        ).scaled_optimizer
        pairs = [(before.learning_rate, changed.learning_rate)]
        if before.others:
            pairs.append((before.others.learning_rate, changed.others.learning_rate))
        for old, new in pairs:
            for key in ("peak", "start", "end"):
                assert getattr(new, key, 0) == pytest.approx(getattr(old, key, 0) / 2, rel=0.05)


def test_the_rates_of_muon_and_of_what_is_beside_it_rise_together(home):
    others = "{name: sgd, learning_rate: {schedule: cosine, peak: 0.5}, momentum: 0.9}"
    overrides = [f"optimizer={{name: muon, learning_rate: 0.2, others: {others}}}", "model={name: lenet5}"]
    test = RangeTest(prepare(load_experiment("tiny", overrides)))
    test.growth.assign(0.1)
    for step in (0, TIMED_STEPS, TIMED_STEPS + 50):
        rate = LOWEST * np.exp(0.1 * max(step - TIMED_STEPS, 0))
        assert float(test.optimizer.kernel_rate(step)) == pytest.approx(rate, rel=1e-5)
        assert float(test.optimizer._learning_rate(step)) == pytest.approx(2.5 * rate, rel=1e-5)


def test_a_first_batch_that_is_a_lucky_one_ends_nothing(home):
    job = prepare(load_experiment("tiny"))
    test = RangeTest(job)
    test.set_model(job.classifier)
    job.classifier.stop_training = False

    def losses(rates, values):
        for rate, value in zip(rates, values, strict=True):
            test.rates.append(rate)
            test.on_epoch_end(0, {"loss": value})
            if test.model.stop_training:
                return False
        return True

    timed = [LOWEST] * TIMED_STEPS
    assert losses(timed, [0.01, 2.0, 1.0, 9.0, *[1.0] * (TIMED_STEPS - 4)])
    assert test.plan()[0] >= 2
    rising = [LOWEST, 3 * LOWEST, 9 * LOWEST, 30 * LOWEST, 90 * LOWEST]
    assert losses(rising, [0.01, 1.0, 1.2, 1.0, 1.5])
    assert not losses([300 * LOWEST], [9.0])


class Broken(Network):
    """A network whose outputs are not numbers."""

    def __init__(self, num_classes, **kwargs):
        super().__init__(**kwargs)
        self.flatten = keras.layers.Flatten()
        self.head = keras.layers.Dense(num_classes)

    def call(self, x, training=None):
        return self.head(self.flatten(x)) + ops.log(-1.0)


def test_a_loss_that_is_no_number_from_the_start_is_said(home, monkeypatch):
    monkeypatch.setitem(MODELS, "broken", Broken)
    experiment = load_experiment("tiny").model_copy(update={"model": ModelConfig(name="broken")})
    with pytest.raises(UserError, match="not finite in the first steps.*make doctor EXP=tiny"):
        find_rate.find_rate(experiment, io.StringIO())
    assert not (home / "runs").exists()


SMALL = """\
# A small network on digits.
dataset: {name: digits, validation: 0.3}
model: {name: baseline}
optimizer:
  name: sgd
  learning_rate: {schedule: one_cycle, start: 0.1, peak: 30.0, peak_epoch: 0.5}
  momentum: 0.9
training: {epochs: 2, batch_size: 32, loss: {label_smoothing: 0.1}}
"""


@pytest.mark.slow
def test_the_suggested_peak_trains_digits(home, capsys):
    """With the peak that it had nothing is learnt; that which is suggested can be set as it is printed."""
    (home / "experiments" / "small.yaml").write_text(SMALL)
    assert cli.main(["find-rate", "small"]) == 0
    said = capsys.readouterr().out
    (picture,) = [path for path in (home / "runs").rglob("*") if path.is_file()]
    assert picture.name == "small-learning-rate.png" and f"picture {picture}" in said
    with Image.open(picture) as image:
        assert image.width > 800 and len(np.unique(np.asarray(image))) > 50
    change = said.split('SET="')[1].split('"')[0]
    peak = load_experiment("small", change.split()).optimizer.learning_rate.peak
    assert f"a peak of {peak:.2g}" in said

    def accuracy(factor):
        rate = f"optimizer.learning_rate.peak={peak * factor}"
        job = prepare(load_experiment("small", [*change.split(), rate]))
        steps = job.steps_per_epoch
        job.classifier.fit(job.batches(), epochs=2, steps_per_epoch=steps, shuffle=False, verbose=0)
        return job.classifier.evaluate(job.validation_batches()[0], verbose=0, return_dict=True)["accuracy"]

    suggested = accuracy(1)
    assert suggested > 0.8
    assert accuracy(0.01) < suggested - 0.1 and accuracy(100) < suggested - 0.3
