"""The average beside the weights: what it computes, that it is what is validated, saved and resumed."""

import io
import os
import subprocess
import sys

import keras
import numpy as np
import pytest

import app.training.train as runner
from app.bench import prove
from app.config import load_experiment
from app.inference.evaluate import evaluate
from app.inference.load import load_trained
from app.reading import read_history, read_json
from app.reports.report import write_report
from app.training.averaging import averages_in
from app.training.checkpoint import load_state
from app.training.setup import prepare
from tests.conftest import TINY, copied, on_jax, trained
from tests.training.stopped_runs import ROOT, assert_same_bits, stopped_run

EMA = "training.ema={decay: 0.8}"


def values(variables):
    return [keras.ops.convert_to_numpy(variable).copy() for variable in variables]


class Watch(keras.callbacks.Callback):
    """Keeps the weights after each step, as the callbacks before it left them."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def on_train_batch_end(self, batch, logs=None):
        self.seen.append(values(self.model.network.weights))


def fit(job, *callbacks, **options):
    return job.classifier.fit(
        job.batches(), steps_per_epoch=job.steps_per_epoch, epochs=job.experiment.training.epochs,
        shuffle=False, verbose=0, callbacks=[*job.step_callbacks(0), *callbacks], **options,
    )  # fmt: skip


def average_of(start, seen, decay, warmup):
    averages = [each.astype(np.float64) for each in start]
    for step, weights in enumerate(seen):
        now = min(decay, (1 + step) / (warmup + step))
        averages = [now * a + (1 - now) * w for a, w in zip(averages, weights, strict=True)]
    return averages


@pytest.mark.parametrize(
    ("overrides", "decay", "warmup"),
    [
        ([EMA], 0.8, 10),
        (["training.ema={decay: 0.5, warmup_steps: 1}", "training.precision=float16"], 0.5, 1),
        ([EMA, "training.precision=bfloat16", "optimizer.gradient_accumulation_steps=2"], 0.8, 10),
    ],
    ids=["float32", "float16", "accumulated"],
)
def test_average_is_that_of_the_weights_of_all_steps(home, bfloat16, overrides, decay, warmup):
    job = prepare(load_experiment("tiny", ["training.batch_size=64", *overrides]))
    start, watch = values(job.classifier.network.weights), Watch()
    fit(job, watch)
    assert len(watch.seen) == 2 * job.steps_per_epoch > 40  # so that the warm-up ends on the way
    expected = average_of(start, watch.seen, decay, warmup)
    assert {str(average.dtype) for average in job.ema.averages} == {"float32"}
    for weight, ours, theirs in zip(job.ema.weights, values(job.ema.averages), expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=2e-5, atol=2e-6, err_msg=weight.path)
    assert any(weight.path.endswith("moving_variance") for weight in job.ema.weights)


def test_training_does_not_notice_the_average(home, straight):
    run = runner.train(load_experiment("tiny", [EMA]), out=io.StringIO())
    ours, plain = (load_state(each)[0] for each in (run, straight))
    for a, b in zip(ours.values["model"], plain.values["model"], strict=True):
        assert a.tobytes() == b.tobytes()
    for column in ("loss", "accuracy"):
        assert [row[column] for row in read_history(run.history)] == [
            row[column] for row in read_history(straight.history)
        ]
    assert read_json(run.metrics)["weights"] == "average" and read_json(straight.metrics)["weights"] == "raw"


def test_average_is_what_is_validated(home):
    """The metrics of a validation are those of a classifier with the average that NumPy computes."""
    job = prepare(load_experiment("tiny", [EMA]))
    start, watch = values(job.classifier.network.weights), Watch()
    val_ds, val_steps = job.validation_batches()
    logged = fit(job, watch, validation_data=val_ds, validation_steps=val_steps).history
    other = prepare(load_experiment("tiny")).classifier
    for epoch in (1, 2):
        average = average_of(start, watch.seen[: epoch * job.steps_per_epoch], 0.8, 10)
        for number, weights in enumerate((average, watch.seen[epoch * job.steps_per_epoch - 1])):
            for weight, value in zip(other.network.weights, weights, strict=True):
                weight.assign(value)
            found = other.evaluate(*job.dataset.val.take(np.arange(len(job.dataset.val))), verbose=0)
            if number == 0:
                assert found[0] == pytest.approx(logged["val_loss"][epoch - 1], rel=1e-4)
                assert found[1] == pytest.approx(logged["val_accuracy"][epoch - 1], abs=0.006)  # an image
            else:
                assert found[0] != pytest.approx(logged["val_loss"][epoch - 1], rel=1e-2)
    raw, last = values(job.classifier.network.weights), watch.seen[-1]
    for ours, theirs in zip(raw, last, strict=True):
        np.testing.assert_array_equal(ours, theirs)


# The second epoch spoils the weights, so that the best are not the last ones.
SPOILT = [
    EMA,
    "training.batch_size=96",  # validated in two steps
    "optimizer.learning_rate={schedule: step, peak: 0.003, boundaries_epochs: [1], factor: 100}",
]


@pytest.fixture(scope="module")
def averaged(tmp_path_factory):
    """A run with an average that was never stopped."""
    return trained(tmp_path_factory.mktemp("averaged"), SPOILT, report=False, tiny=TINY)


def test_best_and_last_weights_are_averages(averaged, home, tmp_path):
    rows, state = read_history(averaged.history), load_state(averaged)[0]
    assert read_json(averaged.metrics)["best"]["epoch"] == 1
    for checkpoint, row in (("best", rows[0]), ("last", rows[1])):
        out = io.StringIO()
        content = evaluate(averaged, "validation", checkpoint, "none", out)
        assert content["weights"] == "average"
        assert f"{checkpoint} epoch ({row['epoch']}), averaged weights" in out.getvalue()
        assert content["accuracy"] == pytest.approx(row["val_accuracy"], abs=1e-6)
        folder = averaged.evaluations / f"validation-{checkpoint}"
        with np.load(averaged.predictions) as stored, np.load(folder / "predictions.npz") as again:
            np.testing.assert_allclose(again["logits"], stored[f"{checkpoint}_logits"], rtol=1e-4, atol=1e-4)
    last = values(load_trained(averaged, "last").classifier.network.weights)
    for ours, theirs in zip(last, averages_in(state), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    write_report(averaged)
    assert "best epoch (1), averaged weights" in averaged.report.read_text()


@pytest.mark.parametrize(
    ("call", "kill"),
    [
        (2, True),
        pytest.param(1, False, marks=pytest.mark.slow),
    ],
)
def test_run_interrupted_while_validated_resumes_to_the_same_bits(home, averaged, call, kill):
    """Where the average is in place; elsewhere in an epoch test_freezing.py interrupts a run that has one."""
    run = stopped_run(load_experiment("tiny", SPOILT), call, "on_test_batch_end", kill=kill)
    state = load_state(run)[0]
    assert (state.progress.epoch, state.progress.step > 0) == (0, True)
    runner.resume(run, out=io.StringIO())
    assert_same_bits(run, averaged)
    assert read_json(run.metrics)["timing"]["resumed_epochs"] == [1]
    assert prove._best_weights(run) == prove._best_weights(averaged)


@pytest.mark.slow
def test_more_epochs_go_on_from_the_raw_weights(home, averaged):
    run = copied(averaged, home)
    runner.resume(run, out=io.StringIO(), epochs=3)
    longer = load_experiment("tiny", [*SPOILT, "training.epochs=3"])
    assert_same_bits(run, runner.train(longer, out=io.StringIO()))
    assert read_json(run.path / "metrics-2-epochs.json") == read_json(averaged.metrics)
    assert read_json(run.metrics)["timing"]["epochs_planned"] == 3


PROGRAM = """
import keras
import numpy as np
from app.config import load_experiment
from app.distributed.process_group import ProcessGroup
from app.training.setup import prepare

jax = keras.backend.backend() == "jax"
if not jax:
    import tensorflow as tf
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
job = prepare(load_experiment("tiny", ["training.ema={decay: 0.8}", "augmentation=[]"]), ProcessGroup())
assert job.replicas.count == 2

def synced(job):
    # What a `StateSaver` does before validation.
    def synchronise(logs):
        job.replicas.average_statistics(job.classifier)
        job.replicas.check_in_sync(job.classifier)
    return keras.callbacks.LambdaCallback(on_test_begin=synchronise)

def values():  # statistics differ between replicas: their mean
    if jax:
        job.classifier.jax_state_sync()
    copies = [list(job.replicas.copies(weight)) for weight in job.classifier.network.weights]
    return [np.mean([np.array(copy, "float64") for copy in each], axis=0) for each in copies]

class Watch(keras.callbacks.Callback):
    seen = []

    def on_train_batch_end(self, batch, logs=None):
        self.seen.append(values())

averages = values()
val_ds, val_steps = job.validation_batches()
history = job.classifier.fit(
    job.batches(), epochs=2, steps_per_epoch=job.steps_per_epoch, shuffle=False, verbose=0,
    validation_data=val_ds, validation_steps=val_steps,
    callbacks=[Watch(), *job.step_callbacks(0), synced(job)]).history
job.replicas.average_statistics(job.classifier)
job.replicas.check_in_sync(job.classifier)
for step, weights in enumerate(Watch.seen):
    decay = min(0.8, (1 + step) / (10 + step))
    averages = [decay * a + (1 - decay) * w for a, w in zip(averages, weights, strict=True)]
assert len(Watch.seen) == 2 * job.steps_per_epoch
for weight, ours, theirs in zip(job.ema.weights, job.ema.averages, averages, strict=True):
    np.testing.assert_allclose(
        keras.ops.convert_to_numpy(ours), theirs, rtol=1e-4, atol=1e-5, err_msg=weight.path)
for ours, theirs in zip(values(), Watch.seen[-1], strict=True):
    np.testing.assert_allclose(ours, theirs, rtol=1e-6)
job.ema.put_in_place(True)
with job.replicas.local_scope():
    alone = job.replicas.unreplicated(job.classifier)
labels = job.dataset.val.labels
logits = alone(job.dataset.val.take(np.arange(len(labels)))[0], training=False)
accuracy = np.mean(np.argmax(keras.ops.convert_to_numpy(logits), axis=-1) == labels)
assert abs(accuracy - history["val_accuracy"][-1]) < 0.006, (accuracy, history)
print("results")
"""


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["tensorflow", "jax"])
def test_replicas_average_together(backend, home):
    """On JAX one alone does the same: the step, the exchange and the callback know of no devices there."""
    pytest.importorskip(backend)
    environment = os.environ | (on_jax(home / "jax") if backend == "jax" else {})
    if backend == "jax":
        environment["XLA_FLAGS"] += " --xla_force_host_platform_device_count=2"
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        cwd=ROOT, env=environment, capture_output=True, text=True, timeout=400,
    )  # fmt: skip
    assert done.stdout.endswith("results\n"), done.stderr[-3000:]
