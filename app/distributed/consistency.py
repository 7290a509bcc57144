"""What all workers must have in common before training starts: code, versions, experiment, data."""

import hashlib
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from app.config import Experiment
from app.data.dataset import Dataset
from app.distributed.process_group import ProcessGroup
from app.errors import UserError
from app.machine import package_versions


def same_program(group: ProcessGroup) -> None:
    """Check that all workers run the same code on the same versions.

    Raises:
        UserError: They do not; names the files or the package.
    """
    if group.size == 1:
        return  # spares reading all code
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
    """Check that all workers train the same experiment.

    Raises:
        UserError: They do not; names the first key that differs.
    """
    settings = experiment.flat(exclude={"dataset": {"data_dir"}})
    message = "{name} is {theirs!r}, {ours!r} at worker 0; give all the same experiment"
    _same(group, "experiment", settings, message)


def same_data(group: ProcessGroup, dataset: Dataset) -> None:
    """Check that all workers hold the same images in the same order.

    Raises:
        UserError: They do not; names what differs.
    """
    description = {
        "classes": ", ".join(dataset.class_names),
        "training images": len(dataset.train),
        "validation images": len(dataset.val),
        "fingerprint": dataset.fingerprint[:12],
    }
    message = "{name} of the data: {theirs}, {ours} at worker 0; give all the same files"
    _same(group, "data", description, message)


def _same(group: ProcessGroup, topic: str, values: Mapping[str, Any], message: str) -> None:
    """Compare the values of all workers with the chief's."""
    gathered = group.all_gather(topic, values)
    ours = gathered[0]
    for index, theirs in enumerate(gathered):
        names = [name for name in {**ours, **theirs} if ours.get(name) != theirs.get(name)]
        if names:
            difference = message.format(
                name=names[0],
                names=", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else ""),
                theirs=theirs.get(names[0], "missing"),
                ours=ours.get(names[0], "missing"),
            )
            raise UserError(f"{group.name(index)}: {difference}")
