"""The coordinator's side of a worker process."""

import contextlib
import functools
import json
import os
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

from app.paths import module_command
from app.sweep.engine.study import Taken


class Worker:
    """A process that trains trials, and the one that it has."""

    def __init__(self, folder: Path, log: Path, index: int, jobs: int):
        """Start the worker `index` of `jobs`, among which cores and GPUs are divided."""
        program, environment = module_command("app.sweep.engine.worker", str(folder))
        with open(log, "ab") as file:
            self.process = subprocess.Popen(
                program, env=environment | (_gpu_variables(index) if jobs > 1 else {}),
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=file,
            )  # fmt: skip
        if jobs > 1:
            os.sched_setaffinity(self.process.pid, sorted(os.sched_getaffinity(0))[index::jobs])
        assert self.process.stdin and self.process.stdout
        self.input, self.output, self.log = self.process.stdin, self.process.stdout, log
        os.set_blocking(self.output.fileno(), False)
        self.trial: Taken | None = None
        self.values: list[float] = []  # the objective after each epoch of the trial
        self._begun = 0.0
        self._received = b""

    @property
    def seconds(self) -> float:
        """How long it has had its trial."""
        return time.monotonic() - self._begun

    def begin(self, trial: Taken, run: Path | None) -> None:
        """Let it train a trial, or go on with a run of that trial."""
        self.trial, self.values, self._begun = trial, [], time.monotonic()
        self.send({"settings": trial.settings, "run": str(run) if run else None})

    def send(self, content: Any) -> None:
        """Send a line of JSON; that a worker is gone shows in what is read of it."""
        with contextlib.suppress(BrokenPipeError):
            if not self.input.closed:
                self.input.write(json.dumps(content).encode() + b"\n")
                self.input.flush()

    def stop(self) -> None:
        """Let it write its state and end."""
        with contextlib.suppress(BrokenPipeError):
            self.input.close()

    def messages(self) -> tuple[list[Any], bool]:
        """Return the messages that have come, and whether there will be no more."""
        content = self.output.read()
        *lines, self._received = (self._received + (content or b"")).split(b"\n")
        return [json.loads(line) for line in lines], content == b""

    def wait(self) -> int:
        """Return the exit code of a process that has closed its output."""
        try:
            return self.process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()


@functools.cache
def _gpus() -> tuple[str, ...]:
    """Return the names of the GPUs that may be used."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:  # nothing in it hides all
        return tuple(filter(None, named.split(",")))
    if not shutil.which("nvidia-smi"):
        return ()
    command = ["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"]
    answer = subprocess.run(command, capture_output=True, text=True)
    return tuple(answer.stdout.split()) if answer.returncode == 0 else ()


def _gpu_variables(index: int) -> dict[str, str]:
    """Return the variable by which several workers divide the GPUs."""
    gpus = _gpus()
    return {"CUDA_VISIBLE_DEVICES": gpus[index % len(gpus)]} if gpus else {}
