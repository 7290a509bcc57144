"""Several workers on this machine, for a trial, and where a worker's output goes."""

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TextIO

from app.distributed.cluster import LOCAL_VARIABLE, VARIABLE, ask_no_proxy, config_of, find_group, is_alone
from app.distributed.process_group import ProcessGroup
from app.errors import UserError
from app.paths import module_command, runs_root, shown


@contextlib.contextmanager
def local_workers(num_workers: int, command: Sequence[str], experiment: str) -> Iterator[ProcessGroup]:
    """Start the other workers on this machine; yield the process group, of which this process is the chief.

    The cores are divided among them. A single worker gets the group that the environment names.

    Args:
        num_workers: This one included.
        command: What the others run: the command of `python -m app` and its arguments.
        experiment: Names their logs.

    Raises:
        UserError: There is no such number of workers, or TF_CONFIG names other ones.
    """
    if num_workers == 1:
        yield find_group()
        return
    cores = sorted(os.sched_getaffinity(0))
    most = max(2, len(cores))
    if not 1 <= num_workers <= most:
        raise UserError(f"WORKERS={num_workers}: choose 1 to {most}, a core for each worker of this machine")
    if not is_alone():
        rule = f"starts workers on this machine, but {VARIABLE} or Slurm names some; use one"
        raise UserError(f"WORKERS={num_workers}: {rule}")
    addresses = [f"localhost:{port}" for port in free_ports(num_workers)]
    program, environment = module_command("app", *command)
    logs = [worker_log(experiment, index) for index in range(1, num_workers)]
    processes: list[subprocess.Popen] = []

    def check() -> None:
        for index, process in enumerate(processes, start=1):
            if (code := process.poll()) is not None:
                raise UserError(f"worker {index} ended with code {code} before it came; see its log")

    try:
        for index, log in enumerate(logs, start=1):
            variables = {VARIABLE: config_of(addresses, index), LOCAL_VARIABLE: str(num_workers)}
            inputs, env = subprocess.DEVNULL, environment | variables
            with open(log, "ab") as file:
                processes.append(subprocess.Popen(program, env=env, stdin=inputs, stdout=file, stderr=file))
            os.sched_setaffinity(processes[-1].pid, cores[index::num_workers] or cores)
        paths = ", ".join(map(shown, logs))
        print(f"{num_workers} workers on this machine; logs of the others: {paths}", flush=True)
        os.sched_setaffinity(0, cores[::num_workers])
        os.environ[VARIABLE] = config_of(addresses, 0)  # for TensorFlow
        ask_no_proxy()
        yield ProcessGroup(addresses, check=check, num_local=num_workers)
    finally:
        os.environ.pop(VARIABLE, None)
        os.sched_setaffinity(0, cores)
        _wait_or_kill(processes)


def _wait_or_kill(processes: Sequence[subprocess.Popen], seconds: float = 15.0) -> None:
    """Let workers end, which they do when the chief has; kill those that do not."""
    end = time.monotonic() + seconds
    for process in processes:
        try:
            process.wait(max(0.1, end - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def worker_log(experiment: str, index: int) -> Path:
    """Return a new file for the output of a worker other than the chief."""
    folder = runs_root() / "workers"
    folder.mkdir(parents=True, exist_ok=True)
    stem, number = f"{time.strftime('%Y%m%d-%H%M%S')}-{experiment}-{index}", 1
    while True:
        path = folder / (f"{stem}.log" if number == 1 else f"{stem}-{number}.log")
        with contextlib.suppress(FileExistsError):
            path.touch(exist_ok=False)
            return path
        number += 1


def progress_output(group: ProcessGroup, experiment: str) -> TextIO:
    """Return where this worker shows its progress: the chief on the screen, each other one in its own log."""
    if group.is_chief or group.num_local:  # the output of a local worker is its log
        return sys.stdout
    log = worker_log(experiment, group.index)
    print(f"{group.name(group.index)} of {group.size}: progress in {shown(log)}", flush=True)
    return open(log, "a", buffering=1, encoding="utf-8")


def free_ports(count: int) -> list[int]:
    """Return ports that nothing on this machine uses now."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
