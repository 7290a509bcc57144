"""mixup and CutMix against NumPy: pixels and losses from the same draws, and what is drawn."""

import keras
import numpy as np
import pytest
from keras import ops

from models import augmentation_layer
from models.augmentation import mixing
from models.augmentation.mixing import Cutmix, Mixup, augment, blend
from models.losses import SparseCrossentropy
from tests.models.test_augmentation import compiled, numpy_of
from tests.models.test_classifier import IMAGES, LABELS, make_mixing
from tests.models.test_losses import gradient

RNG = np.random.default_rng(0)
BATCH = RNG.integers(0, 256, (64, 9, 12, 3)).astype("float32")
BOTH = [("mixup", {"alpha": 0.6, "probability": 0.4}), ("cutmix", {"alpha": 1.5, "probability": 0.5})]
CASES = {"mixup": [("mixup", {"alpha": 0.3})], "cutmix": [("cutmix", {})], "both": BOTH}
PARTNERS = RNG.permutation(24)
WEIGHTS = RNG.uniform(0.5, 1.0, 24).astype("float32")
LOGITS = RNG.normal(0, 3, (24, 3)).astype("float32")


def layers_of(case, seed=1):
    return [augmentation_layer(name, seed=seed, **arguments) for name, arguments in CASES[case]]


@pytest.fixture
def drawn(monkeypatch):
    """Every draw of the layers, in order."""
    draws = []

    def noting(function):
        def noted(*args, **kwargs):
            draws.append(numpy_of(function(*args, **kwargs)))
            return ops.convert_to_tensor(draws[-1])

        return noted

    for name in ("uniform", "shuffle"):
        monkeypatch.setattr(mixing.random, name, noting(getattr(mixing.random, name)))
    return draws


def beta_of(draws, alpha):
    first, second = draws.astype("float64")
    t = np.sqrt(2 * alpha * (first ** (-1 / alpha) - 1)) * np.cos(2 * np.pi * second)
    return 0.5 + 0.5 * t / np.sqrt(2 * alpha + t * t)


def box_of(weight, row, column, height, width):
    """The box of the authors' code, for centres as fractions."""
    tall, wide = int(height * np.sqrt(1 - weight)), int(width * np.sqrt(1 - weight))
    row, column = int(row * height), int(column * width)
    return (
        slice(max(row - tall // 2, 0), min(row + tall // 2, height)),
        slice(max(column - wide // 2, 0), min(column + wide // 2, width)),
    )


def mixed_in_numpy(case, images, draws):
    """One image after the other, as the papers have it; then the heavier image is called the row's own."""
    draws = iter(draws)
    partners, coins = next(draws), next(draws)
    given = {
        name: (beta_of(next(draws), arguments.get("alpha", 1.0)), next(draws) if name == "cutmix" else None)
        for name, arguments in CASES[case]
    }
    height, width = images.shape[1:3]
    results, weights = [], []
    for i, partner in enumerate(partners):
        one, other, weight, limit = images[i].astype("float64"), images[partner].astype("float64"), 1.0, 0.0
        result = one
        for name, arguments in CASES[case]:
            low, limit = limit, limit + arguments.get("probability", 1.0)
            if not low <= coins[i] < limit:
                continue
            lambdas, centres = given[name]
            weight = lambdas[i]
            if name == "cutmix":
                box = box_of(weight, *centres[:, i], height, width)
                inside = np.zeros((height, width, 1))
                inside[box] = 1
                weight = 1 - inside.mean()
                result = np.where(inside == (weight >= 0.5), other, one)
            else:
                result = max(weight, 1 - weight) * one + min(weight, 1 - weight) * other
        results.append(result)
        weights.append(max(weight, 1 - weight))
    return np.stack(results), partners, np.array(weights)


@pytest.mark.parametrize("case", CASES)
def test_pixels_and_weights_equal_numpy(drawn, case):
    images, mix = augment(layers_of(case), BATCH)
    expected, partners, weights = mixed_in_numpy(case, BATCH, drawn)
    np.testing.assert_array_equal(mix.partner, partners)
    np.testing.assert_allclose(mix.weight, weights, atol=1e-5)
    np.testing.assert_allclose(images, expected, atol=5e-3)
    assert sorted(partners) == list(range(64)) and len(np.unique(weights)) > 10
    if case == "cutmix":  # whole pixels, and a weight that is their number
        np.testing.assert_array_equal(images, expected)
        own = (numpy_of(images) == BATCH).all(axis=-1).mean(axis=(1, 2))
        other = partners != np.arange(64)
        np.testing.assert_allclose(numpy_of(mix.weight)[other], own[other], atol=1e-6)


def test_other_layers_come_first_and_pixels_stay_in_range(drawn):
    brighter = keras.layers.RandomBrightness([0.6, 0.6], value_range=(0, 1000), dtype="float32")
    images, _ = augment([*layers_of("mixup"), brighter], BATCH)
    seen = np.clip(numpy_of(brighter(BATCH, training=True)), 0, 255)
    np.testing.assert_allclose(images, mixed_in_numpy("mixup", seen, drawn)[0], atol=5e-3)
    assert numpy_of(images).max() <= 255.001


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("dtype", ["uint8", "bfloat16"])
def test_a_layer_alone_keeps_the_dtype_and_mixes_in_training_only(case, dtype):
    layer, images = layers_of(case)[-1], ops.cast(BATCH, dtype)
    result = layer(images, training=True)
    assert keras.backend.standardize_dtype(result.dtype) == dtype
    exact = numpy_of(layers_of(case)[-1](ops.cast(images, "float32"), training=True))
    np.testing.assert_allclose(ops.cast(result, "float32"), exact, atol=0.501 if dtype == "uint8" else 1.0)
    np.testing.assert_array_equal(layer(images, training=False), images)


@pytest.mark.parametrize("case", CASES)
def test_xla_mixes_what_it_says(case):
    layers = layers_of(case)
    if keras.backend.backend() == "jax":
        step = compiled(layers[-1])  # the draws are those of eager calls
        np.testing.assert_allclose(step(BATCH), layers_of(case)[-1](BATCH, training=True), atol=5e-3)
        return
    import tensorflow as tf

    step = tf.function(lambda images: augment(layers, images), jit_compile=True)
    for _ in range(2):
        images, mix = step(BATCH)
        own, others = BATCH, BATCH[numpy_of(mix.partner)]
        part = numpy_of(mix.weight)[:, None, None, None]
        if case == "mixup":
            np.testing.assert_allclose(images, part * own + (1 - part) * others, atol=5e-3)
        if case == "cutmix":
            own_pixels = (numpy_of(images) == own).all(axis=-1, keepdims=True)
            np.testing.assert_array_equal(images, np.where(own_pixels, own, others))
        assert sorted(numpy_of(mix.partner)) == list(range(64))
    assert not np.array_equal(step(BATCH)[0], step(BATCH)[0])


@pytest.mark.parametrize("alpha", [0.05, 0.4, 1.0, 5.0])
def test_lambda_has_its_beta_distribution(alpha):
    draws = numpy_of(Mixup(alpha, seed=2)._lambda(20_000))
    other = np.random.default_rng(1).beta(alpha, alpha, 20_000)
    assert np.isfinite(draws).all() and 0 <= draws.min() and draws.max() <= 1
    assert abs(draws.mean() - 0.5) < 0.02 and abs(draws.var() - 1 / (4 * (2 * alpha + 1))) < 0.01
    for place in (0.01, 0.1, 0.25, 0.4, 0.6, 0.75, 0.9, 0.99):
        assert abs((draws < place).mean() - (other < place).mean()) < 0.025


def test_boxes_have_the_areas_and_places_of_the_authors_code():
    own, weight = map(numpy_of, Cutmix(alpha=1.0, seed=2).draw(20_000, 9, 12))
    generator = np.random.default_rng(1)
    expected = np.ones((20_000, 9, 12))
    for kept, row in zip(expected, generator.uniform(size=(20_000, 3)), strict=True):
        kept[box_of(*row, 9, 12)] = 0
    np.testing.assert_allclose(own.mean(axis=(1, 2, 3)), weight, atol=1e-6)
    np.testing.assert_allclose(own[..., 0].mean(axis=0), expected.mean(axis=0), atol=0.025)
    for place in (0.3, 0.5, 0.7, 0.8, 0.9, 0.99):
        assert abs((weight < place).mean() - (expected.mean(axis=(1, 2)) < place).mean()) < 0.025


def test_each_layer_mixes_its_fraction_of_the_images_and_none_is_mixed_twice():
    black, white = np.zeros((4000, 8, 8, 1), "float32"), np.full((4000, 8, 8, 1), 255.0, "float32")
    layers = [Mixup(5.0, 0.3, seed=1), Cutmix(5.0, 0.5, seed=2)]
    images, weight = map(numpy_of, blend(layers, black, white))
    pure = np.isin(images, (0, 255)).all(axis=(1, 2, 3))
    mixed_up, cut = ~pure, pure & (images.max(axis=(1, 2, 3)) == 255)
    assert abs(mixed_up.mean() - 0.3) < 0.05 and abs(cut.mean() - 0.5) < 0.05
    assert (weight[~mixed_up & ~cut] == 1).all() and weight.min() >= 0.5
    np.testing.assert_allclose(1 - images.mean(axis=(1, 2, 3)) / 255, weight, atol=1e-5)


@pytest.mark.parametrize("rows", [1, 2])
def test_the_smallest_batches_mix_among_themselves(rows):
    images, mix = augment(layers_of("mixup"), BATCH[:rows])
    assert set(numpy_of(mix.partner)) == set(range(rows))
    if rows == 1:
        np.testing.assert_allclose(images, BATCH[:1], rtol=1e-6)


def loss_in_numpy(logits, labels, smoothing, class_weight, sample_weight, partners, weights):
    """The mean loss, and its gradient by the logits."""
    logits = logits.astype("float64")
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    probabilities = exponentials / exponentials.sum(axis=1, keepdims=True)
    total, gradients = 0.0, np.zeros_like(logits)
    for i, partner in enumerate(partners):
        for label, weight in ((labels[i], weights[i]), (labels[partner], 1 - weights[i])):
            target = np.full(3, smoothing / 3)
            target[label] += 1 - smoothing
            factor = weight * class_weight[label] * sample_weight[i] / len(labels)
            total -= factor * target @ np.log(probabilities[i])
            gradients[i] += factor * (probabilities[i] - target)
    return total, gradients


@pytest.mark.parametrize("class_weight", [None, [0.5, 2.0, 1.2]])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_loss_and_gradient_equal_numpy(smoothing, class_weight):
    sample_weight = np.random.default_rng(1).uniform(0, 2, 24).astype("float32")
    loss = SparseCrossentropy(label_smoothing=smoothing, class_weight=class_weight)
    loss.training, loss.mix = True, mixing.Mix(PARTNERS, WEIGHTS)
    expected, slopes = loss_in_numpy(
        LOGITS, LABELS, smoothing, class_weight or [1, 1, 1], sample_weight, PARTNERS, WEIGHTS
    )
    assert float(loss(LABELS, LOGITS, sample_weight)) == pytest.approx(expected, rel=1e-5)
    found = gradient(lambda logits: loss(LABELS, logits, sample_weight), ops.convert_to_tensor(LOGITS))
    np.testing.assert_allclose(found, slopes, atol=1e-6)


def test_the_step_hands_what_it_mixed_to_the_loss_of_that_step_alone():
    classifier = make_mixing()
    classifier.compile("sgd", SparseCrossentropy(label_smoothing=0.1))
    logits = classifier(IMAGES, training=True)
    partners, weights = map(numpy_of, classifier._handed.mix)
    sample_weight = np.random.default_rng(1).uniform(0, 2, 24).astype("float32")
    expected, _ = loss_in_numpy(numpy_of(logits), LABELS, 0.1, [1, 1, 1], sample_weight, partners, weights)
    labels = ops.convert_to_tensor(LABELS)
    assert float(classifier.compute_loss(IMAGES, labels, logits, sample_weight)) == pytest.approx(
        expected, rel=1e-5
    )
    classifier(IMAGES, training=True)  # left unused, it must not reach the validation that follows
    plain = keras.losses.SparseCategoricalCrossentropy(from_logits=True)(LABELS, LOGITS)
    logits = ops.convert_to_tensor(LOGITS)
    assert float(classifier.compute_loss(IMAGES, labels, logits, training=False)) == pytest.approx(
        float(plain), rel=1e-6
    )


def test_eager_and_compiled_steps_train_alike():
    losses, weights = [], []
    for eagerly in (True, False):
        classifier = make_mixing()
        classifier.network.dropout.rate = 0.0
        classifier.compile(
            keras.optimizers.SGD(0.05), SparseCrossentropy(label_smoothing=0.1), run_eagerly=eagerly
        )
        history = classifier.fit(IMAGES, LABELS, batch_size=10, epochs=2, shuffle=False, verbose=0)
        losses.append(history.history["loss"])
        weights.append(classifier.network.get_weights())
    np.testing.assert_allclose(*losses, rtol=1e-4)
    for one, other in zip(*weights, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("arguments", [{"alpha": 0}, {"probability": 0}, {"probability": 1.5}])
def test_bad_arguments_are_named(arguments):
    for name in ("mixup", "cutmix"):
        with pytest.raises(ValueError, match="Received"):
            augmentation_layer(name, **arguments)
