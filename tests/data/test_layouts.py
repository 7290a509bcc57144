"""How folders of images may be laid out: one tree of classes or splits, and what may be meant in two ways."""

import pytest

from app.data.sources.cifar import CIFAR100
from app.errors import UserError


@pytest.mark.parametrize(
    ("layout", "parts"),
    [
        ("train", "train"),
        ("Train Test", "train test"),
        ("TRAIN VAL TEST", "train val test"),
        ("training validation testing", "train val test"),
        ("Training Valid", "train val"),
        ("train val", "train val"),
    ],
)
def test_spellings_of_the_splits(load, write_images, layout, parts):
    counts = {"train": 6, "val": 3, "test": 2}
    for folder, part in zip(layout.split(), parts.split(), strict=True):
        write_images(f"image_folder/{folder}", count=counts[part])
    data = load()
    assert data.class_names == ("cat", "dog")
    assert len(data.train) == (12 if "val" in parts else 10)
    assert len(data.val) == (6 if "val" in parts else 2)
    assert (len(data.test) if data.test else 0) == (4 if "test" in parts else 0)


@pytest.mark.parametrize(
    "layout",
    [
        "val test",
        "validation",
        "Testing",
        "train train/../val valid",
        "train Training",
        "train test Test",
        "train emu",
        "TRAIN test emu",
        "emu fox test",
        "training_set test_set",  # classes of that name would be told apart by the number of their images
        "seg_train seg_test",
        "seg_train seg_test seg_pred",
        "bus car train/..",  # a class train, its images right in the folder
    ],
)
def test_folders_that_may_be_splits_or_classes(load, write_images, data_root, layout):
    folder = data_root / "image_folder"
    for name in layout.split():
        if name.endswith("/.."):
            write_images("image_folder", classes=("train",))
        else:
            write_images(f"image_folder/{name}")
    with pytest.raises(UserError) as caught:
        load()
    text = str(caught.value)
    assert "image_folder: cannot tell whether these folders are splits or classes: " in text
    assert "one train/ (or training/)" in text and "put them into a folder train/" in text
    for path in folder.iterdir():
        assert f"{path.name}/" in text


def test_of_many_folders_some_are_named(load, write_images):
    write_images("image_folder", classes=(*map(str, range(40)), "test"), count=1)
    with pytest.raises(UserError, match=" 11/ and 29 more. There may be"):
        load()


def test_a_class_called_train_of_a_published_dataset_or_below_train(load, write_images):
    write_images("image_folder/train", classes=("bus", "test", "train"))
    assert load().class_names == ("bus", "test", "train")
    write_images("cifar100", classes=CIFAR100, count=2)
    assert load("cifar100").class_names == CIFAR100


def test_different_classes_below_a_path_with_and_in_it(load, write_images, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_images("cats and dogs and more/train", classes=("cat", "dog"))
    write_images("cats and dogs and more/test", classes=("cat", "emu"))
    with pytest.raises(UserError) as caught:
        load(data_dir="data/cats and dogs and more")
    place = "data/cats and dogs and more"
    words = (
        f"only in {place}/test/: emu; only in {place}/train/: dog. All splits need the same class folders."
    )
    assert str(caught.value).endswith(words)
