import numpy as np
import pytest
from keras import ops
from PIL import Image, ImageEnhance, ImageOps

from models.augmentation.operations import OPERATIONS, SIGNED
from models.augmentation.policy_layers import RandAugment, TrivialAugment
from tests.models.test_augmentation import apply, numpy_of

HEIGHT, WIDTH = 30, 44
NOISE = np.random.default_rng(0).uniform(0, 30, (HEIGHT, WIDTH, 3))
# Noise on a slope that uses neither the lowest nor the highest levels, so that contrasts can be stretched.
SLOPE = np.mgrid[20:120:30j, 10:90:44j].sum(axis=0)[..., None]
IMAGE = np.round(SLOPE * [1.0, 0.9, 0.7] + NOISE).astype("uint8")
# The first and the last strength of the papers' tables.
TABLES = {
    RandAugment: {
        "shear_x": (0, 0.3),
        "shear_y": (0, 0.3),
        "translate_x": (0, 150 / 331 * WIDTH),
        "translate_y": (0, 150 / 331 * HEIGHT),
        "rotate": (0, 30),
        **dict.fromkeys(["brightness", "color", "contrast", "sharpness"], (0, 0.9)),
        "posterize": (8, 4),
        "solarize": (255, 0),
    },
    TrivialAugment: {
        "shear_x": (0, 0.99),
        "shear_y": (0, 0.99),
        "translate_x": (0, 32),
        "translate_y": (0, 32),
        "rotate": (0, 135),
        **dict.fromkeys(["brightness", "color", "contrast", "sharpness"], (0, 0.99)),
        "posterize": (8, 2),
        "solarize": (255, 0),
    },
}


def strength_of(policy, name, magnitude, sign):
    first, last = TABLES[policy].get(name, (0, 0))
    return (first + (last - first) * magnitude / 30) * (sign if name in SIGNED else 1)


def by_pil(image, name, strength):
    """An operation as PIL computes it on whole levels."""
    picture = Image.fromarray(image)

    def affine(*coefficients):
        return picture.transform(picture.size, Image.Transform.AFFINE, coefficients)

    enhancers = {
        "brightness": ImageEnhance.Brightness,
        "color": ImageEnhance.Color,
        "contrast": ImageEnhance.Contrast,
        "sharpness": ImageEnhance.Sharpness,
    }
    operations = {
        "identity": lambda: picture,
        "shear_x": lambda: affine(1, strength, 0, 0, 1, 0),
        "shear_y": lambda: affine(1, 0, 0, strength, 1, 0),
        "translate_x": lambda: affine(1, 0, -strength, 0, 1, 0),
        "translate_y": lambda: affine(1, 0, 0, 0, 1, -strength),
        "rotate": lambda: picture.rotate(strength),
        **{name: lambda kind=kind: kind(picture).enhance(1 + strength) for name, kind in enhancers.items()},
        "posterize": lambda: ImageOps.posterize(picture, round(strength)),
        "solarize": lambda: ImageOps.solarize(picture, strength),
        "auto_contrast": lambda: ImageOps.autocontrast(picture),
        "equalize": lambda: ImageOps.equalize(picture),
    }
    return np.asarray(operations[name]()).astype(int)


def changed(layer, image, names, magnitude, signs):
    """The result of given operations on one image."""
    kinds = np.array([[OPERATIONS.index(name)] for name in names], "int32")
    numbers = np.array(signs, "float32")[:, None]
    return numpy_of(layer.changed(image[None], ops.array(kinds), float(magnitude), ops.array(numbers)))[0]


def check(name, result, expected):
    distance = np.abs(result.astype(int) - expected)
    if name in ("identity", "posterize", "solarize", "equalize"):
        assert distance.max() == 0
    elif name in ("shear_x", "shear_y", "translate_x", "translate_y", "rotate"):
        # A place between two pixels goes to one or the other, as float32 or PIL's fixed point round it.
        assert (distance > 0).any(axis=-1).mean() < 0.01
    else:
        # PIL rounds its gray or blurred version, and cuts off the fraction of the result.
        assert distance.max() <= 2 and (distance > 1).mean() < 0.01


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("magnitude", [0, 7, 29])  # at 30, 135 degrees, pixels lie on pixels' borders
@pytest.mark.parametrize("policy", TABLES)
def test_operations_equal_those_of_pil(policy, magnitude, channels):
    image = IMAGE if channels == 3 else IMAGE[..., :1]
    # All operations at once, each on an image of its own and with both signs.
    names = [name for name in OPERATIONS for _ in range(2)]
    signs = np.array([1, -1] * len(OPERATIONS), "float32")[None]
    kinds = np.array([[OPERATIONS.index(name) for name in names]], "int32")
    images = image[None].repeat(len(names), axis=0)
    results = numpy_of(policy().changed(images, ops.array(kinds), float(magnitude), ops.array(signs)))
    assert results.dtype == "uint8"
    for name, sign, result in zip(names, signs[0], results, strict=True):
        strength = strength_of(policy, name, magnitude, sign)
        plain = image if channels == 3 else image[..., 0]
        expected = by_pil(plain, name, strength).reshape(image.shape)
        check(name, result, expected)


@pytest.mark.parametrize("colour", ["brightness", "solarize", "equalize"])
def test_colours_come_first_and_do_not_see_the_border(colour):
    layer = RandAugment()
    result = changed(layer, IMAGE, ["rotate", colour], 15, [1, 1])
    recoloured = by_pil(IMAGE, colour, strength_of(RandAugment, colour, 15, 1)).astype("uint8")
    distance = np.abs(result.astype(int) - by_pil(recoloured, "rotate", 15.0))
    assert (distance > 1).any(axis=-1).mean() < 0.01


def test_geometric_operations_are_composed_in_their_order():
    angle, shift = np.deg2rad(15), 75 / 331 * WIDTH
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    centre = np.array([WIDTH / 2, HEIGHT / 2])
    # Where a pixel (x, y) comes from: through the last operation first.
    offsets = {
        ("rotate", "translate_x"): centre - turn @ (centre + [shift, 0]),
        ("translate_x", "rotate"): centre - turn @ centre - [shift, 0],
    }
    for names, offset in offsets.items():
        coefficients = [*turn[0], offset[0], *turn[1], offset[1]]
        picture = Image.fromarray(IMAGE).transform((WIDTH, HEIGHT), Image.Transform.AFFINE, coefficients)
        check("rotate", changed(RandAugment(), IMAGE, names, 15, [1, 1]), np.asarray(picture).astype(int))


def test_a_channel_of_one_level_stays():
    flat = np.full((4, HEIGHT, WIDTH, 3), 77, "uint8")
    kinds = np.array([[OPERATIONS.index(name) for name in ("auto_contrast", "equalize") * 2]], "int32")
    result = RandAugment().changed(flat, ops.array(kinds), 9.0, ops.ones((1, 4)))
    np.testing.assert_array_equal(numpy_of(result), flat)


@pytest.mark.parametrize("policy", TABLES)
def test_operations_and_signs_are_drawn_evenly(policy):
    kinds, signs = map(numpy_of, policy(seed=1)._draws(2, 7000))
    counts = np.bincount(kinds.reshape(-1), minlength=len(OPERATIONS))
    assert len(counts) == 14 and (abs(counts - 1000) < 150).all()
    assert set(np.unique(signs)) == {-1, 1} and abs(signs.mean()) < 0.05
    assert abs(np.corrcoef(kinds)[0, 1]) < 0.05


def test_magnitudes_of_trivial_augment_reach_both_ends():
    # Where levels still rise by one from pixel to pixel, the image was shifted or stayed.
    ramp = np.broadcast_to(np.arange(1.0, 201)[None, :, None], (3, 200, 1)).astype("float32")
    result = apply(
        TrivialAugment(interpolation="bilinear", fill="nearest", seed=1), ramp[None].repeat(4000, 0)
    )
    moved = ramp[1, 100, 0] - result[:, 1, 100, 0]
    even = np.isclose(np.diff(result[:, 1, 90:110, 0]), 1, atol=1e-3).all(axis=1)
    moved = np.abs(moved[even])
    assert moved.max() == pytest.approx(32, abs=0.01) and moved.min() < 0.01


@pytest.mark.parametrize("policy", [RandAugment(3, 30, seed=2), TrivialAugment(seed=2)])
def test_results_stay_in_the_range_of_pixels(policy):
    images = np.random.default_rng(1).uniform(0, 255, (64, HEIGHT, WIDTH, 3)).astype("float32")
    result = apply(policy, images)
    assert np.isfinite(result).all() and result.min() >= 0 and result.max() <= 255
