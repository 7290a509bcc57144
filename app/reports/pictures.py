"""Pictures of training images, before and after augmentation, as a PNG file."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from app.reports.plots import DOTS_PER_INCH
from app.runs import atomic_path

MOST_IMAGES = 8
TILE_INCHES = 1.25


def draw_augmentation(
    path: Path, before: np.ndarray, after: np.ndarray, names: Sequence[str], title: str
) -> None:
    """Draw images in one row, what augmentation made of each below it, and its class over both.

    Args:
        path: The PNG file; a predecessor is replaced whole.
        before: Images (n, height, width, channels), uint8; the first eight are drawn.
        after: The same images augmented, likewise.
        names: The class of each.
        title: Heading over the rows.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    columns = min(MOST_IMAGES, len(before))
    figure = Figure(figsize=(TILE_INCHES * max(columns, 4), TILE_INCHES * 2 + 0.7), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title, fontsize=9, parse_math=False)
    panels = figure.subplots(2, columns, squeeze=False)
    for row, (images, label) in enumerate(((before, "as stored"), (after, "augmented"))):
        panels[row, 0].set_ylabel(label, fontsize=8)
        for column in range(columns):
            axes = panels[row, column]
            image = images[column]
            if image.shape[-1] == 1:
                axes.imshow(image[..., 0], cmap="gray", vmin=0, vmax=255)
            else:
                axes.imshow(image)
            axes.set_xticks([])
            axes.set_yticks([])
            if row == 0:
                axes.set_title(names[column], fontsize=8, parse_math=False)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=DOTS_PER_INCH)
