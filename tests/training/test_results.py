"""metrics.json: which runs have a temperature, and that it is fitted on validation images alone."""

import io

import numpy as np
import pytest
from PIL import Image

import app.training.train as runner
from app.config import load_experiment
from app.evaluation.calibration import fit_temperature
from app.evaluation.records import evaluations_on_test
from app.inference.load import load_trained
from app.reading import read_json


def write_images(folder, numbers):
    """Two classes that overlap, so that some images are predicted wrongly."""
    generator = np.random.default_rng(0)
    for split, number in numbers.items():
        for label, name in enumerate(("dark", "light")):
            (folder / split / name).mkdir(parents=True)
            for i in range(number):
                pixels = generator.integers(0, 200, (12, 12, 3)) + 20 * label + generator.integers(0, 30)
                Image.fromarray(pixels.astype(np.uint8)).save(folder / split / name / f"{i}.png")


def train(validation, out, epochs=1):
    overrides = [
        f"dataset={{name: image_folder, data_dir: images, validation: {validation}}}",
        f"training={{epochs: {epochs}, batch_size: 4}}",
        "augmentation=[]",
    ]
    return runner.train(load_experiment("tiny", overrides), out=out)


def test_each_checkpoint_has_its_temperature_and_the_test_split_only_uses_it(home):
    """A folder with train/ and test/: validation comes from train, the metrics of the best one from test."""
    write_images(home / "images", {"train": 12, "test": 5})
    run = train(0.25, io.StringIO(), epochs=2)
    metrics = read_json(run.metrics)
    with np.load(run.predictions) as stored:
        labels, logits = stored["labels"], {which: stored[f"{which}_logits"] for which in ("best", "last")}
    assert {which: each["temperature"] for which, each in metrics["calibration"].items()} == {
        which: pytest.approx(fit_temperature(labels, logits[which])[0]) for which in logits
    }
    test = metrics["test"]
    assert (test["images"], test["checkpoint"], len(labels)) == (10, "best", 6)
    assert test["accuracy"] * 10 == pytest.approx(round(test["accuracy"] * 10))
    for key in ("temperature", "unsure_below"):
        assert test["calibrated"][key] == metrics["calibration"]["best"][key]
    trained = load_trained(run)
    assert trained.temperature == metrics["calibration"]["best"]["temperature"]
    assert trained.unsure_below(None) == metrics["calibration"]["best"]["unsure_below"]
    assert trained.unsure_below(0.0) == 0.0

    # Trained further, the test split is looked at again.
    assert len(evaluations_on_test(run)) == 1
    runner.resume(run, said := io.StringIO(), epochs=3, schedule="keep")
    assert [each.get("epochs") for each in evaluations_on_test(run)] == [None, 3]
    assert "(best checkpoint, evaluated 2 times, which makes it optimistic)" in said.getvalue()


def test_validation_on_the_test_split_gives_no_temperature(home):
    write_images(home / "images", {"train": 12, "test": 5})
    run = train("test", io.StringIO())
    assert read_json(run.metrics)["calibration"] == {}
    trained = load_trained(run)
    assert trained.temperature == 1.0 and trained.unsure_below(None) is None


def test_one_validation_image_of_a_class(home):
    write_images(home / "images", {"train": 3})
    run = train(0.34, io.StringIO())
    with np.load(run.predictions) as stored:
        assert sorted(stored["labels"]) == [0, 1]
