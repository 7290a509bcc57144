"""Files written atomically, JSON, and folders named by the time they were made."""

import contextlib
import csv
import hashlib
import io
import os
import re
import secrets
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic_core import to_json

from app.errors import UserError
from app.paths import shown

MAX_BYTES = 2**29  # of a file; evaluation.json of 3,000 classes once had 81 MB
_TIMESTAMP = re.compile(r"(\d{8}-\d{6})(?:-(\d+))?")


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Write a file atomically.

    Yields a temporary path beside `path` with the same suffix; when the block ends without an error the
    file is flushed to disk and renamed to `path`. Whatever lay there before stays until that instant.
    """
    # Not by the process id alone, which is the same in two containers that share a folder.
    temporary = path.with_name(f".tmp-{os.getpid()}-{secrets.token_hex(4)}-{path.name}")
    try:
        yield temporary
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        replace_file(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def replace_file(source: Path, path: Path) -> None:
    """Rename a file of the same folder to `path`, in the place of what lay there, for good."""
    os.replace(source, path)
    _sync_folder(path.parent)


def write_text(path: Path, text: str) -> None:
    """Write `text` as UTF-8, atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def file_hash(path: Path, kind: str = "sha256") -> str:
    """Return the hash of a file's content, in hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, kind).hexdigest()


def csv_text(rows: Iterable[Iterable[object]], quoting: Literal[0, 2] = csv.QUOTE_MINIMAL) -> str:
    """Return the lines of a CSV file."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n", quoting=quoting).writerows(rows)
    return text.getvalue()


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write `content` as indented JSON, atomically. A number that is not finite becomes null."""
    write_text(path, to_json(content, indent=2, inf_nan_mode="null").decode() + "\n")


def read_bytes(path: Path) -> bytes:
    """Return the content of a file of a run.

    Raises:
        UserError: The file is missing, unreadable or has more than MAX_BYTES.
    """
    try:
        with open(path, "rb") as file:
            content = file.read(MAX_BYTES + 1)
    except FileNotFoundError as error:
        raise UserError(f"{shown(path)}: no such file; the run folder is not complete") from error
    except OSError as error:
        raise UserError(f"{shown(path)}: cannot be read ({error.strerror})") from error
    if len(content) > MAX_BYTES:
        raise UserError(f"{shown(path)}: has more than {MAX_BYTES:,} bytes; no file of a run is that large")
    return content


def split_at_marks(text: str, start: str, end: str, place: str) -> tuple[str, str, str]:
    """Return what a generated page holds before, between and after two marks.

    Raises:
        UserError: A mark is missing; the message begins with `place`, which names the page and its part.
    """
    before, has_start, rest = text.partition(start)
    between, has_end, after = rest.partition(end)
    if not has_start or not has_end:
        raise UserError(f"{place}; write the lines {start} and {end} where they belong")
    return before, between, after


def new_folder(parent: Path) -> Path:
    """Make and return an empty folder of `parent` that is named by the time.

    It sorts behind all that are there, even where the clock was set back or two are made in the same second:
    mkdir decides, not a look beforehand.

    Raises:
        UserError: A file stands where a folder should.
    """
    check_folder(parent)
    parent.mkdir(parents=True, exist_ok=True)
    while True:
        stamp, number = max([timestamp_key(name) for name in os.listdir(parent)], default=("", 0))
        now = time.strftime("%Y%m%d-%H%M%S")
        path = parent / (now if now > stamp else f"{stamp}-{number + 1}")
        with contextlib.suppress(FileExistsError):
            path.mkdir()
            return path


def timestamp_key(name: str) -> tuple[str, int]:
    """Return what to sort folders by: the time and number in the name; other names come first."""
    match = _TIMESTAMP.fullmatch(name)
    return (match[1], int(match[2] or 1)) if match else ("", 0)


def check_folder(folder: Path) -> None:
    """Raise a UserError where `folder`, or one above it, is a file."""
    for path in (*reversed(folder.parents), folder):
        if os.path.lexists(path) and not os.path.isdir(path):
            raise UserError(
                f"{shown(path)}: is no folder, but run folders belong there; move it away or rename it"
            )


def _sync_folder(folder: Path) -> None:
    """Make a rename in `folder` survive a power cut, where the system can do that."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
