"""Messages of a run that is interrupted where no state is written: at its end, or its folder deleted."""

import contextlib
import signal
import time
from collections.abc import Iterator

from app.errors import Interrupted, Stopped, UserError
from app.paths import shown
from app.runs import Run

DELETE_SECONDS = 2.0  # a run folder that is being deleted may still be there when its first file is missed


@contextlib.contextmanager
def not_deleted(run: Run) -> Iterator[None]:
    """Say so where the run folder was deleted, which shows in whatever is written next."""
    try:
        yield
    except Exception as error:
        if isinstance(error, UserError | Interrupted):
            raise
        end = time.monotonic() + DELETE_SECONDS * isinstance(error, FileNotFoundError)
        while run.path.is_dir():
            if time.monotonic() > end:
                raise
            time.sleep(0.05)
        raise UserError(
            f"{shown(run.path)}: this run folder is there no longer. If it was moved, make resume RUN= and "
            "its path goes on from its last state; else give the command that began it once more"
        ) from error


@contextlib.contextmanager
def message_on_stop(message: str, when: str = "after the last epoch") -> Iterator[None]:
    """Say what a stop leaves behind before the first step and after the last one."""
    try:
        yield
    except KeyboardInterrupt as stop:
        number = stop.exit_code - 128 if isinstance(stop, Stopped) else signal.SIGINT
        raise Interrupted(f"\nstopped {when}; {message}", number) from stop
