"""Tiny datasets on disk."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from app.config.schema import DatasetConfig
from app.data.datasets import load_dataset


@pytest.fixture
def data_root(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("TRAINER_HOME", str(tmp_path))
    root = tmp_path / "data"
    root.mkdir()
    return root


@pytest.fixture
def load(data_root):
    """Load a dataset by its config keys."""

    def load(name="image_folder", **keys):
        return load_dataset(DatasetConfig(name=name, **keys), data_root)

    return load


@pytest.fixture
def write_images(data_root):
    """Write `count` PNG images for each class; every pixel of an image holds the same value."""

    def write(folder, classes=("cat", "dog"), count=4, size=(6, 8), mode="RGB"):
        for label, name in enumerate(classes):
            target = data_root / folder / name
            target.mkdir(parents=True, exist_ok=True)
            for number in range(count):
                pixels = np.full((*size, 3), 20 * label + number, np.uint8)
                Image.fromarray(pixels).convert(mode).save(target / f"{number}.png")
        return data_root / folder

    return write
