"""metrics.json: which runs have a temperature, and that it is fitted on validation images alone."""

import io

import numpy as np
import pytest
from PIL import Image

import app.training.train as runner
from app.config import load_experiment
from app.evaluation.calibration import fit_temperature
from app.files import read_json
from app.inference.load import load_trained


def write_images(folder, numbers):
    """Two classes that overlap, so that some images are predicted wrongly."""
    generator = np.random.default_rng(0)
    for split, number in numbers.items():
        for label, name in enumerate(("dark", "light")):
            (folder / split / name).mkdir(parents=True)
            for i in range(number):
                pixels = generator.integers(0, 200, (12, 12, 3)) + 20 * label + generator.integers(0, 30)
                Image.fromarray(pixels.astype(np.uint8)).save(folder / split / name / f"{i}.png")


def train(validation, out):
    overrides = [
        f"dataset={{name: image_folder, data_dir: images, validation: {validation}}}",
        "training={epochs: 1, batch_size: 4}",
        "augmentation=[]",
    ]
    return runner.train(load_experiment("tiny", overrides), out=out)


def test_each_checkpoint_has_its_temperature_and_the_test_split_only_uses_it(home):
    write_images(home / "images", {"train": 12, "test": 5})
    run = train(0.25, io.StringIO())
    metrics = read_json(run.metrics)
    with np.load(run.predictions) as stored:
        labels, logits = stored["labels"], {which: stored[f"{which}_logits"] for which in ("best", "last")}
    assert {which: each["temperature"] for which, each in metrics["calibration"].items()} == {
        which: pytest.approx(fit_temperature(labels, logits[which])[0]) for which in logits
    }
    test = metrics["test"]["calibrated"]
    for key in ("temperature", "unsure_below"):
        assert test[key] == metrics["calibration"]["best"][key]
    trained = load_trained(run)
    assert trained.temperature == metrics["calibration"]["best"]["temperature"]
    assert trained.unsure_below(None) == metrics["calibration"]["best"]["unsure_below"]
    assert trained.unsure_below(0.0) == 0.0


def test_validation_on_the_test_split_gives_no_temperature(home):
    write_images(home / "images", {"train": 12, "test": 5})
    run = train("test", io.StringIO())
    assert read_json(run.metrics)["calibration"] == {}
    trained = load_trained(run)
    assert trained.temperature == 1.0 and trained.unsure_below(None) is None


def test_one_validation_image_of_a_class_and_a_remark(home):
    write_images(home / "images", {"train": 3})
    out = io.StringIO()
    run = train(0.34, out)
    with np.load(run.predictions) as stored:
        assert sorted(stored["labels"]) == [0, 1]
    remark = read_json(run.metrics)["calibration"]["best"]["remark"]
    assert remark is None or remark in out.getvalue().splitlines()
