"""A `.keras` file from elsewhere is data: none of its code runs, and what is wrong is one message."""

import json
import os
import re
import zipfile

import keras
import pytest

from app import cli
from app.classifier_files import load_classifier
from app.runs import Run
from models import ImageClassifier, Normalization
from tests.conftest import flip_bit, set_project

EXPERIMENT = """\
dataset: {name: digits, image_size: [16, 16]}
model: {name: baseline, weights: other/20260101-000000}
optimizer: {name: sgd, learning_rate: 0.1}
training: {epochs: 1, batch_size: 512}
"""


def classifier():
    network = keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Flatten(), keras.layers.Dense(2)])
    whole = ImageClassifier(network, ("a", "b"), Normalization(0.0, 1.0), [])
    whole.build((None, 8, 8, 1))
    return whole


def change_config(path, change):
    with zipfile.ZipFile(path) as archive:
        contents = {name: archive.read(name) for name in archive.namelist()}
    config = json.loads(contents["config.json"])
    change(config)
    config["config"]["safe_mode"] = False  # what the file says of its own safety does not count
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in (contents | {"config.json": json.dumps(config)}).items():
            archive.writestr(name, content)


def a_lambda(path):
    code = keras.layers.Lambda(lambda inputs: os.mkdir("made") or inputs).get_config()
    layer = {"module": "keras.layers", "class_name": "Lambda", "config": code, "registered_name": None}
    change_config(path, lambda config: config["config"]["network"]["config"]["layers"].insert(1, layer))


def any_class(path):
    network = {"module": "os", "class_name": "mkdir", "config": {"path": "made"}, "registered_name": None}
    change_config(path, lambda config: config["config"].update(network=network))


def truncated(path):
    path.write_bytes(path.read_bytes()[:-100])


def no_classifier(path):
    keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)]).save(path)


BAD = {
    a_lambda: "Lambda",
    any_class: "Could not locate class 'mkdir'",
    truncated: "damaged: not a whole .keras file",
    flip_bit: "Bad CRC",
    no_classifier: "holds a Sequential, no ImageClassifier",
}


@pytest.fixture
def home(tmp_path, monkeypatch):
    set_project(monkeypatch, tmp_path, tiny=EXPERIMENT)
    monkeypatch.chdir(tmp_path)
    run = Run(tmp_path / "runs" / "other" / "20260101-000000")
    run.best_model.parent.mkdir(parents=True)
    run.experiment.write_text(EXPERIMENT)
    return run


@pytest.mark.parametrize("spoil", BAD, ids=lambda spoil: spoil.__name__)
def test_a_run_does_not_start_from_a_bad_file(home, capsys, spoil):
    classifier().save(home.best_model)
    assert load_classifier(home.best_model).class_names == ("a", "b")
    spoil(home.best_model)
    assert cli.main(["train", "tiny"]) == 2
    out, err = capsys.readouterr()
    assert (
        err.startswith("runs/other/20260101-000000/checkpoints/best.keras: ") and len(err.splitlines()) == 1
    )
    assert len(err) < 300 and "Traceback" not in out + err
    assert re.search(BAD[spoil], err), err
    assert not os.path.exists("made") and os.listdir("runs") == ["other"]
