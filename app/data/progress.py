"""How far the decoding of many images has come, on the standard error output."""

import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterator

FIRST_SECONDS = 1.0  # what takes no longer is not shown
LINE_SECONDS = 0.2  # a terminal's line is redrawn this often
LOG_SECONDS = 30.0  # and where there is no terminal, a line is printed this often


@contextlib.contextmanager
def progress(what: str, total: int, done: int = 0) -> Iterator[Callable[[int], None]]:
    """Show how much of a job is done: one line of a terminal, which goes away again, or a line every 30 s.

    `done` is what was done earlier, which does not count for the speed.

    Yields:
        A function that takes how much has been done since its last call.
    """
    live = False
    with contextlib.suppress(AttributeError, ValueError):  # none, or closed
        live = sys.stderr.isatty()
    began = time.monotonic()
    due = began + (FIRST_SECONDS if live else LOG_SECONDS)
    earlier, width = done, 0

    def write(text: str) -> None:
        nonlocal width
        start = f"\r{' ' * width}\r" if width else ""  # over the line that stands there
        width = len(text) if live else 0
        # Where nobody reads it any longer, that is no reason to stop.
        with contextlib.suppress(AttributeError, OSError, ValueError):
            sys.stderr.write(start + text + ("" if live else "\n"))
            sys.stderr.flush()

    def advance(count: int) -> None:
        nonlocal done, due
        done += count
        now = time.monotonic()
        if now < due:
            return
        speed = (done - earlier) / (now - began)
        left = f", {(total - done) / speed:,.0f} s left" if speed else ""
        text = f"{what}: {done:,} of {total:,} ({done / total:.0%}), {speed:,.0f} images/s{left}"
        write(text[: _columns() - 1] if live else text)  # a wrapped line could not be taken back
        due = now + (LINE_SECONDS if live else LOG_SECONDS)

    try:
        yield advance
    finally:
        if width:
            write("")


def remark(text: str) -> None:
    """Write a line to the standard error output, between two jobs."""
    with contextlib.suppress(AttributeError, OSError, ValueError):  # nobody reads it
        print(text, file=sys.stderr, flush=True)


def _columns() -> int:
    """Return the width of the terminal that shows the standard error output."""
    try:
        return os.get_terminal_size(sys.stderr.fileno()).columns or 80
    except (OSError, ValueError):
        return 80
