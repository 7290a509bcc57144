"""The section `sweep`: what may be searched, the line of each mistake, and what a trial is."""

# ruff: noqa: E501 - a row of the table is one mistake and its line
import json
import shlex

import pytest

from app.config import Experiment, dump_experiment, load_experiment, load_with_sweep, trial_experiment
from app.config.space import MAX_CORNERS
from app.config.sweep import Choice, Range, SweepConfig
from app.errors import UserError
from app.reading import HISTORY_COLUMNS
from tests.config.conftest import VALID

AT = "experiments/x.yaml"
HEAD = VALID + "sweep:\n  space:\n"  # a key of the space in the next line, 14, from column 5 on
FORMS = "must be uniform(low, high), log(low, high), int(low, high), int_log(low, high), or a list of choices"
IMAGES = "changes the validation images, so that trials could not be compared"
COSINE = "optimizer.learning_rate={schedule: cosine, peak: 0.1, warmup_epochs: 3}"

# Each row: what follows `space:`, and the lines expected.
MISTAKES = {
    "number": ("training.batch_size: 32", [f"14:26: sweep.space.training.batch_size: {FORMS}; got 32"]),
    "other_form": ("training.batch_size: choice(1, 2)", [f"14:26: sweep.space.training.batch_size: {FORMS}; got 'choice(1, 2)'"]),
    "mapping": ("training: {batch_size: [8, 16]}", [f"14:15: sweep.space.training: {FORMS}; got a mapping (keys: batch_size)"]),
    "no_choice": ("training.batch_size: []", ["14:26: sweep.space.training.batch_size: must have at least two choices; a single one is a setting of the experiment; got []"]),
    "not_finite": ("optimizer.momentum: [0.5, .nan]", ["14:25: sweep.space.optimizer.momentum: must have choices whose numbers are finite; got [0.5, nan]"]),
    "downward": ("optimizer.momentum: uniform(0.9, 0.1)", ["14:25: sweep.space.optimizer.momentum: must have a low end that is below the high one; got 'uniform(0.9, 0.1)'"]),
    "log_zero": ("optimizer.weight_decay: log(0, 1e-3)", ["14:29: sweep.space.optimizer.weight_decay: must begin above 0, where a logarithmic scale ends; got 'log(0, 1e-3)'"]),
    "overflow": ("optimizer.weight_decay: log(1, 1e999)", ["14:29: sweep.space.optimizer.weight_decay: must have finite ends; got 'log(1, 1e999)'"]),
    "broken_int": ("training.batch_size: int(8, 16.5)", ["14:26: sweep.space.training.batch_size: must have whole numbers as ends; got 'int(8, 16.5)'"]),
    "huge_int": (f"training.batch_size: int(8, {'9' * 30})", [f"14:26: sweep.space.training.batch_size: must have ends of at most 9007199254740992; got 'int(8, {'9' * 30})'"]),
    "bad_key": ("training..epochs: [1, 2]", ["14:5: sweep.space: must have keys such as training.batch_size (a range inside {} needs quotes); one is 'training..epochs'; got a mapping (keys: training..epochs)"]),
    "choice": ("training.batch_size: [8, 0]", ["14:30: sweep.space.training.batch_size[1]: must be at least 1; got 0"]),
    "inner_choice": ("augmentation: [[], [random_flip, {random_crop: {padding: 4}}]]", ["14:53: sweep.space.augmentation[1][1].random_crop.padding: unknown key; did you mean 'padding_pixels'?"]),
    "range_end": ("training.loss.label_smoothing: uniform(0, 1)", ["14:36: sweep.space.training.loss.label_smoothing: must be below 1; got 1.0"]),
    "float_for_int": ("training.batch_size: uniform(8, 16)", [f"14:26: sweep.space.training.batch_size: must be a whole number; got {end}" for end in ("16.0", "8.0")]),
    "integer_between": ("dataset.channels: int(1, 3)", ["14:23: sweep.space.dataset.channels: must be 1 or 3; got 2"]),
    "unknown_key": ("training.batch_sise: [8, 16]", ["14:5: sweep.space.training.batch_sise: unknown key; did you mean 'batch_size'?"]),
    "same_choice": ("optimizer.learning_rate: [0.1, {schedule: constant, peak: 0.1}]", ["14:36: sweep.space.optimizer.learning_rate[1]: the same setting as choice 0"]),
    "seed": ("seed: int(0, 9)", ["14:5: sweep.space.seed: is no setting, and the best of several seeds is luck; the best settings are trained with other seeds at the end, see sweep.finalists"]),
    "split_seed": ("dataset.split_seed: int(0, 9)", [f"14:5: sweep.space.dataset.split_seed: {IMAGES}"]),
    "fold_below": ("dataset.fold.index: int(0, 4)", [f"14:5: sweep.space.dataset.fold.index: {IMAGES}"]),
    "images_within": ("dataset: [{train_share: 0.1}, {exclude: a.csv}]", [f"14:5: sweep.space.dataset: dataset.exclude {IMAGES}"]),
    "views": ("evaluation.test_time_views: [none, flip]", ["14:5: sweep.space.evaluation.test_time_views: belongs to the finished network; the objective does not depend on it"]),
    "epochs": ("training.epochs: [5, 10]", ["14:5: sweep.space.training.epochs: cannot be searched with a pruner, which compares trials at the same epoch, where those of fewer epochs are further in their schedule; set sweep.pruner: none"]),
    "softmax": ("training.loss: [{softmax_before_loss: true}, {label_smoothing: 0.1}]\n  objective: val_loss", ["14:5: sweep.space.training.loss: training.loss.softmax_before_loss changes the validation loss itself, which is the objective; set sweep.objective: val_accuracy"]),
    "penalty": ("model.head_l2: [0.0, 0.01]\n  objective: val_loss", ["14:5: sweep.space.model.head_l2: changes the validation loss itself, which is the objective; set sweep.objective: val_accuracy"]),
    "penalty_of_some": ("model.name: [baseline, resnet18]\n  objective: val_loss", ["15:14: sweep.objective: holds the L2 penalty that some of these networks have (model.head_l2); choose val_accuracy"]),
    "twice": ("optimizer.momentum: [0.5, 0.9]\n    optimizer: [{momentum: 0.1}, {nesterov: true}]", ["14:5: sweep.space.optimizer.momentum: is decided by optimizer, too; search one of the two"]),
    "argument_of_another": ("optimizer: [{name: sgd, learning_rate: 1}, {name: adam, learning_rate: 1}]\n    optimizer.nesterov: [true, false]", ["15:5: sweep.space.optimizer.nesterov: unknown key; allowed: "]),
    "drops": ("optimizer.name: [sgd, adam]", ["14:27: sweep.space.optimizer.name[1]: drops what belongs to another one, and optimizer.learning_rate is missing; search optimizer as a whole, as a list of mappings"]),
    "misspelt_required": ("optimizer: [{nme: adam}, {momentum: 0.5}]", ["14:18: sweep.space.optimizer[0].nme: unknown key; did you mean 'name'?"]),
    "grid_of_floats": ("optimizer.momentum: uniform(0, 0.9)\n  sampler: grid", ["14:25: sweep.space.optimizer.momentum: a grid takes a list of values, or int(low, high); got 'uniform(0.0, 0.9)'"]),
    "large_grid": ("training.batch_size: int(8, 16)\n    optimizer.nesterov: [true, false]\n  sampler: grid\n  trials: 17", ["17:11: sweep.trials: must be 18, the combinations of the grid, or more; got 17"]),
    "huge_grid": ("training.batch_size: int(1, 128)\n    optimizer.gradient_accumulation_steps: int(2, 101)\n  sampler: grid\n  trials: 12800", ["16:12: sweep.sampler: a grid has at most 10,000 combinations, and this one has 12,800; take random or tpe"]),
    "objective": ("training.batch_size: [8, 16]\n  objective: test_accuracy", ["15:14: sweep.objective: unknown value 'test_accuracy'; did you mean 'val_accuracy'? allowed: val_accuracy, val_loss"]),
    "sampler": ("training.batch_size: [8, 16]\n  sampler: bayes", ["15:12: sweep.sampler: unknown value 'bayes'; allowed: grid, random, tpe"]),
    "trials": ("training.batch_size: [8, 16]\n  trials: 0", ["15:11: sweep.trials: must be at least 1; got 0"]),
}  # fmt: skip


def refused(*overrides):
    with pytest.raises(UserError) as caught:
        load_with_sweep("x", overrides)
    return str(caught.value).splitlines()


@pytest.fixture
def space(write):
    """Load the experiment with a space given as SPACE= is, which is split as a shell would."""

    def space(text, *overrides):
        write()
        return load_with_sweep("x", [*overrides, *(f"sweep.space.{pair}" for pair in shlex.split(text))])

    return space


@pytest.mark.parametrize("case", MISTAKES)
def test_one_mistake_gives_its_line(case, write):
    text, expected = MISTAKES[case]
    write(f"{HEAD}    {text}\n")
    found = refused()
    assert len(found) == len(expected)
    for line, wanted in zip(found, expected, strict=True):
        assert line == f"{AT}:{wanted}" or (
            wanted.endswith("allowed: ") and line.startswith(f"{AT}:{wanted}")
        )


def test_another_order_of_multipliers_is_another_choice(space):
    """The first match counts."""
    one, other = '{"*/*": 0.5, "*/bias": 2.0}', '{"*/bias": 2.0, "*/*": 0.5}'
    assert space(f"'optimizer.rate_multipliers=[{one}, {other}]'").sweep.num_combinations == 2


def test_a_conflict_of_two_keys_names_both(write):
    write(f"{HEAD}    training.epochs: [2, 9]\n    training.batch_size: [8, 16]\n  pruner: none\n")
    (line,) = refused(COSINE)
    assert line.endswith(
        "optimizer.learning_rate.warmup_epochs: must be below training.epochs, which is 2; got 3; where "
        "training.epochs is 2"
    )
    write(f"{HEAD}    optimizer: [{{name: sgd, learning_rate: 1}}, {{name: adam, learning_rate: 1}}]\n"
          "    optimizer.nesterov: [true, false]\n")  # fmt: skip
    (line,) = refused()
    assert line.endswith("; where optimizer is a mapping (keys: name, learning_rate)")


def test_a_large_space_is_checked_value_by_value(write):
    numbers = [0.1 * i for i in range(1, 10)]
    assert len(numbers) ** 3 > MAX_CORNERS
    keys = [f"    optimizer.{key}: {numbers}\n" for key in ("momentum", "weight_decay", "clipnorm")]
    write("".join([HEAD, *keys, "    model.name: [baseline, lenet]\n"]))
    (line,) = refused()
    assert line.startswith(
        f"{AT}:17:28: sweep.space.model.name[1]: unknown model 'lenet'; did you mean 'lenet5'?"
    )


def test_the_test_split_chooses_nothing(write):
    write(f"{HEAD}    training.batch_size: [8, 16]\n".replace("digits", "digits\n  validation: test"))
    (line,) = refused()
    assert line.startswith(
        f"{AT}:4:15: dataset.validation: a sweep chooses by the validation images, and the test"
    )
    assert load_experiment("x").dataset.validation == "test"  # training the file itself may do so


def test_objectives_are_columns_of_the_history():
    allowed = SweepConfig.model_json_schema()["properties"]["objective"]["enum"]
    assert sorted(allowed) == sorted(column for column in HISTORY_COLUMNS if column.startswith("val_"))


@pytest.mark.parametrize(
    ("key", "text", "setting"),
    [
        ("optimizer.momentum", "uniform(0, 0.5)", Range(0.0, 0.5)),
        ("optimizer.learning_rate.peak", "log(1e-4,1e-1)", Range(1e-4, 0.1, log=True)),
        ("training.batch_size", "int( 2 , 8 )", Range(2, 8, integer=True)),
        ("training.batch_size", "int_log(16, 512)", Range(16, 512, log=True, integer=True)),
        ("training.batch_size", "[16, 32]", Choice((16, 32))),
        ("augmentation", "[[], [random_flip]]", Choice(([], ["random_flip"]))),
        ("training.ema", "[null, {decay: 0.5}]", Choice((None, {"decay": 0.5}))),
    ],
)
def test_a_file_and_the_command_line_say_the_same(key, text, setting, space, write):
    write(f"{HEAD}    {key}: {text}\n")
    from_file = load_with_sweep("x")
    assert dict(from_file.sweep.space) == {key: setting}
    assert space(f"'{key}={text}'") == from_file
    assert Experiment.from_json(from_file.model_dump(mode="json")) == from_file
    again = write(dump_experiment(from_file, mark_defaults=True), "x")
    assert load_with_sweep(again) == from_file


def test_the_command_line_replaces_keys_and_adds_others(write):
    write(f"{HEAD}    training.batch_size: [8, 16]\n    optimizer.momentum: [0.5, 0.9]\n  trials: 9\n")
    given = ["sweep.space.training.batch_size=int(4,8)", "sweep.space.optimizer.nesterov=[true, false]"]
    sweep = load_with_sweep("x", [*given, "sweep.seeds=5"]).sweep
    assert list(sweep.space) == ["training.batch_size", "optimizer.momentum", "optimizer.nesterov"]
    assert sweep.space["training.batch_size"] == Range(4, 8, integer=True)
    assert (sweep.trials, sweep.seeds, sweep.direction) == (9, 5, "maximize")


def test_mistakes_on_the_command_line_name_what_was_given(space):
    with pytest.raises(UserError) as caught:
        space("training.batch_size=[8,0] training.epochs optimizer.momentum=log(0.1, 0.9)")
    lines = str(caught.value).splitlines()
    form = "must be KEY=[choices] or KEY=log(low,high) and so on, without spaces or in quotes"
    assert lines[:2] == [
        f"SPACE 0.9): {form}",
        f"SPACE optimizer.momentum=log(0.1,: sweep.space.optimizer.momentum: {FORMS}; got 'log(0.1,'",
    ]
    assert lines[2:] == [f"SPACE training.epochs: {form}"]
    with pytest.raises(
        UserError, match=r"SPACE training.batch_size=\[8,0\]: sweep.space.training.batch_size\[1\]: must be"
    ):
        space("training.batch_size=[8,0]")


def test_a_sweep_is_inherited(write):
    write(f"{HEAD}    training.batch_size: [8, 16]\n  trials: 9\n", "base")
    write("extends: base.yaml\nsweep: {space: {optimizer.momentum: [0.5, 0.9]}}\n")
    sweep = load_with_sweep("x").sweep
    assert list(sweep.space) == ["training.batch_size", "optimizer.momentum"] and sweep.trials == 9


def test_training_ignores_the_sweep(write):
    write()
    plain = load_experiment("x")
    write(f"{HEAD}    training.batch_size: [8, 16]\n")
    assert load_experiment("x") == plain == trial_experiment(load_with_sweep("x"), {})
    assert "batch_size: [" not in dump_experiment(load_experiment("x"))
    write(f"{HEAD}    training.batch_size: [0, 16]\n")  # no trial of it is trained
    assert load_experiment("x") == plain


def test_a_trial_is_what_set_makes(write):
    write()
    settings = {
        "augmentation": [{"random_resized_crop": {"area": [0.5, 1]}}, "random_flip"],
        "optimizer": {"name": "adam", "learning_rate": {"schedule": "cosine", "peak": 0.01}},
        "optimizer.weight_decay": 1e-05,
        "training.ema": {"decay": 0.9},
    }
    trial = trial_experiment(load_experiment("x"), settings)
    assert trial == load_experiment("x", [f"{key}={json.dumps(value)}" for key, value in settings.items()])
    assert trial.optimizer.arguments == {"weight_decay": 1e-05}
    rate = {"optimizer.learning_rate.peak": 0.5}  # of a bare number
    assert trial_experiment(load_experiment("x"), rate) == load_experiment(
        "x", ["optimizer.learning_rate.peak=0.5"]
    )


def test_a_trial_is_checked(write):
    write()
    base = load_experiment("x", [COSINE, "training.epochs=2"])  # shortened to less than its warm-up
    assert trial_experiment(base, {"training.batch_size": 4}).training.batch_size == 4
    with pytest.raises(UserError) as caught:
        trial_experiment(base, {"training.epochs": 3, "training.batch_sise": 4})
    assert str(caught.value).splitlines() == [
        "trial: training.batch_sise: unknown key; did you mean 'batch_size'?",
        "trial: optimizer.learning_rate.warmup_epochs: must be below training.epochs, which is 3; got 3",
    ]
    with pytest.raises(UserError, match="trial: optimizer.learning_rate: required key is missing"):
        trial_experiment(base, {"optimizer.name": "adam"})


def test_combinations_are_counted():
    def number(*texts):
        return SweepConfig(space={f"key{i}": text for i, text in enumerate(texts)}).num_combinations

    assert number("int(2, 8)", [1, 2, 3]) == 21
    assert number("int(2, 8)", "uniform(0, 1)") is None
