"""Several processes train one network: the same result as one, and what happens when one is lost."""

import contextlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import app.training.train as runner
from app.config import load_experiment
from app.distributed.cluster import config_of
from app.distributed.local_workers import free_ports
from app.reading import read_history
from app.runs import list_runs
from app.training.checkpoint import load_state
from tests.conftest import copied, on_jax, set_project

ROOT = Path(__file__).resolve().parents[2]  # the checkout, where `python -m app` finds the program
LIMIT_SECONDS = 240
COLUMNS = ("loss", "accuracy", "val_loss", "val_accuracy")
EXPERIMENTS = {
    "small": """\
# The batch is odd, and the last one of an epoch is smaller. A step follows the size of the gradient.
seed: 3
dataset: {name: digits, image_size: [16, 16]}
model: {name: lenet5}
optimizer: {name: sgd, learning_rate: 0.1}
training: {epochs: 2, batch_size: 101}
""",
    "long": """\
# Saved as often as the workers ask each other; with dropout, augmentation and moving statistics.
seed: 3
dataset: {name: digits, image_size: [16, 16]}
augmentation: [{random_crop: {padding_pixels: 1}}]
model: {name: baseline}
optimizer: {name: sgd, learning_rate: 0.01}
training: {epochs: 3, batch_size: 61, sync_batch_norm: true, checkpoint_every_minutes: 0.000001}
""",
    "normalised": """\
# Batch normalisation over the whole batch, and nothing that is drawn.
seed: 3
dataset: {name: digits, image_size: [16, 16]}
model: {name: baseline, dropout: 0.0}
optimizer: {name: sgd, learning_rate: 0.01}
training: {epochs: 2, batch_size: 101, sync_batch_norm: true}
""",
}


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A project folder of its own."""
    home = tmp_path / "home"
    home.mkdir()
    set_project(monkeypatch, home, **EXPERIMENTS)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    for name in ("TF_CONFIG", "SLURM_STEP_NUM_TASKS", "KERAS_BACKEND", "XLA_FLAGS"):
        monkeypatch.delenv(name, raising=False)
    return home


class Process:
    """`python -m app` with these arguments, its output in files."""

    def __init__(self, stem, arguments, variables):
        self.files = [stem.with_suffix(suffix) for suffix in (".out", ".err")]
        with contextlib.ExitStack() as stack:
            out, err = (stack.enter_context(open(file, "wb")) for file in self.files)
            self.process = subprocess.Popen(
                [sys.executable, "-m", "app", *map(str, arguments)],
                cwd=ROOT,
                env=os.environ | variables,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                start_new_session=True,
            )

    @property
    def output(self):
        return self.files[0].read_text()

    @property
    def errors(self):
        return self.files[1].read_text()

    def code(self, seconds=LIMIT_SECONDS):
        return self.process.wait(timeout=seconds)

    def end(self):
        """End the process and the workers it has started, whatever has become of them."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


@pytest.fixture
def start(tmp_path):
    """Start processes of the program; none outlives the test."""
    started = []

    def start(*arguments, **variables):
        started.append(Process(tmp_path / f"process-{len(started)}", arguments, variables))
        return started[-1]

    try:
        yield start
    finally:
        for process in started:
            process.end()


@pytest.fixture
def start_workers(start):
    """Start workers as on machines of their own; `more` are arguments of single ones, by index."""

    def start_workers(count, *arguments, more=None):
        addresses = [f"localhost:{port}" for port in free_ports(count)]
        return addresses, [
            start(*arguments, *(more or {}).get(index, ()), TF_CONFIG=config_of(addresses, index))
            for index in range(count)
        ]

    return start_workers


def succeed(process):
    assert process.code() == 0, process.errors[-3000:]


def history(run):
    rows = read_history(run.history)
    return np.array([[row[name] for name in COLUMNS] for row in rows])


def assert_close(rows, expected, tolerance):
    """See that two histories agree: losses relatively, accuracies but for an image that rounding decides."""
    np.testing.assert_allclose(rows[:, ::2], expected[:, ::2], rtol=tolerance)
    np.testing.assert_allclose(rows[:, 1::2], expected[:, 1::2], atol=0.006)


def only_run(name):
    (run,) = list_runs(name)
    return run


def await_state(run_name, processes, epoch):
    """Wait for a state from the middle of an epoch, counted from 0."""
    deadline = time.monotonic() + LIMIT_SECONDS
    while True:
        for run in list_runs(run_name):
            if any(
                not path.stem.endswith("-0000000") for path in run.states.glob(f"state-{epoch:05d}-*.npz")
            ):
                return run
        for process in processes:
            assert process.process.poll() is None, process.errors[-3000:]
        assert time.monotonic() < deadline
        time.sleep(0.02)


def environment(run):
    return json.loads(run.environment.read_text())


@pytest.mark.slow
def test_two_workers_learn_what_one_does(home, start):
    process = start("train", "small", "--workers", 2)
    succeed(process)
    run = only_run("small")
    expected = history(runner.train(load_experiment("small"), out=io.StringIO()))
    assert expected.shape == (2, 4)
    assert_close(history(run), expected, 1e-5)
    assert (environment(run)["workers"], environment(run)["replicas"]) == (2, 2)
    assert run.metrics.exists() and not list(run.path.rglob(".tmp-*"))
    # The other worker has written its log, and nothing else.
    (log,) = (home / "runs" / "workers").iterdir()
    assert {path.name for path in (home / "runs").iterdir()} == {"small", "workers"}
    for text in (log.read_text(), process.output):
        assert "epoch 1/2" in text and "epoch 2/2" in text


@pytest.mark.slow
def test_killed_worker_ends_all_and_the_run_goes_on(home, tmp_path, start, start_workers, monkeypatch):
    addresses, (chief, worker) = start_workers(2, "train", "long")
    run = await_state("long", (chief, worker), epoch=1)
    worker.process.send_signal(signal.SIGKILL)
    assert chief.code() == 2
    last_line = chief.errors.strip().splitlines()[-1]
    assert last_line.startswith(f"worker 1 ({addresses[1]}) is gone: ")
    assert f"make resume RUN={run.name}" in last_line
    state, damaged = load_state(run)
    assert not run.finished and not damaged and state.progress.epoch >= 1

    other = tmp_path / "other"
    alone = copied(run, other)  # for a process alone

    for process in start_workers(2, "resume", "--run", run.name)[1]:
        succeed(process)
    assert (environment(run)["resumes"][0]["workers"], environment(run)["resumes"][0]["replicas"]) == (2, 2)
    assert json.loads(run.metrics.read_text())["timing"]["resumed_epochs"] == [state.progress.epoch + 1]
    resumed = history(run)
    shutil.rmtree(run.path)
    # On as many cores as those before: rounding differs with them, and near a tie it decides.
    for process in start_workers(2, "train", "long")[1]:
        succeed(process)
    np.testing.assert_allclose(resumed, history(only_run("long")), rtol=1e-4)

    set_project(monkeypatch, other, **EXPERIMENTS)
    runner.resume(alone, out=io.StringIO())
    (entry,) = environment(alone)["resumes"]
    assert (entry["workers"], entry["replicas"]) == (1, 1) and environment(alone)["workers"] == 2
    assert (entry["epoch"], entry["step"]) == (state.progress.epoch + 1, state.progress.step)
    assert len(history(alone)) == 3 and alone.metrics.exists()


@pytest.mark.slow
def test_signal_to_one_worker_stops_all_with_a_state(home, start_workers):
    _, (chief, worker) = start_workers(2, "train", "long")
    run = await_state("long", (chief, worker), epoch=1)
    worker.process.send_signal(signal.SIGTERM)
    assert [chief.code(), worker.code()] == [143, 143]
    state, damaged = load_state(run)
    assert not run.finished and not damaged
    for process in (chief, worker):
        words = f"stopped in epoch {state.progress.epoch + 1} after step {state.progress.step}; "
        assert words in process.errors and f"make resume RUN={run.name}" in process.errors
    assert not list(run.path.rglob(".tmp-*"))


@pytest.mark.slow
def test_worker_with_another_experiment_is_named(home, start_workers):
    addresses, processes = start_workers(2, "train", "small", more={1: ("--set", "seed=5")})
    for process in processes:
        assert process.code() == 2, process.errors
        assert f"worker 1 ({addresses[1]}): seed is 5, 3 at worker 0" in process.errors
        assert "Traceback" not in process.errors
    assert not list_runs("small")


@pytest.mark.slow
def test_synchronised_statistics_are_those_of_the_whole_batch(home, straight, start):
    """From the weights of another run; on JAX the next test has such."""
    weights = f"model.weights={straight.path}"
    succeed(start("train", "normalised", "--workers", 2, "--set", weights))
    runner.train(load_experiment("normalised", [weights]), out=io.StringIO())
    several, single = (history(run)[:, [0, 2]] for run in list_runs("normalised"))
    np.testing.assert_allclose(several, single, rtol=1e-3)


@pytest.mark.slow
def test_jax_on_two_workers_computes_what_one_does(home, straight, start, start_workers, monkeypatch):
    """From weights, with dropout and augmentation, and with a worker killed: the workers run one program."""
    pytest.importorskip("jax")
    for name, value in on_jax(home / "jax").items():
        monkeypatch.setenv(name, value)
    # The last batch has 58 images.
    even = ["--set", f"training.batch_size=60 training.epochs=3 model.weights={straight.path}"]
    addresses, (chief, worker) = start_workers(2, "train", "long", *even)
    run = await_state("long", (chief, worker), epoch=1)
    worker.process.send_signal(signal.SIGKILL)
    assert chief.code() == 2
    last_line = chief.errors.strip().splitlines()[-1]
    assert last_line.startswith(f"worker 1 ({addresses[1]}) is gone: ")
    for process in start_workers(2, "resume", "--run", run.name)[1]:
        succeed(process)
    assert (environment(run)["resumes"][0]["workers"], environment(run)["resumes"][0]["replicas"]) == (2, 2)
    several = history(run)
    shutil.rmtree(run.path)
    succeed(start("train", "long", *even))
    assert_close(several, history(only_run("long")), 1e-3)


@pytest.mark.slow
def test_jax_trains_on_all_its_devices(home, start):
    """The last batches of training and of validation are odd: two devices cannot halve them."""
    pytest.importorskip("jax")
    odd = "dataset.train_share=0.3 training.batch_size=64"  # 539 images
    for count in (2, 1):
        variables = on_jax(home / "jax")
        variables["XLA_FLAGS"] += f" --xla_force_host_platform_device_count={count}"
        later = "model.freeze=backbone model.unfreeze_epoch=2"  # in the second epoch all of it learns
        succeed(start("train", "small", "--set", odd, "--set", later, **variables))
    several, single = list_runs("small")
    assert (environment(several)["replicas"], environment(single)["replicas"]) == (2, 1)
    assert_close(history(several), history(single), 1e-4)
