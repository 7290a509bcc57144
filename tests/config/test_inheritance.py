"""Files that extend others, and overrides."""

import pytest

from app.config import changed_experiment, dump_experiment, load_experiment
from app.config.schedules import CosineSchedule
from app.errors import UserError
from tests.config.conftest import VALID

# ---- extends


def test_extends_merges_mappings_and_replaces_lists(write):
    write(VALID + "augmentation: [random_flip, random_crop]\n", "parent")
    write("# Child.\nextends: parent.yaml\ntraining: {epochs: 3}\naugmentation: [random_crop]\n")
    experiment = load_experiment("x")
    assert (experiment.training.epochs, experiment.training.batch_size) == (3, 8)
    assert [layer.name for layer in experiment.augmentation] == ["random_crop"]
    assert (experiment.name, experiment.description) == ("x", "Child.")


def test_arguments_of_another_model_optimizer_or_schedule_do_not_leak(write):
    text = VALID.replace("baseline", "baseline\n  bn_momentum: 0.9").replace("sgd", "sgd\n  momentum: 0.9")
    text = text.replace("0.1", "{schedule: cosine, peak: 0.1, end: 0.01, warmup_epochs: 2}")
    write(text, "parent")
    write("extends: parent.yaml\nmodel: {name: lenet5}\noptimizer: {name: adam, learning_rate: 1e-3}\n")
    experiment = load_experiment("x")
    assert experiment.model.arguments == {} and experiment.optimizer.arguments == {}
    exponential = "{schedule: exponential, peak: 1, decay_epochs: 5, factor: 0.5}"
    write(f"extends: parent.yaml\noptimizer: {{learning_rate: {exponential}}}\n")
    experiment = load_experiment("x")
    assert experiment.optimizer.arguments == {"momentum": 0.9}
    assert experiment.optimizer.learning_rate.warmup_epochs == 0
    write(
        "extends: parent.yaml\nmodel: {name: baseline, dropout: 0.1}\noptimizer: {learning_rate: {peak: 1}}\n"
    )
    experiment = load_experiment("x")
    assert experiment.model.arguments == {"bn_momentum": 0.9, "dropout": 0.1}
    assert experiment.optimizer.learning_rate == CosineSchedule(peak=1.0, end=0.01, warmup_epochs=2)


def test_an_inherited_mistake_is_shown_where_it_stands(write, errors):
    write(VALID.replace("batch_size: 8", "batch_size: 0"), "parent")
    write("extends: parent.yaml\ntraining: {epochs: 0}\n")
    assert errors() == [
        "experiments/parent.yaml:11:15: training.batch_size: must be at least 1; got 0",
        "experiments/x.yaml:2:20: training.epochs: must be a whole number from 1 to 100000, or 'auto'; got 0",
    ]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("../outside.yaml", "must be a file in experiments/; got '../outside.yaml'"),
        ("/etc/hostname", "must be a file in experiments/; got '/etc/hostname'"),
        ("paren.yaml", "no such file: 'paren.yaml'; did you mean 'parent.yaml'?"),
        ("parent", "no such file: 'parent'; did you mean 'parent.yaml'?"),
        ("x.yaml", "'x.yaml' leads back to a file that extends it"),
        ("circle.yaml", None),
        ("3", "must be the name of a file; got 3"),
        (r'"a\0b"', r"no such file: 'a\x00b'"),
        ("a" * 300, f"no such file: '{'a' * 57}...'"),
    ],
)
def test_extends_of_something_else_is_refused(value, message, write, errors, tmp_path):
    (tmp_path / "outside.yaml").write_text(VALID)
    write(VALID, "parent")
    write("extends: x.yaml\n", "circle")
    write(f"seed: 1\nextends: {value}\n" + VALID)
    if message is None:
        assert errors() == [
            "experiments/circle.yaml:1:10: extends: 'x.yaml' leads back to a file that extends it"
        ]
    else:
        assert errors() == [f"experiments/x.yaml:2:10: extends: {message}"]


def test_a_link_in_extends_cannot_lead_out(write, errors, tmp_path):
    (tmp_path / "outside.yaml").write_text(VALID)
    (write(VALID).parent / "link.yaml").symlink_to(tmp_path / "outside.yaml")
    write("extends: link.yaml\n")
    assert errors() == ["experiments/x.yaml:1:10: extends: must be a file in experiments/; got 'link.yaml'"]


# ---- overrides


def test_overrides(write):
    write(VALID + "augmentation: [random_flip]\n")
    changes = ["training.epochs=2", "augmentation=[]", "optimizer.momentum=0.5", "model.name=lenet5"]
    experiment = load_experiment("x", [*changes, "training.epochs=3", "training.loss={label_smoothing: 0.1}"])
    assert experiment.training.epochs == 3 and experiment.training.batch_size == 8
    assert experiment.training.loss.label_smoothing == 0.1
    assert experiment.augmentation == () and experiment.model.name == "lenet5"
    assert experiment.optimizer.arguments == {"momentum": 0.5}
    assert load_experiment("x", ["dataset.data_dir="]).dataset.data_dir is None


def test_another_optimizer_by_override_whatever_the_order(write):
    write(VALID.replace("sgd", "sgd\n  momentum: 0.9"))
    for order in (1, -1):
        changes = ["optimizer.name=adam", "optimizer.learning_rate=1e-3"][::order]
        optimizer = load_experiment("x", changes).optimizer
        assert (optimizer.name, optimizer.arguments, optimizer.learning_rate.peak) == ("adam", {}, 0.001)


def test_what_another_optimizer_or_schedule_drops_is_said_with_how_to_give_it(write, errors):
    schedule = "optimizer.learning_rate.schedule=constant"
    write(VALID.replace("0.1", "{schedule: cosine, peak: 0.1}"))
    assert errors("x", ["optimizer.name=adam"]) == [
        "--set optimizer.name=adam: optimizer.learning_rate: required key is missing; that of 'sgd' is "
        'dropped with another optimizer.name: SET="optimizer.name=adam optimizer.learning_rate=0.001"'
    ]
    assert errors("x", [schedule]) == [
        f"--set {schedule}: optimizer.learning_rate.peak: required key is missing; that of 'cosine' is "
        "dropped with another optimizer.learning_rate.schedule: "
        f'SET="{schedule} optimizer.learning_rate.peak=..."'
    ]
    (unknown,) = errors("x", ["optimizer.name=Adam"])  # what another name drops is no mistake yet
    assert "unknown optimizer 'Adam'; did you mean 'adam'?" in unknown
    write("extends: x.yaml\noptimizer: {name: adam}\n", "y")
    assert errors("y") == [
        "experiments/y.yaml:2:12: optimizer.learning_rate: required key is missing; that of 'sgd' is "
        "dropped with another optimizer.name"
    ]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("training.epoch=2", "training.epoch: unknown key; did you mean 'epochs'?"),
        ("trainin.epochs=2", "trainin: unknown key; did you mean 'training'?"),
        ("epochs=2", "epochs: unknown key; did you mean 'training.epochs'?"),
        ("training.batch_size=two", "training.batch_size: must be a whole number; got 'two'"),
        (
            "training.batch_size.more=2",
            "training.batch_size: must be a whole number; got a mapping (keys: more)",
        ),
        ("model.nam=x", "model.nam: unknown key; did you mean 'name'?"),
        (
            "dataset.data_dir=/data/set #2",
            "dataset.data_dir: # begins a comment; quote the value for YAML, too: \"KEY='...'\"",
        ),
        ("seed=[1", "not valid YAML: expected ',' or ']', but got '<stream end>'"),
        ("seed={a: 1, a: 2}", None),
        ("training", "must be KEY=VALUE with a dotted key, such as training.epochs=2; quote what has spaces"),
        ("=3", "must be KEY=VALUE with a dotted key, such as training.epochs=2; quote what has spaces"),
        ("a..b=3", "must be KEY=VALUE with a dotted key, such as training.epochs=2; quote what has spaces"),
        ("extends=y.yaml", "extends: cannot be set from outside; write it into a file"),
    ],
)
def test_wrong_overrides(override, message, write, errors):
    write()
    lines = errors("x", [override])
    if message is None:
        assert f"--set {override}: a: duplicate key" in lines
    else:
        assert lines == [f"--set {override}: {message}"]


def test_a_run_may_be_shortened_below_its_warmup(write, errors, tmp_path):
    write(VALID.replace("0.1", "{schedule: cosine, peak: 0.1, warmup_epochs: 5}"))
    experiment = load_experiment("x", ["training.epochs=2"])
    (tmp_path / "experiment.yaml").write_text(dump_experiment(experiment))
    again = load_experiment(tmp_path / "experiment.yaml")
    assert again.optimizer.learning_rate.warmup_epochs == 5 and again.training.epochs == 2
    assert changed_experiment(load_experiment("x"), ["training.epochs=2"]).training.epochs == 2
    assert errors("x", ["optimizer.learning_rate.warmup_epochs=10"])


def test_mappings_with_keys_of_ones_own_can_be_emptied_and_the_childs_patterns_come_first(write):
    parent = VALID.replace("name: sgd", 'name: sgd\n  rate_multipliers: {"head.*": 10.0, "*/beta": 2.0}')
    write(parent.replace("epochs: 10", 'epochs: 10\n  class_weight: {"1": 2.0}'), "parent")
    write('extends: parent.yaml\noptimizer: {rate_multipliers: {"head.bias": 1.0, "*/beta": 3.0}}\n', "child")
    multipliers = load_experiment("child").optimizer.rate_multipliers
    assert list(multipliers.items()) == [("head.bias", 1.0), ("*/beta", 3.0), ("head.*", 10.0)]
    none = load_experiment("parent", ["optimizer.rate_multipliers={}", "training.class_weight={}"])
    assert not none.optimizer.rate_multipliers and not none.training.class_weight
    more = load_experiment("parent", ["training.class_weight={cat: 3.0}"])
    assert more.training.class_weight == {"1": 2.0, "cat": 3.0}


def test_a_run_with_changes_is_checked_as_a_new_run(write):
    write(VALID)
    base = load_experiment("x")
    for change, words in (
        (
            "optimizer.learning_rate={schedule: cosine, peak: 1, warmup_epochs: 10}",
            "must be below training.epochs",
        ),
        (
            "training={lookahead: {every_steps: 5, decay: 0.5}, early_stopping: {patience_epochs: 3}}",
            "lookahead",
        ),
        ("training.epochs", "must be KEY=VALUE"),
    ):
        with pytest.raises(UserError, match=words) as error:
            changed_experiment(base, [change])
        assert "--set training" in str(error.value) or "--set optimizer" in str(error.value)
    with pytest.raises(UserError, match="unknown optimizer 'Adam'") as error:
        changed_experiment(base, ["optimizer.name=Adam"])
    assert "\n" not in str(error.value)  # what another name drops is no mistake yet
    assert changed_experiment(base, ["training.epochs=3"]).training.epochs == 3
