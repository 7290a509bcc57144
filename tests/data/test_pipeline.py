"""The order of training images, and streams that start anywhere."""

import sys

import keras
import numpy as np
import pytest

from app.data.dataset import Split
from app.data.order import OLD_FLIP_STREAM, SPLIT_STREAM, epoch_order, flipped_images
from app.data.pipeline import evaluation_batches, num_steps, training_batches
from app.data.views import VIEWS, View

SETTINGS = {"seed": 3, "batch_size": 8, "epochs": 3}
OLD_FLIPS = [0, 2, 4, 5, 6, 8, 11, 14, 16, 19]  # of seed 3 in the first epoch, as older runs have them


@pytest.fixture
def split():
    images = np.arange(60, dtype=np.uint8).repeat(12).reshape(60, 2, 2, 3)
    rows = np.arange(50, 29, -1)
    return Split(images, rows.astype(np.int32), rows)


def collect(stream):
    batches = [(np.asarray(images), np.asarray(labels)) for images, labels in stream]
    for images, labels in batches:
        assert images.dtype == np.uint8 and labels.dtype == np.int32
        np.testing.assert_array_equal(images[:, 0, 0, 0], labels)
    return [labels.tolist() for _, labels in batches]


def test_epoch_order():
    labels = np.zeros(1000, np.int32)
    order = epoch_order(0, 0, labels)
    assert order.dtype == np.int64 and sorted(order) == list(range(1000))
    assert epoch_order(0, 0, labels).tolist() == order.tolist()
    for other in (epoch_order(0, 1, labels), epoch_order(1, 0, labels)):
        assert other.tolist() != order.tolist()
    assert epoch_order(2**32 - 1, 2, labels[:8]).tolist() == [2, 1, 5, 0, 4, 7, 6, 3]


def test_a_stream_holds_every_image_once_an_epoch(split, backend):
    batches = collect(training_batches(split, **SETTINGS))
    assert [len(batch) for batch in batches] == [8, 8, 5] * 3 and num_steps(21, 8) == 3
    epochs = [sum(batches[start : start + 3], []) for start in (0, 3, 6)]
    assert all(sorted(epoch) == list(range(30, 51)) for epoch in epochs)
    assert epochs[0] == split.labels[epoch_order(3, 0, split.labels)].tolist() != epochs[1]


@pytest.mark.parametrize(("epoch", "step"), [(0, 0), (0, 2), (1, 0), (1, 1), (0, 3), (2, 2), (3, 0)])
def test_a_stream_starts_anywhere(split, backend, epoch, step):
    whole = collect(training_batches(split, **SETTINGS))
    assert collect(training_batches(split, **SETTINGS, epoch=epoch, step=step)) == whole[3 * epoch + step :]


def test_a_batch_larger_than_the_data(split, backend):
    assert [len(b) for b in collect(training_batches(split, seed=0, batch_size=100, epochs=2))] == [21, 21]


def test_evaluation_keeps_the_order(split, backend):
    batches = evaluation_batches(split, 8)
    assert sum(collect(batches), []) == split.labels.tolist()
    assert sum(collect(batches), []) == split.labels.tolist()  # the same after the next epoch


def test_validation_without_tensorflow_sees_every_image_after_every_epoch(split, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    adapter = keras.src.trainers.data_adapters.get_data_adapter(evaluation_batches(split, 3))
    for _ in range(2):
        assert [len(labels) for _, labels in adapter.get_numpy_iterator()] == [3] * 7
        adapter.on_epoch_end()


def test_what_tensorflow_is_told(split):
    dataset = training_batches(split, **SETTINGS, epoch=1, step=1)
    images, labels = dataset.element_spec
    assert images.shape.as_list() == [None, 2, 2, 3] and labels.shape.as_list() == [None]
    assert int(dataset.cardinality()) == 5
    evaluation = evaluation_batches(split, 8)
    assert int(evaluation.cardinality()) == 3 and collect(evaluation) == collect(evaluation)


def test_alternating_flip_shows_every_image_both_ways_in_two_epochs():
    first, second, third = (flipped_images(5, epoch, 10_000) for epoch in range(3))
    assert 0.48 < first.mean() < 0.52
    assert (first != second).all() and (first == third).all()
    assert (flipped_images(6, 0, 10_000) != first).any()


def test_coins_of_the_flip_are_not_those_of_a_split():
    """As they were, where `seed` equals `split_seed`, for class 1."""

    def numbers(stream):
        return np.random.Generator(np.random.Philox(key=np.array([0, stream], np.uint64))).random(10_000)

    assert (flipped_images(0, 0, 10_000, OLD_FLIP_STREAM) == (numbers(SPLIT_STREAM + 1) < 0.5)).all()
    flipped = flipped_images(0, 0, 10_000)
    for stream in [*range(100), *range(SPLIT_STREAM, SPLIT_STREAM + 1000)]:
        assert 0.45 < np.mean(flipped == (numbers(stream) < 0.5)) < 0.55


def test_order_of_flips_does_not_change_between_versions(split):
    assert np.flatnonzero(flipped_images(3, 0, 21)).tolist() == [4, 5, 7, 11, 13, 14, 15, 17, 18, 19]
    assert np.flatnonzero(flipped_images(3, 0, 21, OLD_FLIP_STREAM)).tolist() == OLD_FLIPS
    images = np.arange(21 * 4, dtype=np.uint8).reshape(21, 1, 4, 1)
    (batch,) = training_batches(
        Split(images, np.arange(21, dtype=np.int32), np.arange(21)),
        seed=3, batch_size=21, epochs=1, alternating_flip=True, flip_stream=OLD_FLIP_STREAM,
    )  # fmt: skip
    mirrored = [
        label for image, label in zip(*map(np.asarray, batch), strict=True) if image[0, 0] > image[0, 3]
    ]
    assert sorted(mirrored) == OLD_FLIPS


def test_alternating_flip_mirrors_what_it_says_wherever_the_stream_starts(backend):
    images = np.random.RandomState(0).randint(0, 256, (21, 2, 4, 3)).astype(np.uint8)
    split = Split(images, np.arange(21, dtype=np.int32), np.arange(21))
    for epoch, step in [(0, 0), (1, 1)]:
        stream = training_batches(split, **SETTINGS, epoch=epoch, step=step, alternating_flip=True)
        place = 3 * epoch + step
        for batch, labels in stream:
            flipped = flipped_images(SETTINGS["seed"], place // 3, 21)
            for image, label in zip(np.asarray(batch), np.asarray(labels), strict=True):
                expected = images[label, :, ::-1] if flipped[label] else images[label]
                np.testing.assert_array_equal(image, expected)
            place += 1
    np.testing.assert_array_equal(images, np.random.RandomState(0).randint(0, 256, (21, 2, 4, 3)))


def test_views_flip_and_shift_with_mirrored_borders():
    image = np.arange(9, dtype=np.uint8).reshape(1, 3, 3, 1)
    seen = [View(1.0, flip, shift).of(image)[0, :, :, 0].tolist() for flip, shift in [(True, 0), (False, 1)]]
    assert seen[0] == [[2, 1, 0], [5, 4, 3], [8, 7, 6]]
    assert seen[1] == [[4, 3, 4], [1, 0, 1], [4, 3, 4]]  # down and to the right
    assert View(1.0, shift_pixels=-1).of(image)[0, :2, :2, 0].tolist() == [[4, 5], [7, 8]]


@pytest.mark.parametrize("views", VIEWS.values(), ids=VIEWS)
def test_weights_of_views_add_up(views):
    assert sum(view.weight for view in views) == 1.0
    assert len(set(views)) == len(views) and View(0, *views[0][1:]) == View(0)


def test_evaluation_sees_the_view(split, backend):
    view = View(1.0, flip=True)
    plain, seen = evaluation_batches(split, 8), evaluation_batches(split, 8, view)
    for (images, labels), (mirrored, same) in zip(plain, seen, strict=True):
        np.testing.assert_array_equal(view.of(np.asarray(images)), mirrored)
        np.testing.assert_array_equal(labels, same)
