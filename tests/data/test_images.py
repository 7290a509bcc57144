"""Every kind of image file becomes the same uint8 pixels."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageOps

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
    Image.fromarray(picture()[..., 0] > 50).save(tmp_path / "bits.png")
    assert set(np.unique(decode_file(tmp_path / "bits.png", RGB))) == {0, 255}


@pytest.mark.parametrize("suffix", ["png", "tif", "webp"])
@pytest.mark.parametrize("mode", ["RGBA", "LA"])
@pytest.mark.parametrize("background", [(255, 255, 255), (10, 20, 200)])
def test_transparent_pixels_show_the_background(tmp_path, suffix, mode, background):
    image = Image.fromarray(picture()).convert(mode)
    alpha = np.arange(48, dtype=np.uint8).reshape(6, 8) * 5
    alpha[0, 0], alpha[5, 7] = 0, 255
    image.putalpha(Image.fromarray(alpha))
    image.save(tmp_path / f"a.{suffix}", **({"lossless": True, "exact": True} if suffix == "webp" else {}))
    colours = np.asarray(image.convert("RGB")).astype(float)
    opacity = alpha[..., None] / 255
    expected = opacity * colours + (1 - opacity) * background
    found = decode_file(tmp_path / f"a.{suffix}", ImageFormat(None, 3, background=background))
    assert np.abs(found - expected).max() <= 1
    np.testing.assert_array_equal(found[0, 0], background)
    if suffix == "png":
        gray = decode_file(tmp_path / "a.png", ImageFormat(None, 1, background=background))
        assert np.abs(gray[..., 0] - expected @ [0.299, 0.587, 0.114]).max() <= 2


def test_transparent_colours_of_a_palette(tmp_path):
    palette = Image.fromarray(picture()).quantize(256)
    palette.save(tmp_path / "a.png", transparency=b"\x00\x7f")
    alpha = np.where(np.asarray(palette) == 0, 0, np.where(np.asarray(palette) == 1, 127, 255))[..., None]
    expected = (alpha * np.asarray(palette.convert("RGB")) + (255 - alpha) * 255.0) / 255
    assert np.abs(decode_file(tmp_path / "a.png", RGB) - expected).max() <= 1
    palette.save(tmp_path / "a.gif", transparency=0)
    assert (decode_file(tmp_path / "a.gif", RGB)[np.asarray(palette) == 0] == 255).all()


def png(bits, kind, row, transparent):
    """A PNG file of one row, with a colour that is transparent (the chunk tRNS)."""

    def chunk(name, content):
        return (
            struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
        )

    width = len(row) * 8 // (bits * (3 if kind == 2 else 1))
    header = struct.pack(">IIBBBBB", width, 1, bits, kind, 0, 0, 0)
    chunks = [
        (b"IHDR", header),
        (b"tRNS", transparent),
        (b"IDAT", zlib.compress(b"\0" + row)),
        (b"IEND", b""),
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*each) for each in chunks)


@pytest.mark.parametrize(
    ("bits", "kind", "row", "transparent", "pixels"),
    [
        (1, 0, bytes([0b01000000]), [0], [9, 255, 9, 9, 9, 9, 9, 9]),
        (2, 0, bytes([0b00011011]), [1], [0, 9, 170, 255]),
        (4, 0, bytes([0x05, 0xAF]), [5], [0, 9, 170, 255]),
        (8, 0, bytes([7, 8]), [8], [7, 9]),
        (16, 0, struct.pack(">4H", 513, 514, 40_000, 65_535), [514], [2, 9, 156, 255]),
        (8, 2, bytes([1, 1, 1, 5, 5, 5]), [5, 5, 5], [1, 9]),
        (16, 2, struct.pack(">6H", *[256] * 3, *[0x1234] * 3), [0x1234] * 3, [1, 9]),
    ],
    ids=["gray1", "gray2", "gray4", "gray8", "gray16", "rgb8", "rgb16"],
)
def test_transparent_colour_of_a_png(tmp_path, bits, kind, row, transparent, pixels):
    (tmp_path / "a.png").write_bytes(png(bits, kind, row, struct.pack(f">{len(transparent)}H", *transparent)))
    for channels in (1, 3):
        found = decode_file(tmp_path / "a.png", ImageFormat(None, channels, background=(9, 9, 9)))
        assert found.shape == (1, len(pixels), channels)
        assert found[0].tolist() == [[value] * channels for value in pixels]


def tiff(bits, pixels, photometric, planes=1):
    """A TIFF file of two rows of pixels (bytes), uncompressed, of one colour or with three planes."""
    samples, strips = (3, 3) if planes == 2 else (1, 1)
    size, begin = len(pixels) // strips, 8 + 200
    lists = {
        258: [bits] * samples,
        273: [begin + size * strip for strip in range(strips)],
        279: [size] * strips,
    }
    width = size * 8 // bits // 2
    values = {256: [width], 257: [2], 259: [1], 262: [photometric], 277: [samples], 278: [2], 284: [planes]}
    entries, extra = b"", b""
    for tag, value in sorted((values | lists).items()):
        packed = struct.pack(f"<{len(value)}I", *value)
        if len(value) > 1:
            place = 8 + 2 + 12 * len(values | lists) + 4 + len(extra)
            extra, packed = extra + packed, struct.pack("<I", place)
        entries += struct.pack("<HHI", tag, 4, len(value)) + packed
    head = struct.pack("<2sHIH", b"II", 42, 8, len(values | lists)) + entries + struct.pack("<I", 0) + extra
    return head.ljust(begin, b"\0") + pixels


@pytest.mark.parametrize(
    ("bits", "photometric", "pixels", "expected"),
    [
        (8, 1, bytes([0, 64, 128, 255]), [0, 64, 128, 255]),
        (8, 0, bytes([0, 64, 128, 255]), [255, 191, 127, 0]),
        (12, 1, bytes([0x00, 0x04, 0x00, 0x80, 0x0F, 0xFF]), [0, 64, 128, 255]),
        (16, 1, struct.pack("<4H", 0, 1 << 14, 1 << 15, 65_535), [0, 64, 128, 255]),
        (16, 0, struct.pack("<4H", 0, 1 << 14, 1 << 15, 65_535), [255, 191, 127, 0]),
    ],
)
def test_levels_of_a_tiff_are_those_it_declares(tmp_path, bits, photometric, pixels, expected):
    (tmp_path / "a.tif").write_bytes(tiff(bits, pixels, photometric))
    assert decode_file(tmp_path / "a.tif", ImageFormat(None, 1)).ravel().tolist() == expected


def test_wide_planes_of_colour_are_refused(tmp_path):
    (tmp_path / "a.tif").write_bytes(tiff(8, bytes(range(12)), 2, planes=2))
    assert decode_file(tmp_path / "a.tif", RGB)[..., 1].tolist() == [[4, 5], [6, 7]]
    (tmp_path / "a.tif").write_bytes(tiff(16, bytes(range(24)), 2, planes=2))
    with pytest.raises(BadImageError, match="colours of 16 bits in separate planes"):
        decode_file(tmp_path / "a.tif", RGB)


@pytest.mark.parametrize("dtype", [np.int32, np.uint32])
@pytest.mark.parametrize(("largest", "scale"), [(255, 1), (200, 1), (256, 256), (65_535, 256)])
def test_gray_pixels_of_32_bits(tmp_path, dtype, largest, scale):
    values = np.linspace(0, largest, 12).astype(dtype).reshape(3, 4)
    Image.fromarray(values).save(tmp_path / "a.tif")
    found = decode_file(tmp_path / "a.tif", ImageFormat(None, 1))[..., 0]
    np.testing.assert_array_equal(found, values // scale)
    Image.fromarray(values + 65_536).save(tmp_path / "a.tif")
    with pytest.raises(BadImageError, match="more than 16 bits"):
        decode_file(tmp_path / "a.tif", RGB)


def test_floating_point_pixels_are_refused(tmp_path):
    Image.fromarray(np.ones((4, 4), np.float32)).save(tmp_path / "a.tif")
    with pytest.raises(BadImageError, match="floating-point"):
        decode_file(tmp_path / "a.tif", RGB)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_is_turned_as_pillow_does(tmp_path, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(picture()).save(tmp_path / "a.png", exif=exif)
    with Image.open(tmp_path / "a.png") as image:
        upright = np.asarray(ImageOps.exif_transpose(image))
    np.testing.assert_array_equal(decode_file(tmp_path / "a.png", RGB), upright)


def test_damaged_exif_data_leave_the_pixels_as_they_are(tmp_path):
    turned = struct.pack("<HHII", 0x0112, 3, 1, 6)  # tag, type, count and value
    resolution = struct.pack("<HHI4s", 0x011A, 2, 3, b"72")  # as text, as some telephones write it
    exif = b"Exif\0\0II*\0" + struct.pack("<IH", 8, 2) + turned + resolution + bytes(4)
    Image.fromarray(picture()).save(tmp_path / "a.png", exif=exif)
    np.testing.assert_array_equal(decode_file(tmp_path / "a.png", RGB), np.rot90(picture(), -1))
    Image.fromarray(picture()).save(tmp_path / "b.png", exif=b"Exif\0\0garbage!")
    np.testing.assert_array_equal(decode_file(tmp_path / "b.png", RGB), picture())


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
