import math

import keras
import numpy as np
import pytest

from app.config import load_experiment
from app.config.optimizer import OptimizerConfig
from app.config.schedules import (
    ConstantSchedule,
    CosineSchedule,
    ExponentialSchedule,
    OneCycleSchedule,
    StepSchedule,
)
from app.errors import UserError
from app.training.optimizers.build import build_optimizer, unapplied_steps
from app.training.optimizers.learning_rate import LearningRate
from app.training.setup import prepare
from models.layers import stock_layers

STEPS, EPOCHS = 7, 12
LAST = STEPS * EPOCHS - 1
SCHEDULES = {
    "constant": ConstantSchedule(peak=0.1),
    "constant_warmup": ConstantSchedule(peak=0.1, warmup_epochs=2),
    "cosine": CosineSchedule(peak=0.1),
    "cosine_warmup": CosineSchedule(peak=0.1, end=0.001, warmup_epochs=3),
    "step": StepSchedule(peak=0.1, boundaries_epochs=(6, 9), factor=0.1),
    "step_warmup": StepSchedule(peak=0.1, boundaries_epochs=(6, 9), factor=0.1, warmup_epochs=1),
    "exponential": ExponentialSchedule(peak=1e-3, decay_epochs=5, factor=0.95),
    "staircase": ExponentialSchedule(peak=1e-5, decay_epochs=5, factor=0.95, staircase=True),
    "one_cycle": OneCycleSchedule(peak=0.4, end=0.01, peak_epoch=4),
    "one_cycle_from": OneCycleSchedule(start=0.1, peak=0.4, end=0.01, peak_epoch=2.3),
    "one_cycle_warmup": OneCycleSchedule(peak=0.4, peak_epoch=4, warmup_epochs=2),
}


def rate(schedule, step):
    return LearningRate(schedule, STEPS, EPOCHS).at(step)


@pytest.mark.parametrize("name", SCHEDULES)
def test_keras_schedule_agrees_with_the_plain_function_at_every_step(name):
    schedule = LearningRate(SCHEDULES[name], STEPS, EPOCHS)
    variable = keras.Variable(0, dtype="int", trainable=False)
    for step in range(LAST + 3):
        variable.assign(step)
        value = schedule(variable)
        assert keras.backend.standardize_dtype(getattr(value, "dtype", "float32")) == "float32"
        np.testing.assert_allclose(float(value), rate(SCHEDULES[name], step), rtol=2e-6, atol=1e-8)


def test_warmup_is_linear_and_ends_at_the_peak():
    for step in range(3 * STEPS):
        assert rate(SCHEDULES["cosine_warmup"], step) == pytest.approx(0.1 * (step + 1) / (3 * STEPS))
    assert rate(SCHEDULES["cosine_warmup"], 3 * STEPS) == pytest.approx(0.1)
    assert rate(SCHEDULES["constant_warmup"], 2 * STEPS - 1) == 0.1
    assert rate(SCHEDULES["step_warmup"], 0) == pytest.approx(0.1 / STEPS)


def test_cosine_reaches_its_end_at_the_last_step():
    assert rate(SCHEDULES["cosine"], 0) == pytest.approx(0.1)
    assert rate(SCHEDULES["cosine"], LAST) == pytest.approx(0.0, abs=1e-15)
    assert rate(SCHEDULES["cosine_warmup"], LAST) == pytest.approx(0.001)
    middle = 0.001 + 0.099 * (1 + math.cos(math.pi * (50 - 21) / (LAST - 21))) / 2
    assert rate(SCHEDULES["cosine_warmup"], 50) == pytest.approx(middle)


def test_step_changes_at_the_first_step_of_the_boundary_epoch():
    rates = [rate(SCHEDULES["step"], step) for step in range(LAST + 1)]
    assert rates == pytest.approx([0.1] * 6 * STEPS + [0.01] * 3 * STEPS + [0.001] * 3 * STEPS)


def test_staircase_is_the_lecture_notes_rate_and_constant_within_an_epoch():
    for step in range(LAST + 1):
        assert rate(SCHEDULES["staircase"], step) == pytest.approx(
            1e-5 * 0.95 ** (step // STEPS // 5), rel=1e-15
        )
    assert rate(SCHEDULES["exponential"], 5 * STEPS) == pytest.approx(1e-3 * 0.95)
    assert rate(SCHEDULES["exponential"], STEPS) == pytest.approx(1e-3 * 0.95**0.2)


def test_one_cycle_rises_to_its_peak_and_falls_to_its_end():
    assert rate(SCHEDULES["one_cycle"], 0) == 0.0
    assert rate(SCHEDULES["one_cycle"], 2 * STEPS) == pytest.approx(0.2)
    assert rate(SCHEDULES["one_cycle"], 4 * STEPS) == pytest.approx(0.4)
    assert rate(SCHEDULES["one_cycle"], LAST) == pytest.approx(0.01)


def test_optimizer_follows_the_schedule_by_its_own_step_count():
    config = OptimizerConfig(name="sgd", learning_rate=SCHEDULES["step"], momentum=0.9, nesterov=True)
    optimizer = build_optimizer(config, STEPS, EPOCHS)
    assert isinstance(optimizer, keras.optimizers.SGD)
    assert (optimizer.momentum, optimizer.nesterov) == (0.9, True)
    optimizer.build([keras.Variable([1.0])])
    for step in (0, 6 * STEPS - 1, 6 * STEPS, LAST):
        optimizer.iterations.assign(step)
        assert float(optimizer.learning_rate) == pytest.approx(rate(SCHEDULES["step"], step), rel=1e-6)


def test_constant_without_warmup_is_a_plain_number():
    config = OptimizerConfig(name="adamw", learning_rate=SCHEDULES["constant"], weight_decay=0.01)
    optimizer = build_optimizer(config, STEPS, EPOCHS)
    assert isinstance(optimizer, keras.optimizers.AdamW)
    assert isinstance(optimizer.learning_rate, keras.Variable)
    assert float(optimizer.learning_rate) == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [("sgd", {"momentum": 2.0}, "momentum"), ("adam", {"beta": 1}, "beta")],
)
def test_what_keras_refuses_is_a_users_error(name, arguments, message):
    config = OptimizerConfig(name=name, learning_rate=SCHEDULES["constant"], **arguments)
    with pytest.raises(UserError, match=message):
        build_optimizer(config, STEPS, EPOCHS)


@pytest.mark.parametrize(
    "arguments",
    [
        {"name": "adam"},
        {"name": "adam", "beta_1": 0.8, "beta_2": 0.95, "epsilon": 1e-3, "global_clipnorm": 0.5},
        {"name": "adam", "amsgrad": True},
        {"name": "adamw", "weight_decay": 0.1, "no_decay": ("bias",)},
        {"name": "adam", "rate_multipliers": {"bias": 0.1}, "gradient_accumulation_steps": 2},
    ],
)
def test_adam_in_one_pass_takes_keras_steps_and_has_its_variables(arguments):
    generator = np.random.default_rng(0)
    start = {"kernel": generator.normal(size=(3, 3, 5, 7)), "bias": generator.normal(size=7)}
    scales = [10.0**-step for step in range(6)]
    gradients = [
        [generator.normal(scale=scale, size=each.shape) for each in start.values()] for scale in scales
    ]

    def trained():
        variables = [keras.Variable(value, dtype="float32", name=name) for name, value in start.items()]
        optimizer = build_optimizer(OptimizerConfig(learning_rate=SCHEDULES["cosine"], **arguments), 3, 2)
        optimizer.build(variables)
        for step in gradients:
            optimizer.apply([keras.ops.convert_to_tensor(each, "float32") for each in step], variables)
        return {each.path.rpartition("/")[2]: np.asarray(each) for each in [*variables, *optimizer.variables]}

    ours = trained()
    with stock_layers():
        expected = trained()
    assert ours.keys() == expected.keys()
    for path, value in expected.items():
        # In float32, 1 - 0.999 has a rounding error of 1.3e-5 of itself.
        np.testing.assert_allclose(ours[path], value, rtol=1e-4, atol=1e-5, err_msg=path)


def test_one_cycle_starts_where_it_is_told_and_peaks_inside_an_epoch():
    peak = round(2.3 * STEPS)
    assert rate(SCHEDULES["one_cycle_from"], 0) == pytest.approx(0.1)
    assert rate(SCHEDULES["one_cycle_from"], peak) == pytest.approx(0.4)
    assert max(rate(SCHEDULES["one_cycle_from"], step) for step in range(LAST)) == pytest.approx(0.4)


@pytest.mark.parametrize("name", SCHEDULES)
def test_learning_rates_per_images_are_in_proportion_to_the_batch(name):
    given = SCHEDULES[name].model_copy(update={"per_images": 256})
    assert SCHEDULES[name].for_batches_of(640) == SCHEDULES[name]
    for step in range(LAST + 1):
        expected = 2.5 * rate(SCHEDULES[name], step)
        assert rate(given.for_batches_of(640), step) == pytest.approx(expected, rel=1e-12)


def test_scaled_rates_are_trained_with_recorded_and_said(home):
    plain = prepare(load_experiment("tiny"))
    job = prepare(load_experiment("tiny", ["optimizer.learning_rate.per_images=64"]))
    for step in (0, 5, 12):
        assert job.learning_rate(step) == pytest.approx(4 * plain.learning_rate(step))
        job.classifier.optimizer.iterations.assign(step)
        assert float(job.classifier.optimizer.learning_rate) == pytest.approx(
            job.learning_rate(step), rel=1e-5
        )
    assert list(job.warnings()) == [
        "optimizer.learning_rate.peak: 0.003 for 64 images is 0.012 for batches of 256"
    ]


def accumulating(steps):
    return OptimizerConfig(name="sgd", learning_rate=SCHEDULES["cosine"], gradient_accumulation_steps=steps)


def test_accumulated_gradients_are_one_update_by_their_mean_at_the_rate_of_its_last_step():
    optimizer = build_optimizer(accumulating(3), STEPS, EPOCHS)
    variable = keras.Variable(1.0)
    optimizer.build([variable])
    values = []
    for gradient in (1.0, 2.0, 6.0, 4.0):
        optimizer.apply([keras.ops.convert_to_tensor(gradient)], [variable])
        values.append(float(variable))
    assert values == pytest.approx([1, 1, 1 - 3 * rate(SCHEDULES["cosine"], 2), values[2]])


def test_what_is_left_over_at_the_end_is_counted():
    assert [unapplied_steps(accumulating(steps), STEPS * EPOCHS) for steps in (None, 2, 5)] == [0, 0, 4]
    build_optimizer(accumulating(STEPS * EPOCHS), STEPS, EPOCHS)
    with pytest.raises(UserError, match="received 85, but the whole training has 84 steps"):
        build_optimizer(accumulating(STEPS * EPOCHS + 1), STEPS, EPOCHS)
