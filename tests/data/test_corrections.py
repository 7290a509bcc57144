"""Lists of images to leave out and of other labels: applied to the training images, and strictly checked."""

import csv
import io

import numpy as np
import pytest

from app.config.dataset import DatasetConfig
from app.data.datasets import image_names, load_source
from app.errors import UserError


@pytest.fixture
def listing(data_root):
    """Write a list into the project's folder, and return its name."""

    def write(text, name="labels.csv"):
        (data_root.parent / name).write_bytes(text if isinstance(text, bytes) else text.encode())
        return name

    return write


def labels_by_file(data):
    return {
        split.files[row]: data.class_names[label]
        for split in (data.train, data.val)
        for row, label in zip(split.rows, split.labels, strict=True)
    }


def test_excluded_and_relabelled_images_change_the_data(load, write_images, listing):
    write_images("image_folder")
    before = load(validation=0.25)
    listing("image,given,suggested,score\ncat/1.png,cat,dog,0.01\n", "a.csv")
    listing(b"\xef\xbb\xbfimage,suggested\r\ndog/2.png,cat\r\n\r\ndog/3.png,cat\r\n", "b.csv")
    after = load(validation=0.25, exclude="a.csv", relabel="b.csv")
    expected = labels_by_file(before) | {"dog/2.png": "cat", "dog/3.png": "cat"}
    del expected["cat/1.png"]
    assert labels_by_file(after) == expected
    pixels = after.train.take(np.arange(len(after.train)))[0][:, 0, 0, 0]
    files = after.train.files_at(np.arange(len(after.train)))
    assert [f"{'dog' if value >= 20 else 'cat'}/{value % 20}.png" for value in pixels] == files
    assert "1 training images excluded by a.csv; 2 training images relabelled by b.csv" in after.source
    prints = {load(**keys).fingerprint for keys in ({}, {"exclude": "a.csv"}, {"relabel": "b.csv"})}
    assert len(prints | {after.fingerprint}) == 4 and before.fingerprint in prints
    listing("image\n", "a.csv")
    assert load(exclude="a.csv").fingerprint == before.fingerprint


def test_a_class_that_had_no_image_before_is_not_missed(data_root, load, listing):
    arrays = {"x_train": np.zeros((12, 4, 4), np.uint8), "y_train": np.arange(12) % 2}
    np.savez(data_root / "some.npz", class_names=["a", "b", "none"], **arrays)
    keys = {"data_dir": "data/some.npz", "exclude": listing("image\n0\n", "a.csv")}
    assert len(load(**keys, validation=0.25).train) + 3 == 11


def test_images_without_files_are_named_by_their_number_in_the_data(data_root, load, listing):
    images = np.arange(12, dtype=np.uint8).repeat(16).reshape(12, 4, 4)
    arrays = {"x_train": images, "y_train": np.arange(12) % 2, "x_test": images, "y_test": np.arange(12) % 2}
    np.savez(data_root / "some.npz", **arrays)
    keys = {"data_dir": "data/some.npz", "validation": "test", "exclude": listing("image\n0\n7\n", "a.csv")}
    data = load(**keys, relabel=listing("image,suggested\n9,0\n", "b.csv"))
    assert data.train.rows.tolist() == [1, 2, 3, 4, 5, 6, 8, 9, 10, 11]
    assert data.train.labels.tolist() == [1, 0, 1, 0, 1, 0, 0, 0, 0, 1]
    assert data.val.labels.tolist() == [0, 1] * 6  # only training images are corrected


def test_images_with_odd_names_are_found_by_what_they_are_called(load, write_images, listing):
    odd = 'a, "b";c', "été"
    folder = write_images("image_folder", classes=odd, count=3)
    (folder / odd[0] / "0.png").rename(folder / odd[0] / " line\nbreak,.png")
    names = image_names(load_source(DatasetConfig(name="image_folder")).train)
    line_break = f"{odd[0]}/ line\\nbreak,.png"
    assert len(names) == 6 and {line_break, f"{odd[0]}/1.png", "été/0.png"} <= set(names)
    text = io.StringIO()
    csv.writer(text).writerows([("image", "given", "suggested"), (line_break, *odd)])
    data = load(validation=0.4, relabel=listing(text.getvalue()))
    assert sum(split.labels.sum() for split in (data.train, data.val)) == 4


def test_files_have_their_own_names_though_these_cannot_be_printed(load, write_images, listing):
    folder = write_images("image_folder") / "cat"
    (folder / "1.png").rename(folder / "9.41\u202fAM.png")
    assert len(load(validation=0.25, exclude=listing("image\ncat/9.41\u202fAM.png\n")).train) == 5


@pytest.mark.parametrize(
    ("key", "text", "words"),
    [
        ("exclude", "image\ncat/1.png\nx\n", "labels.csv:3: image: there is no training image 'x'"),
        ("exclude", "image\ncat/1.png\ncat/1.png\n", "labels.csv:3: image: 'cat/1.png' is named twice"),
        ("exclude", "image,given\ncat/1.png,dog\n", "labels.csv:2: given: 'cat/1.png' is of class 'cat'"),
        ("exclude", "image,given\ncat/1.png,cow\n", "labels.csv:2: given: unknown class 'cow'"),
        ("exclude", "image,given\ncat/1.png\n", "labels.csv:2: must have 2 values, one a column; got 1"),
        ("exclude", "image;given\n", "labels.csv:1: the columns must be image, may be image, given"),
        ("exclude", "image,givn\n", "got 'image,givn'"),
        ("exclude", "image,image\n", "got 'image,image'"),
        ("exclude", "", "labels.csv:1: the columns must be image"),
        ("exclude", b"image\n\xff\n", "labels.csv: no text in UTF-8"),
        ("exclude", 'image\n"a\n', "labels.csv:2: unexpected end of data"),
        ("relabel", "image\ncat/1.png\n", "the columns must be image, suggested, may be"),
        (
            "relabel",
            "image,suggested\ncat/1.png,dgo\n",
            "suggested: unknown class 'dgo'; did you mean 'dog'?",
        ),
        ("relabel", "image,suggested\n" + "".join(f"cat/{n}.png,dog\n" for n in range(4)), "is left of: cat"),
    ],
)
def test_lists_that_do_not_fit_are_refused(load, write_images, listing, key, text, words):
    write_images("image_folder")
    with pytest.raises(UserError) as error:
        load(**{key: listing(text)})
    assert words in str(error.value) and f"dataset.{key}" in str(error.value)


def test_a_list_names_all_its_mistakes_but_not_thousands(load, write_images, listing):
    write_images("image_folder")
    with pytest.raises(UserError) as error:
        load(exclude=listing("image\n" + "".join(f"{n}.png\n" for n in range(50))))
    lines = str(error.value).splitlines()
    assert lines[0].startswith("dataset.exclude: labels.csv:2: ") and lines[-1] == "and 30 more"


def test_a_list_that_is_missing_or_contradicts_the_other_is_refused(load, write_images, listing):
    write_images("image_folder")
    with pytest.raises(UserError, match=r"dataset.relabel: none.csv: cannot be read .*relative to"):
        load(relabel="none.csv")
    name = listing("image,suggested\ncat/1.png,dog\n")
    with pytest.raises(UserError, match=r"dataset.relabel: labels.csv:2: .* is excluded by dataset.exclude"):
        load(exclude=name, relabel=name)
