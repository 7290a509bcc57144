import inspect

import keras
import numpy as np
import pytest
from keras import ops

from app.config.catalogue import _described
from app.config.schema import MIXING
from models import augmentation
from models.augmentation import LAYERS, REFUSED, augmentation_layer
from models.augmentation.affine_layers import RandomAffine, RandomRotation, RandomTranslation
from models.augmentation.pixel_layers import PerImage, RandomCrop, RandomFlip

RNG = np.random.default_rng(0)
IMAGE = RNG.integers(0, 256, (9, 12, 3)).astype("float32")  # neither square nor symmetric
BATCH = np.repeat(IMAGE[None], 16, axis=0)
# What makes each layer change an image visibly; the last two toss a coin.
ARGUMENTS = {
    "rand_augment": {"num_ops": 3, "magnitude": 12},
    "random_affine": {"degrees": 20, "height_pixels": 3, "width_pixels": 3},
    "random_brightness": {"factor": 0.3},
    "random_color_degeneration": {"factor": [0.1, 0.9]},
    "random_color_jitter": {"brightness_factor": 0.2, "hue_factor": 0.2, "saturation_factor": 0.4},
    "random_contrast": {"factor": 0.5},
    "random_crop": {"padding_pixels": 3},
    "random_erasing": {"probability": 0.9, "fill": "random"},
    "random_flip": {"mode": "horizontal_and_vertical"},
    "random_hue": {"factor": 0.4},
    "random_perspective": {"distortion": 0.5},
    "random_posterization": {"factor": [1, 8]},
    "random_resized_crop": {"area": [0.2, 0.8], "aspect": [0.5, 2.0]},
    "random_rotation": {"degrees": 20},
    "random_saturation": {"factor": [0.2, 0.8]},
    "random_sharpness": {"factor": [0.0, 0.9]},
    "random_shear": {"horizontal_degrees": 20, "vertical_degrees": 10},
    "random_translation": {"height_pixels": 3, "width_pixels": 3},
    "random_zoom": {"scale": [0.5, 1.5]},
    "trivial_augment": {"interpolation": "bilinear", "fill": "reflect"},
    "solarization": {"addition_factor": 0.5, "threshold_factor": 0.9},
    "random_grayscale": {"factor": 0.5},
    "random_invert": {"factor": [0.5, 0.5]},
}
NAMES = sorted(LAYERS.keys() - set(MIXING))  # those need images that differ, see test_mixing.py
OURS = [name for name in NAMES if issubclass(LAYERS[name], PerImage)]
OF_AFFINE = ("random_rotation", "random_translation")  # which compute what random_affine does
COMPILED_FIRST = ("rand_augment", "random_affine", "random_color_jitter", "random_crop", "random_perspective")


def numpy_of(tensor):
    return ops.convert_to_numpy(tensor)


def num_distinct(images):
    return len(np.unique(numpy_of(images).reshape(len(images), -1), axis=0))


def apply(layer, images=BATCH):
    return numpy_of(layer(images, training=True))


def compiled(layer):
    """The layer in training as one XLA program, on whichever backend runs."""
    layer.build(BATCH.shape)
    if keras.backend.backend() == "jax":
        import jax

        def step(state, images):
            return layer.stateless_call([], state, images, training=True)[0]

        return lambda images: jax.jit(step)([v.value for v in layer.non_trainable_variables], images)
    import tensorflow as tf

    return tf.function(lambda images: layer(images, training=True), jit_compile=True)


@pytest.mark.parametrize("name", NAMES)
def test_every_admitted_layer_draws_per_image(name):
    layer = augmentation_layer(name, seed=1, **ARGUMENTS[name])
    assert all(part.supports_jit for part in layer._flatten_layers())
    assert layer.non_trainable_variables and not layer.trainable_variables  # the seed's state
    first, second = apply(layer), apply(layer)
    assert first.shape == BATCH.shape and first.dtype == "float32"
    assert num_distinct(first) > 1
    assert not np.array_equal(first, second)
    np.testing.assert_array_equal(numpy_of(layer(BATCH, training=False)), BATCH)
    assert tuple(layer(keras.Input((9, 12, 3)), training=True).shape) == (None, 9, 12, 3)


@pytest.mark.parametrize(
    "name",
    [
        name if name in COMPILED_FIRST else pytest.param(name, marks=pytest.mark.slow)
        for name in NAMES
        if name not in OF_AFFINE
    ],
)
def test_every_admitted_layer_draws_per_image_when_compiled(name):
    layer = augmentation_layer(name, seed=1, **ARGUMENTS[name])
    assert num_distinct(compiled(layer)(BATCH)) > 1


@pytest.mark.parametrize("name", OURS)
def test_our_layers_survive_their_config_and_repeat_from_their_state(name):
    assert_repeats(augmentation_layer(name, seed=5, **ARGUMENTS[name]))


def assert_repeats(layer):
    config = keras.saving.serialize_keras_object(layer)
    twin = keras.saving.deserialize_keras_object(config)
    assert keras.saving.serialize_keras_object(twin) == config
    np.testing.assert_array_equal(apply(layer), apply(twin))
    state = [numpy_of(ops.convert_to_tensor(variable)) for variable in layer.variables]
    expected = apply(layer)
    for variable, value in zip(twin.variables, state, strict=True):
        variable.assign(value)
    np.testing.assert_array_equal(apply(twin), expected)


@pytest.mark.parametrize("name", OURS)
@pytest.mark.parametrize("dtype", ["uint8", "float32", "bfloat16"])
def test_our_layers_keep_the_dtype_and_ignore_the_policy(name, dtype):
    layer = LAYERS[name](seed=2, **ARGUMENTS[name])
    low = LAYERS[name](seed=2, dtype="mixed_bfloat16", **ARGUMENTS[name])
    images = ops.cast(BATCH, dtype)
    expected, result = layer(images, training=True), low(images, training=True)
    assert keras.backend.standardize_dtype(result.dtype) == dtype
    np.testing.assert_array_equal(ops.cast(result, "float32"), ops.cast(expected, "float32"))


def test_a_decorated_layer_is_found_by_experiments_and_by_saved_files(monkeypatch):
    monkeypatch.setattr(augmentation, "LAYERS", {})

    @augmentation.augmentation
    class RandomNothing(PerImage):
        def _augment(self, images):
            return images

    assert _described(augmentation.LAYERS) == {"random_nothing": {}}
    layer = augmentation_layer("random_nothing", seed=1)
    config = keras.saving.serialize_keras_object(layer)
    assert config["registered_name"] == "models>RandomNothing"
    assert isinstance(keras.saving.deserialize_keras_object(config), RandomNothing)


def test_crop_shows_every_place_and_pads_with_black():
    padded = np.pad(IMAGE, ((2, 2), (2, 2), (0, 0)))
    possible = {padded[top : top + 9, left : left + 12].tobytes() for top in range(5) for left in range(5)}
    found = {image.tobytes() for image in apply(RandomCrop(2, seed=0), np.repeat(IMAGE[None], 400, axis=0))}
    assert found == possible


@pytest.mark.parametrize(
    ("mode", "possible"),
    [
        ("horizontal", [IMAGE, IMAGE[:, ::-1]]),
        ("vertical", [IMAGE, IMAGE[::-1]]),
        ("horizontal_and_vertical", [IMAGE, IMAGE[:, ::-1], IMAGE[::-1], IMAGE[::-1, ::-1]]),
    ],
)
def test_flip_tosses_an_independent_coin_for_each_axis(mode, possible):
    images = [
        image.tobytes() for image in apply(RandomFlip(mode, seed=0), np.repeat(IMAGE[None], 400, axis=0))
    ]
    counts = [images.count(image.tobytes()) for image in possible]
    assert sum(counts) == 400
    assert min(counts) > 0.75 * 400 / len(possible)


def with_draws(monkeypatch, angle, down, right):
    """Fix the three draws of the affine layers, each as a fraction of its limit in [-1, 1]."""
    draws = np.array([angle, down, right], "float32").reshape(3, 1, 1, 1)
    monkeypatch.setattr("models.augmentation.pixel_layers.random.uniform", lambda *args, **kwargs: draws)


@pytest.mark.parametrize("interpolation", ["bilinear", "nearest"])
@pytest.mark.parametrize(
    ("fill", "pad"), [("nearest", "edge"), ("constant", "constant"), ("reflect", "symmetric")]
)
def test_whole_pixel_shifts_equal_padding(monkeypatch, interpolation, fill, pad):
    layer = RandomTranslation(4, 3, interpolation=interpolation, fill=fill)
    with_draws(monkeypatch, 0, -1, 1)  # reads 4 rows further up and 3 columns further right
    padded = np.pad(IMAGE, ((4, 0), (0, 3), (0, 0)), mode=pad)
    np.testing.assert_array_equal(apply(layer, IMAGE[None])[0], padded[:9, 3:])


@pytest.mark.parametrize("fill", ["nearest", "constant", "reflect"])
def test_affine_equals_scipy(monkeypatch, fill):
    ndimage = pytest.importorskip("scipy.ndimage")
    layer = RandomAffine(30, 4, 5, fill=fill)
    with_draws(monkeypatch, 0.7, 0.6, -0.9)
    angle = np.deg2rad(21)
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    centre, shift = np.array([4.0, 5.5]), np.array([2.4, -4.5])
    offset = centre + turn @ (shift - centre)
    mode = {"nearest": "nearest", "constant": "grid-constant", "reflect": "reflect"}[fill]
    expected = [
        ndimage.affine_transform(plane, turn, offset, order=1, mode=mode)
        for plane in IMAGE.transpose(2, 0, 1)
    ]
    np.testing.assert_allclose(apply(layer, IMAGE[None])[0], np.stack(expected, axis=-1), atol=2e-3)


def test_draws_stay_within_their_limits_and_use_them():
    # The image holds its own coordinates, so the result tells where each pixel came from.
    rows, columns = np.mgrid[:41.0, :41.0]
    grid = np.stack([rows, columns], axis=-1).astype("float32")[None].repeat(500, axis=0)
    shift = apply(RandomTranslation(3, 6, seed=0), grid)[:, 20, 20] - 20
    np.testing.assert_allclose(np.abs(shift).max(axis=0), [3, 6], rtol=0.05)
    assert (np.abs(shift) <= [3.001, 6.001]).all()
    slope = apply(RandomRotation(10, seed=0), grid)[:, 20, 30, 0] - 20
    np.testing.assert_allclose(np.abs(slope).max(), 10 * np.sin(np.deg2rad(10)), rtol=0.05)


@pytest.mark.parametrize(
    "make",
    [
        lambda: RandomCrop(-1),
        lambda: RandomFlip("sideways"),
        lambda: RandomRotation(181),
        lambda: RandomTranslation(-1, 0),
        lambda: RandomTranslation(0, -1),
        lambda: RandomAffine(interpolation="cubic"),
        lambda: RandomAffine(fill="wrap"),
        lambda: augmentation_layer("random_resized_crop", area=[1.0, 0.5]),
        lambda: augmentation_layer("random_resized_crop", area=[0.5, 1.1]),
        lambda: augmentation_layer("random_resized_crop", aspect=[0.5, 1.0, 2.0]),
        lambda: augmentation_layer("random_zoom", scale=1.2),
        lambda: augmentation_layer("random_zoom", scale=[0, 1]),
        lambda: augmentation_layer("random_shear", vertical_degrees=90),
        lambda: augmentation_layer("random_perspective", distortion=0.7),
        lambda: augmentation_layer("random_erasing", probability=1.5),
        lambda: augmentation_layer("rand_augment", magnitude=31),
        lambda: augmentation_layer("rand_augment", num_ops=0),
        lambda: augmentation_layer("random_cropp"),
        lambda: augmentation_layer("random_crop", pading=3),
        lambda: augmentation_layer("random_hue", factor=7),
    ],
)
def test_bad_arguments_are_named(make):
    with pytest.raises(ValueError, match="Received"):
        make()


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_refused_layers_give_their_reason(name):
    with pytest.raises(ValueError, match="cannot be used") as caught:
        augmentation_layer(name)
    assert REFUSED[name] in str(caught.value)


def test_every_image_layer_of_keras_is_either_admitted_or_refused():
    base = keras.layers.RandomFlip.__mro__[1]
    layers = [
        name for name, found in inspect.getmembers(keras.layers, inspect.isclass) if issubclass(found, base)
    ]
    known = {*LAYERS, *REFUSED}
    assert {augmentation._snake_case(name) for name in layers} <= known


def test_mirrored_border_holds_the_image_next_to_it():
    crops = apply(RandomCrop(padding_pixels=2, fill="mirror", seed=1))
    around = np.pad(IMAGE, ((2, 2), (2, 2), (0, 0)), mode="reflect")
    places = {around[r : r + 9, c : c + 12].tobytes() for r in range(5) for c in range(5)}
    assert all(crop.tobytes() in places for crop in crops) and num_distinct(crops) > 5


def test_mirror_needs_an_image_larger_than_its_border():
    with pytest.raises(ValueError, match="below the sides .9x12. to mirror. Received: 9"):
        apply(RandomCrop(padding_pixels=9, fill="mirror"))
