"""A trial of a sweep, as everything but the engine sees it."""

from typing import Any, Literal, NamedTuple


class Trial(NamedTuple):
    """One set of settings, and how far its training came."""

    number: int
    settings: dict[str, Any]  # JSON values by dotted key
    state: Literal["waiting", "running", "finished", "pruned", "failed"]
    values: tuple[float | None, ...]  # the objective after each epoch
    value: float | None  # the objective of the run's headline epoch
    reason: str | None  # of a failure
    run: str | None
    seconds: float
