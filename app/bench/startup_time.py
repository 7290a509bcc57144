"""From nothing to the first step, timed in a process of its own."""

import contextlib
import cProfile
import pstats
import time
from collections.abc import Iterator
from pathlib import Path

from app.bench.json_worker import JsonWorker
from app.config import load_experiment


def start_up(file: Path) -> dict[str, float]:
    """Return the seconds from the start of a process to an experiment's first step, and of what parts.

    Returns:
        `imports`, `preparation` (data, network, compilation), `first_step`, `total`, and `own_code`: what is
        spent inside functions of app/ and models/ themselves, measured under a profiler in a second process.
    """
    return _child(file, False) | {"own_code": _child(file, True)["own_code"]}


def _child(file: Path, profiled: bool) -> dict[str, float]:
    arguments = [file, time.time(), profiled]
    worker = JsonWorker("bench: start-up", "app.bench.startup_time", *arguments, folder=file.parent)
    with contextlib.closing(worker):
        return worker.answer()


def _measure(file: Path, began: float) -> dict[str, float]:
    from app.training.setup import prepare  # brings up the backend, as the command `train` does

    from app.bench.timers import fit_seconds  # isort: skip

    imported = time.time()
    job = prepare(load_experiment(file))
    prepared = time.time()
    fit_seconds(job, 0, file.parent)
    stepped = time.time()
    return {
        "imports": imported - began,
        "preparation": prepared - imported,
        "first_step": stepped - prepared,
        "total": stepped - began,
    }


def answers(file: str, began: float, profiled: bool) -> Iterator[dict[str, float]]:
    """Be the process that is timed; `began` is the clock when it was started."""
    profile = cProfile.Profile() if profiled else None
    with profile or contextlib.nullcontext():
        parts = _measure(Path(file), began)
    if profile:
        code = Path(__file__).resolve().parents[2]
        ours = tuple(str(code / package) for package in ("app", "models"))
        times = pstats.Stats(profile).stats  # type: ignore[attr-defined]
        # The time inside our own functions, without what they call.
        parts["own_code"] = sum(
            own for (file, *_), (_, _, own, _, _) in times.items() if file.startswith(ours)
        )
    yield parts
