"""Taking up a run again: what is refused, what is forced, what is said, and training further."""

import hashlib
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

import app.training.train as runner
from app import cli
from app.config import dump_experiment, load_experiment
from app.data.order import FLIP_STREAM, OLD_FLIP_STREAM
from app.errors import UserError
from app.preflight import changed_data, load_images, settle_weights
from app.reading import read_history, read_predictions
from app.reports.report import write_report
from app.run_set import run_of
from app.runs import Run, detour, list_runs, load_run_experiment, locked
from app.training import results
from app.training import resume as resuming
from app.training.checkpoint import load_state, restore_state
from app.training.setup import prepare
from tests.conftest import TINY, copied, write_colours
from tests.training.stopped_runs import (
    ROOT,
    Killed,
    after_each,
    assert_same_bits,
    comparable_history,
    stopped_run,
)
from tests.training.test_train import train


@pytest.fixture
def finished(straight, home):
    """A copy of the finished run in the test's own folder."""
    return copied(straight, home)


@pytest.fixture
def unfinished(finished):
    """The same as if it had been killed after its last epoch."""
    finished.metrics.unlink()
    return finished


def resume(run, **options):
    out = io.StringIO()
    runner.resume(run, out=out, **options)
    return out.getvalue()


def content(run):
    return {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    "written", ["history.csv", "best-00001.keras", "best.keras", "state-00002-0000000.npz"]
)
def test_killed_before_a_file_takes_its_place_it_ends_with_the_same_bits(
    home, straight, monkeypatch, written
):
    def replace(source, target):
        if os.path.basename(target) == written:
            raise Killed
        os.rename(source, target)

    with monkeypatch.context() as patch:
        patch.setattr("app.files.os.replace", replace)
        with pytest.raises(Killed):
            train()
    (run,) = list_runs("tiny")
    assert not run.finished
    resume(run)
    assert_same_bits(run, straight)


def test_more_epochs_on_a_cosine_ask_what_becomes_of_it(finished):
    before = content(finished)
    with pytest.raises(UserError) as error:
        resume(finished, epochs=4)
    message = str(error.value)
    assert "follows a cosine over 2 epochs" in message
    assert "SCHEDULE=keep" in message and "SCHEDULE=stretch" in message
    assert content(finished) == before


def test_the_rates_to_choose_from_are_those_where_the_run_stands(finished):
    """After one epoch of warm-up at its peak, after two below."""
    said = []
    for _ in range(2):
        with pytest.raises(UserError) as error:
            resume(finished, epochs=4)
        said.append(
            re.search(
                "it (.*)stays at its last value .* goes on from about ([0-9.]+)", f"{error.value}", re.S
            )
        )
        finished.metrics.unlink(missing_ok=True)  # as if it had been killed in its second epoch
        finished.history.write_text("".join(finished.history.read_text().splitlines(True)[:2]))
    assert [each[1] for each in said] == ["", "goes on as planned, then "]
    first, second = (float(each[2]) for each in said)
    assert 0 < first < second == 0.003


def test_kept_schedule_stays_at_its_end(finished):
    resume(finished, epochs=3, schedule="keep")
    first, second, third = (row["learning_rate"] for row in read_history(finished.history))
    assert first == pytest.approx(0.003) and third == second < 1e-9
    assert load_run_experiment(finished).optimizer.learning_rate.span_epochs == 2


@pytest.mark.slow
def test_stretched_schedule_goes_on_as_the_longer_one(finished):
    longer = prepare(load_experiment("tiny", ["training.epochs=4"]))
    kept = comparable_history(finished)
    resume(finished, epochs=4, schedule="stretch")
    assert "fewer epochs before" in (detour(finished, load_run_experiment(finished)) or "")
    assert comparable_history(finished)[:2] == kept
    rates = [row["learning_rate"] for row in read_history(finished.history)[2:]]
    assert rates == [longer.learning_rate(epoch * longer.steps_per_epoch - 1) for epoch in (3, 4)]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "this run is finished.*EPOCHS=n"),
        ({"epochs": 2}, "EPOCHS=2: tiny/.* is planned for 2 epochs; choose more"),
    ],
)
def test_finished_run_says_what_is_possible(finished, options, words):
    with pytest.raises(UserError, match=words):
        resume(finished, **options)
    assert finished.finished


@pytest.mark.parametrize(
    ("schedule", "more"), [("constant", ""), ("reduce_on_plateau", ", factor: 0.5, patience_epochs: 1")]
)
def test_stretching_what_has_no_length_is_refused(finished, schedule, more):
    rate = f"optimizer.learning_rate={{schedule: {schedule}, peak: 0.003{more}}}"
    finished.experiment.write_text(dump_experiment(load_experiment("tiny", [rate])))
    words = f"the {schedule} schedule of tiny/.* does not depend on the number of epochs; leave SCHEDULE out"
    with pytest.raises(UserError, match=words):
        resume(finished, epochs=3, schedule="stretch")


@pytest.mark.parametrize("planned", [5, 2])
def test_run_that_stopped_early_is_not_extended(finished, planned):
    """Early stopping may also fall on the last epoch."""
    text = finished.experiment.read_text()
    early = "early_stopping: {patience_epochs: 1, min_delta: 0.9}"
    for old, new in (("early_stopping: null", early), ("epochs: 2\n", f"epochs: {planned}\n")):
        assert text.count(old) == 1
        text = text.replace(old, new)
    finished.experiment.write_text(text)
    with pytest.raises(UserError, match=f"was stopped early after 2 of {planned} epochs"):
        resume(finished, epochs=9)
    assert finished.finished and load_run_experiment(finished).training.epochs == planned


def plant(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_other_classes_are_refused_even_by_force(unfinished):
    names = json.loads(unfinished.dataset.read_text())["class_names"]
    plant(unfinished.dataset, class_names=["zero", *names[1:]], fingerprint="others")
    before = content(unfinished)
    with pytest.raises(
        UserError,
        match="its classes are not those of the data: class 0 is 'zero' against '0'.*make train FROM=tiny/",
    ):
        resume(unfinished, force=True)
    assert content(unfinished) == before


def test_run_that_lacks_only_its_results_is_resumed_in_no_epoch(unfinished, straight):
    """Of another commit and on another processor, which is said but no reason to stop."""
    cpu = {"model": "another", "count": 64, "flags": []}
    plant(unfinished.environment, commit="0" * 40, cpu=cpu, onednn={})
    unfinished.failure.write_text("{}")
    said = resume(unfinished)
    assert "resumed after the last epoch" in said and "another" in said
    assert f"{'0' * 40} when the run began; equal bits are not promised" in said
    assert re.search("TF_ENABLE_ONEDNN_OPTS: [01] here, not recorded when the run began", said)
    assert not unfinished.failure.exists()
    assert json.loads(unfinished.metrics.read_text())["timing"]["resumed_epochs"] == []
    assert_same_bits(unfinished, straight)


def test_other_versions_are_refused_unless_forced(unfinished, straight):
    versions = json.loads(unfinished.environment.read_text())["versions"]
    plant(unfinished.environment, versions=versions | {"keras": "3.0.0"})
    with pytest.raises(
        UserError, match=rf"keras: {versions['keras']} here, 3.0.0 when .*\n.*make resume RUN=tiny/.* FORCE=1"
    ):
        resume(unfinished)
    assert "equal bits are not promised" in resume(unfinished, force=True)
    (entry,) = json.loads(unfinished.environment.read_text())["resumes"]
    assert entry["epoch"] == 3 and "keras" in entry["forced"][0]
    assert_same_bits(unfinished, straight)
    unfinished.metrics.unlink()  # what was forced once is not asked again
    assert f"keras: {versions['keras']} here, 3.0.0 when" in resume(unfinished)


def test_other_data_are_refused_unless_forced(unfinished, monkeypatch):
    plant(unfinished.dataset, fingerprint="0" * 64)
    with pytest.raises(UserError, match="the data have changed.*\n.*FORCE=1"):
        resume(unfinished)
    monkeypatch.setattr(results, "best_row", lambda rows, *_: rows[0] | {"val_accuracy": 0.999})
    resume(unfinished, force=True)
    dataset = json.loads(unfinished.dataset.read_text())
    assert dataset["fingerprints_before"] == ["0" * 64] and dataset["fingerprint"] != "0" * 64
    # The best epoch's figures are those of its weights on the images that there are now.
    labels, logits = read_predictions(unfinished.predictions, "best", 10)
    headline = json.loads(unfinished.metrics.read_text())["headline"]
    assert headline["val_accuracy"] == pytest.approx(np.mean(logits.argmax(-1) == labels))
    assert "it was trained on other images before" in write_report(unfinished).read_text()


def test_a_state_that_memory_does_not_suffice_for_is_not_damaged(straight, monkeypatch):
    def fail(path):
        raise MemoryError

    monkeypatch.setattr("app.training.checkpoint._read_state", fail)
    with pytest.raises(MemoryError):
        load_state(straight)


def test_an_edited_list_of_corrections_changes_no_run_that_was_trained_with_it(home):
    listing = home / "mine.csv"
    listing.write_text("image\n0\n5\n")
    run = train("dataset.exclude=mine.csv", "training.epochs=1")
    listing.write_text("image\n7\n")
    run.metrics.unlink()
    resume(run)
    assert run.finished and cli.main(["evaluate", "--run", run.name]) == 0
    assert run.corrections["exclude"].read_text() == "image\n0\n5\n"
    assert cli.main(["train", "--from", run.name]) == 0
    first, second = (json.loads(each.dataset.read_text()) for each in list_runs("tiny"))
    assert first["fingerprint"] == second["fingerprint"]


def test_an_epoch_is_over_where_there_are_fewer_images_now(home):
    """Forced, a run whose images became fewer than it has seen in this epoch goes on with the next one."""
    run = stopped_run(load_experiment("tiny"), 6)  # of 7 steps an epoch
    run.experiment.write_text(run.experiment.read_text().replace("train_share: null", "train_share: 0.4"))
    plant(run.dataset, fingerprint="0" * 64)
    with pytest.raises(UserError, match="validation images may be among those"):
        resume(run)
    resume(run, force=True)
    assert [row["epoch"] for row in read_history(run.history)] == [1, 2] and run.finished
    # The schedule, which goes by the optimizer's count, has come to its end.
    optimizer = restored(run).classifier.optimizer
    assert float(optimizer.iterations) == 2 * 3
    assert float(optimizer.learning_rate) == pytest.approx(0, abs=1e-8)


@pytest.mark.slow
def test_all_of_nadam_is_in_a_state_of_float16(home):
    """Keras' wrapper of float16 does not list the product of its momenta."""
    float16 = ["training.precision=float16", "optimizer={name: nadam, learning_rate: 0.003}"]
    run = stopped_run(load_experiment("tiny", float16), 9)
    resume(run)
    assert_same_bits(run, train(*float16))


def restored(run):
    job = prepare(load_run_experiment(run), from_state=True)
    restore_state(job.classifier, load_state(run)[0])
    return job


def test_other_settings_of_a_library_are_refused(unfinished):
    onednn = json.loads(unfinished.environment.read_text())["onednn"]
    plant(unfinished.environment, onednn=onednn | {"TF_ENABLE_ONEDNN_OPTS": "off"})
    with pytest.raises(UserError, match=r"TF_ENABLE_ONEDNN_OPTS: [01] here, off when .*\n.*FORCE=1"):
        resume(unfinished)


def test_images_may_lie_elsewhere_now(folder_run, tmp_path):
    run = copied(folder_run, tmp_path)
    with pytest.raises(
        UserError, match="does not exist.* new place into data_dir of the run's experiment.yaml"
    ):
        load_images(load_run_experiment(run))
    write_colours(tmp_path / "moved")
    text = run.experiment.read_text()
    place = load_run_experiment(run).dataset.data_dir
    assert text.count(place) == 1
    run.experiment.write_text(text.replace(place, str(tmp_path / "moved")))
    assert changed_data(run, load_images(load_run_experiment(run))) == []
    (tmp_path / "moved" / "été" / "0.png").unlink()
    (line,) = changed_data(run, load_images(load_run_experiment(run)))
    assert "the data have changed" in line


def test_later_edit_of_the_file_is_said_and_ignored(home, unfinished, straight):
    file = home / "experiments" / "tiny.yaml"
    file.write_text(TINY.replace("batch_size: 256", "batch_size: 512").replace("seed: 3", "seed: 4"))
    said = resume(unfinished)
    assert "tiny.yaml has changed since (seed, training.batch_size); the run goes on with its own" in said
    assert_same_bits(unfinished, straight)


def test_another_order_of_rate_multipliers_is_an_edit(home, finished):
    def write(*patterns):
        multipliers = "".join(f'    "{pattern}": {factor}\n' for pattern, factor in patterns)
        rest = f"optimizer:\n  rate_multipliers:\n{multipliers}"
        (home / "experiments" / "later.yaml").write_text(f"# Another.\nextends: tiny.yaml\n{rest}")

    write(("*/kernel", 2), ("*/bias", 4))
    began = load_experiment("later")
    assert resuming.edited_keys(finished, began) == []
    write(("*/bias", 4), ("*/kernel", 2))
    assert resuming.edited_keys(finished, began) == ["optimizer.rate_multipliers"]


def test_the_path_of_a_run_to_start_from_is_no_edit(home, finished):
    """The run records what it is called."""
    text = f"# Another.\nextends: tiny.yaml\nmodel: {{weights: {finished.path.relative_to(home)}}}\n"
    (home / "experiments" / "later.yaml").write_text(text)
    began = settle_weights(load_experiment("later"))
    assert began.model.weights == finished.name and resuming.edited_keys(finished, began) == []


def test_unedited_file_is_not_mentioned_though_the_run_had_changes(finished):
    began = load_experiment("tiny", ["seed=9"])
    assert resuming.edited_keys(finished, began) == ["seed"]
    plant(finished.environment, overrides=["seed=9"])
    assert resuming.edited_keys(finished, began) == []


@pytest.mark.parametrize("recorded", [True, False])
def test_an_older_run_keeps_the_coins_of_its_alternating_flip(unfinished, monkeypatch, recorded):
    """What its colour layers do has changed, on the other hand, and is said."""
    experiment = unfinished.experiment.read_text()
    flip, saturation = "- random_flip:\n    mode: horizontal\n", "- random_saturation:\n    factor: 0.5\n"
    assert flip in experiment
    unfinished.experiment.write_text(experiment.replace(flip, saturation))
    path = sorted(unfinished.states.glob("state-*.npz"))[-1]
    with np.load(path) as file:
        arrays = dict(file)
    header = json.loads(arrays["header"].tobytes().replace(b"random_flip", b"random_saturation"))
    assert header["progress"]["flip_stream"] == FLIP_STREAM
    if not recorded:  # as states were before
        del header["progress"]["flip_stream"]
    arrays["header"] = np.frombuffer(json.dumps(header).encode(), np.uint8)
    np.savez(path, **arrays)
    asked = []
    monkeypatch.setattr("app.training.setup.training_batches", lambda *_, **options: asked.append(options))

    class Stop(Exception):  # noqa: N818
        pass

    def stop(run, job, *_):
        job.batches(1, 0)
        raise Stop

    monkeypatch.setattr(runner, "callbacks_of", stop)
    out = io.StringIO()
    with pytest.raises(Stop):
        runner.resume(unfinished, out)
    said = out.getvalue()
    assert asked[0]["flip_stream"] == (FLIP_STREAM if recorded else OLD_FLIP_STREAM)
    assert ("random_saturation had faults of Keras" in said) != recorded


def test_run_that_is_being_trained_is_not_resumed(unfinished):
    with locked(unfinished):
        words = rf"being trained by process {os.getpid()} on \S+ since .*; wait until it ends"
        with pytest.raises(UserError, match=words):
            resume(unfinished)
    assert not (unfinished.path / "lock").exists()
    resume(unfinished)
    assert not (unfinished.path / "lock").exists()


def test_lock_of_a_killed_process_is_free(unfinished):
    program = (
        "import sys, time\nfrom pathlib import Path\nfrom app.runs import Run\n"
        "from app.runs import locked\n"
        "with locked(Run(Path(sys.argv[1]))):\n    print('held', flush=True)\n    time.sleep(600)\n"
    )
    command = [sys.executable, "-c", program, str(unfinished.path)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout.readline() == "held\n"
            with pytest.raises(UserError, match=f"process {process.pid} on"), locked(unfinished):
                pass
        finally:
            process.kill()
    assert (unfinished.path / "lock").exists()
    with locked(unfinished):
        pass


@pytest.mark.slow
def test_second_signal_stops_at_once(home):
    """The first SIGINT falls into a step that takes minutes; the second must not wait for its end."""
    program = """
import sys, time
from app.config import load_experiment
from app.training import train as runner
from app.training.callbacks import Recorder
def step(self, batch, logs=None):
    print("step", flush=True)
    end = time.monotonic() + 600
    while time.monotonic() < end:
        try:
            time.sleep(1)
        except BaseException:
            pass
Recorder.on_train_batch_end = step
runner.train(load_experiment("tiny"), out=sys.stderr)
"""
    with subprocess.Popen(
        [sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "step\n"
        process.send_signal(signal.SIGINT)
        try:
            while "ctrl-C now stops at once" not in process.stderr.readline():
                assert process.poll() is None
            process.send_signal(signal.SIGINT)
            assert process.wait(timeout=60) == -signal.SIGINT
        finally:
            process.kill()  # for whose end the context waits
    (run,) = list_runs("tiny")
    assert not run.finished


@pytest.mark.slow
def test_two_runs_at_a_time_have_folders_of_their_own(home, straight):
    """One of them with the other kind of determinism, which a process cannot change."""
    command = [sys.executable, "-m", "app", "train", "tiny", "--set", "training.determinism=fast"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL) as process:
        try:
            while not list_runs("tiny"):
                assert process.poll() is None
                time.sleep(0.01)
            assert_same_bits(train(), straight)
            assert process.wait(timeout=300) == 0
        finally:
            process.kill()  # for whose end the context waits
    fast, strict = list_runs("tiny")
    assert fast.finished and strict.finished
    assert json.loads(fast.environment.read_text())["deterministic"] is False
    assert json.loads(strict.environment.read_text())["deterministic"] is True


def test_weights_that_are_not_finite_are_never_saved(home, monkeypatch):
    """The loss of a step is computed before its update: the weights can be lost while it is finite."""

    def ruin(recorder):
        if (recorder.progress.epoch, recorder.progress.step) == (1, 2):
            variable = recorder.model.trainable_variables[0]
            variable.assign(np.full(variable.shape, np.nan))

    after_each(monkeypatch, ruin)
    with pytest.raises(UserError, match="not finite in epoch 2, step 2 of .*"):
        train()
    (run,) = list_runs("tiny")
    failure = json.loads(run.failure.read_text())
    assert (failure["epoch"], failure["step"]) == (2, 2)
    state, damaged = load_state(run)
    assert not damaged and (state.progress.epoch, state.progress.step) == (1, 1)
    assert all(np.isfinite(value).all() for value in state.values["model"])


@pytest.mark.slow
def test_jax_offers_no_strict_determinism():
    program = (
        "from app.training import startup\n"
        "startup.configure(seed=0, precision='float32', devices='cpu', determinism='strict')"
    )
    result = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, env=os.environ | {"KERAS_BACKEND": "jax"},
        capture_output=True, text=True,
    )  # fmt: skip
    assert "training.determinism: 'strict' is not offered on JAX" in result.stderr


def without_data(run):
    text = run.experiment.read_text().replace("name: digits", "name: image_folder")
    run.experiment.write_text(text.replace("data_dir: null", "data_dir: gone"))


def with_other_data(run):
    plant(run.dataset, fingerprint="0" * 64)


def with_other_versions(run):
    plant(run.environment, versions={})


def with_damaged_states(run):
    for path in run.states.iterdir():
        path.write_bytes(b"PK")


def without_states(run):
    shutil.rmtree(run.states)


@pytest.mark.parametrize(
    ("spoil", "epochs", "words"),
    [
        (lambda run: None, 100_001, "training.epochs: .*100001"),
        (without_data, 3, "gone does not exist"),
        (with_other_data, 3, "the data have changed"),
        (with_other_versions, 3, "keras: .* when the run began"),
        (with_damaged_states, 3, "damaged .* cannot be resumed"),
        (without_states, 3, "there is no state to go on from.*make train FROM=tiny/"),
    ],
    ids=["too many", "no data", "other data", "other versions", "damaged", "no state"],
)
def test_more_epochs_that_cannot_be_trained_leave_the_run_as_it_was(finished, spoil, epochs, words):
    spoil(finished)
    before = content(finished)
    with pytest.raises(UserError, match=words):
        resume(finished, epochs=epochs, schedule="stretch")
    assert content(finished) == before


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (without_states, "there is no state to go on from.*make train FROM=tiny/"),
        (
            lambda run: run.best_model.unlink(),
            "best.keras: no such file; it holds the network of the best epoch",
        ),
    ],
    ids=["no state", "no best network"],
)
def test_what_was_trained_is_not_trained_over(finished, spoil, words):
    finished.metrics.unlink()
    spoil(finished)
    before = content(finished)
    with pytest.raises(UserError, match=words):
        resume(finished)
    assert content(finished) == before


def test_copies_beside_states_and_the_best_network_are_no_states_and_stay(finished):
    finished.metrics.unlink()
    copies = [finished.states / "state-old.npz", finished.best_model.with_name("best-50-epochs.keras")]
    for copy in copies:
        copy.write_bytes(b"a user's")
    resume(finished)
    assert finished.finished and all(copy.read_bytes() == b"a user's" for copy in copies)
    for state in finished.state_files:
        state.unlink()
    with pytest.raises(UserError, match="there is no state to go on from"):
        resume(finished, epochs=3, schedule="keep")


def test_a_damaged_run_of_a_set_is_trained_anew_as_its_message_says(straight, home):
    run = Run(home / "runs" / "tiny.ablation" / straight.path.name)
    shutil.copytree(straight.path, run.path)
    run.metrics.unlink()
    with_damaged_states(run)
    plant(run.environment, auto=["precision"])
    asked = load_experiment("tiny", ["training.precision=auto"])
    assert run_of("tiny.ablation", asked, None).name == run.name
    with pytest.raises(UserError, match="damaged .* cannot be resumed") as refused:
        resume(run)
    command = re.search('make train FROM=(.*) SET="(.*)"', str(refused.value))
    assert cli.main(["train", "--from", command[1], "--set", command[2]]) == 0
    found = run_of("tiny.ablation", asked, None)
    assert found.finished and found.name != run.name


def test_kill_while_a_finished_run_is_opened_again_leaves_one_to_resume(finished, straight, monkeypatch):
    def killed(*arguments):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(resuming, "write_text", killed)
        with pytest.raises(KeyboardInterrupt):
            resume(finished, epochs=3, schedule="keep")
    resume(finished)
    assert_same_bits(finished, straight)
    assert finished.finished


def test_starting_weights_are_recorded_by_the_name_of_their_run_and_needed_once(home, finished):
    latest = home / "runs" / "tiny" / "latest"
    latest.symlink_to(finished.path.name)
    out = io.StringIO()
    run = runner.train(load_experiment("tiny", ["model.weights=tiny/latest"]), out, overrides=[])
    assert latest.resolve() == run.path
    assert load_run_experiment(run).model.weights == finished.name
    best = hashlib.sha256(finished.best_model.read_bytes()).hexdigest()
    record = json.loads(run.environment.read_text())["starting_weights"]
    assert record == {"run": finished.name, "sha256": best}  # a run may be trained further
    assert re.search(f"starts from the weights of {finished.name}: all [0-9]+ variables\n", out.getvalue())

    plant(run.environment, overrides=["model.weights=tiny/latest"])
    elsewhere = finished.path.rename(home / "elsewhere")
    run.metrics.unlink()
    assert "has changed since" not in resume(run)
    assert run.finished

    run.metrics.unlink()
    without_states(run)
    run.best_model.unlink()  # as if it had been killed before its first state
    with pytest.raises(UserError, match=f"model.weights: {finished.name}: no run folder of that name"):
        resume(run)

    elsewhere.rename(finished.path)
    plant(run.environment, starting_weights=record | {"sha256": "0" * 64})
    with pytest.raises(
        UserError, match=f"model.weights: {finished.name} has hash {best[:12]} here, 0{{12}} when"
    ):
        resume(run)
    run.states.mkdir()
    resume(run, force=True)
    assert json.loads(run.environment.read_text())["starting_weights"] == record
