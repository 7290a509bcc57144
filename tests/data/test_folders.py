"""Class folders, good and bad."""

import os

import numpy as np
import pytest
from PIL import Image

from app.data import folders, store
from app.data.listing import natural_key
from app.errors import UserError


def damage(path):
    path.write_bytes(path.read_bytes()[:-30])


def test_natural_order():
    assert sorted(["10", "2", "a10", "a9", "b"], key=natural_key) == ["2", "10", "a9", "a10", "b"]


def test_one_tree(load, write_images):
    write_images("image_folder", classes=("10", "2", "x"), count=12)
    data = load(validation=0.25)
    assert data.class_names == ("2", "10", "x")
    assert data.image_shape == (6, 8, 3) and data.test is None
    assert len(data.train) == 27 and len(data.val) == 9
    images, labels = data.train.take(np.arange(27))
    assert images.dtype == np.uint8 and labels.dtype == np.int32
    # Class "10" was written first (values 0...), class "2" second (20...), "x" third (40...).
    assert [value // 20 for value in images[:, 0, 0, 0]] == [{0: 1, 1: 0, 2: 2}[label] for label in labels]
    for file, label, value in zip(
        data.train.files_at(np.arange(27)), labels, images[:, 0, 0, 0], strict=True
    ):
        assert file == f"{data.class_names[label]}/{value % 20}.png"
    in_class_2 = images[labels == 0][:, 0, 0, 0]
    assert list(in_class_2) == sorted(in_class_2), "2.png comes before 10.png"


def test_parts(load, write_images):
    for part, count in (("train", 6), ("val", 2), ("test", 3)):
        write_images(f"image_folder/{part}", count=count)
    data = load()
    assert [len(data.train), len(data.val), len(data.test)] == [12, 4, 6]
    assert "val/ folder" in data.split_rule
    data = load(validation="test")
    assert len(data.val) == 6 and data.test is None and len(data.train) == 12


def test_what_is_left_out(load, write_images, data_root):
    folder = write_images("image_folder")
    (folder / "cat" / "notes.txt").write_text("x")
    (folder / "cat" / ".hidden.png").write_bytes(b"")
    for name in ("__MACOSX", "$RECYCLE.BIN", "System Volume Information"):
        (folder / name).mkdir()
    (folder / ".git").mkdir()
    (folder / "cat" / "more").mkdir()
    os.rename(folder / "cat" / "0.png", folder / "cat" / "more" / "0.PNG")
    os.symlink(folder / "cat", folder / "cat" / "more" / "loop")
    data = load()
    assert data.class_names == ("cat", "dog") and len(data.train) + len(data.val) == 8
    assert "1 other files ignored" in data.source


def test_named_dataset_keeps_its_order(load, write_images):
    names = ["truck", "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship"]
    write_images("cifar10/train", classes=names, count=2)
    write_images("cifar10/test", classes=names, count=1)
    data = load("cifar10")
    assert data.class_names[0] == "airplane" and data.class_names[-1] == "truck"
    images, labels = data.test.take(np.arange(10))
    assert images[labels == 9][0, 0, 0, 0] == 0, "trucks were written first"


def test_named_dataset_of_other_classes(load, write_images, tmp_path, monkeypatch):
    write_images("cifar10", classes=("airplane", "zebra"))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="only in data/cifar10/: zebra; only in the dataset: automobile"):
        load("cifar10")
    write_images("mnist", classes=("MNIST/raw",))  # the folder as another library lays it out
    with pytest.raises(UserError, match=r"data/mnist: no mnist in there. A folder may hold:\n"):
        load("mnist")


@pytest.mark.parametrize(
    ("folders", "message"),
    [
        ([], "no class folders"),
        (["cat"], "one class only"),
        (
            ["photos/cat", "photos/dog"],
            "holds one folder only, photos/, which holds 2 .* as DATA_DIR$",
        ),
        (
            ["train/train/cat", "train/train/dog"],
            "train: holds one folder only, train/, which holds 2 f",
        ),
        (["cat", "dog", "emu"], "class folders without images: .*emu.* or remove the class.$"),
        (
            ["train/cat", "train/dog", "train/emu", "test/cat", "test/dog", "test/emu"],
            "class folders without images: .*emu.* or remove the class from all splits.$",
        ),
        (
            ["train/cat", "train/dog", "test/cat", "test/emu"],
            "only in .*test/: emu; only in .*train/: dog. All s",
        ),
        (["train", "test"], "no class folders"),
    ],
)
def test_wrong_folders(load, data_root, write_images, folders, message):
    (data_root / "image_folder").mkdir()
    for folder in folders:
        (data_root / "image_folder" / folder).mkdir(parents=True)
        if not folder.endswith("emu"):
            write_images(f"image_folder/{folder}/..", classes=(folder.split("/")[-1],))
    with pytest.raises(UserError, match=message):
        load()


def test_missing_folder(load, data_root):
    with pytest.raises(UserError, match="image_folder does not exist"):
        load()
    with pytest.raises(UserError, match="dataset.data_dir: .*nowhere does not exist"):
        load(data_dir="nowhere")
    (data_root / "photos.zip").touch()
    with pytest.raises(UserError, match="photos.zip is a file; unpack it, and give the folder"):
        load(data_dir=str(data_root / "photos.zip"))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_unreadable_folder(load, write_images):
    folder = write_images("image_folder")
    (folder / "cat").chmod(0)
    with pytest.raises(UserError, match="cannot read"):
        load()


def test_relative_data_dir_lies_below_the_project(load, write_images):
    write_images("mine")
    assert len(load(data_dir="data/mine").train) == 6


def test_bad_images(load, write_images):
    folder = write_images("image_folder", count=30, size=(20, 20))
    damage(folder / "cat" / "3.png")
    (folder / "cat" / "4.png").write_bytes(b"")
    (folder / "dog" / "5.png").write_text("not an image")
    (folder / "dog" / "6.png").unlink()
    os.symlink("nowhere", folder / "dog" / "6.png")
    with pytest.raises(UserError) as caught:
        load()
    text = str(caught.value)
    assert "4 of 60 images" in text and "on_bad_image: skip" in text
    for line in ("cat/3.png: ", "cat/4.png: empty file", "dog/5.png: not an image", "dog/6.png: broken link"):
        assert line in text
    data = load(on_bad_image="skip")
    assert data.skipped == ("cat/3.png", "cat/4.png", "dog/5.png", "dog/6.png")
    assert len(data.train) + len(data.val) == 56
    assert data.as_json()["skipped"] == list(data.skipped)
    images, labels = data.train.take(np.arange(len(data.train)))
    assert {3, 4} & set(images[labels == 0][:, 0, 0, 0].tolist()) == set()


def test_at_most_twenty_bad_images_are_named(load, write_images):
    folder = write_images("image_folder", count=30)
    for number in range(25):
        (folder / "cat" / f"{number}.png").write_bytes(b"")
    with pytest.raises(UserError, match="and 5 more") as caught:
        load()
    assert str(caught.value).count("empty file") == 20
    for file in (folder / "cat").iterdir():
        file.write_bytes(b"")
    with pytest.raises(UserError, match="no readable image is left in train for: cat"):
        load(on_bad_image="skip")


def test_all_images_bad(load, write_images):
    for file in write_images("image_folder").glob("*/*.png"):
        file.write_bytes(b"")
    with pytest.raises(UserError, match="8 of 8 images cannot be read"):
        load()
    with pytest.raises(UserError, match="no readable image is left in train for: cat, dog"):
        load(on_bad_image="skip")


def test_more_than_there_is_to_train_on_is_refused_before_images_are_decoded(load, write_images):
    for file in write_images("image_folder").glob("*/*.png"):
        file.write_bytes(b"")  # so that decoding would fail
    with pytest.raises(UserError, match="train_share: received 1,"):
        load(train_share=1.0)


def test_a_large_image_is_allowed_and_without_a_warning(load, write_images):
    Image.new("1", (12_000, 8_000)).save(write_images("image_folder") / "cat" / "2.png")
    assert len(load(image_size=(6, 8)).train) == 6


def test_different_sizes(load, write_images):
    folder = write_images("image_folder")
    Image.new("RGB", (9, 7)).save(folder / "dog" / "2.png")
    with pytest.raises(UserError, match=r"cat/0.png is 6x8, dog/2.png is 7x9.*dataset.image_size"):
        load()
    assert load(image_size=(5, 4)).image_shape == (5, 4, 3)
    assert load(image_size=(5, 4), channels=1).image_shape == (5, 4, 1)


def test_large_folders_go_to_the_cache(load, write_images, data_root, monkeypatch):
    folder = write_images("image_folder")
    (folder / "dog" / "1.png").write_bytes(b"")
    in_memory = load(on_bad_image="skip")
    monkeypatch.setattr(store, "MEMORY_FRACTION", 0.0)
    monkeypatch.setattr(store, "BLOCK_BYTES", 3 * 6 * 8 * 3)
    on_disk = load(on_bad_image="skip")
    assert isinstance(on_disk.train.images, np.memmap)
    assert on_disk.fingerprint == in_memory.fingerprint and on_disk.skipped == in_memory.skipped
    assert load(on_bad_image="skip").fingerprint == in_memory.fingerprint
    with pytest.raises(UserError, match="1 of 8 images"):
        load()


@pytest.mark.parametrize("memory_fraction", [0.25, 0.0])
def test_cache_that_cannot_be_written(load, write_images, data_root, monkeypatch, memory_fraction):
    """It is no error where memory suffices."""
    write_images("image_folder")
    monkeypatch.setattr(store, "MEMORY_FRACTION", memory_fraction)
    monkeypatch.setattr(store, "KEPT_AFTER_SECONDS", 0.0)
    (data_root / ".cache").write_text("a file in its place")
    if memory_fraction:
        assert len(load().train.images) == 8
    else:
        with pytest.raises(UserError, match="cannot keep .* GB of decoded images"):
            load()


def test_what_took_long_to_decode_is_not_decoded_again(load, write_images, data_root, monkeypatch):
    write_images("image_folder")
    monkeypatch.setattr(store, "KEPT_AFTER_SECONDS", 0.0)
    first = load(image_size=(6, 8))
    monkeypatch.setattr(folders, "decode_file", lambda *_: pytest.fail("decoded again"))
    assert load(image_size=(6, 8)).fingerprint == first.fingerprint
