"""Layers that change colours, ours and Keras', against colorsys and Pillow, and the ranges of their draws."""

import colorsys

import keras
import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps

from models.augmentation import augmentation_layer

PIXELS = np.random.default_rng(0).integers(0, 256, (9, 12, 3)).astype(np.uint8)
PIXELS[0, :3] = [[0, 0, 0], [255, 255, 255], [90, 90, 90]]
PILLOW = Image.fromarray(PIXELS)
RAMP = np.arange(256, dtype=np.uint8).reshape(16, 16)
COPIES = 400


def augmented(name, images, **arguments):
    """Augment images (or one of them), with the layer of that name."""
    images = np.asarray(images, "float32")
    layer = augmentation_layer(name, seed=1, **arguments)
    found = layer(images[None] if images.ndim == 3 else images, training=True)
    return keras.ops.convert_to_numpy(found)


def copies(pixels):
    return np.repeat(np.asarray(pixels, "float32")[None], COPIES, axis=0)


def in_hsv(pixels, change):
    """Apply a function of hue, saturation and value to each pixel of an image."""
    rows = [[colorsys.hsv_to_rgb(*change(*colorsys.rgb_to_hsv(*(p / 255)))) for p in row] for row in pixels]
    return 255 * np.array(rows)


@pytest.mark.parametrize("name", ["random_saturation", "random_color_jitter"])
@pytest.mark.parametrize("factor", [0.0, 0.2, 0.5, 0.6, 0.9, 1.0])
def test_saturation_equals_colorsys(name, factor):
    scale = factor / (1 - factor) if factor < 1 else 1e9
    expected = in_hsv(PIXELS, lambda h, s, v: (h, min(1, s * scale), v))
    argument = "factor" if name == "random_saturation" else "saturation_factor"
    (found,) = augmented(name, PIXELS, **{argument: [factor, factor]})
    np.testing.assert_allclose(found, expected, atol=2e-3)


@pytest.mark.parametrize(
    ("name", "argument"), [("random_hue", "factor"), ("random_color_jitter", "hue_factor")]
)
@pytest.mark.parametrize("factor", [0.1, 0.7])
def test_hue_equals_colorsys_to_either_side(name, argument, factor):
    found = augmented(name, copies(PIXELS)[:40], **{argument: [factor, factor]})
    sides = [
        in_hsv(PIXELS, lambda h, s, v, t=turn: ((h + t) % 1, s, v)) for turn in (factor / 2, -factor / 2)
    ]
    taken = [np.argmin([np.abs(image - side).max() for side in sides]) for image in found]
    assert 8 < sum(taken) < 32
    np.testing.assert_allclose(found, np.stack(sides)[taken], atol=5e-3)


@pytest.mark.parametrize(
    ("name", "arguments", "expected"),
    [
        ("random_brightness", {"factor": [0.2, 0.2]}, np.clip(PIXELS + 51.0, 0, 255)),
        ("random_color_jitter", {"brightness_factor": [-0.2, -0.2]}, np.clip(PIXELS - 51.0, 0, 255)),
        ("random_color_degeneration", {"factor": [0.3, 0.3]}, ImageEnhance.Color(PILLOW).enhance(0.7)),
        ("random_color_degeneration", {"factor": [1.0, 1.0]}, ImageEnhance.Color(PILLOW).enhance(0.0)),
        ("random_grayscale", {"factor": 1.0}, PILLOW.convert("L").convert("RGB")),
        ("random_invert", {"factor": [1.0, 1.0]}, ImageOps.invert(PILLOW)),
        ("random_posterization", {"factor": [1, 1]}, ImageOps.posterize(PILLOW, 1)),
        ("random_posterization", {"factor": [3, 3]}, ImageOps.posterize(PILLOW, 3)),
        ("random_posterization", {"factor": [8, 8]}, PILLOW),
        ("random_sharpness", {"factor": [0.0, 0.0]}, ImageEnhance.Sharpness(PILLOW).enhance(0.0)),
        ("random_sharpness", {"factor": [0.3, 0.3]}, ImageEnhance.Sharpness(PILLOW).enhance(0.6)),
        ("random_sharpness", {"factor": [1.0, 1.0]}, ImageEnhance.Sharpness(PILLOW).enhance(2.0)),
        ("solarization", {"threshold_factor": [0.5, 0.5]}, ImageOps.solarize(PILLOW, 128)),
        (
            "solarization",
            {"threshold_factor": [0.5, 0.5], "addition_factor": [0.2, 0.2]},
            ImageOps.solarize(PILLOW.point(lambda value: min(value + 51, 255)), 128),
        ),
    ],
)
def test_colours_equal_pillow(name, arguments, expected):
    # Pillow rounds to whole numbers, up to twice.
    exact = name in ("random_brightness", "random_invert", "random_posterization", "solarization")
    (found,) = augmented(name, PIXELS, **arguments)
    np.testing.assert_allclose(found, np.asarray(expected, float), atol=1e-3 if exact else 1.1)


def test_blurring_a_flat_image_leaves_no_frame():
    found = augmented("random_sharpness", np.full((8, 8, 3), 200.0), factor=[0.0, 0.0])
    np.testing.assert_allclose(found, 200.0, atol=1e-3)


def contrast(images):
    """What the distances between pixels have been multiplied by; given a flat image of two halves."""
    return (images[:, -1, 0, 0] - images[:, 0, 0, 0]) / 40


HALVES = np.repeat([[[110.0] * 3], [[150.0] * 3]], 4, axis=0)
BROWN = np.full((2, 2, 3), (200.0, 150.0, 100.0))


def saturation(images):
    return 1 - images[:, 0, 0].min(axis=-1) / images[:, 0, 0].max(axis=-1)


def grayness(images):
    """How far red has gone from 200 to the gray of BROWN."""
    return (200 - images[:, 0, 0, 0]) / (200 - (0.299 * 200 + 0.587 * 150 + 0.114 * 100))


@pytest.mark.parametrize(
    ("name", "arguments", "given", "measure", "low", "high"),
    [
        ("random_saturation", {"factor": 0.6}, BROWN, saturation, 0.0, 0.75),
        ("random_saturation", {"factor": [0.5, 0.6]}, BROWN, saturation, 0.5, 0.75),
        ("random_color_jitter", {"saturation_factor": 0.6}, BROWN, saturation, 0.0, 0.75),
        ("random_contrast", {"factor": 0.5}, HALVES, contrast, 0.5, 1.5),
        ("random_contrast", {"factor": [0.8, 0.2]}, HALVES, contrast, 0.2, 1.2),
        ("random_color_jitter", {"contrast_factor": 0.5}, HALVES, contrast, 0.5, 1.5),
        ("random_color_jitter", {"brightness_factor": 0.2}, BROWN, lambda x: x[:, 0, 0, 1] - 150, -51, 51),
        ("random_color_degeneration", {"factor": 0.5}, BROWN, grayness, 0.0, 0.5),
        ("solarization", {"threshold_factor": [0.5, 0.7], "addition_factor": [0.1, 0.2]},
         np.full((2, 2, 3), 60.0), lambda x: x[:, 0, 0, 0], 60 + 25.5, 60 + 51),
    ],
)  # fmt: skip
def test_draws_fill_the_documented_range(name, arguments, given, measure, low, high):
    found = measure(augmented(name, copies(given), **arguments))
    assert low - 1e-3 <= found.min() < low + 0.05 * (high - low)
    assert high - 0.05 * (high - low) < found.max() <= high + 1e-3


@pytest.mark.parametrize(("factor", "bits"), [([4, 6], {4, 5, 6}), ([8, 8], {8}), (3, {3})])
def test_posterization_draws_both_limits(factor, bits):
    found = augmented("random_posterization", copies(RAMP[..., None].repeat(3, -1)), factor=factor)
    assert {len(np.unique(image)) for image in found} == {2**number for number in bits}


def test_thresholds_of_solarization_keep_their_lower_limit():
    found = augmented("solarization", copies(RAMP[..., None]), threshold_factor=[0.5, 0.7])[..., 0]
    first = (np.abs(found.reshape(COPIES, -1) - RAMP.ravel()) > 0.5).argmax(axis=1)
    assert 128 <= first.min() < 132 and 174 < first.max() <= 179


def test_solarization_without_arguments_leaves_some_pixels_as_they_are():
    found = augmented("solarization", copies(RAMP[..., None]))
    assert 0.4 < np.mean(np.abs(found - copies(RAMP[..., None])) < 0.5) < 0.6


COLOURS = {
    "random_color_degeneration": {"factor": 0.9},
    "random_color_jitter": {
        "brightness_factor": 0.2, "contrast_factor": 0.4, "saturation_factor": 0.9, "hue_factor": 0.3,
    },
    "random_contrast": {"factor": 0.9},
    "random_hue": {"factor": 0.5},
    "random_posterization": {"factor": [1, 5]},
    "random_saturation": {"factor": 1.0},
    "random_sharpness": {"factor": 1.0},
    "solarization": {"addition_factor": 0.5, "threshold_factor": 0.9},
}  # fmt: skip


@pytest.mark.parametrize("name", ["random_color_jitter", "random_saturation", "solarization"])
def test_layers_of_earlier_models_load(name):
    layer = augmentation_layer(name, **COLOURS[name])
    earlier = layer.get_config() | {"value_range": [0, 255]}
    assert type(layer).from_config(earlier).get_config() == layer.get_config()


@pytest.mark.parametrize("name", COLOURS)
def test_pixels_stay_in_their_range(name):
    found = augmented(name, copies(PIXELS)[:50], **COLOURS[name])
    assert found.min() >= 0 and found.max() <= 255


@pytest.mark.parametrize("name", COLOURS)
def test_gray_images_are_taken(name):
    found = augmented(name, copies(RAMP[..., None]), **COLOURS[name])
    assert found.shape == (COPIES, 16, 16, 1)
    if name in ("random_hue", "random_saturation", "random_color_degeneration"):
        np.testing.assert_allclose(found, copies(RAMP[..., None]), atol=1e-3)


def test_draws_of_one_layer_are_independent():
    """Brightness and contrast of an image say nothing of each other."""
    found = augmented("random_color_jitter", copies(HALVES), brightness_factor=0.1, contrast_factor=0.5)
    brightness = found.mean(axis=(1, 2, 3))
    assert abs(np.corrcoef(brightness, contrast(found))[0, 1]) < 0.2


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("random_saturation", {"factor": 1.5}),
        ("random_saturation", {"factor": [0.5, 7.0]}),
        ("random_saturation", {"factor": [0.1, 0.2, 0.3]}),
        ("random_contrast", {"factor": -0.5}),
        ("random_color_jitter", {"hue_factor": 2.0}),
        ("random_posterization", {"factor": [0, 3]}),
        ("random_posterization", {"factor": 2.5}),
        ("solarization", {"threshold_factor": 128}),
    ],
)
def test_factors_out_of_range_are_named(name, arguments):
    with pytest.raises(ValueError, match="must be .*Received"):
        augmentation_layer(name, **arguments)


def test_models_saved_with_the_layers_of_keras_keep_them():
    for layer in (keras.layers.RandomSaturation(0.5), keras.layers.RandomColorJitter(hue_factor=0.1)):
        saved = keras.saving.serialize_keras_object(layer)
        assert type(keras.saving.deserialize_keras_object(saved)) is type(layer)
