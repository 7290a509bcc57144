"""`evaluate` on a run of digits: figures, pictures, looks at the test split, and recalibration."""

import io
import json
import shutil
from types import SimpleNamespace

import keras
import numpy as np
import pytest

from app import cli
from app.errors import UserError
from app.evaluation.records import PICTURES, evaluations_on_test
from app.inference.evaluate import evaluate, recalibrate
from app.inference.load import load_split, load_trained
from app.reading import read_json
from models.layers import BatchNormalization
from tests.conftest import flip_bit


@pytest.mark.parametrize(("checkpoint", "row"), [("best", "best"), ("last", "final")])
def test_validation_figures_are_those_of_training(own_run, checkpoint, row):
    metrics, out = read_json(own_run.metrics), io.StringIO()
    found = evaluate(own_run, "validation", checkpoint, "none", out)
    assert found["accuracy"] == pytest.approx(metrics[row]["val_accuracy"], abs=1e-6)
    assert found["loss"] == pytest.approx(metrics[row]["val_loss"], rel=1e-4)
    assert sum(each["images"] for each in found["classes"]) == found["images"] == 359
    wanted = metrics["calibration"][checkpoint]
    assert found["calibrated"] == wanted | {
        key: pytest.approx(wanted[key], abs=0.005)  # the logits differ in their last bits
        for key in wanted
        if isinstance(wanted[key], float) and key not in ("temperature", "unsure_below")
    }
    folder = own_run.evaluations / f"validation-{checkpoint}"
    assert json.loads((folder / "evaluation.json").read_text()) == found
    assert all((folder / name).stat().st_size > 5000 for name in PICTURES)
    with np.load(folder / "predictions.npz") as arrays, np.load(own_run.predictions) as stored:
        np.testing.assert_allclose(arrays["logits"], stored[f"{checkpoint}_logits"], rtol=1e-4, atol=1e-5)
        assert (arrays["labels"] == stored["labels"]).all()
    assert "class  images  precision  recall      F1" in out.getvalue()
    assert f"unsure below a probability of {wanted['unsure_below']:.3f}: " in out.getvalue()


def test_a_run_without_a_temperature_is_evaluated_without_one(own_run):
    own_run.metrics.write_text(json.dumps(read_json(own_run.metrics) | {"calibration": {}}))
    assert "calibrated" not in evaluate(own_run, "validation", "best", "none", io.StringIO())


def test_digits_have_no_test_split(digits_run, capsys):
    assert cli.main(["evaluate", "--run", str(digits_run.path), "--split", "test"]) == 2
    assert "has no test split" in capsys.readouterr().err
    assert evaluations_on_test(digits_run) == []


def test_the_last_weights_go_with_the_constants_of_the_last_images(own_run):
    """After `FORCE=1` on other images best.keras, of an epoch before, holds other ones."""
    metrics = read_json(own_run.metrics)
    metrics["best"]["epoch"] = 1
    own_run.metrics.write_text(json.dumps(metrics))
    dataset = read_json(own_run.dataset)
    before = load_trained(own_run, "best").classifier.normalization.mean
    dataset["normalization"]["mean"] = (before + 0.125).tolist()
    own_run.dataset.write_text(json.dumps(dataset))
    for checkpoint, shift in (("best", 0.0), ("last", 0.125)):
        mean = load_trained(own_run, checkpoint).classifier.normalization.mean
        np.testing.assert_allclose(mean, before + shift, rtol=1e-6)


def test_a_damaged_last_state_is_not_replaced_by_the_one_before(own_run):
    metrics = read_json(own_run.metrics)
    metrics["best"]["epoch"] = 1  # whichever it was: of the last epoch, best.keras would serve for both
    own_run.metrics.write_text(json.dumps(metrics))
    *_, before, last = sorted(own_run.states.iterdir())
    flip_bit(last)
    with pytest.raises(UserError, match=f"{last.name}: damaged .*; CHECKPOINT=best uses best.keras") as error:
        load_trained(own_run, "last")
    assert "using the state before" not in str(error.value)
    last.unlink()
    with pytest.raises(UserError, match="no state of the last epoch"):
        load_trained(own_run, "last")
    assert before.is_file() and load_trained(own_run, "best")


def test_a_run_of_a_gpu_is_used_without_one(own_run):
    text = own_run.experiment.read_text().replace("devices: auto", "devices: gpu")
    own_run.experiment.write_text(text)
    assert load_trained(own_run).experiment.training.devices == "gpu"


def test_an_unfinished_run_is_refused(own_run):
    own_run.metrics.unlink()
    with pytest.raises(UserError, match="not finished.*make resume"):
        load_trained(own_run)


def test_changed_data_and_foreign_files_are_refused(own_run):
    facts = json.loads(own_run.dataset.read_text())
    own_run.dataset.write_text(json.dumps(facts | {"fingerprint": "0" * 64}))
    with pytest.raises(UserError, match="the images have changed"):
        load_split(load_trained(own_run), "validation")
    names = facts["class_names"]
    own_run.dataset.write_text(json.dumps(facts | {"class_names": [names[1], names[0], *names[2:]]}))
    with pytest.raises(UserError, match=f"class 0 is '{names[0]}' against '{names[1]}'"):
        load_trained(own_run)
    own_run.best_model.write_bytes(b"nothing")
    own_run.dataset.write_text(json.dumps(facts))
    with pytest.raises(UserError, match="damaged"):
        load_trained(own_run)


def test_figures_are_printed_where_they_cannot_be_kept(own_run, capsys):
    shutil.rmtree(own_run.evaluations)
    own_run.evaluations.write_text("")  # nobody may write below a file, root neither
    assert cli.main(["evaluate", "--run", str(own_run.path)]) == 2
    printed, error = capsys.readouterr()
    assert "   negative log-likelihood " in printed and "class  images  precision" in printed
    assert "validation-best: cannot be written" in error and error.count("\n") == 1
    assert own_run.evaluations.read_text() == ""


def _put(key, value):
    """Return a change to a JSON file that sets a key, or with ... takes it away."""

    def change(path):
        content = json.loads(path.read_text())
        content[key] = value
        path.write_text(json.dumps({name: item for name, item in content.items() if item is not ...}))

    return change


def _write(content):
    return lambda path: path.write_bytes(content)


DEEP = _write(b"[" * 100_000 + b"]" * 100_000)
OUTSIDE = {
    "temperature": 1.0, "unsure_below": 1.5, "expected_calibration_error": 0.1, "sure_fraction": 0.0,
    "sure_precision": None,
}  # fmt: skip
EVERY = ("curves", "report", "compare", "evaluate", "predict", "explain", "export")
TRAINED = ("evaluate", "predict", "explain", "export")


@pytest.mark.parametrize(
    ("verbs", "file", "damage", "words"),
    [
        (EVERY, "metrics.json", _write(b"[]"), "must be a mapping; got []"),
        (EVERY, "metrics.json", _put("calibration", {"best": OUTSIDE}), "unsure_below: must be at most 1"),
        (EVERY, "metrics.json", DEEP, "no JSON that this program would write (recursion limit exceeded"),
        (TRAINED, "dataset.json", _write(b"[]"), "must be a mapping; got []"),
        (("report", "compare"), "dataset.json", _put("num_images", [3]), "num_images: must be a mapping"),
        (("report", "compare"), "environment.json", _write(b"[]"), "must be a mapping; got []"),
        (("report", "compare"), "environment.json", _put("cpu", ...), "cpu: is missing"),
        (("report",), "evaluations/validation-best/evaluation.json", _put("classes", 1), "classes: must be"),
        (("curves", "report", "compare"), "history.csv", _write(b"a\n"), "the columns must be epoch,loss"),
        (("curves", "report", "compare"), "experiment.yaml", _write(b"\xff\xfe"), ""),
        (TRAINED, "checkpoints/best.keras", lambda path: path.unlink(), "no such file; it holds the trained"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)  # fmt: skip
def test_edited_and_foreign_records_are_one_message(
    digits_run, own_run, tmp_path, capsys, monkeypatch, verbs, file, damage, words
):
    damage(own_run.path / file)
    monkeypatch.setenv("TRAINER_HOME", str(tmp_path))
    monkeypatch.setattr(cli.gc, "collect", lambda: 0)  # half a second each beside TensorFlow
    before = sorted(tmp_path.rglob("*"))
    for verb in verbs:
        more = {"predict": ["--images", str(digits_run.curves)], "export": ["--format", "keras"]}.get(
            verb, []
        )
        path = str(own_run.path)
        names = ["--runs", f"{path} {digits_run.path}"] if verb == "compare" else ["--run", path]
        assert cli.main([verb, *names, *more]) == 2, verb
        error = capsys.readouterr().err
        assert f"{file.rpartition('/')[2]}" in error and words in error and error.count("\n") == 1, (
            verb,
            error,
        )
    assert sorted(tmp_path.rglob("*")) == before


class OneNorm(keras.Model):
    """A network that is nothing but dropout and batch normalisation."""

    def __init__(self):
        super().__init__()
        self.dropout = keras.layers.Dropout(0.5)
        self.norm = BatchNormalization(momentum=0.9)

    def call(self, images, training=False):
        return self.norm(self.dropout(images, training=training), training=training)


class Images:
    """Training images that are random numbers."""

    def __init__(self, count):
        self.images = np.random.default_rng(0).integers(0, 255, (count, 4, 4, 3)).astype("uint8")
        self.labels = np.zeros(count, "int32")

    def __len__(self):
        return len(self.images)

    def take(self, positions):
        return self.images[positions], np.zeros(len(positions))


@pytest.fixture
def one_norm():
    classifier = SimpleNamespace(network=OneNorm(), normalization=lambda pixels: pixels / 255.0)
    classifier.network(np.zeros((1, 4, 4, 3), "float32"))
    return classifier


def test_recalibration_finds_the_mean_and_variance_of_the_training_images(one_norm):
    images = Images(64)
    assert recalibrate(one_norm, images, 16) == 64
    pixels = images.images.reshape(-1, 3) / 255.0
    norm = one_norm.network.norm
    np.testing.assert_allclose(norm.moving_mean.numpy(), pixels.mean(0), rtol=1e-5)
    np.testing.assert_allclose(norm.moving_variance.numpy(), pixels.var(0), rtol=1e-4)
    assert norm.momentum == 0.9 and one_norm.network.dropout.rate == 0.5
    assert recalibrate(one_norm, Images(5000), 5000) == 4096


def test_frozen_batch_normalisation_keeps_its_statistics(one_norm):
    one_norm.network.norm.trainable = False
    assert recalibrate(one_norm, Images(8), 4) == 0
    assert not one_norm.network.norm.moving_mean.numpy().any()


def test_a_network_without_batch_normalisation_is_left_alone():
    classifier = SimpleNamespace(network=keras.Sequential([keras.layers.Dense(2)]))
    assert recalibrate(classifier, Images(8), 4) == 0


def test_views_of_unsure_images_have_a_folder_of_their_own_and_count_passes(own_run, capsys):
    with np.load(own_run.predictions) as stored:
        powers = np.exp(stored["best_logits"].astype("float64"))
    largest = (powers / powers.sum(1, keepdims=True)).max(1)
    below = round(float(np.median(largest)), 3)
    command = ["evaluate", "--run", str(own_run.path), "--views", "flip_and_shift"]
    assert not cli.main([*command, "--views-below", str(below)])
    folder = own_run.evaluations / f"validation-best-flip_and_shift-below-{below:g}"
    found = read_json(folder / "evaluation.json")
    settings = found["test_time_views"], found["views_below"], found["passes"]
    assert settings == ("flip_and_shift", below, 6 * 359)
    sure = int((largest >= below).sum())
    assert 0 < sure < 359 and found["passes_saved"] == 5 * sure
    assert f"test-time views below {below:g}: {5 * sure:,} of 2,154 passes saved" in capsys.readouterr().out
    assert f"test-time views flip_and_shift below {below:g}" in own_run.report.read_text()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--views-below", "0.6"], "VIEWS_BELOW=0.6: says which images get VIEWS=flip or flip_and_shift"),
        (["--views", "flip", "--views-below", "1.5"], "VIEWS_BELOW=1.5: must be a probability above 0"),
    ],
)
def test_limit_of_views_that_makes_no_sense(digits_run, capsys, options, message):
    assert cli.main(["evaluate", "--run", str(digits_run.path), *options]) == 2
    assert message in capsys.readouterr().err
