"""Reads the tensors of PyTorch's weight files without PyTorch, and without running anything in them.

Both formats are known: the zip archive of PyTorch 1.6 and later, and the older run of pickles followed by the
numbers. A pickle can name any function; here only those are looked up that make tensors, parameters and
ordered dictionaries, and everything else is refused by its name.
"""

import collections
import functools
import io
import math
import pickle
import struct
import zipfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import IO, Any, ClassVar, NamedTuple

import ml_dtypes
import numpy as np

_MAGIC = 0x1950A86A20F9469CFC6C  # first pickle of the older format
_PROTOCOL = 1001
_DTYPES: dict[str, Any] = {
    "FloatStorage": np.dtype("<f4"),
    "DoubleStorage": np.dtype("<f8"),
    "HalfStorage": np.dtype("<f2"),
    "BFloat16Storage": np.dtype(ml_dtypes.bfloat16),
    "LongStorage": np.dtype("<i8"),
    "IntStorage": np.dtype("<i4"),
    "ShortStorage": np.dtype("<i2"),
    "CharStorage": np.dtype("i1"),
    "ByteStorage": np.dtype("u1"),
    "BoolStorage": np.dtype("?"),
}
_READ: dict[int, Any] = pickle._Unpickler.dispatch
_OPCODES = (  # what PyTorch's files are made of, in protocols 2 to 4
    *(pickle.PROTO, pickle.FRAME, pickle.STOP, pickle.MARK, pickle.GLOBAL, pickle.STACK_GLOBAL),
    *(pickle.BINPUT, pickle.LONG_BINPUT, pickle.MEMOIZE, pickle.BINGET, pickle.LONG_BINGET),
    *(pickle.NONE, pickle.NEWTRUE, pickle.NEWFALSE, pickle.BINFLOAT),
    *(pickle.BININT, pickle.BININT1, pickle.BININT2, pickle.LONG1),
    *(pickle.BINUNICODE, pickle.SHORT_BINUNICODE, pickle.BINSTRING, pickle.SHORT_BINSTRING),
    *(pickle.EMPTY_TUPLE, pickle.TUPLE, pickle.TUPLE1, pickle.TUPLE2, pickle.TUPLE3),
    *(pickle.EMPTY_LIST, pickle.APPEND, pickle.APPENDS, pickle.EMPTY_DICT),
    *(pickle.BINPERSID, pickle.REDUCE),
)
_LARGEST_PICKLE = 64 * 2**20  # bytes; names and shapes only, the numbers lie beside it


class _Storage(NamedTuple):
    """The numbers that one or several tensors look into."""

    key: str
    dtype: np.dtype
    size: int


class _Tensor(NamedTuple):
    """A tensor before its numbers are read: a view into a storage."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def read_torch_file(path: Path) -> dict[str, np.ndarray]:
    """Return the tensors of a `.pth` or `.pt` file by their names.

    Args:
        path: A state dictionary, or a dictionary that holds one under `state_dict` or `model`.

    Returns:
        Arrays by name, in the file's order; read-only views of its storages.

    Raises:
        ValueError: The file is no such file, is cut off, or holds something else than tensors, ordered
            dictionaries and numbers.
    """
    try:
        with open(path, "rb") as file:
            if zipfile.is_zipfile(file):
                return _read_zip(file)
            file.seek(257)
            if file.read(5) == b"ustar":
                raise ValueError(
                    "is in PyTorch's tar format of 2016; write it anew with PyTorch: "
                    "torch.save(torch.load(file, weights_only=False), file)"
                )
            file.seek(0)
            return _read_pickles(file)
    except _DAMAGE as error:
        # A KeyError is the code of a letter where pickle expects an instruction.
        words = "" if isinstance(error, KeyError) or not str(error) else f"{error}; "
        reason = "it is cut off, or another kind of file (a web page, a pointer of Git LFS)"
        raise ValueError(f"cannot be read as a PyTorch file: {words}{reason}") from error


_DAMAGE = (  # what a damaged file makes Python's own readers raise
    *(pickle.UnpicklingError, zipfile.BadZipFile, EOFError, AssertionError, AttributeError),
    *(LookupError, MemoryError, OverflowError, TypeError, UnicodeError, struct.error),
)


def _read_zip(file: IO[bytes]) -> dict[str, np.ndarray]:
    with zipfile.ZipFile(file) as archive:
        names = [name for name in archive.namelist() if name.endswith("/data.pkl")]
        if len(names) != 1:
            raise ValueError("cannot be read as a PyTorch file: the archive holds no data.pkl")
        folder = names[0].removesuffix("data.pkl")
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
            raise ValueError("is compressed, which PyTorch never does: in memory it could be of any size")
        order = f"{folder}byteorder"
        if order in archive.namelist() and archive.read(order) != b"little":
            raise ValueError("is of a big-endian machine, which this reader does not know")
        if archive.getinfo(names[0]).file_size > _LARGEST_PICKLE:
            raise ValueError("its data.pkl is too large to hold names and shapes only")
        tensors = _state_dict(_TensorUnpickler(io.BytesIO(archive.read(names[0]))).load())

        def numbers(storage: _Storage) -> bytes:
            name = f"{folder}data/{storage.key}"
            expected, stored = storage.size * storage.dtype.itemsize, archive.getinfo(name).file_size
            if stored != expected:
                raise ValueError(f"is damaged: {name} has {stored} bytes instead of {expected}")
            return archive.read(name)

        return _arrays(tensors, numbers)


def _read_pickles(file: IO[bytes]) -> dict[str, np.ndarray]:
    if _TensorUnpickler(file).load() != _MAGIC:
        raise ValueError("is no PyTorch file: it does not begin as one")
    if _TensorUnpickler(file).load() != _PROTOCOL:
        raise ValueError("is of a version of PyTorch's format that this reader does not know")
    if not _TensorUnpickler(file).load()["little_endian"]:
        raise ValueError("is of a big-endian machine, which this reader does not know")
    unpickler = _TensorUnpickler(file)
    tensors = _state_dict(unpickler.load())
    keys = _TensorUnpickler(file).load()
    contents = {}
    for key in keys:
        storage = unpickler.storages[key]
        size = int.from_bytes(file.read(8), "little")
        if size != storage.size:
            raise ValueError(f"is damaged: storage {key} has {size} numbers instead of {storage.size}")
        content = file.read(size * storage.dtype.itemsize)
        if len(content) != size * storage.dtype.itemsize:
            raise ValueError("is cut off: numbers are missing at its end")
        contents[key] = content
    return _arrays(tensors, lambda storage: contents[storage.key])


class _TensorUnpickler(pickle._Unpickler):
    """Knows tensors, parameters, ordered dictionaries and storages; anything else is refused by name.

    This is Python's own reader in Python: the one in C would fill memory up to any place that a file names,
    and would hash any key, which takes for ever with tuples of tuples.
    """

    stack: list[Any]
    dispatch: ClassVar[dict[int, Any]] = {code[0]: _READ[code[0]] for code in _OPCODES}

    def __init__(self, file: IO[bytes]) -> None:
        super().__init__(file, encoding="utf-8")
        self.storages: dict[str, _Storage] = {}

    def _setitem(self) -> None:
        _check_keys(self.stack[-2:-1])
        _READ[pickle.SETITEM[0]](self)

    def _setitems(self) -> None:
        _check_keys(self.stack[::2])
        _READ[pickle.SETITEMS[0]](self)

    def _build(self) -> None:
        if not isinstance(self.stack[-2], collections.OrderedDict):
            raise ValueError("gives attributes to something else than a dictionary")
        _READ[pickle.BUILD[0]](self)

    dispatch |= {pickle.SETITEM[0]: _setitem, pickle.SETITEMS[0]: _setitems, pickle.BUILD[0]: _build}

    def find_class(self, module: str, name: str) -> Any:
        """Return the stand-in of the few names that a file of weights needs."""
        if module == "torch" and name in _DTYPES:
            return _DTYPES[name]
        stand_in = _STAND_INS.get((module, name))
        if stand_in is None:
            raise ValueError(
                f"names {module}.{name}, which is no tensor. Only weights are read, nothing is run: "
                "save them with torch.save(model.state_dict(), file)"
            )
        return stand_in

    def persistent_load(self, pid: Any) -> _Storage:
        """Return the storage that an entry of the pickle names."""
        kind, dtype, key, _, size, *view = pid
        part = any(each is not None for each in view)  # of another storage: nothing published has that
        if kind != "storage" or not isinstance(dtype, np.dtype) or type(size) is not int or size < 0 or part:
            raise ValueError("is damaged: it names a storage that is none")
        return self.storages.setdefault(str(key), _Storage(str(key), dtype, size))


def _tensor(storage: Any, offset: Any, shape: Any, strides: Any, *_: Any) -> _Tensor:
    """Stand in for `torch._utils._rebuild_tensor` and `_rebuild_tensor_v2`."""
    whole = all(type(number) is int and number >= 0 for number in (offset, *shape, *strides))
    if not isinstance(storage, _Storage) or not whole or len(shape) != len(strides):
        raise ValueError("is damaged: it describes a tensor that is none")
    last = offset + sum((side - 1) * stride for side, stride in zip(shape, strides, strict=True))
    # No tensor may be larger than its storage, so that a small file cannot ask for much memory.
    if 0 not in shape and (last >= storage.size or math.prod(shape) > storage.size):
        raise ValueError(f"is damaged: a tensor of shape {shape} in a storage of {storage.size} numbers")
    return _Tensor(storage, offset, tuple(shape), tuple(strides))


def _ordered(pairs: Any = ()) -> collections.OrderedDict[Any, Any]:
    """Stand in for `collections.OrderedDict`."""
    _check_keys(key for key, _ in pairs)
    return collections.OrderedDict(pairs)


def _check_keys(keys: Iterable[Any]) -> None:
    if not all(isinstance(key, str | int) for key in keys):
        raise ValueError("is damaged: a key is neither a text nor a number")


_STAND_INS: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): _ordered,
    ("torch._utils", "_rebuild_tensor"): _tensor,  # until PyTorch 0.2: torchvision's VGG files
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    ("torch._utils", "_rebuild_parameter"): lambda data, *_: data,
}


def _state_dict(content: Any) -> dict[str, _Tensor]:
    """Return the tensors by name, of a state dictionary or of a checkpoint that holds one."""
    for key in ("state_dict", "model"):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    tensors = {str(key): value for key, value in content.items()} if isinstance(content, dict) else {}
    tensors = {key: value for key, value in tensors.items() if isinstance(value, _Tensor)}
    if not tensors:
        raise ValueError("holds no tensors by name, as torch.save(model.state_dict(), file) writes them")
    if all(key.startswith("module.") for key in tensors):  # of torch.nn.DataParallel
        tensors = {key.removeprefix("module."): value for key, value in tensors.items()}
    return tensors


def _arrays(tensors: Mapping[str, _Tensor], numbers: Callable[[_Storage], bytes]) -> dict[str, np.ndarray]:
    # Views without copies: many names of one storage take no more memory than the file.
    read = functools.cache(lambda storage: np.frombuffer(numbers(storage), storage.dtype))
    arrays = {}
    for name, (storage, offset, shape, strides) in tensors.items():
        steps = [stride * storage.dtype.itemsize for stride in strides]
        flat = read(storage)[offset:]
        arrays[name] = np.lib.stride_tricks.as_strided(flat, shape, steps, writeable=False)
    return arrays
