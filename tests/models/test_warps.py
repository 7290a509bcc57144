import keras
import numpy as np
import pytest
from keras import ops

from models import ImageClassifier, augmentation_layer
from models.augmentation.affine_layers import RandomAffine, RandomRotation, RandomTranslation
from models.augmentation.pixel_layers import RandomFlip
from models.augmentation.projective_layers import (
    RandomPerspective,
    RandomResizedCrop,
    RandomShear,
    RandomZoom,
    to_rectangle,
)
from models.augmentation.warp import ComposedWarps, composed, projected, warped
from tests.models.test_augmentation import BATCH, apply, assert_repeats, compiled, num_distinct, numpy_of

HEIGHT, WIDTH = 41, 61
# Images that hold each pixel's own place from the centre, down and right: the result says where it came from.
DOWN, RIGHT = np.mgrid[-20:20:41j, -30:30:61j].astype("float32")
PLACES = np.stack([DOWN, RIGHT], axis=-1)[None].repeat(400, axis=0)


def sources(layer):
    """Where the middle of each result came from, and by how much that changes from pixel to pixel."""
    result = apply(layer, PLACES)
    middle = result[:, 20, 30]
    return middle, result[:, 21, 30] - middle, result[:, 20, 31] - middle


def test_resized_crops_have_the_area_and_the_aspect_that_were_asked_for():
    middle, a_row, a_column = sources(RandomResizedCrop((0.1, 0.6), (0.5, 2.0), seed=1))
    np.testing.assert_allclose(a_row[:, 1], 0, atol=1e-4)  # no turn and no shear
    np.testing.assert_allclose(a_column[:, 0], 0, atol=1e-4)
    tall, wide = a_row[:, 0], a_column[:, 1]  # fractions of the image's sides
    area, aspect = tall * wide, wide * WIDTH / (tall * HEIGHT)
    assert 0.0999 < area.min() < 0.15 and 0.5 < area.max() < 0.6001
    assert 0.499 < aspect.min() < 0.6 and 1.7 < aspect.max() < 2.001
    assert abs(np.log(aspect).mean()) < 0.15  # log-uniform: as often upright as lying
    room = np.stack([1 - tall, 1 - wide], axis=1) * [HEIGHT / 2, WIDTH / 2]
    assert (np.abs(middle) <= room + 1e-3).all()  # within the image
    assert (np.abs(middle) > 0.9 * room).any(axis=0).all()  # up to its border


def test_a_resized_crop_that_never_fits_is_cut_to_the_image():
    _, a_row, a_column = sources(RandomResizedCrop((1.0, 1.0), (4.0, 4.0), seed=1))
    np.testing.assert_allclose(a_column[:, 1], 1.0, rtol=1e-4)
    np.testing.assert_allclose(a_row[:, 0], np.sqrt(HEIGHT * WIDTH / 4) / HEIGHT, rtol=1e-4)


def test_a_resized_crop_of_everything_is_the_image():
    layer = RandomResizedCrop((1.0, 1.0), (12 / 9, 12 / 9), seed=1)
    np.testing.assert_allclose(apply(layer), BATCH, atol=1e-2)


def test_zooms_magnify_about_the_centre():
    middle, a_row, a_column = sources(RandomZoom((0.5, 2.0), seed=1))
    np.testing.assert_allclose(middle, 0, atol=1e-4)
    np.testing.assert_allclose(a_row[:, 0], a_column[:, 1], atol=1e-4)
    scale = 1 / a_row[:, 0]
    assert 0.499 < scale.min() < 0.6 and 1.9 < scale.max() < 2.001


@pytest.mark.parametrize("degrees", [(30, 0), (0, 30), (30, 20)])
def test_shears_lean_by_angles_and_keep_areas(degrees):
    middle, a_row, a_column = sources(RandomShear(*degrees, seed=1))
    np.testing.assert_allclose(middle, 0, atol=1e-4)
    np.testing.assert_allclose(a_row[:, 0] * a_column[:, 1] - a_row[:, 1] * a_column[:, 0], 1, atol=1e-3)
    tangents = np.abs([a_row[:, 1], a_column[:, 0]]).max(axis=1)
    limits = np.tan(np.deg2rad(degrees))
    assert (tangents <= limits + 1e-3).all() and (tangents >= 0.9 * limits).all()


def test_corners_of_a_quadrilateral_go_to_those_of_the_image():
    inward = np.random.default_rng(0).uniform(0.4, 1, (2, 4, 50)) * [[[HEIGHT / 2]], [[WIDTH / 2]]]
    down, right = inward * np.array([[-1, -1, 1, 1], [-1, 1, 1, -1]])[..., None]
    corners = down.astype("float32"), right.astype("float32")
    maps = to_rectangle(*corners, HEIGHT, WIDTH)
    for corner, (vertical, horizontal) in enumerate([(-1, -1), (-1, 1), (1, 1), (1, -1)]):
        place = [axis[corner][:, None, None] for axis in corners]
        found = [numpy_of(axis)[:, 0, 0] for axis in projected(maps, *place)]
        np.testing.assert_allclose(found[0], vertical * HEIGHT / 2, rtol=1e-3)
        np.testing.assert_allclose(found[1], horizontal * WIDTH / 2, rtol=1e-3)
    # Straight lines stay straight: the diagonals meet in the centre.
    first, second = right[2] - right[0], down[2] - down[0]
    third, fourth = right[3] - right[1], down[3] - down[1]
    along = ((right[1] - right[0]) * fourth - (down[1] - down[0]) * third) / (first * fourth - second * third)
    meeting = (down[0] + along * second)[:, None, None], (right[0] + along * first)[:, None, None]
    found = projected(maps, *(axis.astype("float32") for axis in meeting))
    np.testing.assert_allclose(numpy_of(ops.stack(found)), 0, atol=1e-2)


@pytest.mark.parametrize("fill", ["nearest", "constant", "reflect"])
def test_perspective_shows_the_image_smaller_and_stays_finite(fill):
    white = np.full_like(PLACES, 255)
    result = apply(RandomPerspective(0.6, fill=fill, seed=1), white)
    assert np.isfinite(result).all()
    seen = (result > 127).mean(axis=(1, 2, 3))
    assert (seen == 1).all() if fill != "constant" else 0.1 < seen.min() < seen.max() < 1


@pytest.mark.parametrize("fill", ["nearest", "constant", "reflect"])
def test_a_projective_map_equals_scipy(fill):
    ndimage = pytest.importorskip("scipy.ndimage")
    matrix = np.array([[0.9, 0.2, 3.0], [-0.3, 1.1, -2.0], [0.004, -0.006, 1.0]], "float32")
    image = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3)).astype("float32")
    vertical, horizontal, depth = np.einsum("ij,jhw->ihw", matrix, [DOWN, RIGHT, np.ones_like(DOWN)])
    places = vertical / depth + 20, horizontal / depth + 30
    mode = {"nearest": "nearest", "constant": "grid-constant", "reflect": "reflect"}[fill]
    expected = [
        ndimage.map_coordinates(plane, places, order=1, mode=mode) for plane in image.transpose(2, 0, 1)
    ]
    maps = [lambda down, right: projected(ops.array(matrix[None]), down, right)]
    result = numpy_of(warped(image[None], maps, "bilinear", fill))[0]
    np.testing.assert_allclose(result, np.stack(expected, axis=-1), atol=0.05)  # coordinates are float32


def all_kinds(**settings):
    return [
        RandomResizedCrop((0.9, 1.0), (1.4, 1.6), seed=1),
        RandomRotation(8, seed=2, **settings),
        RandomZoom((0.9, 1.1), seed=3, **settings),
        RandomShear(5, 5, seed=4, **settings),
        RandomTranslation(2, 2, seed=5, **settings),
        RandomPerspective(0.1, seed=6, **settings),
    ]


def test_composed_layers_do_what_they_do_one_after_another():
    expected = PLACES
    for layer in all_kinds():
        expected = apply(layer, expected)
    (layer,) = composed(all_kinds())
    # Interpolating places is exact where they change evenly, and off by little where perspective bends them.
    inner = (slice(None), slice(14, -14), slice(20, -20))
    np.testing.assert_allclose(apply(layer, PLACES)[inner], expected[inner], atol=0.1)
    (other,) = composed(all_kinds()[::-1])
    assert np.abs(apply(other, PLACES)[inner] - expected[inner]).max() > 0.5  # the order counts


def test_only_neighbours_that_fill_and_interpolate_alike_are_composed():
    affine, zoom, shear = RandomAffine(5), RandomZoom(), RandomShear()
    black, flip = RandomZoom(fill="constant"), RandomFlip()
    layers = composed([affine, zoom, black, flip, shear])
    assert layers[1:] == [black, flip, shear]
    assert isinstance(layers[0], ComposedWarps) and layers[0].layers == [affine, zoom]
    assert composed(layers) == layers


def test_a_composed_layer_survives_its_config_and_repeats_from_its_state():
    (layer,) = composed(all_kinds())
    assert_repeats(layer)
    assert len(layer.variables) == 6
    np.testing.assert_array_equal(numpy_of(layer(BATCH, training=False)), BATCH)


def test_a_composed_layer_draws_per_image_when_compiled():
    (layer,) = composed(all_kinds())
    assert num_distinct(compiled(layer)(BATCH)) == len(BATCH)
    assert layer.supports_jit


def test_a_classifier_composes_its_layers_and_is_loaded_with_them(tmp_path):
    network = keras.Sequential([keras.Input((9, 12, 3)), keras.layers.Flatten(), keras.layers.Dense(2)])
    augmentation = [augmentation_layer(name) for name in ("random_flip", "random_zoom", "random_shear")]
    classifier = ImageClassifier(network, ["a", "b"], keras.layers.Identity(), augmentation)
    classifier.build((None, 9, 12, 3))
    assert [type(layer) for layer in classifier.augmentation] == [RandomFlip, ComposedWarps]
    classifier.save(tmp_path / "x.keras")
    loaded = keras.saving.load_model(tmp_path / "x.keras")
    assert [type(layer) for layer in loaded.augmentation] == [RandomFlip, ComposedWarps]
    np.testing.assert_array_equal(numpy_of(loaded(BATCH)), numpy_of(classifier(BATCH)))
