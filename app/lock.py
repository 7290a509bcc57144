"""One process at a time in a run folder."""

import contextlib
import json
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

from app.errors import UserError
from app.runs import Run

try:
    import fcntl
except ImportError:  # Windows: nothing keeps two processes apart there
    fcntl = None  # type: ignore[assignment]


@contextlib.contextmanager
def locked(run: Run) -> Iterator[None]:
    """Hold a run folder for this process; the file `lock` in it says who holds it.

    The system ties the lock to the open file, so that of a process that was killed is free at once, whatever
    the file still says.

    Raises:
        UserError: Another process trains this run.
    """
    if fcntl is None:
        yield
        return
    path = run.path / "lock"
    file = _open_locked(path, run)
    try:
        owner = {"pid": os.getpid(), "host": socket.gethostname(), "since": time.strftime("%F %T")}
        os.ftruncate(file, 0)
        os.write(file, (json.dumps(owner) + "\n").encode())
        yield
    finally:
        with contextlib.suppress(OSError):
            path.unlink()
        os.close(file)


def _open_locked(path: Path, run: Run) -> int:
    """Return a descriptor of the file with the lock on it."""
    while True:
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(file)
            raise UserError(f"{run.name}: {_owner(path)}; wait until it ends, or stop it first") from None
        except OSError:  # a file system without locks
            return file
        with contextlib.suppress(OSError):
            if os.fstat(file).st_ino == os.stat(path).st_ino:
                return file
        os.close(file)  # the former owner removed the file between our opening and locking it


def _owner(path: Path) -> str:
    """Return who holds the lock, in words."""
    try:
        owner = json.loads(path.read_text(encoding="utf-8"))
        return f"being trained by process {owner['pid']} on {owner['host']} since {owner['since']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "being trained by another process"
