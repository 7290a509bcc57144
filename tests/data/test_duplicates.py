"""Images that lie on both sides of a split are counted and warned of."""

import numpy as np
import pytest
from PIL import Image

from app.data import dataset, store
from app.data.dataset import Split, whole_split


def test_no_duplicates(load, write_images):
    write_images("image_folder")
    data = load()
    assert data.as_json()["duplicates"] == {"train_and_val": 0}
    assert not [*data.duplicates_warnings()]


def test_duplicates_across_the_parts(load, write_images):
    write_images("image_folder/train", count=6)
    folder = write_images("image_folder/val", count=2)
    Image.new("RGB", (8, 6), (1, 2, 3)).save(folder / "cat" / "new.png")
    Image.new("RGB", (8, 6), (7, 8, 9)).save(folder / "cat" / "0.png")
    write_images("image_folder/test", count=5)
    data = load()
    assert data.as_json()["duplicates"] == {"train_and_val": 3, "train_and_test": 10, "val_and_test": 3}
    (text,) = data.duplicates_warnings()
    assert text.startswith(
        "warning: 3 of 5 validation images are training images too, 10 of 10 test images are training images "
        "too, 3 of 10 test images are validation images too, pixel for pixel; "
    )
    assert "\n" not in text
    named = "val/cat/1.png = train/cat/1.png, val/dog/0.png = train/dog/0.png"
    assert text.endswith(f" Remove the copies: {named}, val/dog/1.png = train/dog/1.png and 10 more.")
    data = load(validation="test")
    assert data.duplicates == {"train_and_val": 10}
    assert "10 of 10 validation images" in next(data.duplicates_warnings())


def test_duplicates_of_validation_and_test_alone(load, write_images, data_root):
    write_images("image_folder/train", count=6)
    for part, name, file, colour in [
        ("val", "cat", "own", 101), ("val", "dog", "both", 102),
        ("test", "cat", "own", 103), ("test", "dog", "own", 104), ("test", "dog", "both", 102),
    ]:  # fmt: skip
        folder = data_root / "image_folder" / part / name
        folder.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 6), (colour, 0, 0)).save(folder / f"{file}.png")
    data = load()
    assert data.as_json()["duplicates"] == {"train_and_val": 0, "train_and_test": 0, "val_and_test": 1}
    assert next(data.duplicates_warnings()).startswith(
        "warning: 1 of 3 test images are validation images too, pixel for pixel; "
    )


def test_images_of_two_classes_are_named(load, write_images):
    folder = write_images("image_folder/train", count=6)
    write_images("image_folder/val", count=1)
    (folder / "cat" / "3.png").rename(folder / "cat" / "moved.png")
    Image.open(folder / "cat" / "moved.png").save(folder / "dog" / "copy.png")
    Image.open(folder / "cat" / "4.png").save(folder / "cat" / "same class.png")
    text = [*load().duplicates_warnings()][-1]
    assert text == (
        "warning: 1 image with an equal one in another class, pixel for pixel. Remove the copies: "
        "train/dog/copy.png = train/cat/moved.png."
    )


@pytest.mark.parametrize("memory_fraction", [0.25, 0.0])
def test_copies_that_a_random_split_tears_apart(load, write_images, monkeypatch, memory_fraction):
    monkeypatch.setattr(store, "MEMORY_FRACTION", memory_fraction)
    monkeypatch.setattr(dataset, "CHUNK_ELEMENTS", 5 * 6 * 8 * 3)
    folder = write_images("image_folder", count=12)
    for number in range(8):  # the same picture in other files, and under another class
        image = Image.open(folder / "cat" / f"{number}.png")
        image.save(folder / ("cat" if number % 2 else "dog") / f"copy{number}.bmp")
    data = load(validation=0.4)
    assert isinstance(data.train.images, np.memmap) == (memory_fraction == 0.0)
    train = {data.train.take(np.array([row]))[0].tobytes() for row in range(len(data.train))}
    torn = sum(data.val.take(np.array([row]))[0].tobytes() in train for row in range(len(data.val)))
    assert torn > 0 and data.duplicates == {"train_and_val": torn}


def test_one_pixel_makes_another_image():
    images = np.random.default_rng(0).integers(0, 255, (40, 5, 7, 3), dtype=np.uint8)
    images[20:] = images[:20]
    images[np.arange(20, 40), np.arange(20) % 5, np.arange(20) % 7, np.arange(20) % 3] += 1
    images[39] = images[3]
    hashes = whole_split(images, np.zeros(40)).hashes()
    assert hashes.dtype == np.uint64 and hashes.shape == (40,) and len(set(hashes.tolist())) == 39
    some = Split(images, np.zeros(2, np.int32), np.array([39, 5]))
    assert some.hashes().tolist() == [hashes[3], hashes[5]]
