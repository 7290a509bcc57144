"""Published files: CIFAR binary, IDX, npz, and what is said where there are none."""

import gzip
import struct

import numpy as np
import pytest

from app.errors import UserError
from tests.data.conftest import cifar_records, write_tar


def write_idx(path, array):
    content = struct.pack(f">I{array.ndim}I", 0x0800 + array.ndim, *array.shape) + array.tobytes()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)


@pytest.mark.parametrize("layout", ["archive", "files", "folder"])
def test_cifar10(load, cifar10, layout):
    folder, parts = cifar10
    if layout == "archive":
        files = {f"cifar-10-batches-bin/{name}": part[0] for name, part in reversed(parts.items())}
        write_tar(folder / "cifar-10-binary.tar.gz", files)
    else:
        target = folder / "cifar-10-batches-bin" if layout == "folder" else folder
        target.mkdir(exist_ok=True)
        for name, part in parts.items():
            (target / name).write_bytes(part[0])
    data = load("cifar10")
    assert len(data.train) == 90 and len(data.val) == 10 and data.class_names[1] == "automobile"
    images, labels = data.test.take(np.arange(20))
    np.testing.assert_array_equal(images, parts["test_batch.bin"][1])
    np.testing.assert_array_equal(labels, parts["test_batch.bin"][2])
    expected = np.concatenate([part[1] for name, part in parts.items() if name.startswith("data")])
    np.testing.assert_array_equal(data.train.images, expected)


def test_cifar100_takes_the_fine_label(load, data_root):
    (data_root / "cifar100").mkdir()
    for seed, name in enumerate(("train.bin", "test.bin")):
        content, *_ = cifar_records(200, seed, coarse=True, classes=100)
        (data_root / "cifar100" / name).write_bytes(content)
    data = load("cifar100")
    assert data.class_names[99] == "worm" and len(set(data.class_names)) == 100
    np.testing.assert_array_equal(data.test.labels, np.arange(200) % 100)


def test_damaged_cifar(load, cifar10):
    folder, parts = cifar10
    for name, part in parts.items():
        (folder / name).write_bytes(part[0])
    (folder / "data_batch_2.bin").write_bytes(parts["data_batch_2.bin"][0][:-1])
    with pytest.raises(UserError, match="data_batch_2.bin: damaged"):
        load("cifar10")
    (folder / "data_batch_2.bin").unlink()
    with pytest.raises(UserError, match="incomplete; missing data_batch_2.bin"):
        load("cifar10")
    (folder / "data_batch_2.bin").write_bytes(b"\x0b" + parts["data_batch_2.bin"][0][1:])
    with pytest.raises(UserError, match="labels from 0 to 11; needed: 0 to 9"):
        load("cifar10")
    (folder / "cifar-10-binary.tar.gz").write_bytes(b"\x1f\x8b broken")
    with pytest.raises(UserError, match="damaged or unreadable archive"):
        load("cifar10")


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_idx_and_npz_hold_the_same(load, data_root, suffix):
    draw = np.random.default_rng(0)
    arrays = {
        "x_train": draw.integers(0, 256, (40, 5, 4), dtype=np.uint8),
        "y_train": np.arange(40, dtype=np.uint8) % 10,
        "x_test": draw.integers(0, 256, (10, 5, 4), dtype=np.uint8),
        "y_test": np.arange(10, dtype=np.uint8),
    }
    folder = data_root / "mnist"
    folder.mkdir()
    for part, name in (("train", "train"), ("t10k", "test")):
        write_idx(folder / f"{part}-images-idx3-ubyte{suffix}", arrays[f"x_{name}"])
        write_idx(folder / f"{part}-labels-idx1-ubyte{suffix}", arrays[f"y_{name}"])
    from_idx = load("mnist")
    np.savez(data_root / "other.npz", **arrays)
    from_npz = load("mnist", data_dir="data/other.npz")
    assert from_idx.image_shape == (5, 4, 1) and from_idx.class_names == tuple("0123456789")
    np.testing.assert_array_equal(from_idx.test.take(np.arange(10))[0][..., 0], arrays["x_test"])
    assert from_idx.fingerprint == from_npz.fingerprint
    images = folder / f"train-images-idx3-ubyte{suffix}"
    images.write_bytes(images.read_bytes()[:-12])
    with pytest.raises(UserError, match="damaged"):
        load("mnist")


def test_a_view_that_is_not_contiguous_is_taken(load, monkeypatch):
    """Keras' CIFAR, once downloaded, is one: its files have the channels first."""
    stored = np.random.default_rng(0).integers(0, 256, (20, 3, 32, 32), dtype=np.uint8)
    pair = (stored.transpose(0, 2, 3, 1), np.arange(20)[:, None] % 10)
    monkeypatch.setattr("keras.datasets.cifar10.load_data", lambda: (pair, pair))
    data = load("cifar10", validation="test")
    np.testing.assert_array_equal(data.val.take(np.arange(20))[0], stored.transpose(0, 2, 3, 1))
    assert len(data.fingerprint) == 64
    assert load("cifar10", validation="test", image_size=(8, 8)).image_shape == (8, 8, 3)


def test_npz_of_a_users_own(load, data_root):
    arrays = {"x_train": np.zeros((6, 4, 4, 3), np.uint8), "y_train": np.array([[0], [1], [2]] * 2)}
    path = data_root / "own.npz"
    np.savez(path, **arrays)
    data = load(data_dir="data/own.npz")
    assert data.class_names == ("0", "1", "2") and data.test is None
    np.savez(path, class_names=["a", "b", "c"], **arrays)
    assert load(data_dir="data/own.npz").class_names == ("a", "b", "c")
    np.savez(path, class_names=[b"a", "ü".encode(), b"c"], **arrays)  # as HDF5 has them
    assert load(data_dir="data/own.npz").class_names == ("a", "ü", "c")
    for change, message in (
        ({"x_train": np.zeros((6, 4, 4, 3), np.float32)}, "images are float32"),
        ({"y_train": np.zeros(5, np.int64)}, "5 labels"),
        ({"x_train": np.array([object()] * 6)}, "pickled objects"),
        ({"x_test": np.zeros((1, 4, 4, 3), np.uint8)}, "needs the arrays"),
        (
            {"x_test": np.zeros((1, 4, 5, 3), np.uint8), "y_test": np.zeros(1, int)},
            r"of test \(4, 5, 3\); set",
        ),
        ({"y_train": np.zeros(6, int)}, "one class only"),
    ):
        np.savez(path, **{**arrays, **change})
        with pytest.raises(UserError, match=message):
            load(data_dir="data/own.npz")


def test_digits(load):
    data = load("digits", image_size=(32, 32), channels=3)
    assert data.image_shape == (32, 32, 3) and data.test is None and data.skipped == ()
    assert len(data.train) + len(data.val) == 1797 and data.train.images.max() == 255
    with pytest.raises(UserError, match="leave data_dir"):
        load("digits", data_dir="x")


def test_one_message_without_data_or_network(load, data_root, monkeypatch):
    def fail(*args, **kwargs):
        raise Exception("URL fetch failure on https://example.org: None -- Connection refused")

    monkeypatch.setattr("keras.src.datasets.cifar10.get_file", fail)
    with pytest.raises(UserError) as caught:
        load("cifar10")
    text = str(caught.value)
    for part in (
        "Connection refused",
        str(data_root / "cifar10"),
        "cifar-10-binary.tar.gz",
        "DATA_DIR=",
        "quickstart",
    ):
        assert part in text
    (data_root / "cifar10").mkdir()
    with pytest.raises(UserError, match="no cifar10 in there"):
        load("cifar10")
