"""How often classes and images appear where a sampler draws them."""

from collections import Counter

import numpy as np
import pytest

from app.config.dataset import DatasetConfig
from app.data.dataset import Dataset, Split
from app.data.datasets import load_dataset
from app.data.order import epoch_order, flipped_images, flipped_places
from app.data.pipeline import Shard, training_batches
from tests.data.test_shard import arrays, assert_pieces

COUNTS = {0: 60, 1: 25, 3: 9, 4: 1}  # images of each class; none of class 2
LABELS = np.random.RandomState(0).permutation(np.repeat(list(COUNTS), list(COUNTS.values())))
TOTAL = len(LABELS)
ROOTS = {label: count**0.5 for label, count in COUNTS.items()}
EXACT = {
    "balanced": dict.fromkeys(COUNTS, TOTAL / 4),
    "square_root": {label: TOTAL * root / sum(ROOTS.values()) for label, root in ROOTS.items()},
}
SAMPLERS = pytest.mark.parametrize("sampler", EXACT)
STREAM = {"seed": 3, "batch_size": 8, "epochs": 3, "sampler": "balanced", "alternating_flip": True}


@SAMPLERS
def test_classes_appear_as_often_as_they_should_and_images_of_a_class_alike(sampler):
    for epoch in range(20):
        order = epoch_order(1, epoch, LABELS, sampler)
        assert len(order) == TOTAL and order.dtype == np.int64
        assert epoch_order(1, epoch, LABELS, sampler).tolist() == order.tolist()
        classes, images = Counter(LABELS[order].tolist()), Counter(order.tolist())
        assert set(classes) == set(COUNTS)
        for label, exact in EXACT[sampler].items():
            assert abs(classes[label] - exact) < 1
            often = [images[position] for position in np.flatnonzero(LABELS == label)]
            assert sum(often) == classes[label] and max(often) - min(often) <= 1


@SAMPLERS
def test_over_many_epochs_each_class_gets_its_exact_number(sampler):
    drawn = np.concatenate([LABELS[epoch_order(2, epoch, LABELS, sampler)] for epoch in range(2000)])
    means = np.bincount(drawn) / 2000
    # The mean of 2,000 numbers, each rounded up or down, has a standard deviation of at most 0.011.
    np.testing.assert_allclose([means[label] for label in COUNTS], list(EXACT[sampler].values()), atol=0.05)


@SAMPLERS
def test_orders_differ_by_epoch_and_seed_and_classes_are_mixed(sampler):
    order = epoch_order(1, 0, LABELS, sampler)
    for other in (epoch_order(1, 1, LABELS, sampler), epoch_order(2, 0, LABELS, sampler)):
        assert other.tolist() != order.tolist()
    assert len(set(LABELS[order][:24].tolist())) >= 3


def test_balanced_classes_of_one_size_are_a_permutation():
    labels = np.arange(50) % 5
    for sampler in EXACT:
        assert sorted(epoch_order(0, 3, labels, sampler)) == list(range(50))


def dataset_of(labels, class_names):
    split = Split(np.zeros((len(labels), 1, 1, 1), np.uint8), np.asarray(labels), np.arange(len(labels)))
    return Dataset("made", tuple(class_names), split, split, None, "", "", "", ())


def test_balanced_weights_give_every_class_the_same_total():
    weights = dataset_of([0] * 6 + [1] * 3 + [3], "abcd").class_weights("balanced", None)
    assert weights == pytest.approx([10 / 24, 10 / 12, 0.0, 10 / 4])


@SAMPLERS
def test_balanced_weights_even_out_what_the_sampler_leaves(sampler):
    weights = dataset_of(LABELS, "abcde").class_weights("balanced", sampler)
    assert weights[2] == 0
    for label, exact in EXACT[sampler].items():
        assert (TOTAL / 5) / (exact + 1) < weights[label] < (TOTAL / 5) / (exact - 1)


def test_weights_by_name_are_1_where_there_is_none():
    assert dataset_of([0, 1, 2], "abc").class_weights({"c": 2.5, "a": 0.0}, "balanced") == [0.0, 1.0, 2.5]


def test_a_repeated_image_is_mirrored_every_other_time():
    for epoch in (0, 1):
        order = epoch_order(5, epoch, LABELS, "balanced")
        mirrored = flipped_places(5, epoch, order)
        first = flipped_images(5, epoch, TOTAL)
        assert max(Counter(order.tolist()).values()) > 20
        for image in set(order.tolist()):
            seen = mirrored[order == image].tolist()
            assert seen == [bool(first[image]) ^ bool(time % 2) for time in range(len(seen))]


@pytest.fixture
def split():
    images = np.random.RandomState(1).randint(0, 256, (TOTAL, 2, 4, 3)).astype(np.uint8)
    return Split(images, LABELS.astype(np.int32), np.arange(TOTAL))


def test_a_stream_is_the_order_wherever_it_starts(split, backend):
    whole = arrays(training_batches(split, **STREAM))
    orders = [epoch_order(3, epoch, LABELS, "balanced") for epoch in range(3)]
    expected = LABELS[np.concatenate(orders)].tolist()
    assert np.concatenate([labels for _, labels in whole]).tolist() == expected
    for epoch, step in [(0, 5), (1, 0), (2, 11)]:
        rest = arrays(training_batches(split, **STREAM, epoch=epoch, step=step))
        assert len(rest) == 36 - 12 * epoch - step
        for one, other in zip(rest, whole[12 * epoch + step :], strict=True):
            for part, same in zip(one, other, strict=True):
                np.testing.assert_array_equal(part, same)


def test_shards_are_the_batch(split, backend):
    whole = arrays(training_batches(split, **STREAM))
    pieces = arrays(training_batches(split, **STREAM, shard=Shard(3, range(3))))
    assert_pieces(pieces, whole, 3)


def test_the_data_say_how_they_are_drawn():
    config = DatasetConfig(name="digits", image_size=(8, 8))
    plain = load_dataset(config)
    for sampler, often in (
        ("square_root", "by the square root of their images"),
        ("balanced", "equally often"),
    ):
        drawn = load_dataset(config.model_copy(update={"sampler": sampler}))
        assert drawn.split_rule == f"{plain.split_rule}; training draws classes {often}"
        assert drawn.fingerprint == plain.fingerprint
