"""The best trials with other seeds: trained once, resumed, and evaluated on the test split once."""

import io
import os
import shutil
import signal

import numpy as np
import pytest

from app.config import load_experiment
from app.config.sweep import Choice, SweepConfig
from app.data.datasets import load_dataset
from app.errors import Interrupted, UserError
from app.evaluation.records import evaluations_on_test
from app.inference.evaluate import evaluate
from app.runs import find_run, list_runs
from app.sweep.finalists import read_finalists, train_finalists
from app.sweep.sweep import finish
from app.sweep.trials import Trial
from tests.sweep.made_up import write_folder
from tests.training.stopped_runs import after_each

GRAY = """\
# Images of noise, with a test split.
seed: 4
dataset: {name: mnist, data_dir: %s, image_size: [16, 16], validation: 0.25}
model: {name: lenet5}
optimizer: {name: sgd, learning_rate: 0.01}
training: {epochs: 1, batch_size: 16}
"""
RATES, VALUES = (
    (0.01, 0.1, 3e38, 0.001),
    (0.97, 0.96, 0.98, 0.2),
)  # what the sweep says; the best one blows up


@pytest.fixture
def sweep(home):
    """A finished sweep of made-up values."""
    draw = np.random.default_rng(0)
    arrays = {
        f"{name}_{split}": draw.integers(0, high, shape, dtype=np.uint8)
        for split, count in (("train", 64), ("test", 32))
        for name, high, shape in (("x", 256, (count, 28, 28)), ("y", 10, count))
    }
    (home / "noise").mkdir()
    np.savez(home / "noise" / "mnist.npz", **arrays)
    (home / "experiments" / "gray.yaml").write_text(GRAY % (home / "noise"))
    space = {"optimizer.learning_rate.peak": Choice(values=RATES)}
    config = SweepConfig(space=space, finalists=3, seeds=2)
    experiment = load_experiment("gray").model_copy(update={"sweep": config})
    trials = [
        Trial(number, {"optimizer.learning_rate.peak": rate}, "finished", (value,), value, None, None, 1.0)
        for number, (rate, value) in enumerate(zip(RATES, VALUES, strict=True))
    ]
    folder = home / "runs" / "gray.sweep"
    fingerprint = load_dataset(experiment.dataset).fingerprint
    write_folder(folder, experiment, trials, fingerprint=fingerprint)
    return folder, experiment, trials


@pytest.mark.slow
def test_finalists_are_trained_once_and_the_test_split_is_evaluated_once(sweep):
    folder, experiment, trials = sweep
    finish(folder, out := io.StringIO())
    record = read_finalists(folder)
    assert sorted(each.trial for each in record.finalists) == [0, 1, 2]  # not the fourth
    best, second, broken = record.finalists
    assert broken.trial == 2 and not broken.values and len(broken.failures) == 2
    assert best.mean >= second.mean and len(best.values) == len(second.values) == 2
    assert {load_seed(name) for name in best.runs} == {5, 6}  # not 4, by which it was chosen
    runs = list_runs(folder.name)
    assert len(runs) == 6
    tested = {run.name for run in runs if run.finished and evaluations_on_test(run)}
    assert tested == set(best.runs) and len(record.test) == 2
    words = out.getvalue()
    assert "Trial 2 was chosen" not in words  # with no other seed there is nothing to say of it
    assert f"evaluated once for trial {best.trial}" in words.splitlines()[-1]
    assert (folder / "sweep.html").is_file()

    # Killed before the end of a run: the rest is done, and nothing else again.
    unfinished = find_run(second.runs[0])
    unfinished.metrics.unlink()
    (folder / "finalists.json").unlink()
    again = train_finalists(folder, experiment, trials, io.StringIO())
    assert again == record
    assert len(list_runs(folder.name)) == 6
    assert all(len(evaluations_on_test(find_run(name))) == 1 for name in best.runs)

    # Continued with another result, the test split is evaluated for that, and both are known.
    better = [trial for trial in trials if trial.number == second.trial]
    other = train_finalists(folder, experiment, better, io.StringIO())
    assert other.tested == sorted([best.trial, second.trial])


def with_sweep(experiment, **options):
    return experiment.model_copy(update={"sweep": experiment.sweep.model_copy(update=options)})


def load_seed(name):
    return load_experiment(find_run(name).experiment).seed


def test_images_that_changed_are_not_mixed_in(sweep):
    folder, experiment, trials = sweep
    write_folder(folder, experiment, trials, fingerprint="0")  # of the images that it began with
    with pytest.raises(UserError, match="images .* have changed since this sweep began; put the old ones"):
        train_finalists(folder, experiment, trials, io.StringIO())
    assert not list_runs(folder.name)


def test_without_finalists_nothing_is_trained(sweep):
    folder, experiment, trials = sweep
    out = io.StringIO()
    assert train_finalists(folder, with_sweep(experiment, finalists=0), trials, out) is None
    failed = [trial._replace(state="failed", value=None, reason="no memory") for trial in trials]
    assert train_finalists(folder, experiment, failed, out) is None
    assert not list_runs(folder.name) and not out.getvalue()


@pytest.mark.slow
def test_stopped_evaluated_by_hand_and_with_images_that_moved(sweep, home, monkeypatch):
    folder, experiment, trials = sweep
    experiment = with_sweep(experiment, finalists=2, seeds=1)
    with monkeypatch.context() as patch:
        after_each(patch, lambda _: os.kill(os.getpid(), signal.SIGTERM))
        with pytest.raises(Interrupted, match="finalist run 1 of 2.*the same command goes on") as stopped:
            train_finalists(folder, experiment, trials[:2], io.StringIO())
    assert "make" not in str(stopped.value) and stopped.value.exit_code == 128 + signal.SIGTERM
    record = train_finalists(folder, experiment, trials[:2], io.StringIO())
    best, second = record.finalists
    assert len(list_runs(folder.name)) == 2 and record.tested == [best.trial]

    evaluate(find_run(second.runs[0]), "test", None, "none", io.StringIO())
    again = train_finalists(folder, experiment, trials[:2], io.StringIO())
    assert again.tested == [0, 1] and again.test == record.test

    # So does a look through the run of a trial that is no finalist.
    (folder / "finalists.json").unlink()
    looked = {each.trial: each.runs[0] for each in record.finalists}[1]
    alone = with_sweep(experiment, finalists=1, seeds=1)
    others = [trials[0], trials[1]._replace(run=looked)]
    assert train_finalists(folder, alone, others, io.StringIO()).tested == [0, 1]

    shutil.rmtree(find_run(best.runs[0]).evaluations)  # as if stopped before it
    (home / "noise").rename(home / "elsewhere")
    data = experiment.dataset.model_copy(update={"data_dir": str(home / "elsewhere")})
    moved = train_finalists(
        folder, experiment.model_copy(update={"dataset": data}), trials[:2], io.StringIO()
    )
    assert moved == again and len(list_runs(folder.name)) == 2
