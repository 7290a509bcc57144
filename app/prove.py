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
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

import numpy as np

from app.config import load_experiment
from app.data.pipeline import num_steps
from app.errors import UserError
from app.paths import module_command, project_root
from app.reading import HISTORY_COLUMNS, read_history, read_record
from app.records import DatasetRecord
from app.runs import Run, find_run, load_run_experiment

SAVES_PER_EPOCH = 3  # so that some resumes begin in the middle of an epoch
CLOCK_COLUMNS = ("seconds", "images_per_second")


@dataclass(frozen=True)
class Kill:
    """When to kill a training process.

    Attributes:
        saved_fraction: Fraction of the training that must be saved before the kill.
        delay_seconds: How long to wait after that.
        while_saving: Whether to wait then until a file is being written.
    """

    saved_fraction: float
    delay_seconds: float
    while_saving: bool


def prove_resume(name: str, overrides: Sequence[str], kills: int, seed: int, out: TextIO) -> bool:
    """Train an experiment with and without kills, and compare the files of the two runs.

    Args:
        name: The experiment.
        overrides: Changes to it, `key=value`.
        kills: How often the second run is killed; a third of the kills fall into the writing of a file.
        seed: Seed of the instants.
        out: Receives a line for each step; the last line is `identical ...` or names the first difference.

    Returns:
        Whether the runs are identical.

    Raises:
        UserError: The experiment cannot be trained.
    """
    epochs = load_experiment(name, overrides).training.epochs
    command = ["train", name]
    straight, _ = _process(_with(command, overrides), None)
    history = read_history(straight.history)
    seconds = [row["seconds"] for row in history]
    print(
        f"straight run {straight.name}: {len(history)} epochs in {sum(seconds):.0f} s", file=out, flush=True
    )

    save_seconds = min(seconds) / SAVES_PER_EPOCH
    saves = [f"training.checkpoint_every_minutes={max(save_seconds / 60, 1e-4):.4g}"]
    command = _with(command, [*overrides, *saves])
    draw, run, happened = random.Random(seed), None, 0
    # Before the last epoch begins: in it the process might end before it is killed.
    fractions = sorted(draw.random() * (1 - 1 / epochs) for _ in range(kills))
    for number, fraction in enumerate(fractions):
        run, victim = _process(command, Kill(fraction, draw.random() * save_seconds, number % 3 == 2))
        command = ["resume", "--run", run.name]
        if victim is None:
            print(f"kill {number + 1}: the run had ended before", file=out, flush=True)
            break
        happened += 1
        saved = f"{_saved_fraction(run):.0%} of the training is saved"
        print(f"kill {number + 1}: {victim}; {saved}", file=out, flush=True)
    if run is None or not run.finished:
        run, _ = _process(command, None)
    killed = f"{happened} kill{'s' if happened != 1 else ''}"
    print(f"killed run {run.name}: {killed}", file=out, flush=True)
    first = next(_differences(straight, run), None)
    if first is None:
        print(
            f"weights, optimizer and metrics {_hash(_newest_state(straight))}, predictions "
            f"{_hash(straight.predictions)}, {len(history)} rows of history: the same in both",
            file=out,
        )
    verdict = f"different: {first}" if first else f"identical after {killed}"
    if not first and happened < kills:
        verdict += f"; {kills - happened} of the {kills} asked for found the run at its end"
    print(verdict, file=out, flush=True)
    return first is None


def _with(command: Sequence[str], overrides: Sequence[str]) -> list[str]:
    """Return a command with the overrides, quoted: what follows --set is split as a shell would."""
    return [*command, "--set", shlex.join(overrides)]


def _process(command: Sequence[str], kill: Kill | None) -> tuple[Run, str | None]:
    """Run a training process until it ends or is killed.

    Returns:
        The run, and when the process was killed, in words; None if it ended first.
    """
    program, environment = module_command("app", *command)
    with subprocess.Popen(
        program, cwd=project_root(), env=environment,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    ) as process, contextlib.ExitStack() as stack:  # fmt: skip
        stack.callback(process.kill)  # must not outlive this process
        assert process.stdout is not None
        lines: list[str] = []
        run = None
        for line in process.stdout:
            lines.append(line)
            if line.startswith("run ") or ": resumed at " in line:
                run = find_run(line.removeprefix("run ").split(":")[0].strip())
                break
        if run is None:
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
    while process.poll() is None and _saved_fraction(run) < kill.saved_fraction:
        time.sleep(0.02)
    end = time.monotonic() + kill.delay_seconds
    while process.poll() is None and time.monotonic() < end:
        time.sleep(0.001)
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
    return [
        name.split("-", 2)[2] for folder in folders for name in os.listdir(folder) if name.startswith(".tmp-")
    ]


def _saved_fraction(run: Run) -> float:
    """Return the fraction of the training that the newest state holds."""
    newest = max((path.name for path in run.states.glob("state-*.npz")), default="state-0-0.npz")
    epoch, step = map(int, newest.removesuffix(".npz").split("-")[1:])
    epochs, steps = _length(run)
    return (epoch + step / steps) / epochs


@functools.cache
def _length(run: Run) -> tuple[int, int]:
    """Return the number of epochs and the steps per epoch."""
    training = load_run_experiment(run).training
    num_images = read_record(run.dataset, DatasetRecord).num_images.train
    return training.epochs, num_steps(num_images, training.batch_size)


def _differences(one: Run, other: Run) -> Iterator[str]:
    """Yield what differs between two finished runs: history, last states, predictions, best weights."""
    rows, others = read_history(one.history), read_history(other.history)
    if len(rows) != len(others):
        yield f"history: {len(rows)} and {len(others)} epochs"
    for row, its in zip(rows, others, strict=False):
        for column in HISTORY_COLUMNS:
            if column not in CLOCK_COLUMNS and row[column] != its[column]:
                yield f"history: {column} of epoch {row['epoch']}: {row[column]} and {its[column]}"
    for path in (_newest_state(one), one.predictions):
        twin = _newest_state(other) if path.parent == one.states else other.predictions
        if path.name != twin.name:
            yield f"last state: {path.name} and {twin.name}"
            continue
        with np.load(path, allow_pickle=False) as arrays, np.load(twin, allow_pickle=False) as theirs:
            if arrays.files != theirs.files:
                yield f"{path.name}: arrays {arrays.files} and {theirs.files}"
            for name in arrays.files:
                if name != "header" and arrays[name].tobytes() != theirs[name].tobytes():
                    yield f"{path.name}: {name}"
    if _best_weights(one) != _best_weights(other):
        yield "best.keras: weights"


def _newest_state(run: Run) -> Path:
    return max(run.states.glob("state-*.npz"))


def _hash(path: Path) -> str:
    """Return the start of the SHA-256 over the arrays of an npz file; a state's header holds clock times."""
    digest = hashlib.sha256()
    with np.load(path, allow_pickle=False) as arrays:
        for name in arrays.files:
            if name != "header":
                digest.update(name.encode() + arrays[name].tobytes())
    return digest.hexdigest()[:16]


def _best_weights(run: Run) -> str:
    """Return the SHA-256 of the weights in best.keras; the archive itself carries a date."""
    with zipfile.ZipFile(run.best_model) as archive:
        return hashlib.sha256(archive.read("model.weights.h5")).hexdigest()
