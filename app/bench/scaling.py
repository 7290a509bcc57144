"""How training scales: one worker on one core, and several, interleaved on this machine."""

import contextlib
import functools
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TextIO

from app.bench.bench import in_words, interleaved, ratios, spread, steps_in_a_round
from app.bench.json_worker import JsonWorker, steps_asked
from app.config import Experiment, dump_experiment, load_experiment
from app.data.datasets import load_dataset
from app.distributed.cluster import VARIABLE, config_of, find_group
from app.distributed.local_workers import free_ports
from app.errors import UserError
from app.files import new_folder, write_json
from app.paths import runs_root, shown


def bench_scaling(experiment: Experiment, workers: int, rounds: int, out: TextIO) -> Path:
    """Measure the step of one worker, of several on the same batch, and of several on as many batches.

    Every worker has one core to itself. All groups are started first and then interleaved, so that a ratio
    compares neighbours in time. Returns the file scaling.json, in a new folder of `runs/bench/`.

    Raises:
        UserError: There are fewer cores than workers, or the experiment cannot be trained.
    """
    cores = sorted(os.sched_getaffinity(0))
    if not 2 <= workers <= len(cores):
        advice = f"2 to {len(cores)}" if len(cores) > 1 else "this machine has one; leave WORKERS out"
        raise UserError(f"bench: WORKERS={workers}; give each worker a core of its own: {advice}")
    batch, say = experiment.training.batch_size, functools.partial(print, file=out, flush=True)
    images = len(load_dataset(experiment.dataset).train)
    if workers * batch > images:
        raise UserError(
            f"bench: WORKERS={workers}: together they take up to {workers * batch} images a step, but there "
            f"are only {images} training images; choose SET=training.batch_size={images // workers} or less"
        )
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:

        def start(name: str, count: int, batch_size: int) -> Callable[[int], list[float]]:
            changes = {"batch_size": batch_size, "devices": "cpu"}  # a core a worker
            training = experiment.training.model_copy(update=changes)
            file = Path(folder) / f"{name}.yaml"
            one = experiment.model_copy(update={"training": training})
            file.write_text(dump_experiment(one), encoding="utf-8")
            return start_workers(file, cores[:count], stack)

        groups = {
            "one": start("one", 1, batch),
            "strong": start("strong", workers, batch),
            "weak": start("weak", workers, workers * batch),
        }
        say(f"{experiment.name}: batches of {batch}, one core a worker, {rounds} rounds")
        steps = steps_in_a_round(groups["one"](2))
        seconds = interleaved(groups, steps, rounds)
    result: dict[str, Any] = {"experiment": experiment.name, "workers": workers, "batch_size": batch}
    result |= {"steps_per_round": steps, **{name: spread(found) for name, found in seconds.items()}}
    # Title, batches in a step, and how much quicker a step would be where nothing is lost.
    rows = {
        "one": ("1 worker", 1, 1),
        "strong": (f"{workers} workers, same batch", 1, workers),
        "weak": (f"{workers} workers, {workers} batches", workers, 1),
    }
    for name, (title, batches, ideal) in rows.items():
        step = result[name]["seconds_per_step"]
        line = f"  {title:<22} {step:.4g} s a step, {batches * batch / step:,.0f} images/s"
        if name != "one":
            efficiency = ratios(seconds["one"], [ideal * each for each in seconds[name]])
            result[name]["efficiency"] = efficiency
            line += f", efficiency {in_words(efficiency, 2)}"
        say(line)
    path = new_folder(runs_root() / "bench") / "scaling.json"
    write_json(path, result)
    say(f"results {shown(path)}")
    return path


def start_workers(
    file: Path, cores: Sequence[int], stack: contextlib.ExitStack
) -> Callable[[int], list[float]]:
    """Start a worker of one experiment on each core; they end with the stack. Return what times steps."""
    addresses = [f"localhost:{port}" for port in free_ports(len(cores))]
    workers = []
    for index, core in enumerate(cores):
        variables = {VARIABLE: config_of(addresses, index)} if len(cores) > 1 else {}
        name = f"bench: worker {index}"
        worker = JsonWorker(name, "app.bench.scaling", file, folder=file.parent, **variables)
        workers.append(stack.enter_context(contextlib.closing(worker)))
        os.sched_setaffinity(worker.process.pid, {core})

    def seconds(steps: int) -> list[float]:
        for worker in workers:
            worker.ask(steps)
        return [worker.answer() for worker in workers][0]  # once all have taken them

    seconds(1)  # until all are warm
    return seconds


def answers(file: str) -> Iterator[list[float]]:
    """Be one worker."""
    from app.bench.timers import fit_seconds
    from app.training.setup import prepare

    with tempfile.TemporaryDirectory() as folder, find_group() as group:
        job = prepare(load_experiment(Path(file)), group)
        for steps in steps_asked():
            yield fit_seconds(job, steps, Path(folder))
