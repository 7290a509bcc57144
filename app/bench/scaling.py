"""How training scales: one worker on one core, and several, taking turns on this machine.

`python -m app.bench.scaling EXPERIMENT.yaml` is one worker: it reads numbers of steps, one a line, and the
first worker of each group answers with the seconds of every step.
"""

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TextIO

from app.bench.bench import in_turns, in_words, ratios, spread, steps_in_a_round
from app.config import Experiment, dump_experiment, load_experiment
from app.distributed.cluster import VARIABLE, config_of, find_group
from app.distributed.local_workers import free_ports
from app.errors import UserError
from app.files import new_folder, write_json
from app.paths import module_command, runs_root, shown


def bench_scaling(experiment: Experiment, workers: int, rounds: int, out: TextIO) -> Path:
    """Measure the step of one worker, of several on the same batch, and of several on as many batches.

    Every worker has one core to itself. All teams are started first and take turns, so that a ratio compares
    neighbours in time.

    Args:
        experiment: What would be trained; its batch is that of one worker.
        workers: How many several are.
        rounds: How often every team has a turn.
        out: Receives each line as soon as it is known.

    Returns:
        The file scaling.json, in a new folder of `runs/bench/`.

    Raises:
        UserError: There are fewer cores than workers, or the experiment cannot be trained.
    """
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    if not 2 <= workers <= len(cores):
        raise UserError(f"bench: WORKERS={workers}; give each worker a core of its own: 2 to {len(cores)}")
    batch = experiment.training.batch_size
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:

        def start(name: str, count: int, batch_size: int) -> _Team:
            training = experiment.training.model_copy(update={"batch_size": batch_size})
            file = Path(folder) / f"{name}.yaml"
            file.write_text(dump_experiment(experiment.model_copy(update={"training": training})))
            group = _Team(file, cores[:count])
            stack.callback(group.close)
            return group

        teams = {
            "one": start("one", 1, batch),
            "strong": start("strong", workers, batch),
            "weak": start("weak", workers, workers * batch),
        }
        print(
            f"{experiment.name}: batches of {batch}, one core a worker, {rounds} rounds", file=out, flush=True
        )
        steps = steps_in_a_round(teams["one"].seconds(2))
        seconds = in_turns({name: group.seconds for name, group in teams.items()}, steps, rounds)
    result: dict[str, Any] = {"experiment": experiment.name, "workers": workers, "batch_size": batch}
    result |= {"steps_per_round": steps, **{name: spread(found) for name, found in seconds.items()}}
    told = {
        "one": "1 worker",
        "strong": f"{workers} workers, same batch",
        "weak": f"{workers} workers, {workers} batches",
    }
    for name, times in (("one", 1), ("strong", 1), ("weak", workers)):
        step = result[name]["seconds_per_step"]
        line = f"  {told[name]:<22} {step:.4g} s a step, {times * batch / step:,.0f} images/s"
        if name != "one":
            share = workers if name == "strong" else 1
            efficiency = ratios(seconds["one"], [share * each for each in seconds[name]])
            result[name]["efficiency"] = efficiency
            line += f", efficiency {in_words(efficiency, 2)}"
        print(line, file=out, flush=True)
    path = new_folder(runs_root() / "bench") / "scaling.json"
    write_json(path, result)
    print(f"figures {shown(path)}", file=out, flush=True)
    return path


class _Team:
    """The parent's side of some workers that train the same experiment together."""

    def __init__(self, file: Path, cores: Sequence[int]):
        """Start a worker on each core and wait until all are warm."""
        command, environment = module_command("app.bench.scaling", str(file))
        environment["TMPDIR"] = str(file.parent)  # what they leave there when killed goes with that folder
        addresses = [f"localhost:{port}" for port in free_ports(len(cores))]
        self.workers = []
        for index, core in enumerate(cores):
            variables = {VARIABLE: config_of(addresses, index)} if len(cores) > 1 else {}
            worker = subprocess.Popen(
                command,
                env=environment | variables,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE if index == 0 else subprocess.DEVNULL,
                text=True,
            )
            os.sched_setaffinity(worker.pid, {core})
            self.workers.append(worker)
        self.seconds(1)

    def seconds(self, steps: int) -> list[float]:
        """Return the seconds of each of so many steps."""
        for worker in self.workers:
            assert worker.stdin
            with contextlib.suppress(BrokenPipeError):
                worker.stdin.write(f"{steps}\n")
                worker.stdin.flush()
        chief = self.workers[0]
        assert chief.stdout
        line = chief.stdout.readline()
        if not line:
            _, errors = chief.communicate()
            last = (errors.strip().splitlines() or ["it said nothing"])[-1]
            raise UserError(f"bench: a worker ended before it answered: {last}")
        return json.loads(line)

    def close(self) -> None:
        """End the workers."""
        for worker in self.workers:
            worker.kill()
        for worker in self.workers:
            worker.communicate()


def main(file: str) -> None:
    """Be one worker."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # nothing but answers may reach the parent; JAX's libraries print too
    from app.bench.timers import fit_seconds
    from app.training.setup import prepare

    with tempfile.TemporaryDirectory() as folder, find_group() as group:
        job = prepare(load_experiment(Path(file)), group)
        for line in sys.stdin:
            seconds = fit_seconds(job, int(line), Path(folder))
            if group.is_chief:
                print(json.dumps(seconds), file=answers, flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
