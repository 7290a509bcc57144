"""Limits of a constructor's arguments, written as their types.

`bn_epsilon: Positive`, `depth: Literal[16, 19]`: objects refuse other values when they are made, and
app.config.catalogue reads the same annotations, so that experiment files are checked without the class.
"""

import operator
import typing
from collections.abc import Mapping
from typing import Annotated, Any, Literal

_WORDS = {
    "minimum": ("at least", operator.ge),
    "exclusiveMinimum": ("above", operator.gt),
    "maximum": ("at most", operator.le),
    "exclusiveMaximum": ("below", operator.lt),
}


class Limits:
    """What a number may be, for `Annotated`: any of JSON schema's minimum, exclusiveMinimum, maximum ..."""

    schema: dict[str, Any]  # keywords of JSON schema

    def __init__(self, **schema: float) -> None:
        self.schema = dict(schema)

    def __str__(self) -> str:
        """Return the limits in words, as in `at least 0 and below 1`."""
        return " and ".join(f"{_WORDS[key][0]} {limit:g}" for key, limit in self.schema.items())

    def allow(self, value: Any) -> bool:
        """Return whether a value is a number within the limits."""
        number = isinstance(value, int | float) and not isinstance(value, bool)
        return number and all(_WORDS[key][1](value, limit) for key, limit in self.schema.items())


class Range(Limits):
    """What the two ends of a range may be, for `Annotated`: two numbers within limits, the smaller first."""

    def __init__(self, **schema: float) -> None:
        self._ends = Limits(**schema)
        self.schema = {
            "minItems": 2,
            "maxItems": 2,
            "items": {"type": "number", **schema},
            "description": f"two numbers {self._ends}, the smaller first",
        }

    def __str__(self) -> str:
        """Return the rule in words."""
        return self.schema["description"]

    def allow(self, value: Any) -> bool:
        """Return whether a value is a range within the limits."""
        pair = isinstance(value, list | tuple) and len(value) == 2
        return pair and all(map(self._ends.allow, value)) and value[0] <= value[1]


Positive = Annotated[float, Limits(exclusiveMinimum=0)]
NotNegative = Annotated[float, Limits(minimum=0)]
BelowOne = Annotated[float, Limits(minimum=0, exclusiveMaximum=1)]


def check_arguments(cls: Any, arguments: Mapping[str, Any]) -> None:
    """Refuse arguments that their annotations in the constructor rule out.

    Args:
        cls: The class to be made.
        arguments: Its arguments by name.

    Raises:
        ValueError: Names the class, the argument, what is allowed and what was received.
    """
    annotations = typing.get_type_hints(cls.__init__, include_extras=True)
    for name, value in arguments.items():
        rule = _broken_rule(annotations.get(name), value)
        if rule:
            raise ValueError(f"{cls.__name__}'s {name} must be {rule}. Received: {name}={value!r}")


def _broken_rule(annotation: Any, value: Any) -> str | None:
    if typing.get_origin(annotation) is Literal:
        choices = typing.get_args(annotation)
        return None if value in choices else f"one of {', '.join(map(str, choices))}"
    limits = [extra for extra in getattr(annotation, "__metadata__", ()) if isinstance(extra, Limits)]
    return next((str(limit) for limit in limits if not limit.allow(value)), None)
