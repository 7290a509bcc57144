import csv
import io
import json
import logging
import os
import shutil
import signal
import sys
import time

import keras
import numpy as np
import pytest

import app.training.train as runner
from app import cli
from app.config import load_experiment
from app.errors import Interrupted, UserError
from app.reading import HISTORY_COLUMNS, read_history, read_json, read_record
from app.records import MetricsRecord
from app.reports.compare import newest_seeds
from app.runs import Run, create_run, list_runs, load_run_experiment
from app.training import setup as job
from app.training.checkpoint import load_state
from app.training.starting_weights import start_from
from models import ImageClassifier, build_model
from tests.conftest import copied, flip_bit
from tests.training.stopped_runs import (
    EVERYTHING,
    after_each,
    assert_resumes_on_jax,
    assert_same_bits,
    comparable_history,
    stopped_run,
)


def train(*overrides):
    return runner.train(load_experiment("tiny", overrides), out=io.StringIO())


def test_run_folder_is_complete(straight):
    for path in (
        straight.experiment,
        straight.environment,
        straight.dataset,
        straight.summary,
        straight.history,
        straight.metrics,
        straight.predictions,
        straight.best_model,
        straight.curves,
        straight.path / "accuracy.png",
        straight.path / "loss.png",
        straight.tensorboard / "train",
    ):
        assert path.exists(), path
    assert not list(straight.path.rglob(".tmp-*"))
    assert (straight.path.parent / "latest").resolve() == straight.path
    assert "Conv2D" in straight.summary.read_text() and "Param #" in straight.summary.read_text()
    dataset = json.loads(straight.dataset.read_text())
    assert dataset["class_names"] == [str(digit) for digit in range(10)]
    assert np.shape(dataset["normalization"]["deviation"]) == (16, 16, 1)
    with open(straight.history) as file:
        assert tuple(next(csv.reader(file))) == HISTORY_COLUMNS


def test_metrics_agree_with_history_and_predictions(straight):
    metrics = json.loads(straight.metrics.read_text())
    rows = read_history(straight.history)
    assert metrics["final"] == rows[-1]
    best = max(rows, key=lambda row: row["val_accuracy"])
    assert {**metrics["best"], "selected_on": None} == {**best, "selected_on": None}
    with np.load(straight.predictions) as stored:
        for name, row in (("last", rows[-1]), ("best", best)):
            accuracy = np.mean(stored[f"{name}_logits"].argmax(-1) == stored["labels"])
            assert accuracy == pytest.approx(row["val_accuracy"], abs=1e-6)
    assert metrics["parameters"]["total"] == metrics["parameters"]["trainable"] + 12


def test_best_model_alone_gives_the_stored_predictions(straight):
    from app.data.datasets import load_dataset

    classifier = keras.saving.load_model(straight.best_model)
    experiment = load_experiment(straight.experiment)
    images, labels = load_dataset(experiment.dataset).val.take(np.arange(40))
    assert tuple(classifier.class_names) == tuple(str(digit) for digit in range(10))
    with np.load(straight.predictions) as stored:
        np.testing.assert_array_equal(stored["labels"][:40], labels)
        np.testing.assert_allclose(
            classifier.predict(images, verbose=0), stored["best_logits"][:40], atol=1e-5
        )


def test_learning_rate_column_is_the_last_steps_rate(straight):
    rows = read_history(straight.history)
    assert rows[0]["learning_rate"] == pytest.approx(0.003)  # end of the warm-up
    assert rows[1]["learning_rate"] < 0.0005  # end of the cosine


@pytest.mark.parametrize(
    ("hook", "number"),
    [
        ("on_train_batch_end", signal.SIGINT),
        pytest.param("on_epoch_end", signal.SIGHUP, marks=pytest.mark.slow),
    ],
)
def test_signal_stops_with_a_state_and_resumes_to_the_same_bits(home, straight, monkeypatch, hook, number):
    """While training and at the end of an epoch; all but ctrl-C may come twice."""
    calls = []

    def interrupt(_):
        calls.append(1)
        if len(calls) == (3 if hook == "on_train_batch_end" else 1):
            os.kill(os.getpid(), number)
            if number != signal.SIGINT:
                os.kill(os.getpid(), number)

    before = signal.getsignal(number)
    with monkeypatch.context() as patch, pytest.raises(Interrupted, match="make resume RUN=tiny/") as stopped:
        after_each(patch, interrupt, hook)
        train()
    assert stopped.value.exit_code == 128 + number
    assert signal.getsignal(number) is before
    (run,) = list_runs("tiny")
    runner.resume(run, out=io.StringIO())
    assert_same_bits(run, straight)
    resumed = 2 if hook == "on_epoch_end" else 1
    assert read_json(run.metrics)["timing"]["resumed_epochs"] == [resumed]


def test_same_seed_gives_the_same_bits_where_signals_are_ignored_and_nobody_listens(
    home, straight, monkeypatch
):
    """Under nohup SIGHUP is ignored, in a background shell SIGINT; the reader of the progress has ended."""

    def interrupt(_):
        for number in (signal.SIGHUP, signal.SIGINT):
            os.kill(os.getpid(), number)

    after_each(monkeypatch, interrupt)
    before = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGHUP, signal.SIGINT)}
    reading, writing = os.pipe()
    os.close(reading)
    try:
        with open(writing, "w", buffering=1) as out:
            monkeypatch.setattr(sys, "stdout", out)
            assert cli.main(["train", "tiny"]) == 0
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    (run,) = list_runs("tiny")
    assert_same_bits(run, straight)


def test_stop_while_the_page_is_written_says_that_training_is_whole(home, monkeypatch, capsys):
    def stop(run, dataset):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(60)

    monkeypatch.setattr(runner, "write_report", stop)
    assert cli.main(["train", "tiny", "--epochs", "1"]) == 143
    (run,) = list_runs("tiny")
    assert run.finished
    assert f"the training is whole; its page is not: make report RUN={run.name}" in capsys.readouterr().err


def test_run_folder_that_is_deleted_while_training(home, monkeypatch, capfd):
    after_each(monkeypatch, lambda _: shutil.rmtree(home / "runs", ignore_errors=True))
    assert cli.main(["train", "tiny"]) == 2
    err = capfd.readouterr().err.splitlines()
    assert "this run folder is there no longer" in err[-1]
    assert not (home / "runs").exists()


def test_functions_of_several_runs_are_no_reason_to_warn():
    tf = pytest.importorskip("tensorflow")
    told = []
    handler = logging.Handler()
    handler.emit = told.append
    logger = logging.getLogger("tensorflow")
    logger.addHandler(handler)
    try:
        for _ in range(8):
            tf.function(lambda x: x + 1)(tf.zeros(1))
        logger.warning("something else")
    finally:
        logger.removeHandler(handler)
    assert [record.getMessage() for record in told] == ["something else"]


def test_damaged_state_is_named_and_the_one_before_it_used(home, straight):
    run = copied(straight, home)
    run.metrics.unlink()  # as if it had been killed after its last epoch
    newest = load_state(run)[0].path
    flip_bit(newest)
    out = io.StringIO()
    runner.resume(run, out=out)
    assert newest.name in out.getvalue() and "damaged" in out.getvalue()
    assert_same_bits(run, straight)


@pytest.mark.slow
def test_jax_trains_and_resumes_the_same_experiment(home):
    """The same state and order of data as on TensorFlow; equal bits are promised there only.

    Stopped while the average is validated; other runs on JAX are stopped in the middle of an epoch.
    """
    (home / "experiments" / "tiny.yaml").write_text(EVERYTHING)
    assert_resumes_on_jax(home, ["dataset.train_share=0.3"], 1, "on_test_batch_end")


def test_non_finite_loss_stops_and_names_epoch_step_and_causes(home):
    with pytest.raises(UserError) as error:
        train("optimizer.name=sgd", "optimizer.learning_rate=1e30", "training.epochs=1")
    message = str(error.value)
    assert "epoch 1, step" in message and "learning rate that is too high (peak 1e+30)" in message
    assert "no warm-up (learning_rate.warmup_epochs)" in message
    (run,) = list_runs("tiny")
    assert not run.finished


def test_stop_behind_the_last_batch_is_no_end_of_the_results(home, monkeypatch):
    fit = ImageClassifier.fit

    def fit_and_be_stopped(*arguments, **options):
        fit(*arguments, **options)
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(ImageClassifier, "fit", fit_and_be_stopped)
    with pytest.raises(Interrupted, match="stopped after the last epoch; the state is written"):
        train()
    (run,) = list_runs("tiny")
    assert not run.finished and len(read_history(run.history)) == 2
    monkeypatch.undo()


def test_border_as_wide_as_the_images_makes_no_folder(home):
    with pytest.raises(UserError, match="augmentation: padding_pixels must be below the sides"):
        train("augmentation=[{random_crop: {padding_pixels: 16, fill: mirror}}]")
    assert not (home / "runs").exists()


def test_batch_larger_than_the_data_makes_no_folder(home):
    with pytest.raises(UserError, match="training.batch_size: received 5000, but there are only 16"):
        train("training.batch_size=5000")
    assert not (home / "runs").exists()


def test_early_stopping_ends_the_run_as_a_finished_one_of_the_epochs_that_auto_stands_for(home, monkeypatch):
    monkeypatch.setattr("app.config.schema.AUTO_EPOCHS", range(9, 101))
    monkeypatch.setattr("app.config.schema.AUTO_IMAGES_SEEN", 100)
    run = train("training.epochs=auto", "training.early_stopping={patience_epochs: 1, min_delta: 0.9}")
    timing = read_json(run.metrics)["timing"]
    assert load_run_experiment(run).training.epochs == timing["epochs_planned"] == 9
    assert timing["epochs"] == len(read_history(run.history)) == 2


def test_weights_of_another_run_are_the_starting_point(home, straight, monkeypatch):
    same = job.prepare(load_experiment("tiny", [f"model.weights={straight.path}"]))
    trained = keras.saving.load_model(straight.best_model).network
    for ours, theirs in zip(same.classifier.network.weights, trained.weights, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    with pytest.raises(UserError, match="both must be the same network"):
        job.prepare(load_experiment("tiny", [f"model.weights={straight.path}", "model.name=lenet5",
                                                 "dataset.image_size=[32, 32]"]))  # fmt: skip


def test_new_head_where_the_classes_differ(home, straight):
    network = build_model("baseline", input_shape=(16, 16, 1), num_classes=4)
    fresh = [np.array(weight) for weight in network.trainable_weights[-2:]]
    said = start_from(straight, network, ("a", "b", "c", "d"))
    taken, new = len(network.weights) - 2, [weight.path for weight in network.trainable_weights[-2:]]
    assert said == (
        f"starts from the weights of {straight.name}: {taken} of {taken + 2} variables; "
        f"new: {new[0]}, {new[1]} (4 classes instead of 10)"
    )
    trained = keras.saving.load_model(straight.best_model).network
    for ours, before in zip(network.trainable_weights[-2:], fresh, strict=True):
        np.testing.assert_array_equal(ours, before)
    for ours, theirs in zip(network.weights[:-2], trained.weights[:-2], strict=True):
        np.testing.assert_array_equal(ours, theirs)


def untrained(home, model):
    """A run folder that holds a network as it is made, for what reads nothing else of a run."""
    run = Run(home / "runs" / "tiny" / "untrained")
    run.best_model.parent.mkdir(parents=True)
    overrides = [f"model={model}", "dataset={name: digits, image_size: [32, 32], channels: 3}"]
    job.prepare(load_experiment("tiny", overrides)).classifier.save(run.best_model)
    return run


def test_a_head_without_bias_is_the_only_new_part(home):
    """FastCifar10's: before it come offsets of normalisations, which belong to the backbone."""
    run = untrained(home, "{name: fast_cifar10}")
    network = build_model("fast_cifar10", input_shape=(32, 32, 3), num_classes=4)
    said = start_from(run, network, ("a", "b", "c", "d"))
    assert said.endswith(f"new: {network.head.kernel.path} (4 classes instead of 10)")


def test_weights_are_refused_where_they_would_compute_something_else(home):
    """Their shapes are the same with shortcuts and without."""
    run = untrained(home, "{name: cifar_resnet, depth: 8, shortcuts: false}")
    network = build_model("cifar_resnet", input_shape=(32, 32, 3), num_classes=10, depth=8)
    with pytest.raises(UserError, match="trained with model.shortcuts false, the experiment has true"):
        start_from(run, network, tuple(map(str, range(10))))


def test_best_model_waits_for_the_state_of_its_epoch(home):
    experiment = load_experiment("tiny", ["training.monitor=loss", "training.epochs=3"])
    run = stopped_run(experiment, 2, "on_epoch_end", kill=True)  # its best model is there, its state is not
    waiting, lost = (run.best_model.with_name(f"best-0000{epoch}.keras") for epoch in (2, 7))
    first, second = (
        keras.saving.load_model(path).network.get_weights() for path in (run.best_model, waiting)
    )
    assert any((a != b).any() for a, b in zip(first, second, strict=True))
    shutil.copy(waiting, lost)
    runner.resume(run, io.StringIO())
    assert [path.name for path in run.best_model.parent.glob("best*")] == ["best.keras"]
    best = min(read_history(run.history), key=lambda row: row["loss"])
    recorded = read_record(run.metrics, MetricsRecord)
    assert recorded.best.epoch == best["epoch"] and recorded.content["best"]["selected_on"] == "training"
    assert recorded.best_words == "best"


def test_best_model_takes_its_place_where_only_that_was_missing(home, monkeypatch):
    experiment = load_experiment("tiny", ["training.monitor=loss"])
    monkeypatch.setattr("app.training.state_saver.settle_best", lambda *_: None)  # killed before it
    run = stopped_run(experiment, 2, "on_epoch_begin", kill=True)
    waiting = run.best_model.with_name("best-00001.keras")
    content = waiting.read_bytes()
    assert not run.best_model.exists()
    monkeypatch.undo()
    monkeypatch.setenv("TRAINER_HOME", str(home))
    monkeypatch.setattr(runner, "callbacks_of", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        runner.resume(run, io.StringIO())
    assert run.best_model.read_bytes() == content and not waiting.exists()


@pytest.mark.slow
def test_seeds_that_were_not_begun_are_named(home, monkeypatch, capsys):
    older = create_run("tiny")

    def stop(*_, **__):
        shutil.rmtree(older.path, ignore_errors=True)
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(runner.Display, "on_train_batch_end", stop)
    assert cli.main(["train", "tiny", "--seeds", "3"]) == 143
    message = capsys.readouterr().err
    assert (
        "make resume RUN=tiny/" in message and "Not begun: 2 more of the 3 seeds, from seed=4 on" in message
    )


def test_where_no_seed_was_begun_none_is_named(home, capsys):
    """The same command, mended, trains all of them."""
    assert cli.main(["train", "tiny", "--seeds", "3", "--set", "model.freeze=[nothing*]"]) == 2
    message = capsys.readouterr().err
    assert "nothing*" in message and "Not begun" not in message


@pytest.mark.slow
def test_several_seeds_are_several_runs(home, capsys):
    assert cli.main(["train", "tiny", "--seeds", "2", "--set", "training.epochs=1"]) == 0
    first, second = list_runs("tiny")
    assert [load_run_experiment(run).seed for run in (first, second)] == [3, 4]
    assert comparable_history(first) != comparable_history(second)
    shares = [100 * read_json(run.metrics)["headline"]["val_accuracy"] for run in (first, second)]
    head = "2 seeds, validation accuracy of the best epoch"
    words = f"{head}: {sum(shares) / 2:.2f} % on average, {min(shares):.2f} to {max(shares):.2f} %"
    assert words in capsys.readouterr().out
    # What a run records of its command trains that very run again.
    assert read_json(second.environment)["overrides"] == ["training.epochs=1", "seed=4"]
    assert [run.name for run in newest_seeds("tiny", io.StringIO())] == [first.name, second.name]
