"""Test-time views: the same image seen in several ways, over which a network's logits are averaged.

The views and their weights are those of Jordan 2024, arXiv:2404.00498, section 3.5.
"""

from typing import NamedTuple

import numpy as np


class View(NamedTuple):
    """One way to see an image.

    A shift moves it down and to the right (up and to the left if negative); what it leaves behind is filled
    by mirroring (c b | a b c d).
    """

    weight: float  # in the average
    flip: bool = False  # left and right change places
    shift_pixels: int = 0

    def of(self, images: np.ndarray) -> np.ndarray:
        """Return `images` (batch, height, width, channels) as seen in this view; the dtype stays."""
        if distance := self.shift_pixels:
            around = abs(distance)
            padded = np.pad(images, ((0, 0), (around, around), (around, around), (0, 0)), mode="reflect")
            start = around - distance
            images = padded[:, start : start + images.shape[1], start : start + images.shape[2]]
        return images[:, :, ::-1] if self.flip else images


VIEWS: dict[str, tuple[View, ...]] = {
    "none": (View(1.0),),
    "flip": (View(0.5), View(0.5, flip=True)),
    "flip_and_shift": tuple(
        View(weight / 2, flip, shift)
        for weight, shift in ((0.5, 0), (0.25, -1), (0.25, 1))
        for flip in (False, True)
    ),
}
