"""What a dataset is once it is loaded: images, labels, class names, and who gets which image."""

import numpy as np

from app.data.dataset import Split
from app.data.order import SPLIT_STREAM, _generator
from app.errors import UserError


def stratified(split: Split, share: float, seed: int, class_names: tuple[str, ...]) -> tuple[Split, Split]:
    """Divide a split in two with `share` of each class, drawn by `seed`, in the second.

    Which images of a class are drawn depends on the seed, the class and its number of images alone. Both
    parts keep the order of the given split.

    Args:
        split: What to divide.
        share: How much of each class goes to the second part, above 0 and below 1. Each part gets one
            image of each class at least.
        seed: Names the draw.
        class_names: For the message.

    Returns:
        The rest and the share.

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
            count = min(max(round(share * len(positions)), 1), len(positions) - 1)
            chosen[_generator(seed, SPLIT_STREAM + label).permutation(positions)[:count]] = True
    return _subset(split, ~chosen), _subset(split, chosen)


def train_share(rest: Split, share: float, total: int, seed: int, num_classes: int) -> Split:
    """Return the images that `dataset.train_share` leaves to train on.

    Validation images are drawn before it and from everything, so runs with different shares compare.

    Args:
        rest: The training images that are not held out.
        share: How much of the whole training split to keep, of each class, one image at least.
        total: Number of images in the whole training split.
        seed: Names the draw.
        num_classes: Number of classes.

    Returns:
        The share, in the order of the given split.

    Raises:
        UserError: More are asked for than are left.
    """
    if round(share * total) > len(rest):
        raise UserError(
            f"dataset.train_share: received {share:g}, which is {round(share * total):,} of the {total:,} "
            f"training images, but validation leaves {len(rest):,}; choose at most {len(rest) / total:.4g}, "
            "or leave it out to use them all"
        )
    chosen = np.zeros(len(rest), bool)
    for label in range(num_classes):
        positions = np.flatnonzero(rest.labels == label)
        count = max(round(share * total / len(rest) * len(positions)), 1)
        chosen[_generator(seed, SPLIT_STREAM + label).permutation(positions)[:count]] = True
    return _subset(rest, chosen)


def _subset(split: Split, mask: np.ndarray) -> Split:
    return Split(split.images, split.labels[mask], split.rows[mask], split.files)
