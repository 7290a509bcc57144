"""Sweeps as a user runs them: killed and gone on with, workers that die, two at a time, a shared database."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest

from app.distributed.local_workers import free_ports
from app.machine import usable_cores
from app.paths import module_command
from app.reading import read_history
from app.runs import Run, list_runs, list_whole_runs
from app.sweep.trials import read_trials

EXPERIMENT = """\
# A network that learns digits; with one learning rate that teaches nothing, and one that ends every training.
# By its seed the choices are tried in an order in which two trials finish, two are pruned and two fail.
seed: 0
dataset: {name: digits, image_size: [16, 16], validation: 0.2}
model: {name: baseline}
optimizer: {name: adam, learning_rate: 0.003}
training: {epochs: 2, batch_size: 64}
sweep:
  space:
    optimizer.learning_rate.peak: [1.0e-7, 0.01, 3.0e+38]
    augmentation: [[], [random_flip]]
  pruner: hyperband
  trials: 6
  finalists: 0
"""


started = []  # the processes of the test


def make_home(folder, text=EXPERIMENT):
    (folder / "experiments").mkdir(parents=True)
    (folder / "experiments" / "tiny.yaml").write_text(text)
    return folder


def start(home, *arguments):
    """A process of `make sweep`, in a group of its own together with its workers."""
    command, environment = module_command("app", "sweep", "tiny", *arguments)
    process = subprocess.Popen(
        command, env=environment | {"TRAINER_HOME": str(home)}, start_new_session=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    started.append(process)
    return process


@pytest.fixture(autouse=True)
def none_is_left_behind():
    """No ctrl-C at the tests reaches the groups of their own."""
    yield
    while started:
        if (process := started.pop()).poll() is None:
            kill_all(process)


def sweep(home, *arguments):
    """What a sweep that is left alone prints."""
    process = start(home, *arguments)
    output, _ = process.communicate()
    assert process.returncode == 0, output
    return output


def in_home(home, function, *arguments):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRAINER_HOME", str(home))
        return function(*arguments)


def folder(home):
    return home / "runs" / "tiny.sweep"


def trials_of(home):
    return read_trials(folder(home))


def num_epochs(home):
    """How many epochs all trials together have finished."""
    return sum(len(path.read_text().splitlines()) - 1 for path in folder(home).glob("*/history.csv"))


def wait_for(process, condition):
    while not condition():
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.02)


def kill_all(process):
    """SIGKILL for a coordinator and its workers at once."""
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


def without_chance(trials):
    """Trials without what names and clocks decide."""
    return [
        trial._replace(run=None, seconds=0.0, reason=trial.reason and trial.reason[:60]) for trial in trials
    ]


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    """A sweep that nothing interrupted."""
    home = make_home(tmp_path_factory.mktemp("straight"))
    sweep(home)
    return home


@pytest.mark.slow
def test_each_trial_is_an_ordinary_run_and_a_failure_does_not_end_the_sweep(straight):
    trials = trials_of(straight)
    assert [trial.number for trial in trials] == list(range(6))
    assert len({str(trial.settings) for trial in trials}) == 6
    states = {trial.state for trial in trials}
    assert {"finished", "failed", "pruned"} == states
    assert len({trial.values for trial in trials if trial.state == "finished"}) == 2  # told apart by theirs
    for trial in trials:
        run = Run(straight / "runs" / trial.run)
        assert (trial.state == "failed") == (trial.settings["optimizer.learning_rate.peak"] == 3e38)
        assert run.finished == (trial.state == "finished")
        if trial.state == "failed":
            assert trial.reason.startswith("tiny.sweep: the loss is ") and "make doctor" in trial.reason
        else:
            assert [row["val_accuracy"] for row in read_history(run.history)] == list(trial.values)
            assert list(run.states.glob("*.npz"))


@pytest.mark.slow
def test_killed_three_times_it_ends_as_if_it_never_was(straight, tmp_path):
    home, draw = make_home(tmp_path / "home"), random.Random(0)
    total = num_epochs(straight)
    for epochs in sorted(draw.sample(range(total), 3)):
        process = start(home)
        wait_for(process, lambda epochs=epochs: num_epochs(home) >= epochs)
        time.sleep(draw.random())
        kill_all(process)
    output = sweep(home)
    assert without_chance(trials_of(home)) == without_chance(trials_of(straight)), output
    runs = in_home(home, list_whole_runs, "tiny.sweep")
    assert sorted(run.name for run in runs) == sorted(trial.run for trial in trials_of(home))


@pytest.mark.slow
def test_a_warm_process_trains_the_same_bits_as_a_fresh_one(straight):
    trial = [trial for trial in trials_of(straight) if trial.state == "finished"][-1]
    assert trial.number > 0
    command, environment = module_command("app", "train", "--from", trial.run)
    subprocess.run(
        command, env=environment | {"TRAINER_HOME": str(straight)}, check=True, capture_output=True
    )
    alone = in_home(straight, list_runs, "tiny.sweep")[-1]
    one, other = (np.load(run.state_files[-1]) for run in (alone, Run(straight / "runs" / trial.run)))
    assert alone.name != trial.run and one.files == other.files
    assert all(np.array_equal(one[name], other[name]) for name in one.files if name != "header")
    shutil.rmtree(alone.path)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads the workers' numbers from /proc")
@pytest.mark.skipif(usable_cores() < 2, reason="a core for each worker")
def test_two_at_a_time_while_one_process_dies_and_ctrl_c_stops_the_other(tmp_path):
    home = make_home(tmp_path / "home")
    arguments = ("--jobs", "2", "--trials", "3", "--space", "optimizer.learning_rate.peak=log(0.001,0.1)")
    process = start(home, *arguments)
    workers = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    wait_for(process, lambda: len(workers.read_text().split()) == 2)
    os.kill(int(workers.read_text().split()[0]), signal.SIGKILL)
    wait_for(process, lambda: num_epochs(home))
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate()
    assert process.returncode == 130, output
    assert "killed by signal 9" in output and "resumed from its last state" in output
    before = trials_of(home)
    states = {trial.state for trial in before}
    assert "running" not in states and "waiting" in states
    output = sweep(home, *arguments)
    after = trials_of(home)
    assert [trial.settings for trial in after[: len(before)]] == [trial.settings for trial in before]
    assert len(after) == 3 and {trial.state for trial in after} <= {"finished", "pruned"}, output
    runs = in_home(home, list_whole_runs, "tiny.sweep")
    assert sorted(run.name for run in runs) == sorted(trial.run for trial in after)


@pytest.fixture
def postgresql():
    """The address of a database on a server of its own."""
    programs = [shutil.which("initdb"), *sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))]
    if not any(programs):
        pytest.skip("PostgreSQL's server is not installed")
    folder, port = Path(tempfile.mkdtemp(prefix="postgresql-")), free_ports(1)[0]
    as_user = []
    if os.geteuid() == 0:  # which PostgreSQL refuses
        as_user = ["runuser", "-u", "postgres", "--"]
        shutil.chown(folder, "postgres")

    def run(program, *arguments):
        command = [*as_user, str(Path(programs[-1]).parent / program), "-D", str(folder / "data"), *arguments]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=folder)

    run("initdb", "-U", "tester", "-A", "trust", "--no-sync")
    options = f"-p {port} -k {folder} -c listen_addresses=localhost -c fsync=off"
    run("pg_ctl", "-w", "-l", str(folder / "log"), "-o", options, "start")
    yield f"postgresql://tester@localhost:{port}/postgres"
    run("pg_ctl", "-m", "immediate", "stop")
    shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.slow
def test_machines_share_a_database_and_take_over_from_one_that_dies(postgresql, tmp_path):
    space = "optimizer.learning_rate.peak=log(0.001,0.1)"
    arguments = ("--trials", "3", "--storage", postgresql, "--space", space)
    homes = [make_home(tmp_path / name) for name in ("one", "other")]
    processes = [start(home, *arguments) for home in homes]
    for home, process in zip(homes, processes, strict=True):
        wait_for(process, lambda home=home: num_epochs(home))
    kill_all(processes[0])
    output, _ = processes[1].communicate()
    assert processes[1].returncode == 0, output
    trials = trials_of(homes[1])
    assert len(trials) == 3 and {trial.state for trial in trials} <= {"finished", "pruned"}
    assert len({json.dumps(trial.settings) for trial in trials}) == 3
    assert "another one goes on" in output or len(in_home(homes[1], list_runs, "tiny.sweep")) == 3, output
    assert "STORAGE" in refused(homes[1], "--trials", "3", "--space", space)


def refused(home, *arguments):
    process = start(home, *arguments)
    output, _ = process.communicate()
    assert process.returncode == 2, output
    return output
