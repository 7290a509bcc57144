"""What a command's process is given: streams that may be closed, signals that ask for a stop, variables."""

import contextlib
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from types import FrameType
from typing import Any, NoReturn, TextIO, cast

from app.errors import Stopped

_STREAMS = (("stdin", "r"), ("stdout", "w"), ("stderr", "w"))


def open_standard_streams() -> None:
    """Open streams that were closed from the start (`>&-`) on the null device.

    Else the first file that is opened, such as one of a run, gets the number of a standard stream, and what
    libraries print.
    """
    while (number := os.open(os.devnull, os.O_RDWR)) < len(_STREAMS):
        os.set_inheritable(number, True)
    os.close(number)
    for number, (name, mode) in enumerate(_STREAMS):
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, mode, encoding="utf-8", closefd=False))


class FallsSilent:
    """A text stream that goes on where nobody can receive it any more: a pipe whose reader has ended."""

    def __init__(self, stream: TextIO):
        """Write to `stream` as long as that is possible."""
        self._stream = stream

    def write(self, text: str) -> int:
        """Write, if somebody can receive it."""
        try:
            return self._stream.write(text)
        except OSError:
            drop(self._stream)
            return len(text)

    def flush(self) -> None:
        """Flush, if somebody can receive it."""
        try:
            self._stream.flush()
        except OSError:
            drop(self._stream)

    def __getattr__(self, name: str) -> Any:
        """Leave everything else to the stream."""
        return getattr(self._stream, name)


def drop(stream: TextIO) -> None:
    """Let a stream lead nowhere, also what waits in its buffer: Python would trip over it when it ends."""
    with contextlib.suppress(OSError, ValueError):  # a stream without a descriptor
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


@contextlib.contextmanager
def unheard() -> Iterator[None]:
    """Let the block go on where its output can no longer be received."""
    out, err = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = (cast(TextIO, FallsSilent(stream)) for stream in (out, err))
    try:
        yield
    finally:
        sys.stdout.flush()
        sys.stdout, sys.stderr = out, err


@contextlib.contextmanager
def stoppable() -> Iterator[None]:
    """Let SIGTERM and SIGHUP (a terminal that was closed) unwind the block as ctrl-C does.

    Signals that are ignored from the start, as under nohup, stay so.
    """
    signals = (signal.SIGTERM, signal.SIGHUP)
    with _handled([each for each in signals if signal.getsignal(each) is signal.SIG_DFL], _stop):
        yield


def unstoppable() -> contextlib.AbstractContextManager[None]:
    """Let ctrl-C wait for the end of the block, which is near, and do nothing then."""
    return _handled([signal.SIGINT], lambda *_: None)


def _stop(number: int, frame: FrameType | None) -> NoReturn:
    """Unwind, once: make and the system send a SIGTERM each, shell and system a SIGHUP."""
    for each in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(each) is _stop:
            signal.signal(each, lambda *_: None)
    raise Stopped(number)


@contextlib.contextmanager
def stop_noted(note: Callable[[int], None], what: str) -> Iterator[None]:
    """Hand the signals that ask for a stop to `note`, so that the block ends when it can; see `stoppable`.

    Two come for one stop: SIGTERM from the system and from make, SIGHUP from the system and the shell. After
    the first one ctrl-C ends the process at once, and the others do nothing.

    Args:
        note: Called with the number of the signal.
        what: What goes on until the stop; it is printed.
    """
    signals = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    numbers = [each for each in signals if signal.getsignal(each) is not signal.SIG_IGN]

    def on_signal(number: int, frame: FrameType | None) -> None:
        note(number)
        for each in numbers:  # Python's own handler of SIGINT would wait for the step to end
            signal.signal(each, signal.SIG_DFL if each == signal.SIGINT else lambda *_: None)
        with contextlib.suppress(OSError):  # of the terminal that was closed
            # The system keeps from a container's first process what would end it.
            now = "" if os.getpid() == 1 else "; ctrl-C now stops at once"
            print(f"\n{what}{now} ...", file=sys.stderr, flush=True)

    with _handled(numbers, on_signal):
        yield


@contextlib.contextmanager
def _handled(numbers: Sequence[int], handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Handle signals in the block, and give them back."""
    previous = {}
    for number in numbers:
        with contextlib.suppress(ValueError):  # not the main thread: who runs the thread handles signals
            previous[number] = signal.signal(number, handler)
    try:
        yield
    finally:
        for number, before in previous.items():
            signal.signal(number, before)
