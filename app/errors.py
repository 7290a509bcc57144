"""The exceptions that reach the user as a message and an exit code instead of a traceback."""

import os
import sys


class UserError(ValueError):
    """Something the user can put right: a bad key, a missing folder, a broken image.

    `str(error)` is the complete message, one or more lines: what was wrong, where, what was
    received, what is allowed, what to do. The command line prints it and exits with `exit_code`.
    """

    exit_code = 2


class Interrupted(Exception):  # noqa: N818 - a stop that was asked for is no error
    """Training was stopped by a signal, after its state was written.

    `str(error)` says how to go on. The exit code is the shell's for the signal: 130 for SIGINT,
    143 for SIGTERM, 129 for SIGHUP.
    """

    def __init__(self, message: str, signal_number: int):
        """Carry the message, and the signal for the exit code."""
        super().__init__(message)
        self.exit_code = 128 + signal_number


class Stopped(KeyboardInterrupt):
    """SIGTERM or SIGHUP where there is no state to write: everything is unwound, as by ctrl-C."""

    def __init__(self, signal_number: int):
        """Keep the signal for the exit code."""
        super().__init__()
        self.exit_code = 128 + signal_number


def library_words(error: Exception) -> str:
    """Return one line for what only a library knows; it begins with `not enough memory` where that is it."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    line = next((line for line in lines if "OOM" in line), lines[-1] if lines else "")
    words = f"{type(error).__name__}: {line}" if line else type(error).__name__
    return f"not enough memory ({words})" if is_memory_error(error) else words


def is_memory_error(error: Exception) -> bool:
    """Return whether the memory of the machine or of an accelerator is too small.

    The backends have no class in common for it.
    """
    name = type(error).__name__
    return (
        isinstance(error, MemoryError)
        or name == "ResourceExhaustedError"
        or any(text in f"{error}" for text in ("RESOURCE_EXHAUSTED", "Status: out of memory"))
    )


def not_whole(error: ImportError) -> str:
    """Return what is to be done where a library cannot be imported."""
    environment = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), ".venv")
    lines = [line for line in str(error).splitlines() if line and not line.startswith((" ", "Traceback"))]
    reason = lines[0] if lines else type(error).__name__
    if os.path.realpath(sys.prefix) == os.path.realpath(environment):
        return f"{reason}: the installation is not whole. `make clean install` makes it anew"
    return (
        f"{reason}: {sys.executable} is not the Python of this program. Use make, or .venv/bin/python -m app "
        "(`make install` makes .venv)"
    )
