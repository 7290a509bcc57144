"""The parts of a batch that replicas compute: together the batch, weighted so that their mean is its mean."""

import sys

import numpy as np
import pytest

from app.data.dataset import Split
from app.data.pipeline import Shard, evaluation_batches, num_steps, training_batches
from app.data.views import View

# Images in a batch, replicas: even, uneven, as many as replicas, fewer than replicas, one.
BATCHES = [(12, 3), (13, 3), (14, 4), (101, 3), (8, 8), (5, 8), (2, 3), (1, 4), (7, 1)]
WORKERS = {3: [3, 1], 4: [4, 2, 1], 8: [4, 2, 1], 1: [1]}  # devices of each worker, by replicas
SETTINGS = {"seed": 3, "batch_size": 8, "epochs": 3}
IMAGES = 42  # the last batch of an epoch has two, fewer than the replicas below
STEPS = num_steps(IMAGES, SETTINGS["batch_size"])


def shards(replicas, own):
    """Return the shard of every worker, each with so many devices."""
    return [Shard(replicas, range(start, start + own)) for start in range(0, replicas, own)]


@pytest.fixture
def split():
    """Every image differs from every other, from its mirror image, and tells its label."""
    images = np.random.RandomState(0).randint(0, 256, (IMAGES, 2, 4, 3)).astype(np.uint8)
    return Split(images, np.arange(IMAGES, dtype=np.int32), np.arange(IMAGES))


def arrays(stream):
    return [tuple(np.asarray(each) for each in batch) for batch in stream]


def assert_pieces(pieces, whole, replicas):
    """The parts of all replicas, in order, are the batches of a stream without a shard, split."""
    assert len(pieces) == replicas * len(whole)
    for place, (images, labels) in enumerate(whole):
        parts = pieces[place * replicas : (place + 1) * replicas]
        for part_images, part_labels, weights, size in parts:
            assert (part_images.dtype, part_labels.dtype) == (np.uint8, np.int32)
            assert (weights.dtype, size.dtype, size.shape) == (np.float32, np.float32, ())
            assert len(part_images) == len(part_labels) == len(weights) > 0
            assert size * replicas == pytest.approx(len(labels))
        for index, expected in ((0, images), (1, labels)):
            np.testing.assert_array_equal(np.concatenate([p[index][p[2] > 0] for p in parts]), expected)
        sizes = [np.count_nonzero(part[2]) for part in parts]
        assert max(sizes) - min(sizes) <= 1


def interleaved(streams, own):
    """Return the pieces of several workers' streams in the order of their replicas."""
    steps = len(streams[0]) // own
    assert all(len(stream) == steps * own for stream in streams)
    return [piece for step in range(steps) for stream in streams for piece in stream[step * own :][:own]]


@pytest.mark.parametrize(("images", "replicas"), BATCHES)
def test_parts_of_all_replicas_are_the_batch(images, replicas):
    positions = np.random.RandomState(1).permutation(1000)[:images]
    for own in WORKERS[replicas]:
        parts = [part for shard in shards(replicas, own) for part in shard.split(positions)]
        assert len(parts) == replicas
        counted = [part[weights > 0] for part, weights, _ in parts]
        assert np.concatenate(counted).tolist() == positions.tolist()
        assert max(map(len, counted)) - min(map(len, counted)) <= 1
        for part, weights, size in parts:
            assert len(part) == len(weights) >= 1 and size * replicas == pytest.approx(images)
            assert set(part) <= set(positions)  # also an image of weight 0 is of the batch
            assert (weights > 0).all() or (weights == 0).all()


@pytest.mark.parametrize(("images", "replicas"), BATCHES)
def test_mean_over_replicas_is_the_mean_of_the_batch(images, replicas):
    losses = np.random.RandomState(2).uniform(0.1, 5.0, 1000)
    positions = np.random.RandomState(1).permutation(1000)[:images]
    (shard,) = shards(replicas, replicas)
    parts = list(shard.split(positions))
    mean = sum(np.mean(weights.astype(float) * losses[part]) for part, weights, _ in parts) / replicas
    assert mean == pytest.approx(losses[positions].mean(), rel=1e-6)  # weights are float32
    # In float64 the weights themselves: every image counts the same, once.
    fractions = [weights.astype(float) / len(weights) / replicas for _, weights, _ in parts]
    np.testing.assert_allclose(sum(map(sum, fractions)), 1.0, rtol=1e-6)
    # A mean over batches that weighs each replica's mean by its size weighs each batch by its images.
    assert sum(float(size) for *_, size in parts) == pytest.approx(images)


@pytest.mark.parametrize(("replicas", "own"), [(3, 3), (4, 2), (4, 1), (1, 1)])
@pytest.mark.parametrize("position", [(0, 0), (1, 2), (2, STEPS - 1), (0, STEPS), (3, 0)])
def test_shared_stream_is_the_whole_one_split(split, monkeypatch, replicas, own, position):
    monkeypatch.setitem(sys.modules, "tensorflow", None)  # which takes a second a stream; see the next test
    epoch, step = position
    options = {**SETTINGS, "epoch": epoch, "step": step}
    whole = arrays(training_batches(split, **options))
    assert len(whole) == max(0, (3 - epoch) * STEPS - step)
    streams = [arrays(training_batches(split, **options, shard=each)) for each in shards(replicas, own)]
    assert_pieces(interleaved(streams, own) if whole else sum(streams, []), whole, replicas)


def test_shared_stream_flips_the_same_images(split, backend):
    for epoch, step in [(0, 0), (1, 3)]:
        options = {**SETTINGS, "epoch": epoch, "step": step, "alternating_flip": True}
        pieces = arrays(training_batches(split, **options, shard=Shard(3, range(3))))
        assert_pieces(pieces, arrays(training_batches(split, **options)), 3)


@pytest.mark.parametrize(("replicas", "own"), [(3, 3), (4, 2)])
@pytest.mark.parametrize("view", [None, View(1.0, True, 1)])
def test_shared_evaluation_is_the_whole_one_split(split, backend, replicas, own, view):
    whole = arrays(evaluation_batches(split, 8, view))
    streams = [arrays(evaluation_batches(split, 8, view, shard=each)) for each in shards(replicas, own)]
    assert_pieces(interleaved(streams, own), whole, replicas)


def test_the_specification_that_tensorflow_gets_of_a_shard(split):
    pytest.importorskip("tensorflow")
    shard = Shard(4, range(2, 4))
    for dataset, batches in (
        (training_batches(split, **SETTINGS, epoch=1, step=1, shard=shard), 2 * STEPS - 1),
        (evaluation_batches(split, 8, shard=shard), STEPS),
    ):
        assert int(dataset.cardinality()) == 2 * batches == len(list(dataset))
        assert [spec.shape.as_list() for spec in dataset.element_spec] == [
            [None, 2, 4, 3],
            [None],
            [None],
            [],
        ]
