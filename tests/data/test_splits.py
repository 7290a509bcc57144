"""Validation data and normalisation constants."""

import numpy as np
import pytest

from app.config.dataset import DatasetConfig, Fold
from app.data.dataset import Split, whole_split
from app.data.normalization import normalization_constants
from app.data.splits import fold_numbers, stratified, subsample
from app.errors import UserError


@pytest.fixture
def split():
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1, 2], [50, 20, 3])
    images = rng.integers(0, 256, (100, 4, 5, 3), dtype=np.uint8)
    images[:, 0, 0] = 9  # constant over images
    return Split(images, rng.permutation(labels).astype(np.int32), rng.permutation(100)[:73])


def test_stratified(split):
    train, val = stratified(split, 0.1, 7, ("a", "b", "c"))
    assert np.bincount(val.labels).tolist() == [5, 2, 1] and len(train) == 65
    assert sorted([*train.rows, *val.rows]) == sorted(split.rows)
    both = dict(zip(split.rows, split.labels, strict=True))
    assert all(both[row] == label for row, label in zip(val.rows, val.labels, strict=True))
    again, other = (
        stratified(split, 0.1, 7, ("a", "b", "c"))[1],
        stratified(split, 0.1, 8, ("a", "b", "c"))[1],
    )
    np.testing.assert_array_equal(val.rows, again.rows)
    assert set(val.rows) != set(other.rows)


@pytest.mark.parametrize("fraction", [0.001, 0.999])
def test_each_part_keeps_an_image_of_each_class(split, fraction):
    for part in stratified(split, fraction, 0, ("a", "b", "c")):
        assert set(part.labels) == {0, 1, 2}


def test_the_draw_does_not_change_between_versions():
    val = stratified(whole_split(np.zeros((20, 1, 1, 1), np.uint8), np.arange(20) % 2), 0.2, 0, ("a", "b"))[1]
    assert val.rows.tolist() == [5, 6, 8, 19]


def test_subsample(split):
    part = subsample(split, 0.1, len(split), 7, 3)
    assert np.bincount(part.labels).tolist() == [5, 2, 1]
    kept = np.isin(split.rows, part.rows)
    np.testing.assert_array_equal(split.rows[kept], part.rows)
    np.testing.assert_array_equal(split.labels[kept], part.labels)
    assert set(part.rows) != set(subsample(split, 0.1, len(split), 8, 3).rows)


def test_subsample_counts_from_all_training_images_and_leaves_validation_alone():
    whole = whole_split(np.zeros((1000, 1, 1, 1), np.uint8), np.arange(1000) % 10)
    rest, val = stratified(whole, 0.1, 0, tuple("abcdefghij"))
    part = subsample(rest, 0.2, len(whole), 0, 10)
    assert np.bincount(part.labels).tolist() == [20] * 10
    assert not set(part.rows) & set(val.rows)
    assert len(subsample(rest, 0.9, len(whole), 0, 10)) == 900
    with pytest.raises(UserError, match=r"950 of the 1,000 .* leaves 900; choose at most 0.9, or leave"):
        subsample(rest, 0.95, len(whole), 0, 10)
    rest = whole_split(np.zeros((26_000, 1, 1, 1), np.uint8), np.arange(26_000) % 10)
    with pytest.raises(UserError, match=r"leaves 26,000; choose at most 0.8666, or leave"):
        subsample(rest, 0.9, 30_000, 0, 10)
    assert len(subsample(rest, 0.8666, 30_000, 0, 10)) == 26_000  # 2,599.8 of each class


def test_constants(split, monkeypatch):
    monkeypatch.setattr("app.data.dataset.CHUNK_ELEMENTS", 600)
    pixels = split.images[split.rows] / 255
    assert normalization_constants("none", split) == {"mean": 0.0, "deviation": 1 / 255}
    assert normalization_constants("unit", split) == {"mean": 0.0, "deviation": 1.0}
    assert normalization_constants("symmetric", split) == {"mean": 0.5, "deviation": 0.5}
    channel = normalization_constants("per_channel", split)
    np.testing.assert_allclose(channel["mean"], pixels.mean(axis=(0, 1, 2)), rtol=1e-12)
    np.testing.assert_allclose(channel["deviation"], pixels.std(axis=(0, 1, 2)), rtol=1e-12)
    pixel = normalization_constants("per_pixel", split)
    expected = pixels.std(axis=0)
    expected[0, 0] = 1.0
    assert pixel["mean"] == pytest.approx(pixels.mean(), rel=1e-12)
    np.testing.assert_allclose(pixel["deviation"], expected, rtol=1e-10)


@pytest.mark.parametrize("of", [2, 3, 7])
def test_folds_are_even_in_each_class_and_in_all(split, of):
    rare = Split(split.images, np.where(split.labels == 2, 1, split.labels), split.rows)
    folds = fold_numbers(rare, of, 7, ("a", "b"))
    assert folds.shape == (73,) and set(folds) == set(range(of))
    counts = np.array([np.bincount(rare.labels[folds == fold], minlength=2) for fold in range(of)])
    assert (np.ptp(counts, axis=0) <= 1).all() and np.ptp(counts.sum(1)) <= 1
    np.testing.assert_array_equal(folds, fold_numbers(rare, of, 7, ("a", "b")))
    assert (folds != fold_numbers(rare, of, 8, ("a", "b"))).any()


def test_copies_of_an_image_are_in_one_fold_whatever_their_labels():
    images = np.random.default_rng(0).integers(0, 256, (60, 4, 4, 1), dtype=np.uint8)
    images[30:40] = images[:10]  # pairs, of which every second has two labels
    images[50:] = images[20]  # and eleven copies of one
    labels = np.arange(60) % 3
    labels[30:40:2] = labels[:10:2]
    folds = fold_numbers(whole_split(images, labels), 3, 0, ("a", "b", "c"))
    np.testing.assert_array_equal(folds[30:40], folds[:10])
    assert set(folds[50:]) == {folds[20]}
    assert np.ptp(np.bincount(folds)) <= 11  # what cannot be divided
    for fold in range(3):
        assert set(labels[folds == fold]) == {0, 1, 2}


def test_more_folds_than_different_images_of_a_class_are_refused(split):
    with pytest.raises(UserError, match=r"class 'c' has 3 different training images, .* 4 folds"):
        fold_numbers(split, 4, 0, ("a", "b", "c"))
    split.images[split.rows[split.labels == 2]] = 0
    with pytest.raises(UserError, match="class 'c' has 1 different training images"):
        fold_numbers(split, 2, 0, ("a", "b", "c"))


def test_the_draw_of_folds_does_not_change_between_versions():
    images = np.arange(12, dtype=np.uint8).reshape(12, 1, 1, 1)
    folds = fold_numbers(whole_split(images, np.arange(12) % 2), 3, 0, ("a", "b"))
    assert folds.tolist() == [2, 2, 0, 0, 1, 0, 1, 1, 2, 2, 0, 1]


@pytest.mark.parametrize("validation", [0.1, "test"])
def test_a_fold_takes_the_place_of_validation(load, write_images, validation):
    for part, count in (("train", 6), ("val", 3), ("test", 2)):
        write_images(f"image_folder/{part}", count=count)
    parts = [load(validation=validation, fold=Fold(of=3, index=index)) for index in range(3)]
    held_out = [data.val.files_at(np.arange(len(data.val))) for data in parts]
    assert sorted(sum(held_out, [])) == [f"train/{name}/{n}.png" for name in ("cat", "dog") for n in range(6)]
    assert [(len(data.train), len(data.val), len(data.test)) for data in parts] == [(8, 4, 4)] * 3
    assert len({data.fingerprint for data in parts}) == 1
    assert not DatasetConfig(name="digits", validation=validation, fold=Fold(of=2, index=1)).validates_on_test
    few = load(validation=validation, fold=Fold(of=3, index=0), train_share=0.5)
    assert len(few.train) == 6 and few.val.rows.tolist() == parts[0].val.rows.tolist()
