"""The exceptions that reach the user as a message and an exit code instead of a traceback."""


class UserError(ValueError):
    """Something the user can put right: a bad key, a missing folder, a broken image.

    `str(error)` is the complete message, one or more lines: what was wrong, where, what was
    received, what is allowed, what to do. The command line prints it and exits with `exit_code`.
    """

    exit_code = 2


class Interrupted(Exception):  # noqa: N818 - a stop that was asked for is no error
    """Training was stopped by a signal, after its state was written.

    `str(error)` says how to go on. The exit code is the shell's for the signal: 130 for SIGINT,
    143 for SIGTERM.
    """

    def __init__(self, message: str, signal_number: int):
        """Carry the message, and the signal for the exit code."""
        super().__init__(message)
        self.exit_code = 128 + signal_number
