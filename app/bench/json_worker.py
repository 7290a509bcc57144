"""A process of our own that answers with lines of JSON: the parent's side, and the process.

`python -m app.bench.json_worker MODULE ARGUMENTS` answers with what MODULE.answers yields.
"""

import contextlib
import importlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from app.errors import UserError
from app.paths import module_command


class JsonWorker:
    """The parent's side of a process; `close` ends it."""

    def __init__(self, name: str, module: str, *arguments: object, folder: Path, **variables: str):
        """Start a process that answers with what `module.answers(*arguments)` yields.

        It has further variables in its environment. A message begins with `name`. Temporary files go to
        `folder`, so that what a killed process leaves is removed with it.
        """
        text = json.dumps(arguments, default=str)
        command, environment = module_command("app.bench.json_worker", module, text)
        self.name = name
        self.errors = tempfile.TemporaryFile("w+", dir=folder)  # a pipe that nobody reads would fill up
        self.process = subprocess.Popen(
            command,
            env=environment | {"TMPDIR": str(folder)} | variables,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            text=True,
        )

    def ask(self, steps: int) -> None:
        """Send a number of steps."""
        assert self.process.stdin
        with contextlib.suppress(BrokenPipeError):  # `answer` says why
            self.process.stdin.write(f"{steps}\n")
            self.process.stdin.flush()

    def answer(self) -> Any:
        """Return the next line of JSON.

        Raises:
            UserError: The process ended first.
        """
        assert self.process.stdout
        if line := self.process.stdout.readline():
            return json.loads(line)
        self.process.wait()
        self.errors.seek(0)
        last = (self.errors.read().strip().splitlines() or ["it printed nothing"])[-1]
        self.close()
        raise UserError(f"{self.name}: the process ended before it answered: {last}")

    def seconds(self, steps: int) -> list[float]:
        """Return the seconds of each of `steps` steps."""
        self.ask(steps)
        return self.answer()

    def close(self) -> None:
        """End the process."""
        self.process.kill()
        self.process.communicate()
        self.errors.close()


def answer_stream() -> TextIO:
    """Return where the answers of this process go; whatever else it prints goes to stderr from now on."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # JAX's libraries print past sys.stdout
    return answers


def send(content: Any, answers: TextIO) -> None:
    """Write a line of JSON."""
    print(json.dumps(content), file=answers, flush=True)


def steps_asked() -> Iterator[int]:
    """Yield each number of steps on stdin, until stdin ends."""
    return map(int, sys.stdin)


if __name__ == "__main__":
    stream = answer_stream()
    for content in importlib.import_module(sys.argv[1]).answers(*json.loads(sys.argv[2])):
        send(content, stream)
