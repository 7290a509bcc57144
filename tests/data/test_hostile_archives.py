"""Archives that are damaged, lie about their sizes, or would write where they should not."""

import gzip
import io
import tarfile
import zipfile

import numpy as np
import pytest

from app.data.sources import archives
from app.errors import UserError
from tests.data.conftest import write_tar


def test_an_archive_writes_nothing_wherever_its_members_say(load, cifar10, tmp_path):
    folder, parts = cifar10
    path = folder / "cifar-10-binary.tar.gz"
    names = [
        f"{place}/{name}"
        for place, name in zip(["..", "/etc", "../../..", "/", ".", "a"], parts, strict=True)
    ]
    write_tar(path, dict(zip(names, [part[0] for part in parts.values()], strict=True)))
    before = sorted(tmp_path.rglob("*"))
    assert len(load("cifar10").train) == 90
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE]
)
def test_an_archive_of_links_and_devices_is_not_followed(load, cifar10, tmp_path, kind):
    folder, parts = cifar10
    (tmp_path / "secret").write_bytes(parts["test_batch.bin"][0])
    with tarfile.open(folder / "cifar-10-binary.tar.gz", "w:gz") as tar:
        for name in parts:
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, str(tmp_path / "secret")
            tar.addfile(member)
    with pytest.raises(UserError, match=r"cifar-10-binary.tar.gz: incomplete; missing data_batch_1.bin, "):
        load("cifar10")


@pytest.mark.parametrize("name", ["data_batch_1.bin", "another file"])
def test_an_archive_that_unpacks_to_too_much(load, cifar10, monkeypatch, name):
    folder, parts = cifar10
    monkeypatch.setattr(archives, "MAX_BYTES", 100_000)
    path = folder / "cifar-10-binary.tar.gz"
    write_tar(path, {name: bytes(10_000_000)})
    assert path.stat().st_size < 20_000
    with pytest.raises(UserError, match="cifar-10-binary.tar.gz: .*unpacks to more than 100,000 bytes"):
        load("cifar10")


def test_damaged_archives_give_one_message(load, cifar10, data_root):
    folder, parts = cifar10
    path = folder / "cifar-10-binary.tar.gz"
    write_tar(path, {name: part[0] for name, part in parts.items()})
    whole = path.read_bytes()
    raw = bytearray(gzip.decompress(whole))
    rng, refused = np.random.default_rng(0), 0
    for case in range(60):
        if case % 2:  # within the headers, which the checksum of gzip would catch otherwise
            damaged = raw.copy()
            for place in rng.integers(0, 512, 3):
                damaged[place] = rng.integers(0, 256)
            damaged[148:156] = b"%06o\0 " % (256 + sum(damaged[:148]) + sum(damaged[156:512]))
            path.write_bytes(gzip.compress(bytes(damaged), 1))
        else:
            path.write_bytes(whole[: rng.integers(0, len(whole))])
        try:
            load("cifar10")
        except UserError as error:
            refused += 1
            assert "cifar-10-binary.tar.gz: " in str(error) and len(str(error).splitlines()) == 1
    assert refused >= 30  # those that were cut off at least


def test_npz_with_names_or_labels_that_cannot_be(load, data_root):
    arrays = {"x_train": np.zeros((6, 4, 4, 3), np.uint8), "y_train": np.array([0, 1, 2] * 2)}
    for change, message in (
        ({"y_train": np.array([0, 1, 2**40] * 2)}, "a label 1099511627776 among 6 images"),
        ({"y_train": np.array([0.5, np.nan, 1] * 2)}, "labels of type float64"),
        ({"y_train": np.array(["a", "b", "c"] * 2)}, "labels of type <U1"),
        ({"y_train": np.zeros(0, int)}, "0 labels"),
        ({"x_train": np.zeros((0, 4, 4, 3), np.uint8), "y_train": np.zeros(0, int)}, "images are uint8"),
        ({"class_names": ["a", "b", "a"]}, "class_names must be plain text, each name once"),
        ({"class_names": ["a", "b", "c\nd"]}, "class_names must be plain text"),
    ):
        np.savez(data_root / "own.npz", **{**arrays, **change})
        with pytest.raises(UserError, match=message):
            load(data_dir="data/own.npz")


def test_npz_that_unpacks_to_too_much(load, data_root, monkeypatch):
    path = data_root / "own.npz"
    np.savez_compressed(path, x_train=np.zeros((500, 64, 64, 3), np.uint8), y_train=np.arange(500) % 2)
    assert path.stat().st_size < 20_000
    monkeypatch.setattr(archives, "available_memory_bytes", lambda: 1_000_000)
    with pytest.raises(UserError, match="own.npz: .*unpacks to 6,1[0-9,]* bytes, more than the memory"):
        load(data_dir="data/own.npz")


def test_npz_whose_header_claims_more_than_there_is(load, data_root):
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "|u1", "fortran_order": False, "shape": (10**9, 1000, 1000, 3)}
    )
    with zipfile.ZipFile(data_root / "own.npz", "w") as archive:
        archive.writestr("x_train.npy", header.getvalue() + bytes(100))
        archive.writestr("y_train.npy", header.getvalue())
    with pytest.raises(UserError, match="own.npz: damaged"):
        load(data_dir="data/own.npz")


def test_damaged_npz_files_give_one_message(load, data_root):
    path, rng = data_root / "own.npz", np.random.default_rng(0)
    np.savez_compressed(path, x_train=np.zeros((6, 4, 4, 3), np.uint8), y_train=np.arange(6) % 2)
    whole, refused = path.read_bytes(), 0
    for case in range(200):
        damaged = bytearray(whole)
        for place in rng.integers(0, len(whole), 1 + case % 4):
            damaged[place] = rng.integers(0, 256)
        path.write_bytes(damaged[: rng.integers(0, len(whole))] if case % 5 == 0 else damaged)
        try:
            load(data_dir="data/own.npz")
        except UserError as error:
            refused += 1
            assert str(path) in str(error) and len(str(error).splitlines()) == 1
    assert refused > 100
