"""The page of a sweep: complete, self-contained, and written as well where there is little to show."""

import random
import re

import pytest
from PIL import Image

from app.errors import UserError
from app.files import write_json
from app.sweep.importance import importances
from app.sweep.page import write_sweep
from tests.reports.test_report import Page
from tests.sweep.made_up import REASON, made_up_trials, searched, sweep_of, write_folder
from tests.sweep.test_verdict import BEST, finalist, record


def test_the_page_shows_every_trial_and_loads_nothing_from_outside(home):
    folder, trials = home / "runs" / "tiny.sweep", made_up_trials(16)
    write_folder(folder, searched(), trials)
    write_json(folder / "finalists.json", record(BEST, finalist(1, 0.6, [0.5, 0.51, 0.52])).content)
    text = write_sweep(folder).read_text()
    found = Page(text)
    words = " ".join(found.text)
    assert all(address.startswith("data:") for address in found.addresses)
    assert not re.search(r"@import|url\(|<script", text)
    assert all(trial.run in words for trial in trials)
    assert REASON in words and REASON not in text  # it is escaped
    assert (
        "Different from it beyond noise: trial 1" in words
        and "the choice flattered it by 0.90 points" in words
    )
    assert "extends: tiny.yaml" in words and "make train EXP=tiny SET=" in words
    for name in ("progress", "curves", "importance", "slice-0", "slice-1", "slice-2", "parallel"):
        with Image.open(folder / f"{name}.png") as image:
            image.load()


def test_the_last_page_shows_the_importance_of_all_trials(home):
    folder, contents = home / "runs" / "tiny.sweep", []
    for count in (17, 18):
        write_folder(folder, searched(), made_up_trials(count))
        write_sweep(folder)
        contents.append((folder / "importance.png").read_bytes())
    assert contents[0] != contents[1]


def test_little_is_shown_of_little(home):
    folder, trials = home / "runs" / "tiny.sweep", made_up_trials(1)
    waiting = trials[0]._replace(state="waiting", values=(), value=None, run=None)
    failed = trials[0]._replace(number=1, state="failed", values=(), value=None, reason="no memory")
    for each in ([], [waiting], [failed], [failed, waiting], trials, [failed, trials[0]]):
        write_folder(folder, searched(), each)
        text = write_sweep(folder).read_text()
        assert ("extends: tiny.yaml" in text) == (trials[0] in each)


def test_a_trial_beyond_those_that_are_asked_for_now_is_not_waited_for(home):
    folder, trials = home / "runs" / "tiny.sweep", made_up_trials(3)
    trials[2] = trials[2]._replace(state="running", values=(), value=None)
    for count, words in ((3, True), (2, False)):
        write_folder(folder, searched(trials=count), trials)
        assert ("The sweep is not finished" in write_sweep(folder).read_text()) == words


def test_a_damaged_record_is_one_message(home):
    folder = home / "runs" / "tiny.sweep"
    write_folder(folder, searched(), [])
    broken = (folder / "sweep.json").read_text().replace('"batch_size": 256', '"batch_size": -1')
    (folder / "sweep.json").write_text(broken)
    with pytest.raises(UserError, match=r"sweep\.json: settings: not those of an experiment \(1 mistake"):
        write_sweep(folder)


def test_importance_names_the_setting_that_decides():
    trials = made_up_trials(40)
    found = importances(trials, sweep_of())
    assert next(iter(found)) == "training.batch_size" and found["training.batch_size"] > 0.5
    assert sum(found.values()) == pytest.approx(1.0)
    assert found == importances(trials[::-1], sweep_of())
    assert importances(trials[:10], sweep_of()) is None  # seven are finished
    equal = [trial._replace(value=0.5) for trial in trials if trial.state == "finished"]
    assert importances(equal, sweep_of()) is None


def test_importance_counts_each_decade_of_a_logarithmic_range_alike():
    """Nine tenths of 1e-4 to 1e-1 lie in its last decade, in which this value hardly changes."""
    draw, trials = random.Random(0), []
    for trial in made_up_trials(80):
        rate, batch = 10 ** draw.uniform(-4, -1), draw.choice((32, 64))
        value = 0.1 * (rate > 1e-3) + 0.03 * (batch == 64)
        settings = trial.settings | {"optimizer.learning_rate.peak": rate, "training.batch_size": batch}
        trials.append(trial._replace(state="finished", value=value, settings=settings))
    found = importances(trials, sweep_of())
    assert next(iter(found)) == "optimizer.learning_rate.peak" and found["optimizer.learning_rate.peak"] > 0.8
