"""Class folders that nobody meant to make: links in circles, names of all kinds, headers that lie."""

import os
import struct
import unicodedata
import zlib
from pathlib import Path

import pytest

from app.errors import UserError

COMPOSED, DECOMPOSED = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))
HUGE = 60_000


def bmp_header(size):
    return b"BM" + struct.pack("<IHHIIiiHHIIiiII", 200, 0, 0, 54, 40, size, size, 1, 24, 0, 0, 0, 0, 0, 0)


def tiff_header(size):
    tags = [(256, size), (257, size), (258, 8), (259, 1), (262, 1), (273, 8), (277, 1), (278, size), (279, 9)]
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(99)


def gif_header(size):
    frame = b"," + struct.pack("<HHHHB", 0, 0, size, size, 0) + b"\2\2\x4c\1\0;"
    return b"GIF89a" + struct.pack("<HHBBB", 8, 8, 0x80, 0, 0) + bytes(6) + frame


def png_header(size):
    header = b"IHDR" + struct.pack(">IIBBBBB", size, size, 8, 2, 0, 0, 0)
    data = struct.pack(">I", zlib.crc32(header)) + b"\0\0\0\x09IDAT" + bytes(20)
    return b"\x89PNG\r\n\x1a\n\0\0\0\r" + header + data


@pytest.fixture
def a_gigabyte_left():
    """Memory that this process may still take while the test runs."""
    resource = pytest.importorskip("resource")
    statm = Path("/proc/self/statm")
    if not statm.exists():
        pytest.skip("this system does not tell how much memory a process has")
    before = resource.getrlimit(resource.RLIMIT_AS)
    used = int(statm.read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + 2**30, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)


@pytest.mark.parametrize("header", [bmp_header, tiff_header, gif_header, png_header])
def test_a_header_that_claims_a_huge_image(load, write_images, header, a_gigabyte_left):
    folder = write_images("image_folder")
    (folder / "cat" / "1.png").write_bytes(header(HUGE))
    with pytest.raises(
        UserError, match=r"(?m)^  cat/1.png: declares more than 178,000,000 pixels$"
    ) as caught:
        load()
    assert "1 of 8 images cannot be read" in str(caught.value)
    assert load(on_bad_image="skip").skipped == ("cat/1.png",)


def test_a_file_of_many_gigabytes_is_not_read(load, write_images):
    folder = write_images("image_folder")
    with open(folder / "cat" / "1.png", "r+b") as file:
        file.truncate(2**40)  # a hole; it takes no space
    with pytest.raises(UserError, match="cat/1.png: 1,099,511,627,776 bytes, more than"):
        load()


def test_the_content_decides_not_the_suffix(load, write_images):
    folder = write_images("image_folder")
    os.rename(folder / "cat" / "1.png", folder / "cat" / "1.jpg")
    assert len(load().train) + len(load().val) == 8
    (folder / "cat" / "1.jpg").write_text("a shopping list")
    with pytest.raises(UserError, match=r"(?m)^  cat/1.jpg: not an image$"):
        load()
    (folder / "cat" / "1.jpg").write_bytes(
        b"\0\0\0\x18ftypheic" + bytes(12)
    )  # as phones name what they export
    with pytest.raises(UserError, match=r"(?m)^  cat/1.jpg: HEIC, AVIF or a video; save it as JPEG$"):
        load()


def test_splits_inside_classes_are_not_trained_on(load, write_images):
    write_images("image_folder", classes=("cat/train", "cat/Test", "dog"))
    with pytest.raises(UserError, match="named like splits: cat/Test, cat/train. Splits lie outside"):
        load()
    write_images("splits/train", classes=("cat/val", "dog"))
    with pytest.raises(UserError, match="named like splits: train/cat/val. Splits lie outside"):
        load(data_dir="data/splits")


def test_thumbnails_of_a_server_are_no_images(load, write_images):
    write_images("image_folder")
    write_images("image_folder/cat", classes=("@eaDir/0.png",))
    assert len(load().train) + len(load().val) == 8


def test_pipes_are_not_waited_for(load, write_images):
    folder = write_images("image_folder")
    os.mkfifo(folder / "cat" / "pipe.png")
    with pytest.raises(UserError, match="cat/pipe.png: not a file"):
        load()


# ---- links


def test_links_in_circles(load, write_images, data_root):
    folder = write_images("image_folder")
    (folder / "cat" / "self.png").symlink_to("self.png")
    with pytest.raises(UserError, match="cat/self.png: broken link"):
        load()
    (folder / "cat" / "self.png").unlink()
    for name in ("here", "up", "top"):
        (folder / "cat" / name).symlink_to({"here": ".", "up": "..", "top": data_root}[name])
    data = load()
    assert [len(data.train), len(data.val)] == [6, 2], "no dog is a cat by a link"
    (folder / "emu").symlink_to(".")
    with pytest.raises(UserError, match="class folders without images: .*emu"):
        load()


def test_a_class_behind_a_link(load, write_images, data_root):
    folder = write_images("image_folder")
    os.rename(folder / "dog", data_root / "elsewhere")
    (folder / "dog").symlink_to(data_root / "elsewhere")
    assert load().class_names == ("cat", "dog")
    for target in ("nowhere", "dog"):
        (folder / "dog").unlink()
        (folder / "dog").symlink_to(target)
        with pytest.raises(UserError, match="links that lead nowhere: dog. Mend or remove them"):
            load()
    (folder / "dog").unlink()
    (data_root / "elsewhere").rename(folder / "dog")
    (folder / "dog" / "more").symlink_to("/nowhere")
    with pytest.raises(UserError, match="links that lead nowhere: dog/more. Mend or remove them"):
        load()


# ---- names


def test_names_in_unicode(load, write_images):
    folder = write_images("image_folder", classes=("дом", "家", DECOMPOSED))
    os.rename(folder / "дом" / "1.png", folder / "дом" / "😀 e\u0301.png")
    os.rename(folder / "дом" / "2.png", folder / "дом" / f"{'長' * 80}.png")
    data = load()
    assert set(data.class_names) == {"дом", "家", DECOMPOSED} and len(data.train) + len(data.val) == 12


def test_one_name_in_two_forms(load, write_images):
    for part, name in (("train", COMPOSED), ("test", DECOMPOSED)):
        write_images(f"image_folder/{part}", classes=(name, "dog"))
    with pytest.raises(
        UserError, match=r"test/: 'cafe\\u0301'; only in .*train/: 'caf\\xe9'; some look the same"
    ) as c:
        load()
    assert str(c.value).isprintable()
    write_images("both", classes=(COMPOSED, DECOMPOSED))
    with pytest.raises(UserError, match=r"names look the same, in different Unicode forms: 'caf.*rename"):
        load(data_dir="data/both")


@pytest.mark.parametrize("name", ["a\nb.png", "a\x1b[2Jb.png", "a\u2028b.png", os.fsdecode(b"\xff.png")])
def test_names_that_a_terminal_would_trip_over(load, write_images, name):
    folder = write_images("image_folder")
    os.rename(folder / "cat" / "1.png", folder / "cat" / name)
    assert len(load().train) == 6
    (folder / "cat" / name).write_bytes(b"")
    with pytest.raises(UserError) as caught:
        load()
    assert len(str(caught.value).splitlines()) == 3 and ascii(name)[1:-1] in str(caught.value)
    assert load(on_bad_image="skip").skipped == (f"cat/{ascii(name)[1:-1]}",)
    os.rename(folder / "cat", folder / name)
    with pytest.raises(UserError, match="class folders whose names are no plain text"):
        load()


def test_a_path_longer_than_the_system_allows(load, write_images):
    folder = write_images("image_folder")
    here = os.open(folder / "cat", os.O_RDONLY)
    for _ in range(20):
        os.mkdir("d" * 250, dir_fd=here)
        inner = os.open("d" * 250, os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = inner
    os.close(here)
    with pytest.raises(UserError, match="cannot read the folder: File name too long"):
        load()


@pytest.mark.parametrize("place", ["a" * 5000, "~nobody-of-this-name/x", "a\0b", "a\nb", "\x1b[2J", "loop"])
def test_data_dirs_that_cannot_be(load, data_root, place):
    (data_root.parent / "loop").symlink_to("loop")
    for name in ("image_folder", "cifar10"):
        with pytest.raises(UserError, match=r"^dataset.data_dir: [^\n\x00\x1b]*$"):
            load(name, data_dir=place)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_an_unreadable_file(load, write_images):
    folder = write_images("image_folder")
    (folder / "cat" / "1.png").chmod(0)
    with pytest.raises(UserError, match="cat/1.png: .*Permission denied"):
        load()
    assert load(on_bad_image="skip").skipped == ("cat/1.png",)
