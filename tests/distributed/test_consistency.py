"""Workers that differ in code, versions, experiment or data end before anything is trained."""

import importlib.util
import re
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from app.config import load_experiment
from app.config.dataset import DatasetConfig
from app.data.datasets import load_dataset
from app.distributed import consistency
from tests.distributed.conftest import messages

ROOT = Path(__file__).resolve().parents[2]


def test_the_same_program_passes():
    assert messages(consistency.same_program, consistency.same_program) == [None, None]


@pytest.mark.parametrize(
    ("theirs", "words"),
    [
        ({"numpy": "1.0"}, r"numpy is 1\.0, [\d.]+ at worker 0; install the same versions"),
        ({"jax": None}, r"jax is missing, [\d.]+ at worker 0; install the same versions"),
        ({"another": "7"}, r"another is 7, missing at worker 0; install the same versions"),
    ],
    ids=["other version", "missing", "one more"],
)
def test_other_versions_are_refused(theirs, words, monkeypatch):
    installed = {"numpy": "2.0", "jax": "0.10"}

    def versions():
        found = installed | (theirs if threading.current_thread().name == "worker 1" else {})
        return {name: version for name, version in found.items() if version}

    monkeypatch.setattr(consistency, "package_versions", versions)
    said = messages(consistency.same_program, consistency.same_program, consistency.same_program)
    assert said[0] == said[1] == said[2]
    assert re.fullmatch(rf"worker 1 \(HOST-1\): {words}", said[0]), said[0]


@pytest.fixture
def checkout(tmp_path):
    """Another worker's checkout: its folder, and what it has for `app.distributed.consistency`."""
    for package in ("app", "models"):
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    path = tmp_path / "app" / "distributed" / "consistency.py"
    spec = importlib.util.spec_from_file_location("consistency_of_another_checkout", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return tmp_path, module


def test_the_same_code_in_another_folder_passes(checkout):
    folder, other = checkout
    (folder / "app" / "notes.txt").write_text("no code")
    assert messages(consistency.same_program, other.same_program) == [None, None]


def test_other_code_is_refused(checkout):
    folder, other = checkout
    with open(folder / "models" / "networks" / "resnet.py", "a") as file:
        file.write("\n")
    (folder / "app" / "new.py").touch()
    (folder / "app" / "commands" / "train.py").unlink()
    expected = (
        "worker 1 (HOST-1): app/commands/train.py, models/networks/resnet.py, app/new.py differ from "
        "worker 0's; bring the same commit to all workers"
    )
    assert messages(consistency.same_program, other.same_program) == [expected] * 2


def test_many_other_files_are_counted(checkout):
    folder, other = checkout
    for number in range(9):
        (folder / "models" / f"new{number}.py").touch()
    said = messages(consistency.same_program, other.same_program)
    assert "models/new0.py" in said[0] and "models/new4.py and 4 more differ" in said[0]


def experiments(*overrides):
    """Functions that compare an experiment, each with other overrides."""

    def work(keys):
        experiment = load_experiment("tiny", keys)
        return lambda group: consistency.same_experiment(group, experiment)

    return [work(keys) for keys in overrides]


@pytest.mark.parametrize(
    ("theirs", "words"),
    [
        (["training.batch_size=8"], "training.batch_size is 8, 256 at worker 0"),
        (["seed=4"], "seed is 4, 3 at worker 0"),
        (["training.precision=bfloat16"], "training.precision is 'bfloat16', 'float32' at worker 0"),
        (["augmentation=[]"], "augmentation is [], [{"),
        (["optimizer.learning_rate=0.01"], "optimizer.learning_rate.peak is 0.01, 0.003 at worker 0"),
        (["dataset.split_seed=9"], "dataset.split_seed is 9, "),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_another_experiment_is_refused(home, theirs, words):
    said = messages(*experiments([], theirs))
    assert said[0] == said[1] and said[0].startswith(f"worker 1 (HOST-1): {words}"), said[0]
    assert said[0].endswith("; give all the same experiment")


def test_the_worker_that_differs_is_named(home):
    said = messages(*experiments([], [], ["seed=4"]))
    assert said == ["worker 2 (HOST-2): seed is 4, 3 at worker 0; give all the same experiment"] * 3


def test_the_same_experiment_passes_with_data_in_another_folder(home):
    (home / "mine").mkdir()
    (home / "yours").mkdir()
    common = ["dataset.name=image_folder"]
    both = experiments([*common, "dataset.data_dir=mine"], [*common, "dataset.data_dir=yours"])
    assert messages(*both) == [None, None]


def write_images(folder, classes=("cat", "dog"), count=4, shade=0):
    for label, name in enumerate(classes):
        (folder / name).mkdir(parents=True)
        for number in range(count):
            pixels = np.full((6, 8, 3), 20 * label + number, np.uint8)
            pixels[0, 0] = shade
            Image.fromarray(pixels).save(folder / name / f"{number}.png")


def datasets(home, **theirs):
    """Functions that compare the data: the first worker's, and the second's, which differ."""

    def work(folder, **images):
        write_images(home / folder, **images)
        dataset = load_dataset(DatasetConfig(name="image_folder", data_dir=folder, image_size=(6, 8)))
        return lambda group: consistency.same_data(group, dataset)

    return work("first"), work("second", **theirs)


def test_the_same_data_pass(home):
    assert messages(*datasets(home)) == [None, None]


@pytest.mark.parametrize(
    ("theirs", "words"),
    [
        ({"classes": ("cat", "rat")}, "classes of the data: cat, rat, cat, dog at worker 0"),
        ({"count": 5}, "training images of the data: 8, 6 at worker 0"),
        ({"shade": 1}, "fingerprint of the data: [0-9a-f]{12}, [0-9a-f]{12} at worker 0"),
    ],
    ids=["classes", "count", "pixels"],
)
def test_other_data_are_refused(home, theirs, words):
    said = messages(*datasets(home, **theirs))
    assert said[0] == said[1]
    assert re.fullmatch(rf"worker 1 \(HOST-1\): {words}; give all the same files", said[0]), said[0]
