"""What the workers of one training must have in common before it starts: code, versions, experiment, data."""

import contextlib
import hashlib
import platform
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from app.config import Experiment
from app.data.dataset import Dataset
from app.distributed.process_group import ProcessGroup
from app.errors import UserError
from app.machine import package_versions
from app.paths import data_root

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]


def same_program(group: ProcessGroup) -> None:
    """See that all workers run the same code on the same versions.

    Raises:
        UserError: They do not; names the files and the packages.
    """
    if group.size == 1:
        return  # reading all code takes its time
    root = Path(__file__).resolve().parents[2]
    files = {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for package in ("app", "models")
        for path in sorted((root / package).rglob("*.py"))
    }
    versions = {"python": platform.python_version(), **package_versions()}
    _same(group, "versions", versions, "{name} is {theirs}, {ours} at worker 0; install the same versions")
    _same(group, "code", files, "{names} differ from worker 0's; bring the same commit to all workers")


def same_experiment(group: ProcessGroup, experiment: Experiment) -> None:
    """See that all workers were asked to train the same thing.

    Raises:
        UserError: They were not; names the keys.
    """
    settings = experiment.flat(exclude={"dataset": {"data_dir"}})
    _same(
        group,
        "experiment",
        settings,
        "{name} is {theirs!r}, {ours!r} at worker 0; give all the same experiment",
    )


def same_data(group: ProcessGroup, dataset: Dataset) -> None:
    """See that all workers hold the same images in the same order.

    Raises:
        UserError: They do not; names what differs.
    """
    facts = {
        "classes": ", ".join(dataset.class_names),
        "training images": len(dataset.train),
        "validation images": len(dataset.val),
        "fingerprint": dataset.fingerprint[:12],
    }
    _same(group, "data", facts, "{name} of the data: {theirs}, {ours} at worker 0; give all the same files")


def _same(group: ProcessGroup, topic: str, facts: Mapping[str, Any], sentence: str) -> None:
    """Compare facts with the chief's."""
    everybody = group.all_gather(topic, facts)
    for index, theirs in enumerate(everybody):
        ours = everybody[0]
        names = [name for name in {**ours, **theirs} if ours.get(name) != theirs.get(name)]
        if names:
            told = sentence.format(
                name=names[0],
                names=", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else ""),
                theirs=theirs.get(names[0], "missing"),
                ours=ours.get(names[0], "missing"),
            )
            raise UserError(f"{group.name(index)}: {told}")


@contextlib.contextmanager
def one_at_a_time(group: ProcessGroup | None) -> Iterator[None]:
    """Let the workers on one machine, or on one file system, load data one after the other.

    What the first decodes or downloads lies ready for the next; two at once would disturb each other.
    """
    if group is None or group.size == 1:
        yield
        return
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):  # a folder that cannot be written, a file system without locks
            data_root().mkdir(parents=True, exist_ok=True)
            file = stack.enter_context(open(data_root() / ".loading", "wb"))
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
