"""Tiny datasets on disk, and with or without TensorFlow to feed them."""

import io
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from app.config.dataset import DatasetConfig
from app.data.datasets import load_dataset


@pytest.fixture(params=["tensorflow", "numpy"])
def backend(request, monkeypatch):
    """What feeds the batches: TensorFlow, or NumPy where it is not installed."""
    if request.param == "numpy":
        monkeypatch.setitem(sys.modules, "tensorflow", None)
    return request.param


def cifar_records(count, seed, coarse=False, classes=10):
    labels = np.arange(count) % classes
    images = np.random.default_rng(seed).integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)
    head = np.stack([labels * 0 + 99, labels] if coarse else [labels], axis=1).astype(np.uint8)
    content = np.concatenate([head, images.transpose(0, 3, 1, 2).reshape(count, -1)], axis=1).tobytes()
    return content, images, labels


def write_tar(path, files):
    with tarfile.open(path, "w:gz") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))


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
        return load_dataset(DatasetConfig(name=name, **keys))

    return load


@pytest.fixture
def write_images(data_root):
    """Write `count` PNG images for each class; every pixel of an image holds the same value."""

    def write(folder, classes=("cat", "dog"), count=4, size=(6, 8), mode="RGB", suffix="png"):
        for label, name in enumerate(classes):
            target = data_root / folder / name
            target.mkdir(parents=True, exist_ok=True)
            for number in range(count):
                pixels = np.full((*size, 3), (20 * label + number) % 256, np.uint8)
                Image.fromarray(pixels).convert(mode).save(target / f"{number}.{suffix}")
        return data_root / folder

    return write


@pytest.fixture
def cifar10(data_root):
    (data_root / "cifar10").mkdir()
    names = [f"data_batch_{number}.bin" for number in range(1, 6)] + ["test_batch.bin"]
    return data_root / "cifar10", {name: cifar_records(20, seed) for seed, name in enumerate(names)}
