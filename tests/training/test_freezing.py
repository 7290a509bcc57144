"""Frozen layers: what keeps its weights and how long, exact resume across the change, what is refused."""

import io

import keras
import numpy as np
import pytest

import app.training.train as runner
from app.config import load_experiment
from app.errors import UserError
from app.reading import read_json
from app.runs import list_runs
from app.training.averaging import averages_in
from app.training.checkpoint import load_state
from app.training.optimizers.variables import with_late
from app.training.setup import prepare
from models.inspect import count_macs
from tests.conftest import TINY, trained
from tests.training.stopped_runs import assert_resumes_on_jax, assert_same_bits, stopped_run

BODY = ["conv", "norm", "hidden"]
BACKBONE = "model.freeze=backbone"
LATER = [BACKBONE, "model.unfreeze_epoch=2", "training.epochs=3"]
# All that the state of a run holds besides the weights.
RICH = [
    *LATER,
    "training.ema={decay: 0.8}",
    "optimizer.gradient_accumulation_steps=3",
    "training.batch_size=128",  # 13 steps an epoch: the change falls between two updates
]


def values(layer):
    return [keras.ops.convert_to_numpy(each).copy() for each in layer.weights]


def fit(job, epochs, *callbacks):
    """Train as a run does, epoch by epoch."""
    for epoch in range(epochs):
        job.begin(epoch)
        job.classifier.fit(
            job.batches(epoch), steps_per_epoch=job.steps_per_epoch, shuffle=False, verbose=0,
            callbacks=[*job.step_callbacks(epoch * job.steps_per_epoch), *callbacks],
        )  # fmt: skip


def changed(job, before):
    """Return the layers that have other weights than before."""
    network = job.classifier.network
    return [
        name
        for name, weights in before.items()
        if any(
            a.tobytes() != b.tobytes() for a, b in zip(weights, values(getattr(network, name)), strict=True)
        )
    ]


@pytest.mark.parametrize(
    ("overrides", "learned"),
    [
        ([BACKBONE], ["head"]),
        (['model.freeze=["norm"]'], ["conv", "hidden", "head"]),
        (['model.freeze=["con*", "hidden"]', "training.precision=float16"], ["norm", "head"]),
        ([BACKBONE, "training.lookahead={every_steps: 2, decay: 0.9, power: 1}"], ["head"]),
        ([BACKBONE, "training.ema={decay: 0.8}"], ["head"]),
        (
            [
                BACKBONE,
                "optimizer={name: muon, learning_rate: 0.02, others: {name: adam, learning_rate: 0.01}}",
            ],
            ["head"],
        ),
        ([BACKBONE, "optimizer={name: adamw, learning_rate: 0.01, weight_decay: 0.1}"], ["head"]),
    ],
    ids=["backbone", "statistics", "float16", "lookahead", "ema", "muon", "decay"],
)
def test_frozen_layers_keep_weights_and_statistics(home, overrides, learned):
    job = prepare(load_experiment("tiny", overrides))
    before = {name: values(getattr(job.classifier.network, name)) for name in [*BODY, "head"]}
    fit(job, 2)
    if job.ema:
        job.ema.put_in_place(True)
    assert changed(job, before) == learned


def test_frozen_normalisation_computes_as_in_inference_and_dropout_goes_on(home):
    job = prepare(load_experiment("tiny", ['model.freeze=["norm"]']))
    network, images = job.classifier.network, np.random.default_rng(0).normal(3, 2, (8, 16, 16, 6))
    np.testing.assert_array_equal(network.norm(images, training=True), network.norm(images, training=False))
    assert np.any(keras.ops.convert_to_numpy(network.pool_dropout(images, training=True)) == 0)


def test_unfrozen_layers_are_trained_from_their_epoch_on(home):
    job = prepare(load_experiment("tiny", LATER))
    before = {name: values(getattr(job.classifier.network, name)) for name in BODY}
    fit(job, 1)
    assert changed(job, before) == []
    job.begin(1)
    job.classifier.fit(job.batches(1), steps_per_epoch=2, verbose=0, shuffle=False)
    assert changed(job, before) == BODY


@pytest.mark.parametrize("accumulated", ["null", "2"])
def test_first_steps_of_adam_after_the_change_are_as_large_as_at_a_start(home, accumulated):
    """Adam's first step is the learning rate, whatever the gradient: not 3 times that, at a later count."""
    optimizer = f"{{name: adam, learning_rate: 0.001, gradient_accumulation_steps: {accumulated}}}"
    overrides = [*LATER, "model.dropout=0.0", "augmentation=[]", "training.batch_size=128"]
    job = prepare(load_experiment("tiny", [*overrides, f"optimizer={optimizer}"]))
    fit(job, 1)
    before = values(job.classifier.network.hidden)[0]
    job.begin(1)
    while np.array_equal(before, values(job.classifier.network.hidden)[0]):
        job.classifier.fit(job.batches(1), steps_per_epoch=1, verbose=0, shuffle=False)
    step = np.abs(values(job.classifier.network.hidden)[0] - before)
    assert 0.9e-3 < step.max() < 1.01e-3


def test_a_step_left_out_before_the_change_spoils_nothing():
    """float16 leaves out steps whose gradients overflow; the optimizer then counts fewer than there were."""
    early, late = keras.Variable([1.0], name="early"), keras.Variable([1.0], name="late")
    optimizer = with_late(keras.optimizers.Adam, {id(late)}, steps_before=3)(0.01)
    optimizer.build([early, late])
    gradient = keras.ops.ones(1)
    for _ in range(2):  # of three
        optimizer.apply([gradient], [early])
    optimizer.apply([gradient, gradient], [early, late])
    optimizer.apply([gradient, gradient], [early, late])
    assert np.isfinite(keras.ops.convert_to_numpy(late)).all()
    assert 0.97 < float(late[0]) < 1.0


@pytest.fixture(scope="module")
def rich(tmp_path_factory):
    """A run that was never stopped: frozen in its first epoch, averaged, with accumulated gradients."""
    out = io.StringIO()
    run = trained(tmp_path_factory.mktemp("rich"), RICH, out, report=False, tiny=TINY)
    (run.path / "said").write_text(out.getvalue())
    return run


def test_run_says_what_is_frozen_and_counts_what_it_trained(rich, home):
    said = (rich.path / "said").read_text()
    assert "parameters, 6 variables frozen before epoch 2, 2 trained)" in said.splitlines()[0]
    parameters = read_json(rich.metrics)["parameters"]
    assert parameters["trainable"] == parameters["total"] - 12  # all but the statistics
    job = prepare(load_experiment("tiny", [BACKBONE]))
    assert "parameters, 6 variables frozen, 2 trained) on" in job.describe()
    assert count_macs(job.classifier.network) == parameters["macs"]


@pytest.mark.parametrize(
    ("hook", "call", "kill", "position"),
    [
        pytest.param("on_train_batch_end", 7, False, (0, 7), marks=pytest.mark.slow),
        # The last state is from before the epoch's end.
        pytest.param("on_epoch_end", 1, True, (0, 13), marks=pytest.mark.slow),
        pytest.param("on_epoch_begin", 2, True, (1, 0), marks=pytest.mark.slow),
        ("on_train_batch_end", 14, False, (1, 1)),
        pytest.param("on_train_batch_end", 30, False, (2, 4), marks=pytest.mark.slow),
    ],
    ids=["before", "at the end before", "at the beginning after", "after", "in the epoch after"],
)
def test_interrupted_run_resumes_to_the_same_bits(home, rich, hook, call, kill, position):
    run = stopped_run(load_experiment("tiny", RICH), call, hook, kill=kill)
    state = load_state(run)[0]
    assert (state.progress.epoch, state.progress.step) == position
    runner.resume(run, out=io.StringIO())
    assert_same_bits(run, rich)
    parameters = [read_json(each.metrics)["parameters"] for each in (run, rich)]
    assert parameters[0] == parameters[1]
    for ours, theirs in zip(averages_in(load_state(run)[0]), averages_in(load_state(rich)[0]), strict=True):
        assert ours.tobytes() == theirs.tobytes()


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ['model.freeze=["con*", "hiden"]'],
            "model.freeze: 'hiden' fits no layer of baseline; the nearest names ",
        ),
        (['model.freeze=["hiden"]'], "names are hidden, "),
        (['model.freeze=["*"]'], "leaves nothing to train; 'backbone' freezes all but the head"),
        (["model.unfreeze_epoch=2"], "model.unfreeze_epoch: belongs to model.freeze"),
        ([BACKBONE, "model.unfreeze_epoch=1"], "model.unfreeze_epoch: must be at least 2; got 1"),
        ([BACKBONE, "model.unfreeze_epoch=3"], "must be at most training.epochs, which is 2; got 3"),
        (["model.freeze=head"], "must be a list of patterns of layers' names, or 'backbone'"),
    ],
)
def test_what_cannot_be_frozen_is_refused_before_a_folder_is_made(home, overrides, message):
    with pytest.raises(UserError) as error:
        runner.train(load_experiment("tiny", overrides), out=io.StringIO())
    assert message in str(error.value)
    assert not list_runs("tiny")


@pytest.mark.slow
def test_jax_unfreezes_and_resumes_in_float16(home):
    """With the average and accumulated gradients; stopped after two steps of the epoch that unfreezes."""
    assert_resumes_on_jax(home, [*RICH, "training.precision=float16"], 15)
