"""Weight decay: which variables it leaves out, and PyTorch's kind of it, each against plain NumPy."""

import keras
import numpy as np
import pytest

from app.config import load_experiment
from app.config.optimizer import OptimizerConfig
from app.config.schedules import StepSchedule
from app.training.optimizers import LearningRate, build_optimizer
from app.training.setup import prepare

SHAPES = {"kernel": (3, 2), "bias": (2,), "gamma": (2,), "alphabeta": (2,)}
STEP = StepSchedule(peak=0.2, boundaries_epochs=(2, 4), factor=0.1)
STEPS, EPOCHS = 2, 6
RNG = np.random.default_rng(0)
START = {name: RNG.normal(size=shape).astype("float32") for name, shape in SHAPES.items()}
GRADIENTS = [
    {name: RNG.normal(size=shape).astype("float32") for name, shape in SHAPES.items()}
    for _ in range(STEPS * EPOCHS)
]


def trained(schedule=STEP, loss_scale=False, multipliers=None, no_decay=(), decoupled=True, **config):
    """Returns the values of `net/<name>` for each name in SHAPES after one step for each of GRADIENTS."""
    options = {"rate_multipliers": multipliers or {}, "no_decay": no_decay, "decoupled": decoupled}
    name = config.pop("name", "sgd")
    config = OptimizerConfig(name=name, learning_rate=schedule, **config, **options)
    optimizer = build_optimizer(config, STEPS, EPOCHS)
    with keras.name_scope("net"):
        variables = [keras.Variable(value, name=name) for name, value in START.items()]
    assert [variable.path for variable in variables] == [f"net/{name}" for name in SHAPES]
    scale = 1.0
    if loss_scale:
        optimizer, scale = keras.optimizers.LossScaleOptimizer(optimizer, initial_scale=8.0), 8.0
    optimizer.build(variables)
    for gradients in GRADIENTS:
        optimizer.apply([keras.ops.convert_to_tensor(scale * each) for each in gradients.values()], variables)
    return dict(zip(SHAPES, map(keras.ops.convert_to_numpy, variables), strict=True))


def torch_sgd(gradients, rates, *, momentum=0.0, nesterov=False, decay=0.0, max_norm=None, factors=None):
    """`clip_grad_norm_` and `torch.optim.SGD.step`, as PyTorch's documentation writes them, in float64."""
    weights = {name: value.astype("float64") for name, value in START.items()}
    buffers = {}
    for step, rate in zip(gradients, rates, strict=True):
        norm = np.sqrt(sum((np.float64(each) ** 2).sum() for each in step.values()))
        clip = 1.0 if max_norm is None else min(1.0, max_norm / norm)
        for name, weight in weights.items():
            gradient = clip * step[name] + decay * weight
            buffers[name] = momentum * buffers[name] + gradient if name in buffers else gradient
            if momentum:
                gradient = gradient + momentum * buffers[name] if nesterov else buffers[name]
            weights[name] = weight - rate * (factors or {}).get(name, 1.0) * gradient
    return weights


def assert_close(ours, theirs):
    for name in SHAPES:
        np.testing.assert_allclose(ours[name], theirs[name], rtol=2e-5, atol=2e-6, err_msg=name)


RATES = [LearningRate(STEP, STEPS, EPOCHS).at(step) for step in range(STEPS * EPOCHS)]
RECIPES = {
    "plain": {},
    "momentum": {"momentum": 0.9},
    "nesterov": {"momentum": 0.9, "nesterov": True},
    "clipped": {"momentum": 0.85, "nesterov": True, "max_norm": 0.5},
}


@pytest.mark.parametrize("recipe", RECIPES)
def test_coupled_decay_is_pytorchs_sgd(recipe):
    ours = dict(RECIPES[recipe])
    clip = {"global_clipnorm": ours.pop("max_norm")} if "max_norm" in ours else {}
    expected = torch_sgd(GRADIENTS, RATES, decay=0.05, **RECIPES[recipe])
    assert_close(trained(decoupled=False, weight_decay=0.05, **ours, **clip), expected)
    if "momentum" in ours:  # without it both kinds are one
        decoupled = trained(weight_decay=0.05, **ours, **clip)["kernel"]
        assert np.abs(decoupled - expected["kernel"]).max() > 1e-3


@pytest.mark.parametrize("recipe", RECIPES)
def test_the_reference_is_pytorchs_sgd(recipe):
    torch = pytest.importorskip("torch")
    arguments = dict(RECIPES[recipe])
    max_norm = arguments.pop("max_norm", None)
    weights = {name: torch.nn.Parameter(torch.tensor(value)) for name, value in START.items()}
    optimizer = torch.optim.SGD(weights.values(), lr=0.2, weight_decay=0.05, **arguments)
    for gradients, rate in zip(GRADIENTS, RATES, strict=True):
        optimizer.param_groups[0]["lr"] = rate
        for name, weight in weights.items():
            weight.grad = torch.tensor(gradients[name])
        if max_norm:
            torch.nn.utils.clip_grad_norm_(weights.values(), max_norm)
        optimizer.step()
    expected = torch_sgd(GRADIENTS, RATES, decay=0.05, **RECIPES[recipe])
    assert_close({name: weight.detach().numpy() for name, weight in weights.items()}, expected)


def test_coupled_decay_with_multipliers_is_pytorchs_with_a_group_of_parameters():
    ours = trained(
        decoupled=False, multipliers={"*/gamma": 4.0}, momentum=0.9, nesterov=True, weight_decay=0.05
    )
    expected = torch_sgd(GRADIENTS, RATES, momentum=0.9, nesterov=True, decay=0.05, factors={"gamma": 4.0})
    assert_close(ours, expected)


def test_coupled_decay_of_accumulated_gradients_acts_once_an_update():
    ours = trained(decoupled=False, momentum=0.9, weight_decay=0.05, gradient_accumulation_steps=2)
    means = [
        {name: (one[name] + other[name]) / 2 for name in SHAPES}
        for one, other in zip(GRADIENTS[::2], GRADIENTS[1::2], strict=True)
    ]
    assert_close(ours, torch_sgd(means, RATES[1::2], momentum=0.9, decay=0.05))


@pytest.mark.parametrize("loss_scale", [False, True])
@pytest.mark.parametrize(
    "optimizer",
    [
        {"momentum": 0.9, "nesterov": True},
        {"momentum": 0.9, "decoupled": False},
        {"name": "adamw"},
        {"name": "adamw", "gradient_accumulation_steps": 3},
        {"momentum": 0.9, "multipliers": {"*/bias": 3.0}},
    ],
)
def test_variables_left_out_of_weight_decay_are_trained_as_without_it(optimizer, loss_scale):
    if loss_scale and keras.backend.backend() == "jax":
        pytest.skip("Keras' loss scale works on JAX inside its trainer alone")
    without = trained(**optimizer, loss_scale=loss_scale, weight_decay=0.0)
    everywhere = trained(**optimizer, loss_scale=loss_scale, weight_decay=0.1)
    patterns = ("*/beta", "net/[bg]*")  # no path is `*/beta`: alphabeta only ends in it
    for no_decay in (patterns, "norm_and_bias"):
        some = trained(**optimizer, loss_scale=loss_scale, weight_decay=0.1, no_decay=no_decay)
        for name in SHAPES:
            expected = without if name in ("bias", "gamma") else everywhere
            assert some[name].tobytes() == expected[name].tobytes(), name
            assert np.abs(without[name] - everywhere[name]).max() > 1e-4


UNFIT = ["no_decay=['*/beta', '*/betta']", "weight_decay=0.1"]
UNFIT_SAID = ["optimizer.no_decay: no variable's path fits '*/betta'"]


@pytest.mark.parametrize(
    ("given", "frozen", "lines"),
    [
        (UNFIT, (), UNFIT_SAID),
        (UNFIT, ("model.freeze=backbone", "model.unfreeze_epoch=2"), UNFIT_SAID),
        (["no_decay=norm_and_bias", "weight_decay=0.1"], (), []),
        (["no_decay=['*/bias']"], (), ["optimizer.no_decay has no effect: there is no weight_decay"]),
        (["weight_decay=0.1"], (), []),
    ],
)
def test_what_no_decay_cannot_do_is_said_before_training(home, given, frozen, lines):
    job = prepare(load_experiment("tiny", [*frozen, *(f"optimizer.{item}" for item in given)]))
    assert list(job.warnings()) == lines


def test_a_loss_scale_that_float16_overrules_is_said(home):
    float16 = ["training.precision=float16", "optimizer.loss_scale_factor=8.0"]
    (line,) = prepare(load_experiment("tiny", float16)).warnings()
    assert line.startswith("optimizer.loss_scale_factor has no effect")
