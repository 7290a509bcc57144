import importlib.util
import io
import json
import os
import subprocess
import sys
import warnings
from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image

from app import cli
from app.classifier_files import load_classifier
from app.data.images import ImageFormat, decode_file
from app.errors import UserError
from app.inference import export as export_module
from app.inference.export import export
from app.inference.export_formats import FORMATS
from app.inference.load import load_split, load_trained
from models import ImageClassifier, Normalization, build_model
from models.deployed import in_float32, with_probabilities
from models.network import MODELS
from tests.conftest import copied

ROOT = Path(__file__).resolve().parents[2]


def needs_extra(format):
    missing = [name for name in FORMATS[format].modules if importlib.util.find_spec(name) is None]
    return pytest.mark.skipif(bool(missing), reason=f"the extra 'export' is not installed: {missing}")


# "resnet" and "vgg" are of the layers of resnet50 and vgg16.
NETWORKS = [name for name in MODELS if name not in ("resnet", "vgg")]
EVERY_FORMAT = [pytest.param(name, marks=needs_extra(name)) for name in FORMATS]


def softmax(logits):
    powers = np.exp(np.asarray(logits, np.float64))
    return powers / powers.sum(-1, keepdims=True)


def exported(run, format, checkpoint=None, **options):
    out = io.StringIO()
    folder = export(run, format, checkpoint, out, **options)
    return folder, json.loads((folder / "export.json").read_text(encoding="utf-8")), out.getvalue()


@pytest.mark.parametrize("format", EVERY_FORMAT)
def test_the_written_file_gives_the_probabilities_of_the_run(format, digits_run, own_run, monkeypatch, capfd):
    metrics = json.loads(own_run.metrics.read_text(encoding="utf-8"))
    calibration = metrics["calibration"]["best"]
    calibration["temperature"] = 1.5  # so that it shows
    own_run.metrics.write_text(json.dumps(metrics), encoding="utf-8")
    folder, facts, said = exported(own_run, format, "best")
    assert capfd.readouterr() == ("", "")  # the converters' remarks are held back
    assert folder.parent == own_run.path / "exports"
    assert sorted(os.listdir(folder)) == sorted(["class_names.txt", "export.json", FORMATS[format].filename])
    assert os.listdir(folder.parent) == [folder.name]
    names = (folder / "class_names.txt").read_text(encoding="utf-8").splitlines()
    assert names == [str(digit) for digit in range(10)]
    assert facts["input"]["shape"] == [None, 16, 16, 1] and facts["input"]["dtype"] == "uint8"
    assert facts["output"]["shape"] == [None, 10] and facts["output"]["dtype"] == "float32"
    assert facts["check"]["images"] == 64 and facts["check"]["from"] == "validation images"
    assert 0 <= facts["check"]["largest_difference"] <= facts["check"]["allowed_difference"] == 1e-4
    packages = {"python", "keras", "numpy", *(name.replace("_", "-") for name in FORMATS[format].modules)}
    assert packages <= set(facts["versions"])
    assert f"export {folder / FORMATS[format].filename}" in said and "64 validation images" in said

    assert facts["temperature"] == 1.5
    assert facts["unsure_below"] == calibration["unsure_below"]

    # By the lines that export.json gives, on what training recorded.
    images = load_split(load_trained(digits_run), "validation")[1].take(np.arange(3))[0]
    with np.load(digits_run.predictions) as recorded:
        expected = softmax(recorded["best_logits"][:3] / 1.5)
    monkeypatch.chdir(folder)
    for image, wanted in zip(images, expected, strict=True):
        Image.fromarray(image[..., 0]).save("photo.jpg", format="PNG")
        space = {}
        exec("\n".join(facts["how_to_run"]), space)
        assert space["images"].dtype == np.uint8 and space["probabilities"].dtype == np.float32
        np.testing.assert_allclose(space["probabilities"], wanted[None], atol=1e-4)
        assert space["probabilities"].sum() == pytest.approx(1, abs=1e-5)
        said = capfd.readouterr().out
        assert said.startswith(f"{wanted.argmax()} ")
        certainty = "unsure" if wanted.max() < calibration["unsure_below"] else "sure"
        assert said.endswith(f"\n{certainty}\n")


def test_a_run_without_a_temperature_is_exported_as_before(digits_run, own_run):
    metrics = json.loads(own_run.metrics.read_text(encoding="utf-8"))
    del metrics["calibration"]
    own_run.metrics.write_text(json.dumps(metrics), encoding="utf-8")
    own_run.predictions.unlink()
    folder, facts, _ = exported(own_run, "keras", "best")
    assert facts["temperature"] == 1.0 and facts["unsure_below"] is None
    assert not any("unsure" in line for line in facts["how_to_run"])
    images = load_split(load_trained(own_run), "validation")[1].take(np.arange(3))[0]
    with np.load(digits_run.predictions) as recorded:
        expected = softmax(recorded["best_logits"][:3])
    model = keras.saving.load_model(folder / "model.keras", compile=False)
    np.testing.assert_allclose(model(images), expected, atol=1e-4)
    assert [layer.name for layer in model.layers][-1] == "probabilities" and len(model.layers) == 3
    again, facts, _ = exported(own_run, "keras", "best", unsure=0.25)
    assert facts["unsure_below"] == 0.25
    assert again != folder and {*folder.parent.iterdir()} == {folder, again}  # the earlier one stays


@pytest.mark.parametrize("format", EVERY_FORMAT)
def test_a_bfloat16_network_is_exported_in_float32(format, bfloat16_run, tmp_path, monkeypatch):
    run = copied(bfloat16_run, tmp_path)
    folder, facts, said = exported(run, format)
    assert facts["trained_in"] == "bfloat16" and facts["computes_in"] == "float32"
    assert said.startswith(
        "trained in bfloat16; exported to compute in float32, which changes probabilities by"
    )
    trained = load_trained(run, precision="float32")
    assert trained.classifier.network.conv1.compute_dtype == "bfloat16"
    # The same network, made from the registry instead.
    network = build_model("lenet5", input_shape=(16, 16, 1), num_classes=10)
    network.set_weights(trained.classifier.network.get_weights())
    images = load_split(trained, "validation")[1].take(np.arange(20))[0]
    pixels = images.astype(np.float32) / 255.0
    constants = trained.data.content["normalization"]
    logits = network((pixels - np.float32(constants["mean"])) / np.float32(constants["deviation"]))
    found = FORMATS[format].runner(folder)(images)
    wanted = softmax(np.asarray(logits) / facts["temperature"])
    np.testing.assert_allclose(found, wanted, atol=1e-4)


def test_every_part_of_a_mixed_network_computes_in_float32(bfloat16_run):
    classifier = load_classifier(bfloat16_run.best_model)
    before = [weight.numpy() for weight in classifier.network.weights]
    fresh = in_float32(classifier, (16, 16, 1))
    parts = with_probabilities(fresh, (16, 16, 1), 0.5)._flatten_layers()
    assert {part.compute_dtype for part in parts if part.name != "images"} == {"float32"}
    for weight, value in zip(fresh.network.weights, before, strict=True):
        np.testing.assert_array_equal(weight.numpy(), value)
    fresh.network.head.bias.assign_add(keras.ops.ones(10))  # the trained one has weights of its own
    for weight, value in zip(classifier.network.weights, before, strict=True):
        np.testing.assert_array_equal(weight.numpy(), value)


def test_without_the_data_random_images_are_used_and_files_are_read_as_the_run_read_them(
    folder_run, tmp_path
):
    folder, facts, said = exported(copied(folder_run, tmp_path), "keras")
    assert facts["check"]["from"] == "random images" and facts["check"]["images"] == 64
    assert said.startswith("no validation images, so random ones are used for the check: ")
    assert "does not exist" in said.splitlines()[0]
    names = (folder / "class_names.txt").read_text(encoding="utf-8").splitlines()
    assert names == ['2, "two"', "10 $x^2$", "été"]
    crop = "image = ImageOps.fit(image, (16, 16), Image.Resampling.BICUBIC)"
    assert crop in facts["how_to_run"] and 'image = image.convert("RGB")' in facts["how_to_run"]

    transparent = np.zeros((9, 9, 4), np.uint8)
    transparent[3:6, 3:6] = 40, 90, 200, 128
    sixteen_bits = np.arange(81, dtype=np.uint16).reshape(9, 9) * 800
    for pixels in (transparent, sixteen_bits):
        Image.fromarray(pixels).save(tmp_path / "photo.png")
        lines = [line.replace("photo.jpg", f"{tmp_path}/photo.png") for line in facts["how_to_run"]]
        exec("\n".join(lines[: lines.index('image = image.convert("RGB")') + 1]), space := {})
        wanted = decode_file(tmp_path / "photo.png", ImageFormat(None, 3))
        np.testing.assert_array_equal(space["image"], wanted)


def test_what_does_not_agree_is_refused_and_not_kept(own_run, monkeypatch):
    monkeypatch.setattr(export_module, "TOLERANCE", -1.0)
    with pytest.raises(
        UserError, match="model.keras does not compute what the network does: on 64 validation"
    ):
        export(own_run, "keras", None, io.StringIO())
    assert not (own_run.path / "exports").exists()


def test_a_network_that_gives_no_numbers_is_refused(own_run):
    classifier = load_classifier(own_run.best_model)
    classifier.network.head.bias.assign(keras.ops.full((10,), np.nan))
    classifier.save(own_run.best_model)
    with pytest.raises(UserError, match="differ by up to nan"):
        export(own_run, "keras", "best", io.StringIO())
    assert not (own_run.path / "exports").exists()


@pytest.mark.parametrize(
    ("format", "module"), [("onnx", "tf2onnx"), ("onnx", "onnxruntime"), ("tflite", "ai_edge_litert")]
)
def test_a_missing_package_is_named(digits_run, monkeypatch, format, module):
    monkeypatch.setitem(sys.modules, module, None)  # as if it were not installed
    message = (
        rf"FORMAT={format} needs the extra 'export': .* --editable \"\.\[export\]\" \(missing: .*{module}"
    )
    with pytest.raises(UserError, match=message):
        export(digits_run, format, None, io.StringIO())
    assert not (digits_run.path / "exports").exists()


def test_an_unknown_format_is_refused(digits_run, capsys):
    assert cli.main(["export", "--run", str(digits_run.path), "--format", "onyx"]) == 2
    assert "unknown format 'onyx'; did you mean 'onnx'" in capsys.readouterr().err


def python(code, *arguments, **environment):
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", code, *map(str, arguments)],
        env=os.environ | {"PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
    )


@pytest.mark.slow
@pytest.mark.parametrize("format", [needs for needs in EVERY_FORMAT if needs.values[0] in ("onnx", "tflite")])
@pytest.mark.parametrize("name", NETWORKS)
def test_every_network_can_be_converted(name, format, tmp_path):
    """The formats with operations of their own; the others hold TensorFlow's."""
    shape = (*(2 * [MODELS[name].pixels_from(32)]), 3)
    keras.utils.set_random_seed(0)
    network = build_model(name, input_shape=shape, num_classes=3)
    classifier = ImageClassifier(network, ("a", "b", "c"), Normalization(0.5, 0.25))
    classifier.build((None, *shape))
    images = np.random.default_rng(0).integers(0, 256, (3, *shape), np.uint8)
    path = tmp_path / FORMATS[format].filename
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        FORMATS[format].write(with_probabilities(classifier, shape, 0.7), str(path))
    found = FORMATS[format].runner(tmp_path)(images)
    logits = np.asarray(classifier(images, training=False))
    np.testing.assert_allclose(found, softmax(logits / 0.7), atol=1e-4)


@pytest.mark.slow
def test_jax_writes_keras_files_and_refuses_the_others(own_run):
    code = (
        "import sys; from app.cli import main\n"
        "for format in ('keras', 'saved_model'):\n"
        "    print('code', main(['export', '--run', sys.argv[1], '--format', format]))\n"
    )
    done = python(code, own_run.path, KERAS_BACKEND="jax")
    assert "64 validation images" in done.stdout and "code 0\ncode 2\n" in done.stdout, done.stderr
    assert done.stderr.splitlines()[-1].startswith("FORMAT=saved_model: is written by TensorFlow")
    assert len(os.listdir(own_run.path / "exports")) == 1
