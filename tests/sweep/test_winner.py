"""The settings that a sweep chose, as a file and as a command: both are what the trial trained."""

import re
import subprocess

import pytest

from app.commands.options import overrides_from
from app.config import load_experiment, trial_experiment
from app.reports.cells import train_command
from app.sweep.winner import winner_file
from tests.sweep.made_up import FLIP_AND_CROP, searched

SETTINGS = {
    "optimizer.learning_rate.peak": 0.003162277660168379,
    "training.batch_size": 64,
    "augmentation": FLIP_AND_CROP,
}


def as_make_gets_it(command):
    """Return the SET that a shell hands to make."""
    script = 'make() { for word; do case "$word" in SET=*) printf %s "${word#SET=}";; esac; done; }\n'
    return subprocess.run(["sh", "-c", script + command], capture_output=True, text=True, check=True).stdout


def same(one, other):
    left_out = {"name", "description", "reference", "sweep"}
    return one.model_dump(exclude=left_out) == other.model_dump(exclude=left_out)


@pytest.mark.parametrize("overrides", [[], ["training.epochs=3", "optimizer.beta_1=0.8"]])
def test_the_file_and_the_command_train_what_the_trial_trained(home, overrides):
    base = load_experiment("tiny", overrides).model_copy(update={"sweep": searched().sweep})
    text, command = winner_file(base, overrides, SETTINGS, "Trial 3 of a sweep.")
    (home / "experiments" / "tiny_best.yaml").write_text(text)
    found, wanted = load_experiment("tiny_best"), trial_experiment(base, SETTINGS)
    assert text.splitlines()[0] == "# Trial 3 of a sweep." and "extends: tiny.yaml" in text
    assert same(found, wanted) and found.sweep is None
    assert same(load_experiment("tiny", overrides_from([as_make_gets_it(command)])), wanted)


def test_another_optimizer_drops_the_arguments_of_the_old_one(home):
    settings = {"optimizer": {"name": "sgd", "learning_rate": 0.1, "momentum": 0.9}}
    text, command = winner_file(searched(), [], settings, "Trial 1.")
    (home / "experiments" / "tiny_best.yaml").write_text(text)
    found = load_experiment("tiny_best")
    assert found.optimizer.name == "sgd" and found.optimizer.arguments == {"momentum": 0.9}
    assert same(load_experiment("tiny", overrides_from([as_make_gets_it(command)])), found)


@pytest.mark.parametrize("shorter", ["training.epochs=1", "training={epochs: 1}"])
def test_a_file_of_a_search_that_was_too_short_for_the_schedule_has_the_recipe_s_epochs(home, shorter):
    rate = "learning_rate: {schedule: step, peak: 0.01, boundaries_epochs: [1], factor: 0.1}"
    path = home / "experiments" / "tiny.yaml"
    path.write_text(re.sub("learning_rate: .*", rate, path.read_text(), count=1))
    base = load_experiment("tiny", [shorter]).model_copy(update={"sweep": searched().sweep})
    text, _ = winner_file(base, [shorter], {"training.batch_size": 64}, "Trial 3.")
    (home / "experiments" / "tiny_best.yaml").write_text(text)
    found = load_experiment("tiny_best")
    assert text.startswith("# Trial 3. With the epochs of tiny")
    assert found.training.epochs == load_experiment("tiny").training.epochs > 1
    assert found.training.batch_size == 64


def test_where_the_base_has_changed_the_file_is_complete_in_itself(home):
    base, path = searched(), home / "experiments" / "tiny.yaml"
    path.write_text(path.read_text().replace("batch_size: 256", "batch_size: 256, monitor: val_loss"))
    text, command = winner_file(base, [], SETTINGS, "Trial 3.")
    assert command is None and "extends" not in text
    (home / "experiments" / "tiny_best.yaml").write_text(text)
    assert same(load_experiment("tiny_best"), trial_experiment(base, SETTINGS))


@pytest.mark.parametrize("value", ["a b", 'say "so"', "it's", "$HOME `ls`", "back\\slash", "!5"])
def test_quoting_survives_the_shell(value):
    pairs = [f"dataset.data_dir={value}", "training.epochs=2"]
    assert overrides_from([as_make_gets_it(train_command("tiny", pairs))]) == pairs
