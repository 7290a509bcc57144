"""What a correct file means: values, names, and the way back to YAML."""

import json
import re
import subprocess
import sys

import pytest

from app.config import dump_experiment, list_experiments, load_experiment
from app.errors import UserError
from tests.config.conftest import VALID
from tests.conftest import SHIPPED, shipped_experiments


def test_defaults_and_description(write):
    write()
    experiment = load_experiment("x")
    assert (experiment.name, experiment.description) == ("x", "A small network.")
    assert (
        experiment.seed == 0 and experiment.augmentation == () and experiment.normalization == "per_channel"
    )
    assert experiment.dataset.validation == 0.1 and experiment.training.precision == "float32"
    assert experiment.training.monitor == "val_accuracy"
    assert experiment.optimizer.learning_rate.schedule == "constant"
    assert experiment.optimizer.learning_rate.peak == 0.1


@pytest.mark.parametrize(
    ("written", "value"),
    [("1e-3", 0.001), ("1E+1", 10.0), ("5", 5.0), (".5", 0.5), ("5.", 5.0), ("1.5e2", 150.0), ("+1e0", 1.0)],
)
def test_numbers_of_every_form_are_numbers(written, value, write):
    write(VALID.replace("0.1", written))
    peak = load_experiment("x").optimizer.learning_rate.peak
    assert peak == value and type(peak) is float


@pytest.mark.parametrize("text", ["no", "on", "yes", "Off", "010", "1_000", "12:30:00", "2026-01-31", "0x1F"])
def test_other_words_stay_text(text, write):
    write(VALID + f"reference: {{source: {text}}}\n")
    assert load_experiment("x").reference.source == text


def test_constructor_arguments_are_gathered(write):
    write(
        VALID.replace("name: baseline", "name: baseline\n  bn_momentum: 0.9\n  weights: a/b").replace(
            "name: sgd", "name: sgd\n  momentum: 0.9\n  weight_decay: null"
        )
        + "augmentation: [random_flip, random_crop: {padding_pixels: 2}, random_erasing: {area: [0.1, 1]}]\n"
    )
    experiment = load_experiment("x")
    assert experiment.model.arguments == {"bn_momentum": 0.9} and experiment.model.weights == "a/b"
    assert experiment.optimizer.arguments == {"momentum": 0.9, "weight_decay": None}
    assert [(layer.name, layer.arguments) for layer in experiment.augmentation] == [
        ("random_flip", {}),
        ("random_crop", {"padding_pixels": 2}),
        ("random_erasing", {"area": (0.1, 1)}),
    ]


def test_an_experiment_cannot_be_changed(write):
    write()
    with pytest.raises(ValueError, match="frozen"):
        load_experiment("x").seed = 3


# ---- names


def test_list_experiments(write, tmp_path):
    for name in ("b", "a-1.5", ".hidden", "has space"):
        write(VALID, name)
    (tmp_path / "experiments" / "folder.yaml").mkdir()
    assert list_experiments() == ["a-1.5", "b"]


@pytest.mark.parametrize(
    "name",
    ["../x", "/etc/passwd", "a/b", "..", ".x", "", "x\0", "-x", "a..b", "experiments/x", "a" * 300, "x\n"],
)
def test_a_name_is_never_a_path(name, write):
    write()
    (write().parent.parent / "x.yaml").write_text(VALID)
    with pytest.raises(UserError, match="must be the name of a file in experiments/"):
        load_experiment(name)


def test_an_unknown_name_gives_the_nearest_and_the_list(write, errors):
    write(VALID, "quickstart")
    write(VALID, "other")
    assert errors("quickstrat") == [
        "unknown experiment 'quickstrat'. Did you mean 'quickstart'? Available: other, quickstart."
    ]


def test_a_link_out_of_experiments_is_refused(write, tmp_path):
    (tmp_path / "secret.yaml").write_text(VALID)
    (write().parent / "link.yaml").symlink_to(tmp_path / "secret.yaml")
    with pytest.raises(UserError, match="is a link that leads out of experiments/"):
        load_experiment("link")


# ---- the way back, and what is shipped


@pytest.mark.parametrize("name", shipped_experiments())
def test_every_shipped_experiment_loads_and_comes_back_the_same(name, tmp_path):
    experiment = load_experiment(SHIPPED / f"{name}.yaml")
    assert load_experiment(name) == experiment
    path = tmp_path / f"{name}.yaml"
    path.write_text(dump_experiment(experiment))
    assert load_experiment(path) == experiment
    path.write_text(dump_experiment(experiment, mark_defaults=True))
    assert load_experiment(path) == experiment


def test_defaults_are_marked_and_what_was_given_is_not(write):
    write(VALID.replace("epochs: 10", "epochs: 10\n  loss: {label_smoothing: 0.1}\n  mode: max"))
    write("# A child.\nextends: x.yaml\nseed: 3\n", "y")
    experiment = load_experiment("y", ["training.batch_size=9", "training.precision=float32"])
    text = dump_experiment(experiment, mark_defaults=True)
    marked = {line.partition(":")[0].strip() for line in text.splitlines() if line.endswith("  # default")}
    given = {
        "seed",
        "name",
        "schedule",
        "peak",
        "epochs",
        "batch_size",
        "precision",
        "label_smoothing",
    }
    assert not marked & given
    assert {
        "augmentation",
        "validation",
        "weights",
        "warmup_epochs",
        "softmax_before_loss",
        "monitor",
    } <= marked
    lines = [line.strip() for line in text.splitlines()]
    assert lines[0] == "# A child." and "batch_size: 9" in lines and "seed: 3" in lines
    assert {"dataset:", "model:", "learning_rate:", "loss:", "evaluation:"} <= set(lines)  # sections
    name = next(line for line in lines if line.startswith("name: sgd"))
    assert name.startswith("name: sgd  # defaults: {momentum: 0.0, nesterov: false")
    assert dump_experiment(experiment) == re.sub("  # default.*", "", text)


@pytest.mark.parametrize("name", shipped_experiments())
def test_every_shipped_experiment_starts_with_its_header(name):
    lines = (SHIPPED / f"{name}.yaml").read_text().splitlines()
    command = "make train" if name == "quickstart" else f"make train EXP={name}"
    assert lines[0].startswith("# ") and lines[1].startswith(f"# {command} ") and "measured: " in lines[1]
    assert "# yaml-language-server: $schema=schema.json" in lines


@pytest.mark.parametrize(
    "note",
    ["no", "1e-3", "0x1F", "~", "true", "1_000", "a: b # c", "é\u2028\n x", " ", "'", "!x", "<<", "*a", "="],
)
def test_awkward_text_comes_back_the_same(note, write, tmp_path):
    write()
    experiment = load_experiment("x", [f"reference={{source: s, note: {json.dumps(note)}}}"])
    assert experiment.reference.note == note
    for mark_defaults in (False, True):
        text = dump_experiment(experiment, mark_defaults=mark_defaults)
        (tmp_path / "x.yaml").write_text(text, encoding="utf-8")
        assert load_experiment(tmp_path / "x.yaml") == experiment


def test_flat_settings_have_the_keys_of_a_file(write):
    write(VALID.replace("sgd", "sgd\n  momentum: 0.5"))
    flat = load_experiment("x", ["augmentation=[random_flip]"]).flat(exclude={"reference": True})
    assert flat["optimizer.momentum"] == 0.5 and flat["optimizer.learning_rate.peak"] == 0.1
    assert flat["augmentation"] == [{"name": "random_flip"}]
    assert flat["dataset.data_dir"] is None and "reference" not in flat


@pytest.mark.parametrize("rate", ["1e-05", "1e-30", "0.1", "3", "1e+22"])
def test_numbers_come_back_the_same(rate, write, tmp_path):
    write()
    experiment = load_experiment("x", [f"optimizer.learning_rate={rate}", "optimizer.clipnorm=1e-9"])
    (tmp_path / "x.yaml").write_text(dump_experiment(experiment))
    assert load_experiment(tmp_path / "x.yaml") == experiment
    assert experiment.optimizer.learning_rate.peak == float(rate)


def test_loading_needs_no_tensorflow():
    code = (
        f"import sys, app.config as c; [c.load_experiment(n) for n in {shipped_experiments()}]; "
        "assert not {'tensorflow', 'keras', 'numpy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=SHIPPED.parent)


def test_auto_epochs_follow_the_number_of_images(write):
    write(VALID.replace("epochs: 10", "epochs: auto"))
    asked = load_experiment("x")
    epochs = {num: asked.with_epochs_for(num).training.num_epochs for num in (1, 1_000, 4_000, 1_000_000)}
    assert epochs == {1: 100, 1_000: 100, 4_000: 25, 1_000_000: 5}
    assert asked.with_auto_of(asked.with_epochs_for(4_000)) == asked.with_epochs_for(4_000)
    whole = load_experiment("x", ["training.epochs=7"])
    assert whole.with_epochs_for(4_000) == whole
