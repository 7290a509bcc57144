import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import ops

from app.inference.export_formats import FORMATS
from models import ImageClassifier, Normalization, augmentation_layer
from models.deployed import with_probabilities
from models.losses import SparseCrossentropy
from tests.conftest import on_jax

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (24, 8, 8, 3), dtype="uint8")
LABELS = RNG.integers(0, 3, 24)
NAMES = ("cat", "dog", "frog")


@keras.saving.register_keras_serializable("test_classifier")
class TinyNetwork(keras.Model):
    """One convolution, batch normalisation, dropout and a head."""

    def __init__(self, num_classes=3, **kwargs):
        super().__init__(**kwargs)
        self.num_classes = num_classes
        self.conv = keras.layers.Conv2D(4, 3)
        self.norm = keras.layers.BatchNormalization()
        self.pool = keras.layers.GlobalAveragePooling2D()
        self.dropout = keras.layers.Dropout(0.5)
        self.head = keras.layers.Dense(num_classes, dtype="float32")

    def build(self, input_shape):
        if not self.built:
            self.call(keras.Input(batch_shape=input_shape), training=False)

    def call(self, inputs, training=None):
        x = self.norm(self.conv(inputs), training=training)
        return self.head(self.dropout(self.pool(x), training=training))

    def get_config(self):
        return {**super().get_config(), "num_classes": self.num_classes}


def make(augmentation=("random_crop", "random_flip", "random_affine")):
    keras.utils.set_random_seed(0)
    network = TinyNetwork()
    network.build((None, 8, 8, 3))
    layers = [augmentation_layer(name) for name in augmentation]
    classifier = ImageClassifier(network, NAMES, Normalization([0.5, 0.4, 0.6], 0.25), layers)
    classifier.build((None, 8, 8, 3))
    return classifier


def make_mixing():
    classifier = make(augmentation=("random_flip", "mixup", "cutmix"))
    for layer in classifier.augmentation[1:]:
        layer.probability = 0.5
    return classifier


def compile_and_fit(classifier, **loss_arguments):
    classifier.compile("adam", SparseCrossentropy(**loss_arguments), metrics=["accuracy"])
    return classifier.fit(batches(), validation_data=batches(), epochs=1, shuffle=False, verbose=0).history


def batches():
    return tf.data.Dataset.from_tensor_slices((IMAGES, LABELS)).batch(10)  # the last batch is partial


def seed_states(classifier):
    return [
        ops.convert_to_numpy(ops.convert_to_tensor(layer.seed_generator.state))
        for layer in classifier.augmentation
    ]


def predict(classifier):
    return classifier.predict_on_batch(IMAGES)


def test_takes_raw_images_and_returns_float32_logits():
    classifier = make()
    logits = classifier(IMAGES)
    assert logits.shape == (24, 3) and keras.backend.standardize_dtype(logits.dtype) == "float32"
    normalised = (IMAGES / 255 - [0.5, 0.4, 0.6]) / 0.25
    np.testing.assert_allclose(logits, classifier.network(normalised.astype("float32")), rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(classifier(IMAGES.astype("float32")), logits)


def test_summary_shows_every_shape():
    lines = []
    make().summary(print_fn=lambda text, **_: lines.append(text))
    text = "\n".join(lines)
    assert "?" not in text and "unbuilt" not in text
    assert text.count("(None, 8, 8, 3)") == 4 and "(None, 3)" in text


@pytest.mark.parametrize("make_augmented", [make, make_mixing])
def test_augments_when_training_only(make_augmented):
    augmented, plain = make_augmented(), make(augmentation=())
    plain.network.set_weights(augmented.network.get_weights())
    np.testing.assert_array_equal(predict(augmented), predict(plain))
    for classifier in (augmented, plain):
        classifier.compile("sgd", SparseCrossentropy(), metrics=["accuracy"])
    assert augmented.evaluate(IMAGES, LABELS, verbose=0) == plain.evaluate(IMAGES, LABELS, verbose=0)
    before = seed_states(augmented)
    seen = []
    augmented.network.call = lambda inputs, training=None: (
        seen.append((inputs, training)) or ops.zeros((24, 3))
    )
    augmented(IMAGES, training=True)
    augmented(IMAGES, training=False)
    plain_inputs = ops.convert_to_numpy(plain.normalization(IMAGES))
    assert [training for _, training in seen] == [True, False]
    assert not np.allclose(seen[0][0], plain_inputs)
    np.testing.assert_array_equal(seen[1][0], plain_inputs)
    after = seed_states(augmented)
    assert all((old != new).any() for old, new in zip(before, after, strict=True))


def test_dropout_of_the_network_follows_training():
    classifier = make(augmentation=())
    assert not np.allclose(classifier(IMAGES, training=True), classifier(IMAGES, training=True))
    np.testing.assert_array_equal(classifier(IMAGES), classifier(IMAGES))


def test_augmented_pixels_stay_within_a_raw_images_range():
    classifier = make(augmentation=["random_flip"])
    classifier.augmentation[0].call = lambda images, training: images * 3.0 - 300.0
    low, high = -0.6 / 0.25, 0.6 / 0.25
    seen = []
    classifier.network.call = lambda inputs, training=None: seen.append(inputs) or ops.zeros((24, 3))
    classifier(IMAGES, training=True)
    assert low - 1e-5 <= float(ops.min(seen[0])) and float(ops.max(seen[0])) <= high + 1e-5


def test_fits_and_knows_every_seed_as_a_variable():
    classifier = make()
    history = compile_and_fit(classifier)
    assert np.isfinite([history["loss"], history["val_loss"]]).all()
    assert classifier.optimizer.iterations.value == 3
    assert classifier.jit_compile == (
        keras.backend.backend() == "jax"
    )  # "auto" leaves it off on CPUs elsewhere
    assert all(layer.supports_jit for layer in classifier._flatten_layers())
    paths = [variable.path for variable in classifier.variables]
    assert sum("seed_generator" in path for path in paths) == 4  # three layers and the dropout
    assert len(set(paths)) == len(paths)


def test_smoothing_and_weights_act_in_training_only():
    classifier = make(augmentation=())
    classifier.network.dropout.rate = 0.0
    losses, arguments = {}, {"label_smoothing": 0.3, "class_weight": [5.0, 1.0, 0.2]}
    for name, given in (("plain", {}), ("changed", arguments)):
        classifier.compile(keras.optimizers.SGD(0.0), SparseCrossentropy(**given))
        training = classifier.fit(IMAGES, LABELS, batch_size=24, shuffle=False, verbose=0).history["loss"][0]
        classifier.network.norm.moving_mean.assign(np.zeros(4))
        classifier.network.norm.moving_variance.assign(np.ones(4))
        losses[name] = training, classifier.evaluate(IMAGES, LABELS, verbose=0)
    assert losses["plain"][1] == losses["changed"][1]
    assert abs(losses["plain"][0] - losses["changed"][0]) > 1e-3


@pytest.mark.filterwarnings("ignore:.*__array__ implementation doesn't accept a copy keyword")
@pytest.mark.parametrize("make_augmented", [make, make_mixing])
def test_saved_file_is_for_inference_and_predicts_the_same_bits(tmp_path, make_augmented):
    classifier = make_augmented()
    assert np.isfinite(compile_and_fit(classifier)["loss"]).all()
    optimizer, path = classifier.optimizer, tmp_path / "best.keras"
    expected = predict(classifier)
    classifier.save(path)
    assert classifier.optimizer is optimizer and classifier.compiled
    with zipfile.ZipFile(path) as archive:
        assert "compile_config" not in json.loads(archive.read("config.json"))
        with archive.open("model.weights.h5") as stream, h5py.File(stream) as weights:
            assert not [key for key in weights if "optimizer" in key]
    loaded = keras.saving.load_model(path)
    assert not loaded.compiled and loaded.class_names == NAMES
    np.testing.assert_array_equal(predict(loaded), expected)
    assert [layer.get_config() for layer in loaded.augmentation] == [
        layer.get_config() for layer in classifier.augmentation
    ]
    loaded.save(tmp_path / "again.keras")  # never compiled
    classifier.fit(batches(), epochs=1, shuffle=False, verbose=0)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*__array__ implementation doesn't accept a copy keyword")
def test_saved_file_needs_models_only(tmp_path):
    keras.utils.set_random_seed(0)
    network = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Flatten(), keras.layers.Dense(3)])
    classifier = ImageClassifier(
        network, NAMES, Normalization(0.5, 0.25), [augmentation_layer("random_crop")]
    )
    classifier.build((None, 8, 8, 3))
    compile_and_fit(classifier)
    classifier.save(tmp_path / "model.keras")
    FORMATS["keras"].write(with_probabilities(classifier, (8, 8, 3)), str(tmp_path / "exported.keras"))
    np.save(tmp_path / "images.npy", IMAGES)
    code = (
        "import sys, warnings; warnings.simplefilter('error'); import keras, numpy, models;"
        "model, exported = map(keras.saving.load_model, ('model.keras', 'exported.keras'));"
        "numpy.save('logits.npy', model.predict_on_batch(numpy.load('images.npy')));"
        "numpy.save('probabilities.npy', exported(numpy.load('images.npy')));"
        "assert not any(name.split('.')[0] == 'app' for name in sys.modules)"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    np.testing.assert_array_equal(np.load(tmp_path / "logits.npy"), predict(classifier))
    expected = ops.softmax(predict(classifier))
    np.testing.assert_allclose(np.load(tmp_path / "probabilities.npy"), expected, rtol=1e-4, atol=1e-6)


def test_low_precision_keeps_pixels_and_logits_in_float32(bfloat16):
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        classifier = make()
    finally:
        keras.config.set_dtype_policy(before)
    seen = []
    original = classifier.normalization.call
    classifier.normalization.call = lambda images: seen.append(images) or original(images)
    logits = classifier(IMAGES.astype("float32"), training=True)
    assert keras.backend.standardize_dtype(seen[0].dtype) == "float32"
    assert keras.backend.standardize_dtype(logits.dtype) == "float32"
    assert classifier.network.conv.compute_dtype == "bfloat16"
    assert np.isfinite(compile_and_fit(classifier)["loss"]).all()


@pytest.mark.slow
@pytest.mark.skipif(keras.backend.backend() == "jax", reason="this is the run on JAX")
def test_this_file_and_pieces_of_recipes_pass_on_jax(tmp_path):
    pieces = ("augmentation", "color_layers", "mixing", "policies", "warps", "erasing", "drop_path", "losses")
    files = [str(Path(__file__).with_name(f"test_{name}.py")) for name in ("classifier", *pieces)]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "not slow", *files]
    # The test of all residual networks is about these, not about the layer.
    command += ["-k", "not nothing_by_default"]
    variables = os.environ | on_jax(tmp_path)
    done = subprocess.run(command, env=variables, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
