"""Grad-CAM against sums done by hand, and the pictures of real runs."""

import io

import keras
import numpy as np
import pytest
from keras import ops
from PIL import Image

from app import cli
from app.errors import UserError
from app.inference.explain import explain, filter_tiles, overlay, spread_over_classes
from app.inference.gradcam import first_kernel, grad_cam
from app.inference.load import load_trained
from models import ImageClassifier, Normalization
from models.network import Block, Network
from tests.conftest import copied
from tests.evaluation.test_image_sheets import assert_legible, drawn_texts


def classify(network, shape, num_classes=2):
    """A classifier whose network is given the pixels as they are."""
    network.build((None, *shape))
    names = [f"n{number}" for number in range(num_classes)]
    classifier = ImageClassifier(network, names, Normalization(mean=0.0, deviation=1 / 255))
    classifier.build((None, *shape))
    return classifier


class TwoMaps(Network):
    """Maps x and -x, then a dense layer over all their places."""

    def __init__(self, num_classes=2, **kwargs):
        super().__init__(**kwargs)
        self.conv = keras.layers.Conv2D(2, 1, use_bias=False)
        self.flatten = keras.layers.Flatten()
        self.head = keras.layers.Dense(num_classes, use_bias=False)

    def call(self, images, training=None):
        return self.head(self.flatten(self.conv(images)))


@pytest.fixture
def two_maps():
    network = TwoMaps()
    classifier = classify(network, (2, 2, 1))
    network.conv.set_weights([np.array([1.0, -1.0]).reshape(1, 1, 1, 2)])
    first = [[1, 0], [2, 0], [3, 0], [4, 2]]  # of class 0, place by place, for both maps
    second = [[5, 1], [-3, 0], [-3, 0], [-3, 0]]
    network.head.set_weights([np.stack([np.ravel(first), np.ravel(second)], axis=1).astype("float32")])
    return classifier


def test_grad_cam_by_hand(two_maps):
    images = np.array([[[1, 2], [3, 4]], [[10, 1], [0, 0]]], np.uint8)[..., np.newaxis]
    found = grad_cam(two_maps, images, "exp/run")
    # Logits: 1 + 4 + 9 + 16 - 2 * 4 = 22 and 5 - 6 - 9 - 12 - 1 = -23; then 12 and 50 - 3 - 10 = 37.
    np.testing.assert_allclose(found.logits, [[22, -23], [12, 37]], rtol=1e-5)
    # Class 0: the maps weigh (1 + 2 + 3 + 4) / 4 and 2 / 4, so 2.5 x - 0.5 x is left.
    np.testing.assert_allclose(found.heat[0], [[2, 4], [6, 8]], rtol=1e-5)
    # Class 1: they weigh -1 and 0.25: -1.25 x, and nothing of it is above 0.
    np.testing.assert_array_equal(found.heat[1], np.zeros((2, 2)))


def test_more_images_than_a_batch_and_each_by_itself(two_maps):
    images = np.arange(4 * 20, dtype=np.uint8).reshape(20, 2, 2, 1)
    together = grad_cam(two_maps, images, "exp/run")
    for number in (0, 7, 8, 19):
        alone = grad_cam(two_maps, images[number : number + 1], "exp/run")
        np.testing.assert_allclose(together.heat[number], alone.heat[0], rtol=1e-5)


def test_the_network_is_left_as_it_was(two_maps):
    grad_cam(two_maps, np.ones((1, 2, 2, 1), np.uint8), "exp/run")
    assert not any("call" in vars(layer) for layer in two_maps.network._flatten_layers())


class Residual(Block):
    """Adds a branch to its input; of `first` and `second`, the second is called first."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.first = keras.layers.Conv2D(1, 3, padding="same", use_bias=False, kernel_initializer="zeros")
        self.second = keras.layers.Conv2D(1, 1, use_bias=False, kernel_initializer="zeros")

    def call(self, inputs, training=None):
        return ops.relu(inputs + self.first(self.second(inputs)))


class Residuals(Network):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.block = Residual(name="sum")
        self.pool = keras.layers.AveragePooling2D(2)  # one place: nothing to see
        self.flatten = keras.layers.Flatten()
        self.head = keras.layers.Dense(2, use_bias=False)

    def call(self, images, training=None):
        return self.head(self.flatten(self.pool(self.block(images))))


def test_of_a_residual_block_the_sum_is_looked_at():
    network = Residuals()
    classifier = classify(network, (2, 2, 1))
    network.head.set_weights([np.array([[1.0, 0.0]])])
    image = np.array([[[[0], [4]], [[8], [4]]]], np.uint8)
    found = grad_cam(classifier, image, "exp/run")
    assert found.maps == "maps of sum"
    np.testing.assert_allclose(found.heat[0], np.array([[0, 4], [8, 4]]) / 4, rtol=1e-5)
    assert first_kernel(classifier, image[0]).shape == (1, 1, 1, 1)  # as images meet them


class Activated(Network):
    """Pools the activation, which is no layer, of a convolution."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.conv = keras.layers.Conv2D(1, 1, kernel_initializer="ones")
        self.pool = keras.layers.GlobalAveragePooling2D(name="pool")
        self.head = keras.layers.Dense(2, use_bias=False)

    def call(self, images, training=None):
        return self.head(self.pool(ops.relu(self.conv(images))))


def test_what_an_activation_takes_away_supports_nothing():
    network = Activated()
    classifier = classify(network, (1, 2, 1))
    network.conv.bias.assign([-9.0])
    network.head.set_weights([np.array([[-1.0, -2.0]])])
    found = grad_cam(
        classifier, np.array([[[[10], [0]]]], np.uint8), "exp/run"
    )  # 1 and -9 before the activation
    np.testing.assert_allclose(found.logits, [[-0.5, -1.0]], rtol=1e-5)
    np.testing.assert_array_equal(found.heat[0], [[0, 0]])  # not 2.25 at the second place
    assert found.maps == "maps that pool takes in"


class Dense(Network):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.flatten = keras.layers.Flatten()
        self.head = keras.layers.Dense(2)

    def call(self, images, training=None):
        return self.head(self.flatten(images))


def test_a_network_without_maps_is_refused():
    classifier = classify(Dense(), (4, 4, 1))
    with pytest.raises(UserError, match="Dense has no layer that puts out maps"):
        grad_cam(classifier, np.zeros((1, 4, 4, 1), np.uint8), "exp/run")
    assert first_kernel(classifier, np.zeros((4, 4, 1), np.uint8)) is None


def test_values_that_are_no_numbers_are_refused(two_maps):
    two_maps.network.head.set_weights([np.full((8, 2), np.nan, "float32")])
    with pytest.raises(UserError, match="exp/run: .* not all finite"):
        grad_cam(two_maps, np.ones((1, 2, 2, 1), np.uint8), "exp/run")


def test_filters_are_stretched_one_by_one():
    kernel = np.zeros((1, 3, 3, 3), np.float32)
    kernel[0, :, :, 0] = [[-1, 0, 1], [0, 0, 0], [1, 1, 1]]  # place by place in colours
    kernel[0, :, :, 1] = [[0, 0, 0.1], [0, 0, 0], [0, 0, 0]]
    first, second, third = filter_tiles(kernel)
    np.testing.assert_array_equal(first, [[[0, 128, 255], [128] * 3, [255] * 3]])
    assert second[0, 0].tolist() == [0, 0, 255] and not second[0, 1:].any()
    assert (third == 128).all()  # no value differs


def test_filters_of_many_inputs_are_their_mean():
    kernel = np.zeros((1, 2, 4, 1), np.float32)
    kernel[0, 0, :, 0] = [1, 1, 1, -3]  # 0 on average
    kernel[0, 1, :, 0] = [4, 0, 0, 0]
    (tile,) = filter_tiles(kernel)
    assert tile.tolist() == [[[0], [255]]]


def test_an_overlay_is_bright_where_the_heat_is():
    heat = np.zeros((4, 4), np.float32)
    heat[0, 3] = 7.0
    found = overlay(np.full((16, 16, 3), 100, np.uint8), heat)
    assert found.shape == (224, 224, 3)
    brightness = found.astype(int).sum(axis=-1)
    assert np.unravel_index(brightness.argmax(), brightness.shape)[0] < 56
    assert np.unravel_index(brightness.argmax(), brightness.shape)[1] >= 168
    assert np.ptp(brightness[100:, :100]) == 0
    assert (overlay(np.zeros((16, 20, 1), np.uint8), np.zeros((2, 2))) < 5).all()
    assert overlay(np.zeros((300, 500, 3), np.uint8), heat).shape == (300, 500, 3)


def test_images_are_spread_over_the_classes():
    labels = np.array([0] * 50 + [1] * 50 + [2])
    assert spread_over_classes(labels, 6).tolist() == [0, 50, 100, 1, 51, 2]
    assert len(spread_over_classes(labels[:4], 12)) == 4
    many = spread_over_classes(np.arange(100), 12)
    assert many[0] == 0 and many[-1] == 99 and len(set(many)) == 12 and np.diff(many).min() == 9


def test_explains_validation_images_in_a_new_folder_and_tells_what_the_network_says(own_run, figures, capsys):
    before = {path: path.read_bytes() for path in own_run.path.rglob("*") if path.is_file()}
    for _ in range(2):
        assert cli.main(["explain", "--run", str(own_run.path)]) == 0
    folders = sorted((own_run.path / "explanations").iterdir())
    assert len(folders) == 2
    for folder in folders:
        assert sorted(path.name for path in folder.iterdir()) == ["filters.png", "gradcam.png"]
    assert all(path.read_bytes() == content for path, content in before.items())
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == [f"filters {folders[0] / 'filters.png'}", f"grad-cam {folders[0] / 'gradcam.png'}"]
    filters, attention = figures[:2]
    assert len(filters.axes) == 6  # LeNet's
    assert len(attention.axes) == 2 * 12
    texts = [text.get_text() for text in drawn_texts(attention)]
    assert sum(text.startswith("truth: ") for text in texts) == 12
    assert {f"truth: {digit}" for digit in range(10)} <= set(texts)
    for figure in (filters, attention):
        assert own_run.name in drawn_texts(figure)[0].get_text()
        assert_legible(figure)

    trained = load_trained(own_run)
    tiles = [np.asarray(axes.images[0].get_array()) for axes in attention.axes][::2]
    logits = trained.classifier.predict_on_batch(np.stack(tiles)[..., np.newaxis])
    told = [t.get_text() for t in attention.texts if "predicted: " in t.get_text()]
    names = trained.classifier.class_names
    assert [text.removeprefix("✗ predicted: ").removeprefix("predicted: ") for text in told] == [
        names[label] for label in logits.argmax(-1)
    ]
    truths = [t.get_text().removeprefix("truth: ") for t in attention.texts if "truth: " in t.get_text()]
    crosses = [text.startswith("✗") for text in told]
    assert crosses == [truth != names[label] for truth, label in zip(truths, logits.argmax(-1), strict=True)]


def test_explains_files_under_their_names(folder_run, tmp_path, figures):
    run = copied(folder_run, tmp_path)
    images = tmp_path / "$new_{ images"
    images.mkdir()
    for number in range(30):
        Image.new("RGB", (30, 20), (number * 8, 0, 0)).save(images / f"{number}.png")
    (images / "3.png").write_bytes(b"no image")
    out = io.StringIO()
    folder = explain(run, str(images), "best", out)
    assert (folder / "gradcam.png").is_file()
    assert "1 of 24 files cannot be read" in out.getvalue() and "3.png" in out.getvalue()
    assert "the first 24 of 30" in out.getvalue()
    names = [text.get_text() for text in figures[1].texts if text.get_text().endswith(".png")]
    assert names == [f"{number}.png" for number in range(24) if number != 3]
    assert "red, green and blue" in drawn_texts(figures[0])[1].get_text()
    assert_legible(figures[1])


def test_nothing_is_written_where_it_cannot_be_done(folder_run, tmp_path):
    (tmp_path / "broken.png").write_bytes(b"no image")
    with pytest.raises(UserError, match="broken.png cannot be read: "):
        explain(folder_run, str(tmp_path), None, io.StringIO())
    with pytest.raises(UserError, match="no such file or folder"):
        explain(folder_run, str(tmp_path / "nothing"), None, io.StringIO())
    with pytest.raises(UserError, match="does not exist"):  # its validation images are gone
        explain(folder_run, None, None, io.StringIO())
    assert not (folder_run.path / "explanations").exists()


@pytest.mark.slow
def test_a_network_trained_in_bfloat16(bfloat16_run, tmp_path):
    folder = explain(copied(bfloat16_run, tmp_path), None, "last", io.StringIO())
    assert (folder / "gradcam.png").is_file()


def test_jax_is_refused(digits_run, monkeypatch):
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    with pytest.raises(UserError, match="TensorFlow"):
        explain(digits_run, None, None, io.StringIO())
