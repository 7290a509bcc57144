"""Several replicas in one process learn what a single one learns; subprocesses have the devices for it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

import models  # noqa: F401 - saved files name its classes
from tests.conftest import on_jax, set_project

ROOT = Path(__file__).resolve().parents[2]  # the checkout, where the subprocess finds the program

LENET = """\
# 1618 training images: the last batch of an epoch has two, fewer than there are replicas.
seed: 3
dataset: {name: digits, image_size: [16, 16]}
model: {name: lenet5}
optimizer: {name: adam, learning_rate: 0.003}
training: {epochs: 2, batch_size: 101}
"""
BASELINE = """\
# Batch normalisation, and nothing that is drawn.
seed: 3
dataset: {name: digits, image_size: [16, 16]}
model: {name: baseline, dropout: 0.0}
optimizer: {name: sgd, learning_rate: 0.01}
training: {epochs: 1, batch_size: 100}
"""
THREE_DEVICES = """
import tensorflow as tf

cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 3)
"""
PROGRAM = """
import json
import sys
from pathlib import Path
import keras
import numpy as np
from app.config import load_experiment
from app.errors import UserError
from app.training.optimizers import follow_history
from app.training.setup import prepare
from app.distributed.process_group import ProcessGroup

folder, part = Path(sys.argv[1]), sys.argv[2]
results = {"histories": {}}


def synced(job):
    # What a `StateSaver` does before validation.
    def synchronise(logs):
        job.replicas.average_statistics(job.classifier)
        job.replicas.check_in_sync(job.classifier)
    return keras.callbacks.LambdaCallback(on_test_begin=synchronise)


class Counts(keras.callbacks.Callback):
    # What the metrics have counted by the end of each epoch's steps.
    def __init__(self):
        super().__init__()
        self.epochs = []

    def on_test_begin(self, logs=None):
        counts = [v for v in self.model.metrics_variables if v.path.endswith("count")]
        self.epochs.append([float(count.numpy()) for count in counts])


def fit(job, callbacks, epochs=None, validate=True):
    val_ds, val_steps = job.validation_batches()
    validation = {"validation_data": val_ds, "validation_steps": val_steps} if validate else {}
    epochs = epochs or job.experiment.training.epochs
    history = job.classifier.fit(
        job.batches(), epochs=epochs, steps_per_epoch=job.steps_per_epoch, shuffle=False, verbose=0,
        callbacks=callbacks, **validation)
    return history.history


def job_of(name, *overrides, replicated):
    return prepare(load_experiment(name, overrides), ProcessGroup() if replicated else None)


def copies(variables):
    return [[copy.numpy() for copy in variable.value.values] for variable in variables]


def equal(variables):
    return all(each.tobytes() == own[0].tobytes() for own in copies(variables) for each in own)


def both(name, *overrides, label):
    for replicated in (False, True):
        job, counts = job_of(name, *overrides, replicated=replicated), Counts()
        assert (job.replicas.count, type(job.replicas.strategy).__name__) == (
            (3, "MirroredStrategy") if replicated else (1, "NoneType"))
        histories = fit(job, [synced(job), counts])
        results["histories"][f"{label}, {'replicas' if replicated else 'single'}"] = histories
    results[f"{label}, counts"] = counts.epochs
    taken = keras.ops.convert_to_numpy(job.classifier.optimizer.iterations)
    results[f"{label}, iterations"] = [int(taken), job.steps_per_epoch]
    return job


if part == "alike":  # the fast one
    clipped = "optimizer={name: sgd, learning_rate: 0.05, global_clipnorm: 0.1}"
    job = both("lenet", clipped, label="clipped")
    results["images"] = [len(job.dataset.train), len(job.dataset.val)]
    results["equal"] = equal([*job.classifier.trainable_variables, *job.classifier.optimizer.variables])

    # A file of the replicated job, for the test's process to read, and what each replica says of the images.
    job.classifier.save(folder / "replicated.keras")
    images = job.dataset.val.take(np.arange(40))[0]
    call = tf.function(lambda: job.replicas.strategy.run(lambda: job.classifier(images, training=False)))
    logits = job.replicas.strategy.experimental_local_results(call())
    np.savez(folder / "predictions.npz", images=images, logits=np.stack([each.numpy() for each in logits]))

    # Copies that differ by a hand's doing, by the last bit of one weight.
    job.replicas.check_in_sync(job.classifier)
    variable = job.classifier.trainable_variables[2]
    copy = variable.value.values[1]
    changed = copy.numpy()
    changed.flat[7] = np.nextafter(changed.flat[7], np.inf, dtype="float32")
    copy.assign(changed)
    try:
        job.replicas.check_in_sync(job.classifier)
    except UserError as error:
        results["compared"] = [variable.path, str(error)]

if part == "own":  # optimizers of our own
    rest = ("learning_rate: 0.02, no_decay: norm_and_bias, rate_multipliers: {'*/bias': 2}, others: "
            "{name: sgd, learning_rate: 0.05, momentum: 0.9, decoupled: false, weight_decay: 0.01}}")
    for label, given in (("muon", ""), ("accumulated", "gradient_accumulation_steps: 2, ")):
        job = both("lenet", f"optimizer={{name: muon, {given}{rest}", "training.epochs=1", label=label)
        variables = [*job.classifier.trainable_variables, *job.classifier.optimizer.variables]
        results[f"{label}, equal"] = equal(variables)
    results["frozen"] = {}
    for replicated in (False, True):
        freeze = ['model.freeze=["conv", "norm"]', "model.unfreeze_epoch=2", "training.epochs=2"]
        job = job_of("baseline", *freeze, "training.sync_batch_norm=true", replicated=replicated)
        norm, losses, held = job.classifier.network.norm, [], []
        norm.moving_mean.assign(np.linspace(0.1, 0.9, 6))  # the mean of three equal ones need not be the same
        start = [keras.ops.convert_to_numpy(each) for each in norm.weights]
        for epoch in range(2):
            job.begin(epoch)
            losses += job.classifier.fit(
                job.batches(epoch), steps_per_epoch=job.steps_per_epoch, shuffle=False, verbose=0,
                callbacks=[synced(job)]).history["loss"]
            job.replicas.average_statistics(job.classifier)
            now = [[each.numpy() for each in job.replicas.copies(weight)] for weight in norm.weights]
            held.append([all((a == b).all() for b in each) for a, each in zip(start, now, strict=True)])
        results["frozen"]["replicas" if replicated else "single"] = [losses, held]
    plateau = "{schedule: reduce_on_plateau, peak: 0.004, factor: 0.5, patience_epochs: 1}"
    job = job_of("lenet", f"optimizer.learning_rate={plateau}", replicated=True)
    job.progress.rows = [{"val_accuracy": 0.5}] * 3
    follow_history(job)
    fit(job, [synced(job)], epochs=1)
    rate = job.classifier.optimizer._learning_rate.level
    results["plateau"] = [equal([rate]), float(rate.numpy())]

if part == "several":
    both("lenet", label="adam")
    accumulated = "{name: sgd, learning_rate: 0.5, global_clipnorm: 0.1, gradient_accumulation_steps: 4}"
    job = both("lenet", f"optimizer={accumulated}", "training.epochs=1", label="accumulated")
    results["accumulators"] = equal(job.classifier.optimizer._accumulated_gradients)
    results["float16"] = {}
    for replicated in (False, True):
        job = job_of("lenet", "training.precision=float16", replicated=replicated)
        losses = fit(job, [synced(job)], epochs=1)["loss"]
        optimizer = job.classifier.optimizer
        results["float16"]["replicas" if replicated else "single"] = {
            "loss": losses[0], "taken": int(optimizer.inner_optimizer.iterations.numpy()),
            "steps": job.steps_per_epoch, "scale": float(optimizer.dynamic_scale.numpy())}

    job = both("baseline", "training.sync_batch_norm=true", label="synchronised")
    norm = job.classifier.network.norm
    statistics = [norm.moving_mean, norm.moving_variance]
    results["synchronised, equal"] = equal([*statistics, *job.classifier.trainable_variables])
    both("baseline", "training.sync_batch_norm=true", "training.batch_size=101", label="few")

    job = job_of("baseline", replicated=True)
    norm = job.classifier.network.norm
    fit(job, [], epochs=1, validate=False)
    before = copies([norm.moving_mean, norm.moving_variance])
    job.replicas.average_statistics(job.classifier)
    after = copies([norm.moving_mean, norm.moving_variance])
    np.savez(folder / "statistics.npz", before=np.array(before), after=np.array(after))
    job = job_of("baseline", replicated=True)
    results["histories"]["apart"] = fit(job, [synced(job)])
    results["apart, equal"] = equal(job.classifier.network.weights)

    # What each replica draws for the same images.
    draws = {}
    for replicated in (False, True):
        job = job_of("baseline", "augmentation=[{random_crop: {padding_pixels: 3}}, random_flip]",
                     "model.dropout=0.5", replicated=replicated)
        classifier = job.classifier
        crop, flip = classifier.augmentation
        images = tf.cast(job.dataset.train.take(np.arange(24))[0], "float32")
        ones = tf.ones((8, 50))

        def draw():
            dropout = classifier.network.hidden_dropout
            layers = [(crop, images), (flip, images), (dropout, ones), (crop, images)]
            return [layer(inputs, training=True) for layer, inputs in layers]

        run = job.replicas.strategy.run if replicated else lambda function: function()
        drawn = tf.function(lambda: run(draw))()
        for name, values in zip(("crop", "flip", "dropout", "crop again"), drawn, strict=True):
            values = job.replicas.strategy.experimental_local_results(values) if replicated else [values]
            key = f"{name}, {'replicas' if replicated else 'single'}"
            draws[key] = np.stack([value.numpy() for value in values])
    layers = [crop, flip, classifier.network.hidden_dropout]
    results["equal generators"] = equal([layer.seed_generator.state for layer in layers])
    results["draws"] = [copies([layer.seed_generator.state])[0][0].tolist() for layer in layers]
    np.savez(folder / "draws.npz", **draws)

    # In float64, where rounding does not matter: statistics of three replicas, and gradients.
    from models.layers import BatchNormalization
    from app.distributed.devices import set_up

    keras.config.set_floatx("float64")
    strategy = set_up(ProcessGroup()).strategy
    draw = np.random.default_rng(0)
    images, upstream = draw.normal(3.0, 2.0, (9, 4, 4, 6)), draw.normal(size=(9, 4, 4, 6))
    parts = [slice(0, 4), slice(4, 7), slice(7, 9)]

    def compute(layer, images, upstream):
        with tf.GradientTape() as tape:
            tape.watch(images)
            outputs = layer(images, training=True)
            total = tf.reduce_sum(outputs * upstream)
        return outputs, tape.gradient(total, images)

    single = BatchNormalization(dtype="float64")
    expected = compute(single, tf.constant(images), tf.constant(upstream))
    with strategy.scope():
        layer = BatchNormalization(dtype="float64", synchronized=True)
        layer.build((None, 4, 4, 6))

    def spread(values):
        return strategy.experimental_distribute_values_from_function(
            lambda context: tf.constant(values[parts[context.replica_id_in_sync_group]]))

    found = tf.function(lambda *values: strategy.run(compute, args=(layer, *values)))(
        spread(images), spread(upstream))
    found = [tf.concat(strategy.experimental_local_results(value), 0) for value in found]

    # A small deviation beside a large mean, in float32; a replica without images.
    far = draw.normal(1000.0, 0.1, (9, 4, 4, 6)).astype("float32")
    parts = [slice(0, 5), slice(5, 9), slice(9, 9)]
    with strategy.scope():
        norm = BatchNormalization(dtype="float32", synchronized=True, momentum=0.0, epsilon=1e-6)
        norm.build((None, 4, 4, 6))
    outputs, slopes = tf.function(lambda *values: strategy.run(compute, args=(norm, *values)))(
        spread(far), spread(upstream.astype("float32")))
    outputs, slopes = (
        tf.concat(strategy.experimental_local_results(value), 0) for value in (outputs, slopes))
    np.savez(folder / "layer.npz", images=images, found=np.stack(found), expected=np.stack(expected),
             far=far, outputs=outputs, slopes=slopes, variance=norm.moving_variance.numpy())

(folder / "results.json").write_text(json.dumps(results))
"""


def run_program(program, folder, experiments, *arguments, **environment):
    """Run a program, given `folder`, in that project folder; return what it printed."""
    command = [sys.executable, "-c", program, str(folder), *arguments]
    with pytest.MonkeyPatch.context() as patch:
        set_project(patch, folder, **experiments)
        variables = os.environ | {"CUDA_VISIBLE_DEVICES": ""} | environment
        done = subprocess.run(command, cwd=ROOT, env=variables, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def run_part(part, folder):
    """Run a part of the program in `folder`; return its JSON and the folder of its arrays."""
    run_program(THREE_DEVICES + PROGRAM, folder, {"lenet": LENET, "baseline": BASELINE}, part)
    return json.loads((folder / "results.json").read_text()), folder


def arrays(folder, name):
    with np.load(folder / f"{name}.npz") as stored:
        return {key: stored[key] for key in stored.files}


def largest_difference(results, one, other):
    """Return by how much the losses of two histories differ, relatively; of accuracies one image decides."""
    histories = results["histories"]
    pairs = [(histories[one][name], histories[other][name]) for name in ("loss", "val_loss")]
    return max(np.max(np.abs(np.subtract(a, b)) / np.abs(b)) for a, b in pairs)


@pytest.fixture(scope="module")
def alike(tmp_path_factory):
    return run_part("alike", tmp_path_factory.mktemp("alike"))


@pytest.fixture(scope="module")
def several(tmp_path_factory):
    """The rest, one experiment after the other in one process."""
    return run_part("several", tmp_path_factory.mktemp("several"))


def test_replicas_train_as_a_single_one_also_with_clipped_gradients(alike):
    """Keras alone would clip each replica's own gradients."""
    results, _ = alike
    assert results["images"][0] % 101 == 2
    assert len(results["histories"]["clipped, single"]["val_loss"]) == 2
    assert largest_difference(results, "clipped, replicas", "clipped, single") < 1e-5
    assert results["equal"]


def test_every_image_of_every_epoch_counts_once(alike):
    results, _ = alike
    train, _ = results["images"]
    assert results["clipped, counts"] == [[train, train]] * 2  # of the loss, of the accuracy
    taken, steps = results["clipped, iterations"]
    assert steps == -(-train // 101) and taken == 2 * steps


def test_copies_that_differ_stop_the_training(alike):
    path, message = alike[0]["compared"]
    assert message.startswith(f"{path}: one of the devices holds other values")


def test_saved_file_knows_of_no_replicas(alike):
    _, folder = alike
    stored = arrays(folder, "predictions")
    classifier = keras.saving.load_model(folder / "replicated.keras")
    assert stored["logits"].shape == (3, 40, 10)
    for logits in stored["logits"]:
        np.testing.assert_allclose(classifier.predict(stored["images"], verbose=0), logits, atol=1e-5)


@pytest.mark.slow
def test_adam_accumulated_gradients_and_float16_on_replicas(several):
    results, _ = several
    assert largest_difference(results, "accumulated, replicas", "accumulated, single") < 1e-5
    assert results["accumulated, iterations"] == [4, 17] and results["accumulators"]
    assert largest_difference(results, "adam, replicas", "adam, single") < 1e-5
    single, replicas = (results["float16"][name] for name in ("single", "replicas"))
    assert replicas["taken"] == single["taken"] > 0 and replicas["scale"] == single["scale"]
    assert replicas["taken"] == replicas["steps"]
    assert replicas["loss"] == pytest.approx(single["loss"], rel=1e-2)


@pytest.mark.slow
def test_muon_coupled_decay_frozen_layers_and_plateau_on_replicas(tmp_path):
    """Orthogonal steps enlarge what replicas differ by from rounding."""
    results, _ = run_part("own", tmp_path)
    for label in ("muon", "accumulated"):
        assert largest_difference(results, f"{label}, replicas", f"{label}, single") < 1e-3
        assert results[f"{label}, equal"]
    (losses, held), (single, _) = (results["frozen"][each] for each in ("replicas", "single"))
    assert losses == pytest.approx(single, rel=1e-5)
    assert held == [[True] * 4, [False] * 4]
    same, rate = results["plateau"]
    assert same and rate == pytest.approx(0.001)


@pytest.mark.slow
def test_synchronised_statistics_are_those_of_the_whole_batch(several):
    """Without it each replica normalises by its own images, and the first epoch differs tenfold."""
    results, _ = several
    assert results["synchronised, equal"]
    difference = largest_difference(results, "synchronised, replicas", "synchronised, single")
    assert difference < 1e-3
    assert largest_difference(results, "apart", "synchronised, single") > 10 * max(difference, 1e-5)


@pytest.mark.slow
def test_synchronised_statistics_of_fewer_images_than_replicas(several):
    assert largest_difference(several[0], "few, replicas", "few, single") < 1e-4


@pytest.mark.slow
def test_synchronised_layer_in_float64_is_the_single_one(several):
    """So what replicas differ by in float32 is rounding."""
    stored = arrays(several[1], "layer")
    assert stored["found"].shape == (2, 9, 4, 4, 6)  # outputs, gradients of the inputs
    images = stored["images"]
    normalised = (images - images.mean((0, 1, 2))) / np.sqrt(images.var((0, 1, 2)) + 1e-3)
    np.testing.assert_allclose(stored["found"][0], normalised, atol=1e-12)
    np.testing.assert_allclose(stored["found"], stored["expected"], atol=1e-12)
    far = stored["far"].astype(np.float64)
    variance = far.var((0, 1, 2))
    np.testing.assert_allclose(stored["variance"], variance, rtol=1e-3)
    # Images and mean divided by the standard deviation are near 10,000, where a float32 is exact to 1e-3.
    np.testing.assert_allclose(
        stored["outputs"], (far - far.mean((0, 1, 2))) / np.sqrt(variance + 1e-6), atol=5e-3
    )
    assert np.isfinite(stored["slopes"]).all()


@pytest.mark.slow
def test_copies_on_jax_are_compared(tmp_path):
    pytest.importorskip("jax")
    program = """
import jax
import numpy as np
from app.config import load_experiment
from app.errors import UserError
from app.training.setup import prepare
from app.distributed.process_group import ProcessGroup

job = prepare(load_experiment("lenet"), ProcessGroup())
job.replicas.check_in_sync(job.classifier)
variable = job.classifier.trainable_variables[2]
shards = variable.value.addressable_shards
copies = [np.array(shard.data) for shard in shards]
assert len(copies) == job.replicas.count == 3
copies[1].flat[7] = np.nextafter(copies[1].flat[7], np.inf, dtype="float32")
copies = [jax.device_put(copy, shard.device) for copy, shard in zip(copies, shards)]
layout = variable.value.sharding
variable.assign(jax.make_array_from_single_device_arrays(variable.shape, layout, copies))
try:
    job.replicas.check_in_sync(job.classifier)
except UserError as error:
    assert str(error).startswith(f"{variable.path}: one of the devices holds other values"), error
    print("results")
"""
    environment = on_jax(tmp_path / "jax")
    environment["XLA_FLAGS"] += " --xla_force_host_platform_device_count=3"
    assert run_program(program, tmp_path, {"lenet": LENET}, **environment).endswith("results\n")


@pytest.mark.slow
def test_statistics_of_replicas_are_averaged(several):
    results, folder = several
    stored = arrays(folder, "statistics")
    before, after = stored["before"], stored["after"]  # (mean and variance, replica, channel)
    assert before.shape == (2, 3, 6)
    for one, other in ((0, 1), (1, 2)):
        assert (before[:, one] != before[:, other]).any(axis=-1).all()
    np.testing.assert_array_equal(after, after[:, :1].repeat(3, axis=1))
    np.testing.assert_allclose(after[:, 0], before.astype(float).mean(axis=1), rtol=1e-6)
    assert results["apart, equal"]


@pytest.mark.slow
def test_replicas_draw_apart_the_first_as_a_single_one(several):
    results, folder = several
    draws = arrays(folder, "draws")
    for name in ("crop", "flip", "dropout", "crop again"):
        single, replicas = draws[f"{name}, single"], draws[f"{name}, replicas"]
        np.testing.assert_array_equal(replicas[0], single[0])
        for one, other in ((0, 1), (1, 2), (0, 2)):
            assert (replicas[one] != replicas[other]).any(), name
    assert (draws["crop, replicas"] != draws["crop again, replicas"]).any(axis=(1, 2, 3, 4)).all()
    assert results["equal generators"]
