"""Check that a killed and resumed run ends bit-identical to an uninterrupted one.

Runs and kills are real: processes of `python -m app`, ended by SIGKILL. Everything is compared from the files
that the runs leave behind.
"""

import contextlib
import functools
import hashlib
import os
import random
import shlex
import signal
import subprocess
import threading
import time
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, TextIO

import numpy as np

from app.config import load_experiment
from app.data.pipeline import num_steps
from app.errors import UserError
from app.paths import module_command
from app.reading import HISTORY_COLUMNS, read_history, read_record
from app.records import DatasetRecord, EnvironmentRecord
from app.runs import Run, find_run, load_run_experiment
from app.wording import counted

SAVES_PER_EPOCH = 3  # so that some resumes begin in the middle of an epoch
CLOCK_COLUMNS = ("seconds", "images_per_second")


class Kill(NamedTuple):
    """When to kill a training process."""

    saved_fraction: float  # of the training, before the kill
    delay_seconds: float  # after that
    while_saving: bool  # wait then until a file is being written
    epochs: int  # of the training


def prove_resume(name: str, overrides: Sequence[str], kills: int, seed: int, out: TextIO) -> bool:
    """Train an experiment with and without kills, and return whether the files of the two runs are identical.

    A third of the kills fall into the writing of a file; `seed` draws the instants. The last line of `out` is
    `identical ...` or names the first difference.

    Raises:
        UserError: The experiment cannot be trained.
    """
    say = functools.partial(print, file=out, flush=True)
    load_experiment(name, overrides)  # its mistakes show before a process starts
    straight, _ = run_process(["train", name, "--set", shlex.join(overrides)])
    history = read_history(straight.history)
    epochs = len(history)  # fewer than planned where it stopped early
    seconds = [row["seconds"] for row in history]
    say(f"straight run {straight.name}: {len(history)} epochs in {sum(seconds):.0f} s")

    save_seconds = min(seconds) / SAVES_PER_EPOCH
    saves = f"training.checkpoint_every_minutes={max(save_seconds / 60, 1e-4):.4g}"
    command = ["train", name, "--set", shlex.join([*overrides, saves])]
    draw, run, happened = random.Random(seed), None, 0
    # Before the last epoch begins: in it the process might end before it is killed.
    fractions = sorted(draw.random() * (1 - 1 / epochs) for _ in range(kills))
    for number, fraction in enumerate(fractions):
        kill = Kill(fraction, draw.random() * save_seconds, number % 3 == 2, epochs)
        run, victim = run_process(command, kill)
        command = ["resume", "--run", run.name]
        if victim is None:
            say(f"kill {number + 1}: the run had ended before")
            break
        happened += 1
        say(f"kill {number + 1}: {victim}; {_saved_fraction(run, epochs):.0%} of the training is saved")
    if run is None or not run.finished:
        run, _ = run_process(command)
    killed = counted(happened, "kill")
    say(f"killed run {run.name}: {killed}")
    if first := next(_differences(straight, run), None):
        say(f"different: {first}")
        if not read_record(straight.environment, EnvironmentRecord).deterministic:
            say(
                "operations were not deterministic, as is usual on a GPU: SET=training.devices=cpu or, not "
                "on JAX, SET=training.determinism=strict"
            )
        return False
    say(
        f"weights, optimizer and metrics {_hash(straight.state_files[-1])}, predictions "
        f"{_hash(straight.predictions)}, {len(history)} rows of history: the same in both"
    )
    missed = f"; {kills - happened} of the {kills} asked for found the run at its end"
    say(f"identical after {killed}{missed if happened < kills else ''}")
    return True


def run_process(command: Sequence[str], kill: Kill | None = None) -> tuple[Run, str | None]:
    """Run a training process until it ends or is killed.

    Returns:
        The run, and when the process was killed, in words; None if it ended first.
    """
    program, environment = module_command("app", *command)
    with subprocess.Popen(
        program, env=environment,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    ) as process, contextlib.ExitStack() as stack:  # fmt: skip
        stack.callback(process.kill)  # must not outlive this process
        assert process.stdout is not None
        lines: list[str] = []
        for line in process.stdout:
            lines.append(line)
            if line.startswith("run ") or ": resumed " in line:
                run = find_run(line.removeprefix("run ").split(":")[0].strip())
                break
        else:
            raise UserError("".join(lines).strip() or "the training process ended without any output")
        reader = threading.Thread(target=lambda: lines.extend(process.stdout or ()), daemon=True)
        reader.start()
        victim = _kill_in_time(process, run, kill) if kill else None
        code = process.wait()
        reader.join()
    if code not in (0, -signal.SIGKILL):
        raise UserError("".join(lines).strip())
    return run, victim if code else None


def _kill_in_time(process: subprocess.Popen, run: Run, kill: Kill) -> str:
    """Kill a process at the instant that `kill` describes; return when that was, in words."""
    begin = time.monotonic()
    while process.poll() is None and _saved_fraction(run, kill.epochs) < kill.saved_fraction:
        time.sleep(0.02)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(kill.delay_seconds)
    while kill.while_saving and process.poll() is None and not _unfinished_files(run):
        pass  # a small file is written within a millisecond
    process.kill()
    process.wait()
    files = ", ".join(_unfinished_files(run))
    elapsed = f"{time.monotonic() - begin:.1f} s after training began"
    return f"{elapsed}, while {files} was written" if files else elapsed


def _unfinished_files(run: Run) -> list[str]:
    """Return the names of the files that are being written into a run folder."""
    folders = (run.path, run.states, run.best_model.parent)
    names = (name for folder in folders for name in os.listdir(folder))  # quicker than a glob
    return [name.split("-", 3)[3] for name in names if name.startswith(".tmp-")]


def _saved_fraction(run: Run, epochs: int) -> float:
    """Return the fraction of the training that the newest state holds."""
    newest = run.state_files[-1].stem if run.state_files else "state-0-0"
    epoch, step = map(int, newest.split("-")[1:])
    return (epoch + step / _steps_per_epoch(run)) / epochs


@functools.cache
def _steps_per_epoch(run: Run) -> int:
    num_images = read_record(run.dataset, DatasetRecord).num_images.train
    return num_steps(num_images, load_run_experiment(run).training.batch_size)


def _differences(one: Run, other: Run) -> Iterator[str]:
    """Yield what differs between two finished runs: history, last states, predictions, best weights."""
    rows, others = read_history(one.history), read_history(other.history)
    if len(rows) != len(others):
        yield f"history: {len(rows)} and {len(others)} epochs"
    for row, its in zip(rows, others, strict=False):
        for column in HISTORY_COLUMNS:
            if column not in CLOCK_COLUMNS and row[column] != its[column]:
                yield f"history: {column} of epoch {row['epoch']}: {row[column]} and {its[column]}"
    for path, twin in ((one.state_files[-1], other.state_files[-1]), (one.predictions, other.predictions)):
        if path.name != twin.name:
            yield f"last state: {path.name} and {twin.name}"
            continue
        arrays, theirs = dict(_arrays(path)), dict(_arrays(twin))
        if list(arrays) != list(theirs):
            yield f"{path.name}: arrays {list(arrays)} and {list(theirs)}"
        yield from (f"{path.name}: {name}" for name in arrays if arrays[name] != theirs.get(name))
    if _best_weights(one) != _best_weights(other):
        yield "best.keras: weights"


def _arrays(path: Path) -> Iterator[tuple[str, bytes]]:
    """Yield name and content of the arrays of an npz file but a state's header, which holds clock times."""
    with np.load(path, allow_pickle=False) as arrays:
        yield from ((name, arrays[name].tobytes()) for name in arrays.files if name != "header")


def _hash(path: Path) -> str:
    """Return the start of the SHA-256 over the arrays of an npz file."""
    digest = hashlib.sha256()
    for name, content in _arrays(path):
        digest.update(name.encode() + content)
    return digest.hexdigest()[:16]


def _best_weights(run: Run) -> bytes:
    """Return the weights in best.keras; the archive itself carries a date."""
    with zipfile.ZipFile(run.best_model) as archive:
        return archive.read("model.weights.h5")
