"""The order of training images, and streams that start anywhere."""

import sys

import numpy as np
import pytest

from app.data.pipeline import epoch_order, evaluation_batches, num_steps, training_batches
from app.data.splits import Split

SETTINGS = {"seed": 3, "batch_size": 8, "epochs": 3}


@pytest.fixture
def split():
    images = np.arange(60, dtype=np.uint8).repeat(12).reshape(60, 2, 2, 3)
    rows = np.arange(50, 29, -1)
    return Split(images, rows.astype(np.int32), rows)


@pytest.fixture(params=["tensorflow", "numpy"])
def backend(request, monkeypatch):
    if request.param == "numpy":
        monkeypatch.setitem(sys.modules, "tensorflow", None)
    return request.param


def collect(stream):
    batches = [(np.asarray(images), np.asarray(labels)) for images, labels in stream]
    for images, labels in batches:
        assert images.dtype == np.uint8 and labels.dtype == np.int32
        np.testing.assert_array_equal(images[:, 0, 0, 0], labels)
    return [labels.tolist() for _, labels in batches]


def test_epoch_order():
    order = epoch_order(0, 0, 1000)
    assert order.dtype == np.int64 and sorted(order) == list(range(1000))
    assert epoch_order(0, 0, 1000).tolist() == order.tolist()
    for other in (epoch_order(0, 1, 1000), epoch_order(1, 0, 1000)):
        assert other.tolist() != order.tolist()
    assert epoch_order(2**32 - 1, 2, 8).tolist() == [2, 1, 5, 0, 4, 7, 6, 3]


def test_a_stream_holds_every_image_once_an_epoch(split, backend):
    batches = collect(training_batches(split, **SETTINGS))
    assert [len(batch) for batch in batches] == [8, 8, 5] * 3 and num_steps(21, 8) == 3
    epochs = [sum(batches[start : start + 3], []) for start in (0, 3, 6)]
    assert all(sorted(epoch) == list(range(30, 51)) for epoch in epochs)
    assert epochs[0] == split.labels[epoch_order(3, 0, 21)].tolist() != epochs[1]


@pytest.mark.parametrize(("epoch", "step"), [(0, 0), (0, 2), (1, 0), (1, 1), (0, 3), (2, 2), (3, 0)])
def test_a_stream_starts_anywhere(split, backend, epoch, step):
    whole = collect(training_batches(split, **SETTINGS))
    assert collect(training_batches(split, **SETTINGS, epoch=epoch, step=step)) == whole[3 * epoch + step :]


def test_a_batch_larger_than_the_data(split, backend):
    assert [len(b) for b in collect(training_batches(split, seed=0, batch_size=100, epochs=2))] == [21, 21]


def test_evaluation_keeps_the_order(split, backend):
    assert sum(collect(evaluation_batches(split, 8)), []) == split.labels.tolist()


def test_what_tensorflow_is_told(split):
    dataset = training_batches(split, **SETTINGS, epoch=1, step=1)
    images, labels = dataset.element_spec
    assert images.shape.as_list() == [None, 2, 2, 3] and labels.shape.as_list() == [None]
    assert int(dataset.cardinality()) == 5
    evaluation = evaluation_batches(split, 8)
    assert int(evaluation.cardinality()) == 3 and collect(evaluation) == collect(evaluation)
