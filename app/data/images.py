"""One image from a file or an array to uint8 pixels of the wanted size and number of channels."""

import contextlib
import io
import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import PIL
from PIL import ExifTags, Image, ImageOps

from app.wording import printable

SUFFIXES = frozenset({".jpg", ".jpeg", ".jfif", ".jpe", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff"})
FORMATS = ("JPEG", "PNG", "BMP", "GIF", "WEBP", "TIFF")  # Pillow's other readers stay shut
MAX_PIXELS = 178_000_000  # a file that declares more is refused before its pixels are decoded
MAX_FILE_BYTES = 2**30  # the size of that many pixels of 16 bits and three channels
MAX_LISTED = 20  # bad files named in a message
DECODER = (2, PIL.__version__)  # whose pixels a cache holds; counted up where this file decodes otherwise
RESAMPLING = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
    "area": Image.Resampling.BOX,
}


class BadImageError(Exception):
    """An image that cannot be read; the text says why."""


def listing_of(bad: Sequence[tuple[str, str]]) -> str:
    """Return a line for each of the first bad files, given as name and reason."""
    lines = [f"  {printable(name)}: {reason}" for name, reason in bad[:MAX_LISTED]]
    return "\n".join([*lines, f"  and {len(bad) - MAX_LISTED:,} more"] if len(bad) > MAX_LISTED else lines)


@dataclass(frozen=True)
class ImageFormat:
    """How images are made alike."""

    image_size: tuple[int, int] | None  # `(height, width)` in pixels; None keeps the size
    channels: int  # 1 (luminance) or 3 (RGB)
    interpolation: str = "bilinear"  # all but "nearest" average over the source pixels when shrinking
    resize: str = "stretch"  # or "crop": the largest centred part of the wanted proportions, scaled
    background: tuple[int, int, int] = (255, 255, 255)  # shows through transparent pixels, RGB

    def convert(self, image: Image.Image) -> np.ndarray:
        """Return the pixels of an image, `(height, width, channels)` uint8."""
        image, mode = _eight_bits(image), "L" if self.channels == 1 else "RGB"
        if image.has_transparency_data:
            canvas = Image.new("RGBA", image.size, self.background)
            canvas.alpha_composite(image.convert("RGBA"))
            image = canvas
        if image.mode != mode:  # Pillow would copy it
            image = image.convert(mode)
        if self.image_size is not None and image.size != self.image_size[::-1]:
            resize = ImageOps.fit if self.resize == "crop" else Image.Image.resize
            image = resize(image, self.image_size[::-1], RESAMPLING[self.interpolation])
        pixels = np.asarray(image)
        return pixels[..., None] if self.channels == 1 else pixels


def quiet_pillow() -> contextlib.AbstractContextManager[Any]:
    """Silence Pillow's remarks on large or odd files, for all threads, while files are decoded.

    What cannot be read is an error all the same. To be entered by the main thread, around the work.
    """
    return warnings.catch_warnings(action="ignore")


def decode_file(path: str | Path, image_format: ImageFormat) -> np.ndarray:
    """Read an image file, turned upright as its EXIF data says; of an animation the first frame.

    Raises:
        BadImageError: The file is missing, unreadable, damaged, not an image, or absurdly large.
    """
    if not os.path.isfile(path):
        raise BadImageError("broken link" if os.path.islink(path) else "not a file")
    try:
        with open(path, "rb", buffering=0) as file:
            if (size := os.fstat(file.fileno()).st_size) > MAX_FILE_BYTES:
                raise BadImageError(f"{size:,} bytes, more than {MAX_FILE_BYTES:,}")
            content = io.BytesIO(file.read())  # one read: many small ones cost threads their turn
        with Image.open(content, formats=FORMATS) as image:
            if image.width * image.height > MAX_PIXELS:
                raise BadImageError(f"declares {image.width}x{image.height} pixels, more than {MAX_PIXELS:,}")
            _scale_transparent_colour(image)
            tags = getattr(image, "tag_v2", {})
            _check_planes(image, tags)
            image.load()
            with contextlib.suppress(Exception):  # EXIF data that are damaged say nothing of the pixels
                ImageOps.exif_transpose(image, in_place=True)
            return image_format.convert(_full_range(image, tags))
    except BadImageError:
        raise
    except Image.DecompressionBombError:  # Pillow's own limit is hardly higher
        raise BadImageError(f"declares more than {MAX_PIXELS:,} pixels") from None
    except Image.UnidentifiedImageError:
        head = content.getvalue()[:12]
        other = "HEIC, AVIF or a video; save it as JPEG" if head[4:8] == b"ftyp" else "not an image"
        raise BadImageError(other if head else "empty file") from None
    except Exception as error:  # Pillow's readers raise whatever a damaged file makes them trip over
        raise BadImageError(str(error).splitlines()[0] if str(error) else type(error).__name__) from error


def _scale_transparent_colour(image: Image.Image) -> None:
    """Bring the colour that a PNG file declares transparent to the 8 bits that its pixels are scaled to.

    Pillow scales pixels of 2, 4 and three times 16 bits, but not that colour. To be called before `load`.
    """
    colour, tiles = image.info.get("transparency"), getattr(image, "tile", None)
    depth = tiles[0][3] if tiles else None
    if isinstance(colour, int) and depth in ("L;2", "L;4"):
        image.info["transparency"] = colour * (85 if depth == "L;2" else 17)
    elif isinstance(colour, tuple) and depth == "RGB;16B":
        image.info["transparency"] = tuple(value >> 8 for value in colour)


def _check_planes(image: Any, tags: Mapping[int, Any]) -> None:
    """Refuse a TIFF file of colours in uncompressed planes of more than 8 bits, which Pillow misreads."""
    bits = tags.get(ExifTags.Base.BitsPerSample, (8,))
    planes = len(bits) > 1 and tags.get(ExifTags.Base.PlanarConfiguration) == 2
    if planes and max(bits) > 8 and image.tile and image.tile[0][0] == "raw":
        raise BadImageError(f"colours of {max(bits)} bits in separate planes; save them interleaved")


def _full_range(image: Image.Image, tags: Mapping[int, Any]) -> Image.Image:
    """Scale gray of 12 bits to 16, and turn gray of 16 bits of which 0 is white: Pillow leaves TIFF's so."""
    twelve = max(tags.get(ExifTags.Base.BitsPerSample, (8,))) == 12
    negative = tags.get(ExifTags.Base.PhotometricInterpretation) == 0
    if not image.mode.startswith("I;16") or not (twelve or negative):
        return image
    values = np.asarray(image).astype(np.uint16) << (4 if twelve else 0)
    return Image.fromarray(65_535 - values if negative else values)


def _eight_bits(image: Image.Image) -> Image.Image:
    """Scale grayscale of 16 bits down to 8 bits, which Pillow's own conversion would clip.

    Pixels of 32 bits have no agreed range: they count as 8 bits where the largest is at most 255, else as 16.
    """
    if image.mode == "F":
        raise BadImageError("floating-point pixels have no agreed range")
    if not image.mode.startswith("I"):
        return image
    values = np.asarray(image)
    if values.min() < 0 or values.max() > 65_535:
        raise BadImageError("pixels need more than 16 bits")
    wide = image.mode != "I" or values.max() > 255
    gray = Image.fromarray((values >> (8 if wide else 0)).astype(np.uint8))
    if "transparency" not in image.info:
        return gray
    opaque = Image.fromarray(np.where(values == image.info["transparency"], 0, 255).astype(np.uint8))
    return Image.merge("LA", (gray, opaque))
