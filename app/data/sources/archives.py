"""Published archives read as they are: CIFAR binary files, IDX and npz. Nothing is unpickled or extracted."""

import gzip
import math
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from app.data.arrays import Arrays
from app.errors import UserError
from app.machine import available_memory_bytes
from app.paths import shown

MAX_BYTES = 2**30  # several times the largest of these files, once unpacked
NPZ_KEYS = ("x_train", "y_train", "x_test", "y_test")


Reader = Callable[[Path], Arrays | None]


def read_cifar(
    path: Path, *, archive: str, train: Sequence[str], test: str, label_bytes: int
) -> Arrays | None:
    """Read CIFAR's binary version from its .tar.gz or its files; None where there are none.

    `path` is the archive, or a folder that holds it or its files (or their folder, as extracted). Of the
    `label_bytes` before the pixels of a record the last is the label (the other one, a coarser one).

    Raises:
        UserError: A file is damaged or missing from the set.
    """
    tar = path if path.name == archive else path / archive
    names = [*train, test]
    if tar.is_file():
        contents, place = _tar_members(tar, names), tar
    else:
        found = sorted(path.glob(test)) + sorted(path.glob(f"*/{test}"))
        if not found:
            return None
        place = found[0].parent
        contents = {name: _read_bytes(place / name) for name in names if (place / name).is_file()}
    if missing := [name for name in names if name not in contents]:
        raise UserError(f"{shown(place)}: incomplete; missing {', '.join(missing)}")
    *parts, last = (_cifar_records(contents[name], label_bytes, f"{shown(place)}: {name}") for name in names)
    images, labels = map(np.concatenate, zip(*parts, strict=True))
    return Arrays((images, labels), last, f"CIFAR binary files, {shown(place)}")


def _cifar_records(content: bytes, label_bytes: int, where: str) -> tuple[np.ndarray, np.ndarray]:
    record = label_bytes + 3 * 32 * 32
    if not content or len(content) % record:
        raise UserError(
            f"{where}: damaged: {len(content)} bytes are no multiple of {record}, the size of a record"
        )
    records = np.frombuffer(content, np.uint8).reshape(-1, record)
    images = records[:, label_bytes:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)  # planes to channels last
    return np.ascontiguousarray(images), records[:, label_bytes - 1]


def _tar_members(path: Path, names: Sequence[str]) -> dict[str, bytes]:
    contents = {}
    try:
        with tarfile.open(path, "r:gz") as tar:
            for member in tar:
                if not 0 <= member.size <= MAX_BYTES - member.offset_data:
                    raise tarfile.TarError(f"unpacks to more than {MAX_BYTES:,} bytes")
                name = member.name.rpartition("/")[2]
                if name in names and member.isreg():
                    file = tar.extractfile(member)
                    assert file is not None
                    contents[name] = file.read()
    except Exception as error:  # whatever a damaged file makes the reader trip over
        raise UserError(
            f"{shown(path)}: damaged or unreadable archive: {error}. Copy or download it again."
        ) from error
    return contents


def read_idx(path: Path) -> Arrays | None:
    """Read the four IDX files of the MNIST family, gzipped or not; None where there are none."""
    images, labels = "images-idx3-ubyte", "labels-idx1-ubyte"
    parts = []
    for part in ("train", "t10k"):
        found = [
            next((file for file in (path / name, path / f"{name}.gz") if file.is_file()), None)
            for name in (f"{part}-{images}", f"{part}-{labels}")
        ]
        if part == "train" and found[0] is None:
            return None
        if None in found:
            raise UserError(f"{shown(path)}: incomplete; needs {part}-{images}[.gz] and {part}-{labels}[.gz]")
        pixels, numbers = (_idx_array(file, dims) for file, dims in zip(found, (3, 1), strict=True) if file)
        parts.append((pixels, numbers))
    train, test = parts
    return Arrays(train, test, f"IDX files, {shown(path)}")


def _idx_array(path: Path, num_dims: int) -> np.ndarray:
    """Read an IDX array of bytes: magic number 0x0800 + number of dimensions, sizes, values."""
    try:
        with gzip.open(path) if path.suffix == ".gz" else open(path, "rb") as file:
            header = file.read(4 + 4 * num_dims)
            if len(header) < 4 + 4 * num_dims or header[:4] != struct.pack(">I", 0x0800 + num_dims):
                raise UserError(f"{shown(path)}: not an IDX file of {num_dims}-dimensional bytes")
            shape = struct.unpack(f">{num_dims}I", header[4:])
            size = math.prod(shape)
            content = file.read(size + 1) if size <= MAX_BYTES else b""
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(
            f"{shown(path)}: damaged or unreadable: {error}. Copy or download it again."
        ) from error
    if len(content) != size:
        raise UserError(f"{shown(path)}: damaged: its header announces {size} bytes, it has {len(content)}")
    return np.frombuffer(content, np.uint8).reshape(shape)


def read_npz(path: Path) -> Arrays | None:
    """Read x_train, y_train, and x_test, y_test and class_names where present; None for other files."""
    if path.suffix != ".npz" or not path.is_file():
        return None
    try:
        with zipfile.ZipFile(path) as archive:
            size = sum(member.file_size for member in archive.infolist())
        if size > available_memory_bytes():
            raise MemoryError(f"unpacks to {size:,} bytes, more than the memory that is free")
        with np.load(path, allow_pickle=False) as file:
            arrays = {key: file[key] for key in (*NPZ_KEYS, "class_names") if key in file.files}
    except OSError as error:
        raise UserError(f"{shown(path)}: cannot be read: {error.strerror or error}") from error
    except Exception as error:  # whatever a damaged file makes the reader trip over
        raise UserError(
            f"{shown(path)}: damaged, too large, or holds pickled objects, which are never loaded: {error}"
        ) from error
    missing = [key for key in NPZ_KEYS[:2] if key not in arrays]
    if missing or ("x_test" in arrays) != ("y_test" in arrays):
        raise UserError(
            f"{shown(path)}: needs the arrays {', '.join(NPZ_KEYS)} (the last two may both be left out)"
        )
    test = (arrays["x_test"], arrays["y_test"]) if "x_test" in arrays else None
    names = tuple(map(_text, arrays["class_names"].ravel())) if "class_names" in arrays else None
    if names and (len(set(names)) < len(names) or not all(name and name.isprintable() for name in names)):
        raise UserError(f"{shown(path)}: class_names must be plain text, each name once")
    return Arrays((arrays["x_train"], arrays["y_train"]), test, f"npz file, {shown(path)}", names)


def _text(name: object) -> str:
    """Return a class name, which HDF5 and TFDS write as bytes."""
    return name.decode("utf-8", "replace") if isinstance(name, bytes) else str(name)


def _read_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"{shown(path)}: cannot be read: {error.strerror}") from error
