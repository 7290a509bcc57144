"""What the engine of a sweep decides, on plain numbers: proposals, pruning, who has a trial, when it ends."""

import io
import itertools
import json
import math
import os
import queue

import optuna
import pytest
from optuna.trial import TrialState, create_trial

from app.config import load_experiment
from app.config.sweep import Choice, Range, SweepConfig
from app.data.datasets import load_dataset
from app.sweep.engine import worker, worker_process
from app.sweep.engine.decisions import distributions, propose, prunes
from app.sweep.engine.ledger import Ledger
from app.sweep.engine.study import Study
from app.sweep.parallel import _ticks
from app.sweep.trials import SweepSet, read_trials, write_trials
from tests.sweep.made_up import searched, sweep_of, write_folder

FLIP = [{"random_flip": {"mode": "horizontal"}}]
SPACE = {
    "optimizer.learning_rate.peak": Range(1e-4, 1e-1, log=True),
    "augmentation": Choice(([], FLIP)),
    "model.depth": Range(2, 4, integer=True),
}
FINITE = {key: SPACE[key] for key in ("augmentation", "model.depth")}
names = itertools.count()


def config(space=SPACE, **options):
    return SweepConfig(space=space, **options)


@pytest.fixture(scope="module")
def database(tmp_path_factory):
    """One file for all studies of this module: making its tables takes most of the time."""
    return f"sqlite:///{tmp_path_factory.mktemp('engine') / 'sweep.db'}"


def open_study(database, name=None, *, sweep=None, owner=None, epochs=9):
    return Study(database, name or f"study {next(names)}", sweep or config(), 1, owner, epochs)


def ended(params, value, state=TrialState.COMPLETE, space=SPACE):
    """A trial in the words of Optuna."""
    values = {"value": value} if state == TrialState.COMPLETE else {}
    return create_trial(state=state, params=params, distributions=distributions(space), **values)


def numbered(trials):
    for number, trial in enumerate(trials):
        trial.number = number
    return trials


@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_proposals_follow_from_the_trials_so_far_and_are_all_different(sampler):
    sweep, trials = config(sampler=sampler), []
    for number in range(14):  # TPE draws at random up to its eleventh trial
        params = propose(sweep, 1, trials)
        assert params == propose(sweep, 1, trials)
        assert params != propose(sweep, 2, trials)
        trials = numbered([*trials, ended(params, number / 20)])
    assert len({json.dumps(trial.params, sort_keys=True) for trial in trials}) == 14


@pytest.mark.parametrize("sampler", ["tpe", "random", "grid"])
def test_a_finite_space_is_tried_once_and_then_exhausted(sampler):
    sweep, trials = config(FINITE, sampler=sampler), []
    while (params := propose(sweep, 1, trials)) is not None:
        trials = numbered([*trials, ended(params, 0.5, space=FINITE)])
    combinations = {(trial.params["augmentation"], trial.params["model.depth"]) for trial in trials}
    assert len(trials) == len(combinations) == 2 * 3


def test_a_large_space_of_choices_does_not_end_where_tpe_proposes_the_same_again():
    """It has more combinations than are listed; those near the best one have been tried."""
    space = {f"key.k{number}": Choice((0, 1)) for number in range(14)}
    trials = [
        ended({key: str(int(key not in zeros)) for key in space}, 1 - count / 14, space=space)
        for count in range(3)
        for zeros in itertools.combinations(space, count)
    ]
    params = propose(config(space), 1, numbered(trials))
    assert params and params not in [trial.params for trial in trials]


def test_trials_under_way_count_for_the_next_proposal():
    done = [ended(propose(config(), seed, []), seed / 20) for seed in range(12)]
    under_way = ended(propose(config(), 99, []), None, TrialState.RUNNING)
    one = propose(config(), 1, numbered([*done, under_way]))
    assert one not in [trial.params for trial in [*done, under_way]]


@pytest.mark.parametrize(("pruner", "pruned"), [("median", True), ("none", False)])
def test_what_is_below_the_median_of_five_is_pruned_after_a_quarter_of_the_epochs(database, pruner, pruned):
    study = open_study(database, sweep=config(FINITE, pruner=pruner), epochs=4)
    for value in (0.5, 0.6, 0.7, 0.8, 0.9):
        number = study.take(6).number
        assert not study.report(number, "a/b", [0.0, value], ask=True)
        study.end(number, value=value)
    number = study.take(6).number
    assert not study.report(number, "a/b", [-1.0], ask=True)
    assert not study.report(number, "a/b", [0.0, 0.75], ask=True)
    assert not study.report(number, "a/b", [0.0, 0.65], ask=False)
    assert study.report(number, "a/b", [0.0, 0.65], ask=True) == pruned


@pytest.mark.parametrize("pruner", ["median", "hyperband"])
def test_asking_again_after_a_kill_gives_the_same_answer(pruner):
    sweep, trials = config(FINITE, pruner=pruner), []
    for number, value in enumerate([0.5, 0.6, 0.4, 0.7, 0.3, 0.65, 0.2, 0.55]):
        values, answers, kept = [], [], {}
        params = {"augmentation": json.dumps(FLIP), "model.depth": 3}
        for epoch in range(1, 9):
            values.append(value + 0.01 * epoch)
            now = create_trial(
                state=TrialState.RUNNING,
                params=params,
                distributions=distributions(FINITE),
                system_attrs=kept,
            )
            asked = prunes(sweep, "name", 9, numbered([*trials, now]), number, values)
            now = create_trial(
                state=TrialState.RUNNING, params=params, distributions=distributions(FINITE),
                system_attrs=asked[1], intermediate_values=dict(enumerate(values, 1)),
            )  # fmt: skip
            assert prunes(sweep, "name", 9, numbered([*trials, now]), number, values) == asked
            answers.append(asked[0])
            kept = asked[1]
            if asked[0]:
                break
        state = TrialState.PRUNED if any(answers) else TrialState.COMPLETE
        final = create_trial(
            state=state, params=params, distributions=distributions(FINITE), system_attrs=kept,
            intermediate_values=dict(enumerate(values, 1)), value=values[-1],
        )  # fmt: skip
        trials = numbered([*trials, final])
    assert {trial.state for trial in trials} == {TrialState.PRUNED, TrialState.COMPLETE}


def test_a_trial_given_back_is_taken_again_as_the_same(database):
    study = open_study(database)
    first = study.take(3)
    assert not first.begun and study.holds(first.number)
    study.report(first.number, "x.sweep/1", [0.1, 0.2], ask=False)
    study.give_back(first.number, seconds=2.0)
    assert not study.holds(first.number)
    again = open_study(database, study.name).take(3)
    assert again == first._replace(begun=True)
    [trial] = study.view()
    assert (trial.state, trial.values, trial.run, trial.seconds) == ("running", (0.1, 0.2), "x.sweep/1", 2.0)


def test_what_a_killed_process_trained_is_given_back_and_nothing_else(database):
    study = open_study(database)
    lost, done, failed = (study.take(9).number for _ in range(3))
    study.end(done, value=0.5)
    study.end(failed, reason="too large")
    assert open_study(database, study.name).give_back_lost(own=True) == [lost]
    assert [trial.state for trial in study.view()] == ["waiting", "finished", "failed"]


def test_machines_that_share_a_storage_leave_each_other_their_trials(database):
    here = open_study(database, owner="here:runs")
    there = open_study(database, here.name, owner="there:runs")
    one, other = here.take(9), there.take(9)
    assert one.number != other.number
    assert there.give_back_lost(own=True) == [other.number]
    assert here.holds(one.number) and not there.holds(one.number)
    assert there.take(9) == other._replace(begun=True)


def test_finalists_are_trained_by_the_first_to_end_until_more_trials_have_ended(database):
    here = open_study(database, owner="here:runs")
    there = open_study(database, here.name, owner="there:runs")
    assert [study.finisher() for study in (here, there, here)] == [None, "here:runs", None]
    there.end(there.take(9).number, value=0.5)
    assert [study.finisher() for study in (there, here)] == [None, "there:runs"]
    assert open_study(database).finisher() is None  # nobody shares it


def test_first_trials_that_all_fail_end_a_sweep_but_not_one_that_goes_on(home, database):
    folder = home / "runs" / "tiny.sweep"
    write_folder(folder, searched(), [])

    def fail(study, count):
        ledger = Ledger(SweepSet.read(folder), study, io.StringIO())
        for _ in range(count):
            assert ledger.hopeless is None
            ledger.end(study.take(99).number, reason="the loss is nan in epoch 1")
        return ledger.hopeless

    assert "the first 5 trials all failed" in fail(open_study(database, sweep=sweep_of()), 5)
    study = open_study(database, sweep=sweep_of())
    study.end(study.take(99).number, value=0.5)
    assert fail(study, 5) is None


def test_while_the_sweep_is_running_a_trial_that_ends_early_is_shown_when_the_page_is_due(home, database):
    folder = home / "runs" / "tiny.sweep"
    write_folder(folder, searched(), [])
    study = open_study(database, sweep=sweep_of())
    ledger = Ledger(SweepSet.read(folder), study, io.StringIO())
    path, taken = folder / "sweep.html", [study.take(9).number for _ in range(2)]
    ledger.end(taken[0], value=0.25)
    ledger.draw()
    before = path.read_text()
    ledger.end(taken[1], value=0.75)
    ledger.draw()
    assert path.read_text() == before  # at once is too soon
    os.utime(path, (0, 0))
    ledger.draw()
    assert "75.00 %" in path.read_text() and "75.00 %" not in before


def test_a_trial_ends_once(database):
    study = open_study(database)
    number = study.take(1).number
    study.end(number, value=0.25)
    study.end(number, reason="late")
    study.give_back(number)
    assert [(trial.state, trial.value) for trial in study.view()] == [("finished", 0.25)]


def test_no_more_trials_than_asked_for_and_later_more(database):
    study = open_study(database)
    assert [study.take(2).number for _ in range(2)] == [0, 1]
    assert study.take(2) is None
    assert study.num_running(2) == 2
    study.give_back(1)
    assert study.take(1) is None  # as when TRIALS is smaller now
    assert study.take(3).number == 1 and study.take(3).number == 2


def test_settings_come_back_as_they_were_chosen(database):
    study = open_study(database, sweep=config(FINITE, sampler="grid", trials=6))
    settings = [study.take(6).settings for _ in range(6)]
    assert sorted(map(json.dumps, settings)) == sorted(
        json.dumps({"augmentation": chosen, "model.depth": depth})
        for chosen in ([], FLIP)
        for depth in (2, 3, 4)
    )
    assert [trial.settings for trial in study.view()] == settings


def test_deaths_count_where_no_epoch_came_in_between(database):
    study = open_study(database)
    number = study.take(1).number
    assert [study.deaths(number, epochs) for epochs in (0, 1, 1)] == [1, 1, 2]


def test_values_that_are_not_finite_are_kept_as_none(database, tmp_path):
    study = open_study(database, sweep=config(FINITE, pruner="median", objective="val_loss"))
    number = study.take(1).number
    study.report(number, "a/b", [1.0, math.nan, math.inf], ask=True)
    study.end(number, reason="the loss is nan")
    write_trials(tmp_path, study.view())
    [trial] = read_trials(tmp_path)
    assert trial == study.view()[0]
    assert (trial.values, trial.value, trial.reason) == ((1.0, None, None), None, "the loss is nan")


def test_whole_numbers_have_ticks_of_their_own():
    ticks = _ticks(Range(1, 3, integer=True))
    assert ticks == {0.0: "1", 0.5: "2", 1.0: "3"}
    assert list(_ticks(Range(256, 2048, integer=True)).values())[-1] == "2048"


def test_workers_use_no_gpu_where_all_are_hidden(monkeypatch):
    for value, gpus in (("", ()), ("3,1", ("3", "1"))):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", value)
        worker_process._gpus.cache_clear()
        assert worker_process._gpus() == gpus
    assert worker_process._gpu_variables(1)["CUDA_VISIBLE_DEVICES"] == "1"
    worker_process._gpus.cache_clear()


def test_a_trial_of_epochs_that_follow_from_the_data(home, monkeypatch):
    monkeypatch.setattr("app.config.schema.AUTO_EPOCHS", range(2, 101))
    monkeypatch.setattr("app.config.schema.AUTO_IMAGES_SEEN", 100)
    base = load_experiment("tiny", ["training.epochs=auto"]).model_copy(update={"sweep": sweep_of()})
    fingerprint = load_dataset(base.dataset).fingerprint
    write_folder(folder := home / "runs" / "tiny.sweep", base, [], fingerprint=fingerprint)
    commands, answers = queue.Queue(), io.StringIO()
    commands.put({"prune": False})  # asked once: after the first epoch, not after the last
    trainer = worker.Trainer(folder, commands, answers)
    end = trainer.train({"settings": {"training.batch_size": 512}, "run": None})
    assert end["end"] == "finished", end
    said = [json.loads(line) for line in answers.getvalue().splitlines()]
    assert [(len(each["values"]), each["ask"]) for each in said] == [(0, False), (1, True), (2, False)]


def test_images_that_changed_fail_no_trial(home):
    base = load_experiment("tiny").model_copy(update={"sweep": sweep_of()})
    write_folder(folder := home / "runs" / "tiny.sweep", base, [], fingerprint="0")
    end = worker.Trainer(folder, queue.Queue(), io.StringIO()).train({"settings": {}, "run": None})
    assert end["end"] == "refused" and "the images" in end["reason"]


def test_optuna_reads_the_storage(database):
    study = open_study(database)
    study.end(study.take(1).number, value=0.5)
    storage = optuna.storages.RDBStorage(database)
    loaded = optuna.load_study(study_name=study.name, storage=storage)
    assert loaded.best_value == 0.5 and loaded.direction == optuna.study.StudyDirection.MAXIMIZE
    storage.engine.dispose()
