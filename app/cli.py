"""The command line: where an error becomes a message and an exit code.

Nothing here imports TensorFlow or Keras at module level, so that help, `list` and `check` answer at once.
"""

import errno
import gc
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO, cast

from app.commands.options import parse
from app.distributed.process_group import end_process
from app.errors import Interrupted, UserError, is_memory_error, library_words, not_whole
from app.paths import check_home, shown
from app.process import FallsSilent, drop, open_standard_streams, stoppable, unstoppable

_FULL_OR_FORBIDDEN = (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS, errno.EPERM)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command of `arguments`, or of the process; turn what goes wrong into a message and a code.

    Returns:
        Exit code: 0, 2 for an error that the user can mend, 130 after ctrl-C, 143 after SIGTERM, 129 after
        SIGHUP.
    """
    open_standard_streams()
    # Settings that a user has for Matplotlib, such as LaTeX for all texts, are not meant for our pictures.
    os.environ |= {"MPLBACKEND": "agg", "MATPLOTLIBRC": os.devnull}
    try:
        with stoppable():
            try:
                command, options = parse(list(sys.argv[1:] if arguments is None else arguments), os.environ)
                check_home()
                code = command(**options) or 0
                sys.stdout.flush()
            except (Exception, KeyboardInterrupt) as error:
                code = _explained(error)
    except Exception as error:
        end_process(1, error)
        raise
    # An input pipeline that an error left standing must go before Python does, or TensorFlow warns of it.
    with unstoppable():
        gc.collect()
    return end_process(code)


def _explained(error: BaseException) -> int:
    """Print what went wrong in a message and return the exit code; raise again what is a fault of ours."""
    err = cast(TextIO, FallsSilent(sys.stderr))
    if isinstance(error, UserError | Interrupted):
        print(error, file=err)
        return end_process(error.exit_code)
    if isinstance(error, KeyboardInterrupt):
        print("\nstopped", file=err)
        return getattr(error, "exit_code", 130)
    if isinstance(error, BrokenPipeError):
        drop(sys.stdout)
        return 0
    if isinstance(error, OSError):
        FallsSilent(sys.stdout).flush()  # on a full disk Python would trip over it when it ends
        print(_words(error), file=err)
        return UserError.exit_code
    if isinstance(error, ImportError) and (error.name or "").partition(".")[0] not in ("app", "models"):
        print(not_whole(error), file=err)
        return UserError.exit_code
    if isinstance(error, Exception) and is_memory_error(error):
        print(
            f"{library_words(error)}. End other programs; a training may also be begun anew with smaller "
            "batches (SET=training.batch_size=...) or images, or be resumed: make resume EXP=NAME",
            file=err,
        )
        return UserError.exit_code
    raise error


def _words(error: OSError) -> str:
    """Return what the system refused, and what helps where that is known."""
    reason = error.strerror or str(error) or type(error).__name__
    where = shown(Path(error.filename)) if isinstance(error.filename, str | Path) else ""
    if error.errno in _FULL_OR_FORBIDDEN:
        return (
            f"{where or 'a file of the run'}: cannot be read or written ({reason}); what was written before "
            "is intact. Free some space or make the folder writable, and give the command again; a training "
            "goes on from its last state by `make resume EXP=NAME`"
        )
    return f"{where}: {reason}" if where else f"the system refused something: {reason}"
