"""Draws images of each class: for validation, for folds, and to train on fewer of them."""

import dataclasses
import math

import numpy as np

from app.config.dataset import DatasetConfig
from app.data.dataset import Source, Split
from app.data.order import SPLIT_STREAM, generator
from app.errors import UserError


def divide(source: Source, config: DatasetConfig) -> tuple[Split, Split, Split | None, str]:
    """Return training, validation and test split, and a description of the rule.

    Raises:
        UserError: There are too few images of a class, or there is no test split to validate on.
    """
    validation, seed, fold = config.validation, config.split_seed, config.fold
    if fold is not None:
        held_out = fold_numbers(source.train, fold.of, seed, source.class_names) == fold.index
        rule = f"fold {fold.index + 1} of {fold.of} of the training split, drawn with seed {seed}"
        return subset(source.train, ~held_out), subset(source.train, held_out), source.test, rule
    if isinstance(validation, str):
        if source.test is None:
            raise UserError(
                f"dataset.validation: 'test' needs a test split; there is none in: {source.text}. "
                "Give the fraction of the training images to validate on, such as 0.1."
            )
        return source.train, source.test, None, "the test split is the validation split; no other test data"
    if source.val is not None:
        rule = "the validation split is the data's own (its val/ folder)"
        return source.train, source.val, source.test, rule
    train, val = stratified(source.train, validation, seed, source.class_names)
    rule = f"{validation:.4g} of each class of the training split, drawn with seed {seed}"
    return train, val, source.test, rule


def stratified(split: Split, fraction: float, seed: int, class_names: tuple[str, ...]) -> tuple[Split, Split]:
    """Divide a split in two with `fraction` of each class, drawn by `seed`, in the second.

    Which images of a class are drawn depends on the seed, the class and its number of images alone. Both
    parts keep the order of the given split.

    Args:
        split: What to divide.
        fraction: How much of each class goes to the second part, above 0 and below 1. Each part gets one
            image of each class at least.
        seed: Names the draw.
        class_names: For the message.

    Returns:
        The rest and the drawn images.

    Raises:
        UserError: A class has a single image, so it cannot be in both.
    """
    chosen = np.zeros(len(split), bool)
    for label, class_name in enumerate(class_names):
        positions = np.flatnonzero(split.labels == label)
        if len(positions) == 1:
            raise UserError(
                f"class {class_name!r} has one training image; it takes two to validate on one of them "
                "(dataset.validation). Add images, remove the class, or provide a val/ folder."
            )
        if len(positions) > 1:
            count = min(max(round(fraction * len(positions)), 1), len(positions) - 1)
            chosen[generator(seed, SPLIT_STREAM + label).permutation(positions)[:count]] = True
    return subset(split, ~chosen), subset(split, chosen)


def subsample(rest: Split, fraction: float, total: int, seed: int, num_classes: int) -> Split:
    """Return the images that `dataset.train_share` leaves to train on.

    Validation images are drawn before it and from everything, so runs with different fractions compare.

    Args:
        rest: The training images that are not held out.
        fraction: How much of the whole training split to keep, of each class, one image at least.
        total: Number of images in the whole training split.
        seed: Names the draw.
        num_classes: Number of classes.

    Returns:
        The images drawn, in the order of the given split.

    Raises:
        UserError: More are asked for than are left.
    """
    wanted = round(fraction * total)
    if wanted > len(rest):
        most = math.floor(10_000 * len(rest) / total) / 10_000
        raise UserError(
            f"dataset.train_share: received {fraction:g}, which is {wanted:,} of the {total:,} "
            f"training images, but validation leaves {len(rest):,}; choose at most {most:g}, "
            "or leave it out to use them all"
        )
    chosen = np.zeros(len(rest), bool)
    for label in range(num_classes):
        positions = np.flatnonzero(rest.labels == label)
        count = max(round(fraction * total / len(rest) * len(positions)), 1)
        chosen[generator(seed, SPLIT_STREAM + label).permutation(positions)[:count]] = True
    return subset(rest, chosen)


def fold_numbers(split: Split, of: int, seed: int, class_names: tuple[str, ...]) -> np.ndarray:
    """Divide a split into folds of nearly equal size, in total and of each class.

    Images that are the same pixel for pixel are in one fold, whatever their labels: a network that learned
    from one of them has seen the others.

    Args:
        split: What to divide.
        of: Number of folds.
        seed: Names the draw.
        class_names: For the message.

    Returns:
        The fold of each image, from 0, in the order of the split; int64.

    Raises:
        UserError: A class has too few different images to be in each fold.
    """
    _, first, group_of, sizes = np.unique(
        split.hashes(), return_index=True, return_inverse=True, return_counts=True
    )
    members = np.split(np.argsort(group_of, kind="stable"), np.cumsum(sizes)[:-1])
    folds = np.empty(len(split), np.int64)
    counts = np.zeros((of, len(class_names)), np.int64)
    for label in range(len(class_names)):
        groups = np.flatnonzero(split.labels[first] == label)
        groups = groups[np.argsort(first[groups])]  # of pixels, hashes have an order that says nothing
        groups = generator(seed, SPLIT_STREAM + label).permutation(groups)
        for group in groups[np.argsort(-sizes[groups], kind="stable")]:  # what is large is placed first
            images = members[group]
            fold = np.lexsort((counts.sum(1), counts[:, label]))[0]
            folds[images] = fold
            np.add.at(counts[fold], split.labels[images], 1)
    for label, class_name in enumerate(class_names):
        if counts[:, label].min() == 0:
            different = len(np.unique(group_of[split.labels == label]))
            raise UserError(
                f"class {class_name!r} has {different} different training images, too few for one in each of "
                f"{of} folds (dataset.fold.of, FOLDS); choose fewer folds, or add images"
            )
    return folds


def subset(split: Split, mask: np.ndarray) -> Split:
    """Return the images of a split where `mask` (images,) is true."""
    return dataclasses.replace(split, labels=split.labels[mask], rows=split.rows[mask])
