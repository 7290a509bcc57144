"""What images are normalised by: constants, or moments of the training pixels."""

from typing import Any

import numpy as np

from app.data.dataset import Split


def normalization_constants(kind: str, split: Split) -> dict[str, Any]:
    """Return the mean to subtract from images / 255 and the standard deviation to divide by.

    Args:
        kind: "none" (pixels stay 0..255), "unit" (0..1), "symmetric" (-1..1), "per_channel", or
            "per_pixel" (one mean for all, one standard deviation over images for each pixel and channel).
            "pretrained" is not known here: its constants belong to the published weights.
        split: The training split; the data-dependent kinds are measured on it.

    Returns:
        "mean" and "deviation" as numbers or nested lists, `(channels,)` or `(height, width, channels)`.
        A standard deviation of zero is replaced by one.
    """
    fixed = {"none": (0.0, 1 / 255), "unit": (0.0, 1.0), "symmetric": (0.5, 0.5)}
    if kind in fixed:
        return dict(zip(("mean", "deviation"), fixed[kind], strict=True))
    sums = np.zeros(split.images.shape[1:])  # of integers, exact in float64 up to 2**53
    squares = np.zeros_like(sums)
    for images in split.chunks():
        values = images.astype(np.float64)
        sums += values.sum(axis=0)
        squares += np.einsum("nhwc,nhwc->hwc", values, values)
    if kind == "per_pixel":
        mean = sums.mean() / len(split)
        std = _std(sums / len(split), squares / len(split))
    else:
        mean = sums.mean(axis=(0, 1)) / len(split)
        std = _std(mean, squares.mean(axis=(0, 1)) / len(split))
    return {"mean": (mean / 255).tolist(), "deviation": std.tolist()}


def _std(mean: np.ndarray, mean_square: np.ndarray) -> np.ndarray:
    """Return the standard deviation of pixels / 255 from moments of pixels, one where it is zero."""
    variance = mean_square - mean**2
    smallest = 1e-9  # far above rounding; n integers that are not all equal have a variance of about 1 / n
    return np.where(variance > smallest, np.sqrt(np.maximum(variance, smallest)) / 255, 1.0)
