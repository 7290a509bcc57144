"""Which workers a training has: told by TF_CONFIG or by Slurm, or started on this machine for a trial."""

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from app.distributed.process_group import ProcessGroup
from app.errors import UserError
from app.paths import module_command, runs_root, shown

VARIABLE = "TF_CONFIG"
_LOCAL = "TRAINER_LOCAL_WORKER"  # set for workers that `local_workers` started; their output is their log
_EXAMPLE = '{"cluster": {"worker": ["host-a:2345", "host-b:2345"]}, "task": {"type": "worker", "index": 0}}'
SLURM_PORT = 8888
_started: list[subprocess.Popen] = []  # local workers, from 1 on


@dataclass(frozen=True)
class Cluster:
    """The workers' addresses (host:port), the chief first, and which of them this process is."""

    addresses: tuple[str, ...] = ("",)
    index: int = 0

    @property
    def size(self) -> int:
        """The number of workers."""
        return len(self.addresses)


def find_cluster(environment: Mapping[str, str] = os.environ) -> Cluster:
    """Return the workers that the environment names; this process alone where it names none.

    Slurm's variables count where TF_CONFIG is not set and the job step has several tasks. They are read by
    TensorFlow's resolver; ports count from SLURM_PORT up on each host.

    Raises:
        UserError: TF_CONFIG is not what TensorFlow takes, or names what this program does not have.
    """
    text = environment.get(VARIABLE, "")
    if text.strip():
        return _read(text)
    return Cluster() if is_alone(environment) else _ask_slurm(environment)


def is_alone(environment: Mapping[str, str] = os.environ) -> bool:
    """Return whether the environment names no other workers; unlike `find_cluster` asks nobody else.

    Raises:
        UserError: A number of Slurm's is none.
    """
    if environment.get(VARIABLE, "").strip():
        return False
    return "SLURM_PROCID" not in environment or _number(environment, "SLURM_STEP_NUM_TASKS", 1) < 2


def _number(environment: Mapping[str, str], name: str, default: int) -> int:
    """Return a variable that is a whole number."""
    text = environment.get(name) or str(default)
    try:
        return int(text)
    except ValueError as error:
        raise UserError(f"{name}: must be a whole number; got {text!r}") from error


def find_group() -> ProcessGroup:
    """Return the process group of the workers that the environment names."""
    cluster = find_cluster()
    return ProcessGroup(cluster.addresses, cluster.index, check=_check_started)


def _check_started() -> None:
    """Raise a UserError if a worker that was started here has ended already."""
    for index, worker in enumerate(_started, start=1):
        if worker.poll() is not None:
            raise UserError(f"worker {index} ended with code {worker.returncode} before it came; see its log")


def _read(text: str) -> Cluster:
    """Return the workers of a TF_CONFIG."""
    try:
        config = json.loads(text)
        cluster, task = config["cluster"], config["task"]
        kind, index = str(task["type"]), int(task["index"])
        addresses = {job: [str(address) for address in hosts] for job, hosts in cluster.items()}
        for address in [address for hosts in addresses.values() for address in hosts]:
            host, _, port = address.rpartition(":")
            if not host or not 0 < int(port) < 65_536:
                raise ValueError(f"an address is host:port, received {address!r}")
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        reason = f"{error} is missing" if isinstance(error, KeyError) else str(error)
        raise UserError(f"{VARIABLE}: {reason}. It is JSON such as\n  {_EXAMPLE}") from error
    if others := set(addresses) - {"chief", "worker"}:
        raise UserError(
            f"{VARIABLE}: received tasks of the kind {', '.join(sorted(others))}; this program trains with "
            "'worker' and 'chief' only"
        )
    if len(addresses.get("chief", [])) > 1:
        raise UserError(f"{VARIABLE}: received {len(addresses['chief'])} chiefs; there is one at most")
    if kind not in addresses or not 0 <= index < len(addresses[kind]):
        raise UserError(f"{VARIABLE}: the task is {kind} {index}, which is not in the cluster {addresses}")
    chiefs = addresses.get("chief", [])
    everybody = (*chiefs, *addresses.get("worker", []))
    if len(set(everybody)) < len(everybody):
        raise UserError(f"{VARIABLE}: received an address twice in {', '.join(everybody)}")
    return Cluster(everybody, index if kind == "chief" else len(chiefs) + index)


def _ask_slurm(environment: Mapping[str, str]) -> Cluster:
    """Return the tasks of this Slurm job step as workers, and set TF_CONFIG for TensorFlow.

    TensorFlow's resolver reads the lists; it is not asked for the whole, as it sorts hosts by name (node10
    before node9), which Slurm does not, and divides by the number of GPUs.
    """
    from tensorflow.python.distribute.cluster_resolver import slurm_cluster_resolver

    index = _number(environment, "SLURM_PROCID", 0)
    try:
        hosts = slurm_cluster_resolver.expand_hostlist(environment["SLURM_STEP_NODELIST"])
        tasks = slurm_cluster_resolver.expand_tasks_per_node(environment["SLURM_STEP_TASKS_PER_NODE"])
        workers = [
            f"{host}:{SLURM_PORT + i}" for host, count in zip(hosts, tasks, strict=True) for i in range(count)
        ]
        text = config_of(workers, index)
    except (KeyError, ValueError, IndexError) as error:
        raise UserError(
            f"Slurm: its variables do not tell who takes part ({type(error).__name__}: {error}); "
            f"set {VARIABLE} instead"
        ) from error
    cluster = _read(text)
    os.environ[VARIABLE] = text
    return cluster


@contextlib.contextmanager
def local_workers(count: int, command: Sequence[str], experiment: str) -> Iterator[None]:
    """Make this process the chief of so many workers on this machine; each gets its share of the cores.

    Args:
        count: Workers in all.
        command: What the others run: the verb of `python -m app` and its arguments.
        experiment: Names their logs.

    Raises:
        UserError: There is no such number of workers, or TF_CONFIG names other ones.
    """
    if count == 1:
        yield
        return
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    most = max(2, len(cores) or os.cpu_count() or 1)
    if not 1 <= count <= most:
        raise UserError(f"WORKERS={count}: choose 1 to {most}, a core for each worker of this machine")
    if os.environ.get(VARIABLE, "").strip():
        raise UserError(
            f"WORKERS={count}: starts workers on this machine, but {VARIABLE} names some; use one"
        )
    addresses = [f"localhost:{port}" for port in free_ports(count)]
    program, environment = module_command("app", *command)
    logs = []
    try:
        for index in range(1, count):
            log = worker_log(experiment, index)
            logs.append(log)
            with open(log, "ab") as file:
                _started.append(
                    subprocess.Popen(
                        program,
                        env=environment | {VARIABLE: config_of(addresses, index), _LOCAL: str(count)},
                        stdin=subprocess.DEVNULL,
                        stdout=file,
                        stderr=file,
                    )
                )
            if cores:
                os.sched_setaffinity(_started[-1].pid, cores[index::count] or cores)
        print(
            f"{count} workers on this machine; logs of the others: {', '.join(map(shown, logs))}", flush=True
        )
        if cores:
            os.sched_setaffinity(0, cores[::count])
        os.environ[VARIABLE], os.environ[_LOCAL] = config_of(addresses, 0), str(count)
        yield
    finally:
        os.environ.pop(VARIABLE, None)
        os.environ.pop(_LOCAL, None)
        if cores:
            os.sched_setaffinity(0, cores)
        _await_started()


def _await_started() -> None:
    """Let local workers end, which they do when the chief has; end those that do not."""
    end = time.monotonic() + 15
    while _started:
        worker = _started.pop()
        try:
            worker.wait(max(0.1, end - time.monotonic()))
        except subprocess.TimeoutExpired:
            worker.kill()
            worker.wait()


def worker_log(experiment: str, index: int) -> Path:
    """Return a new file for what a worker other than the chief has to say."""
    folder = runs_root() / "workers"
    folder.mkdir(parents=True, exist_ok=True)
    stem = f"{time.strftime('%Y%m%d-%H%M%S')}-{experiment}-{index}"
    for suffix in ("", *(f"-{number}" for number in range(2, 1000))):
        with contextlib.suppress(FileExistsError):
            path = folder / f"{stem}{suffix}.log"
            path.touch(exist_ok=False)
            return path
    raise AssertionError("unreachable")


def progress_output(group: ProcessGroup, experiment: str) -> TextIO:
    """Return where this worker shows its progress: the chief on the screen, each other one in its own log."""
    if group.is_chief or local_count():
        return sys.stdout
    log = worker_log(experiment, group.index)
    print(f"{group.name(group.index)} of {group.size}: progress in {shown(log)}", flush=True)
    return open(log, "a", buffering=1, encoding="utf-8")


def local_count() -> int:
    """Return how many workers `local_workers` started on this machine, 0 where it did not."""
    return _number(os.environ, _LOCAL, 0)


def config_of(addresses: Sequence[str], index: int) -> str:
    """Return the TF_CONFIG of one of several workers."""
    task = {"type": "worker", "index": index}
    return json.dumps({"cluster": {"worker": list(addresses)}, "task": task})


def free_ports(count: int) -> list[int]:
    """Return ports that nothing on this machine uses now."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
