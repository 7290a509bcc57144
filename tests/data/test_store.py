"""The cache of decoded images: after a signal, a kill or a change the rest is decoded, and nothing else."""

import contextlib
import errno
import fcntl
import os
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from app.data import cache, folders, store
from app.errors import UserError

ROW = 6 * 8 * 3  # bytes of an image

# Loads the images as another process would; with an argument it is killed once so many are decoded.
PROGRAM = """
import contextlib, os, sys
from app.config.dataset import DatasetConfig
from app.data import store
from app.data.datasets import load_dataset

decoded = []
def advance(count):
    decoded.append(count)
    if len(sys.argv) > 1 and sum(decoded) >= int(sys.argv[1]):
        os.kill(os.getpid(), 9)

store.MEMORY_FRACTION, store.BLOCK_IMAGES = 0.0, 4
store.progress = lambda *_: contextlib.nullcontext(advance)
print(load_dataset(DatasetConfig(name="image_folder")).fingerprint, sum(decoded))
"""


def process(*arguments):
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


class Interrupt(BaseException):
    """What a signal becomes."""


@pytest.fixture
def on_disk(monkeypatch):
    """Nothing fits in memory; a write to the cache every four images."""
    monkeypatch.setattr(store, "MEMORY_FRACTION", 0.0)
    monkeypatch.setattr(store, "BLOCK_IMAGES", 4)


@pytest.fixture
def decoded(monkeypatch):
    """The names of the files that are decoded, by class folder and name."""
    names, decode_file = [], folders.decode_file

    def noting(path, image_format):
        names.append("/".join(str(path).split(os.sep)[-2:]))
        return decode_file(path, image_format)

    monkeypatch.setattr(folders, "decode_file", noting)
    return names


@pytest.fixture
def load_again(load, decoded):
    """Load images of one size, and return them with the files that were decoded for it."""

    def load_again(**keys):
        decoded.clear()
        data = load(image_size=(6, 8), **keys)
        return data, sorted(decoded)

    return load_again


def cached(data_root):
    return sorted((data_root / ".cache").glob("*.images"))


@pytest.mark.parametrize("in_memory", [True, False])
def test_a_signal_while_decoding(load, write_images, data_root, monkeypatch, on_disk, in_memory):
    write_images("image_folder", count=20)
    if in_memory:
        monkeypatch.setattr(store, "MEMORY_FRACTION", 0.25)
    amounts = []

    def advance(count):
        amounts.append(count)
        if sum(amounts) == 10:  # in the third of ten blocks
            raise Interrupt

    with monkeypatch.context() as patch, pytest.raises(Interrupt):
        patch.setattr(store, "progress", lambda *_: contextlib.nullcontext(advance))
        load()
    assert in_memory == (not (data_root / ".cache").exists())
    amounts.clear()
    monkeypatch.setattr(store, "progress", lambda *_: contextlib.nullcontext(amounts.append))
    assert len(load().train) == 36
    assert sum(amounts) == (40 if in_memory else 32)


def test_a_killed_process_leaves_what_it_decoded(load, write_images, data_root, on_disk):
    write_images("image_folder", count=20)
    with process("19") as killed:
        assert killed.wait() == -9
    with process() as again:
        fingerprint, number = again.communicate()[0].split()
    assert int(number) == 24, "four blocks were written"
    (file,) = cached(data_root)
    file.unlink()
    assert load().fingerprint == fingerprint


def test_the_older_file_goes_where_locks_want_a_file_open_for_writing(
    load_again, write_images, data_root, monkeypatch, on_disk
):
    """As on NFS."""
    flock = fcntl.flock

    def as_on_nfs(file, operation):
        if fcntl.fcntl(file, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        flock(file, operation)

    monkeypatch.setattr(fcntl, "flock", as_on_nfs)
    folder = write_images("image_folder")
    load_again()
    (folder / "dog" / "0.png").unlink()
    load_again()
    assert len(cached(data_root)) == 1


def test_after_a_change_only_that_is_decoded(load_again, write_images, data_root, on_disk):
    folder = write_images("image_folder")
    first, names = load_again()
    assert names == sorted(f"{label}/{number}.png" for label in ("cat", "dog") for number in range(4))
    assert load_again()[1] == []
    Image.new("RGB", (8, 6), (99, 99, 99)).save(folder / "cat" / "1.png")
    Image.new("RGB", (8, 6), (77, 77, 77)).save(folder / "cat" / "00.png")
    os.utime(folder / "dog" / "2.png", (1, 1))
    (folder / "dog" / "3.png").rename(folder / "dog" / "9.png")
    (folder / "dog" / "0.png").unlink()
    data, names = load_again()
    assert names == ["cat/00.png", "cat/1.png", "dog/2.png", "dog/9.png"]
    colours = {
        name: data.train.images[row, 0, 0, 0]
        for split in (data.train, data.val)
        for name, row in zip(split.files_at(np.arange(len(split))), split.rows, strict=True)
    }
    expected = {"cat/0.png": 0, "cat/00.png": 77, "cat/1.png": 99, "cat/2.png": 2, "cat/3.png": 3}
    assert colours == expected | {"dog/1.png": 21, "dog/2.png": 22, "dog/9.png": 23}
    assert len(cached(data_root)) == 1, "the older file is gone"
    assert first.train.images[:, 0, 0, 0].tolist() == [0, 1, 2, 3, 20, 21, 22, 23], (
        "who has it mapped keeps it"
    )


def test_files_that_change_places_with_their_times_are_decoded(load_again, write_images, on_disk):
    """As of an archive whose files have one time; uncompressed, they have one size, too."""
    folder = write_images("image_folder", suffix="bmp")
    for file in folder.rglob("*.bmp"):
        os.utime(file, (1, 1))
    load_again()
    (folder / "cat" / "0.bmp").rename(folder / "aside")
    (folder / "dog" / "0.bmp").rename(folder / "cat" / "0.bmp")
    (folder / "aside").rename(folder / "dog" / "0.bmp")
    assert load_again()[1] == ["cat/0.bmp", "dog/0.bmp"]


def test_the_fingerprint_is_that_of_the_pixels_labels_and_names(load, write_images, data_root, on_disk):
    folder = write_images("image_folder")
    remembered = []
    for change in (
        lambda: None,
        lambda: os.utime(folder / "dog" / "2.png", (1, 1)),
        lambda: (folder / "dog" / "3.png").rename(folder / "cat" / "9.png"),
        lambda: (folder / "dog").rename(folder / "eel"),
        lambda: Image.new("RGB", (8, 6), (99, 99, 99)).save(folder / "cat" / "1.png"),
    ):
        change()
        remembered += [load().fingerprint, load().fingerprint]
        shutil.rmtree(data_root / ".cache")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(store, "MEMORY_FRACTION", 1.0)
            assert load().fingerprint == remembered[-1] == remembered[-2], "computed from pixels in memory"
    assert len(set(remembered)) == 4, "a file's time is no content"


def test_another_decoder_decodes_all_anew(load_again, write_images, data_root, monkeypatch, on_disk):
    write_images("image_folder")
    load_again()
    monkeypatch.setattr("app.data.folders.DECODER", (0, "an older Pillow"))
    assert len(load_again()[1]) == 8 and len(cached(data_root)) == 1


def test_another_size_has_a_file_of_its_own(load, load_again, write_images, data_root, on_disk):
    write_images("image_folder")
    load_again()
    assert load(image_size=(3, 4)).image_shape == (3, 4, 3)
    assert len(cached(data_root)) == 2 and load_again()[1] == []


def test_a_repaired_file_is_all_that_is_decoded(load_again, write_images, on_disk):
    folder = write_images("image_folder")
    content = (folder / "dog" / "1.png").read_bytes()
    (folder / "dog" / "1.png").write_bytes(b"")
    for _ in range(2):
        with pytest.raises(UserError, match=r"1 of 8 images cannot be read:\n  dog/1.png: empty file"):
            load_again()
    assert load_again(on_bad_image="skip")[1] == ["dog/1.png"], "a bad one is tried again"
    (folder / "dog" / "1.png").write_bytes(content)
    assert load_again()[1] == ["dog/1.png"]


def test_a_bad_image_does_not_make_a_cache_useless_that_cannot_be_written(
    load_again, write_images, monkeypatch, on_disk
):
    folder = write_images("image_folder")
    (folder / "dog" / "1.png").write_bytes(b"")
    written, _ = load_again(on_bad_image="skip")
    monkeypatch.setattr(os, "access", lambda *_: False)
    again, names = load_again(on_bad_image="skip")
    assert again.fingerprint == written.fingerprint and set(names) == {"dog/1.png"}


def test_what_a_power_cut_may_leave(load_again, write_images, data_root, on_disk):
    write_images("image_folder")
    whole, _ = load_again()
    pixels = np.array(whole.train.images)
    (file,) = cached(data_root)
    with open(file, "rb+") as opened:  # pixels without a key, and other pixels there
        opened.seek(5 * ROW)
        opened.write(bytes(range(ROW)))
        opened.seek(8 * ROW + 5 * 16)
        opened.write(bytes(16))
    data, names = load_again()
    assert names == ["dog/1.png"]
    np.testing.assert_array_equal(data.train.images, pixels)
    file.write_bytes(file.read_bytes()[:-1])
    data, names = load_again()
    assert len(names) == 8
    np.testing.assert_array_equal(data.train.images, pixels)


def test_a_process_waits_while_another_decodes(load, write_images, data_root, on_disk):
    write_images("image_folder")
    data = load()
    (file,) = cached(data_root)
    with open(file, "rb+") as first:
        fcntl.flock(first, fcntl.LOCK_EX)
        first.write(bytes(ROW))  # an image that is not whole yet
        first.seek(8 * ROW)
        first.write(bytes(16))
        first.flush()
        second = process()
        assert second.stderr.readline() == "another process decodes these images; waiting for it\n"
        assert second.poll() is None
    with second:
        assert second.communicate()[0].split() == [data.fingerprint, "1"]


def test_two_processes_at_once(load, write_images, data_root):
    write_images("image_folder", count=50)
    processes = [process(), process()]
    results = [each.communicate()[0].split() for each in processes]
    assert {fingerprint for fingerprint, _ in results} == {load().fingerprint}
    assert sum(int(number) for _, number in results) == 100, "each image is decoded once"


def test_the_space_is_said_before_it_is_taken(load, write_images, data_root, monkeypatch, capsys, on_disk):
    write_images("image_folder")
    monkeypatch.setattr(cache, "SAID_BYTES", 8 * ROW)
    load()
    place = re.escape(str(data_root / ".cache"))
    assert re.fullmatch(
        rf"decoded images take 0.0 GB of {place}, where [0-9.]+ GB are free\n", capsys.readouterr().err
    )
    load()
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("memory_fraction", [0.25, 0.0])
def test_too_little_space(load, write_images, data_root, monkeypatch, capsys, decoded, memory_fraction):
    write_images("image_folder")
    monkeypatch.setattr(store, "MEMORY_FRACTION", memory_fraction)
    monkeypatch.setattr(store, "KEPT_AFTER_SECONDS", 0.0)
    monkeypatch.setattr(cache, "free_disk_bytes", lambda folder: 8 * ROW)
    words = "cannot keep 0.0 GB of decoded images (more than 80% of the 0.0 GB that are free)"
    reason = f"{data_root}/.cache: {words}"
    if memory_fraction:
        assert len(load().train) == 6
        assert capsys.readouterr().err == f"{reason}; they stay in memory alone\n"
    else:
        with pytest.raises(UserError) as caught:
            load()
        assert str(caught.value).startswith(f"{reason}, which exceed 0% of the available memory.")
        assert len(decoded) == 1, "one image, to see its size"
    assert not (data_root / ".cache").exists()


@pytest.mark.parametrize("memory_fraction", [0.25, 0.0])
def test_a_disk_that_fills_up_meanwhile(load, write_images, monkeypatch, capsys, on_disk, memory_fraction):
    write_images("image_folder", count=6)
    monkeypatch.setattr(store, "MEMORY_FRACTION", memory_fraction)
    fsync, calls = os.fsync, []

    def full(descriptor):
        calls.append(descriptor)
        if len(calls) == 2:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fsync(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        patch.setattr(store, "KEPT_AFTER_SECONDS", 0.0)
        if memory_fraction:
            fingerprint = load().fingerprint
            assert "No space left on device" in capsys.readouterr().err
        else:
            with pytest.raises(UserError, match="No space left on device"):
                load()
    amounts = []
    monkeypatch.setattr(store, "progress", lambda *_: contextlib.nullcontext(amounts.append))
    continued = load()
    assert sum(amounts) == 8, "what was written before is there"
    assert not memory_fraction or continued.fingerprint == fingerprint


@pytest.mark.parametrize(
    ("keys", "message"),
    [({}, "'b' has one training image"), ({"validation": "test"}, "'test' needs a test split")],
)
def test_classes_that_cannot_be_divided_are_found_before_images_are_decoded(
    load_again, write_images, decoded, keys, message
):
    write_images("image_folder", classes=("a",), count=6)
    write_images("image_folder", classes=("b",), count=1)
    with pytest.raises(UserError, match=message):
        load_again(**keys)
    assert decoded == []
