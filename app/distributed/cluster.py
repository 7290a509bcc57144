"""The process group that the environment names: by TF_CONFIG, by Slurm, or this process alone."""

import json
import os
from collections.abc import Mapping, Sequence

from app.distributed.process_group import ProcessGroup
from app.errors import UserError

VARIABLE = "TF_CONFIG"
LOCAL_VARIABLE = "TRAINER_LOCAL_WORKER"  # the number of workers, for those that `local_workers` started
_EXAMPLE = '{"cluster": {"worker": ["host-a:2345", "host-b:2345"]}, "task": {"type": "worker", "index": 0}}'
SLURM_PORT = 8888


def find_group(environment: Mapping[str, str] = os.environ) -> ProcessGroup:
    """Return the process group that the environment names; this process alone where it names none.

    Slurm's variables count where TF_CONFIG is not set and the job step has several tasks. They are read by
    TensorFlow's resolver; ports count from SLURM_PORT up on each host.

    Raises:
        UserError: TF_CONFIG is not what TensorFlow takes, or names what this program does not have.
    """
    text = environment.get(VARIABLE, "")
    if text.strip():
        group = _parse(text, _number(environment, LOCAL_VARIABLE, 0))
    else:
        group = ProcessGroup() if is_alone(environment) else _ask_slurm(environment)
    if group.size > 1:
        ask_no_proxy(environment)
    return group


def ask_no_proxy(environment: Mapping[str, str] = os.environ) -> None:
    """Keep TensorFlow and JAX from asking a proxy for the other workers."""
    if {"http_proxy", "https_proxy"} & environment.keys():
        os.environ.setdefault("grpc_proxy", "")


def is_alone(environment: Mapping[str, str] = os.environ) -> bool:
    """Return whether the environment names no other workers; unlike `find_group` it does not ask Slurm.

    Raises:
        UserError: A variable of Slurm's is not a number.
    """
    if environment.get(VARIABLE, "").strip():
        return False
    return "SLURM_PROCID" not in environment or _number(environment, "SLURM_STEP_NUM_TASKS", 1) < 2


def _number(environment: Mapping[str, str], name: str, default: int) -> int:
    """Return an environment variable that is a whole number."""
    text = environment.get(name) or str(default)
    try:
        return int(text)
    except ValueError as error:
        raise UserError(f"{name}: must be a whole number; got {text!r}") from error


def _parse(text: str, num_local: int = 0) -> ProcessGroup:
    """Return the process group of a TF_CONFIG."""
    try:
        config = json.loads(text)
        cluster, task = config["cluster"], config["task"]
        kind, index = str(task["type"]), int(task["index"])
        addresses = {job: [str(address) for address in hosts] for job, hosts in cluster.items()}
        for address in [address for hosts in addresses.values() for address in hosts]:
            host, _, port = address.rpartition(":")
            try:
                host.encode("idna")
            except UnicodeError:  # as for two dots in a row: a socket would raise it, not an OSError
                host = ""
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
    chiefs = addresses.get("chief", [])
    if len(chiefs) > 1:
        raise UserError(f"{VARIABLE}: received {len(chiefs)} chiefs; there is one at most")
    if kind not in addresses or not 0 <= index < len(addresses[kind]):
        raise UserError(f"{VARIABLE}: the task is {kind} {index}, which is not in the cluster {addresses}")
    all_addresses = (*chiefs, *addresses.get("worker", []))
    if len(set(all_addresses)) < len(all_addresses):
        raise UserError(f"{VARIABLE}: received an address twice in {', '.join(all_addresses)}")
    index += 0 if kind == "chief" else len(chiefs)
    return ProcessGroup(all_addresses, index, num_local=num_local)


def _ask_slurm(environment: Mapping[str, str]) -> ProcessGroup:
    """Return the tasks of this Slurm job step as workers, and set TF_CONFIG for TensorFlow.

    TensorFlow's resolver reads the lists; it is not asked for the whole, as it sorts hosts by name (node10
    before node9), which Slurm does not, and divides by the number of GPUs.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # of several workers: see app.backend
    import app.backend  # noqa: F401, I001 - first: it keeps TensorFlow quiet while it comes up
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
    group = _parse(text)
    os.environ[VARIABLE] = text
    return group


def config_of(addresses: Sequence[str], index: int) -> str:
    """Return the TF_CONFIG of one of several workers."""
    task = {"type": "worker", "index": index}
    return json.dumps({"cluster": {"worker": list(addresses)}, "task": task})
