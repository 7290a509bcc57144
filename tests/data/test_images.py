"""Every kind of image file becomes the same uint8 pixels."""

import io

import numpy as np
import pytest
from PIL import Image

from app.data.images import BadImageError, ImageFormat, decode_file, quiet_pillow

RGB = ImageFormat(None, 3)


def picture(height=6, width=8):
    rows, columns = np.mgrid[:height, :width]
    return np.stack([rows * 20, columns * 20, rows * 0 + 7], axis=-1).astype(np.uint8)


@pytest.mark.parametrize("suffix", ["png", "bmp", "tif", "webp"])
def test_lossless_formats(tmp_path, suffix):
    Image.fromarray(picture()).save(
        tmp_path / f"a.{suffix}", **({"lossless": True} if suffix == "webp" else {})
    )
    np.testing.assert_array_equal(decode_file(tmp_path / f"a.{suffix}", RGB), picture())


def test_gif_and_jpeg(tmp_path):
    flat = np.full((8, 8, 3), (200, 100, 50), np.uint8)
    Image.fromarray(flat).save(tmp_path / "a.gif", save_all=True, append_images=[Image.new("RGB", (8, 8))])
    Image.fromarray(flat).convert("CMYK").save(tmp_path / "a.jpg", quality=100)
    for name in ("a.gif", "a.jpg"):
        assert np.abs(decode_file(tmp_path / name, RGB).astype(int) - flat).max() <= 3, name


def test_modes(tmp_path):
    grey = picture()[..., :1]
    Image.fromarray(grey[..., 0]).save(tmp_path / "grey.png")
    np.testing.assert_array_equal(decode_file(tmp_path / "grey.png", RGB), grey.repeat(3, axis=-1))
    np.testing.assert_array_equal(decode_file(tmp_path / "grey.png", ImageFormat(None, 1)), grey)
    Image.fromarray(grey[..., 0].astype(np.uint16) * 257).save(tmp_path / "deep.png")
    np.testing.assert_array_equal(decode_file(tmp_path / "deep.png", ImageFormat(None, 1)), grey)
    rgba = np.concatenate([picture(), grey], axis=-1)
    Image.fromarray(rgba).save(tmp_path / "alpha.png")
    np.testing.assert_array_equal(decode_file(tmp_path / "alpha.png", RGB), picture())
    palette = Image.fromarray(picture()).quantize(256)
    palette.save(tmp_path / "palette.png", transparency=b"\x00\x7f")
    np.testing.assert_array_equal(
        decode_file(tmp_path / "palette.png", RGB), np.asarray(palette.convert("RGB"))
    )
    Image.fromarray(picture()[..., 0] > 50).save(tmp_path / "bits.png")
    assert set(np.unique(decode_file(tmp_path / "bits.png", RGB))) == {0, 255}


def test_floating_point_pixels_are_refused(tmp_path):
    Image.fromarray(np.ones((4, 4), np.float32)).save(tmp_path / "a.tif")
    with pytest.raises(BadImageError, match="floating-point"):
        decode_file(tmp_path / "a.tif", RGB)


def test_exif_orientation(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    Image.fromarray(picture()).save(tmp_path / "a.png", exif=exif)
    np.testing.assert_array_equal(decode_file(tmp_path / "a.png", RGB), np.rot90(picture(), -1))


def test_resizing():
    image = Image.fromarray(picture(40, 80))
    assert ImageFormat((10, 30), 3).convert(image).shape == (10, 30, 3)
    halves = np.zeros((8, 16, 3), np.uint8)
    halves[:, 4:12] = 200  # the centred square
    crop = ImageFormat((4, 4), 3, "nearest", "crop").convert(Image.fromarray(halves))
    assert (crop == 200).all()
    checks = np.array([[0, 100], [100, 200]], np.uint8)
    assert ImageFormat((1, 1), 1, "area").convert(Image.fromarray(checks)).item() == 100


def test_a_folder_is_no_image(tmp_path):
    with pytest.raises(BadImageError, match="not a file"):
        decode_file(tmp_path, RGB)


FORMATS = ("JPEG", "PNG", "BMP", "GIF", "WEBP", "TIFF")


def encoded(kind):
    file = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(noise).save(file, kind, exif=exif)
    return file.getvalue()


@pytest.mark.parametrize("kind", FORMATS)
def test_a_truncated_file_is_no_image(tmp_path, kind):
    content = encoded(kind)
    for length in (1, 10, 100, len(content) // 2, len(content) * 9 // 10):
        (tmp_path / "a").write_bytes(content[:length])
        with pytest.raises(BadImageError, match=r"\A.{3,200}\Z"):
            decode_file(tmp_path / "a", RGB)


@pytest.mark.parametrize("kind", FORMATS)
def test_a_damaged_file_gives_an_image_or_one_reason(tmp_path, kind):
    content, rng = np.frombuffer(encoded(kind), np.uint8), np.random.default_rng(0)
    outcomes = {"image": 0, "reason": 0}
    for _ in range(150):
        damaged = content.copy()
        # The header twice as often as the rest: it is what readers trust.
        places = rng.integers(0, rng.choice([100, 100, len(content)]), rng.integers(1, 6))
        damaged[places] = rng.integers(0, 256, len(places))
        (tmp_path / "a").write_bytes(damaged.tobytes())
        try:
            with quiet_pillow():
                pixels = decode_file(tmp_path / "a", ImageFormat((4, 5), 3))
            assert pixels.shape == (4, 5, 3) and pixels.dtype == np.uint8
            outcomes["image"] += 1
        except BadImageError as error:
            assert 0 < len(str(error)) <= 200 and "\n" not in str(error)
            outcomes["reason"] += 1
    assert min(outcomes.values()) > 0, outcomes
