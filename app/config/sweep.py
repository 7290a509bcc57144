"""The section `sweep` of an experiment file: which keys are searched, over what, how, and for how long.

A space is written in the same words in a file and on the command line (`SPACE=`): a range as a text such as
`log(1e-4, 1e-1)`, choices as a list. What the settings mean for the experiment is checked in `space.py`.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import Field, PlainSerializer, PlainValidator, WithJsonSchema, field_validator

from app.config.schedules import Positive, Section
from app.config.training import best_mode
from app.wording import received

FORMS = {"uniform": (False, False), "log": (True, False), "int": (False, True), "int_log": (True, True)}
_NUMBER = r"[-+]?[0-9.]+(?:[eE][-+]?[0-9]+)?"
_RANGE = rf"({'|'.join(FORMS)})\( *({_NUMBER}) *, *({_NUMBER}) *\)"
_RULE = f"must be {', '.join(f'{form}(low, high)' for form in FORMS)}, or a list of choices"
_KEY = re.compile(r"[A-Za-z_]\w{0,63}(?:\.[A-Za-z_]\w{0,63}){0,9}", re.ASCII)
_MAX_CHOICES = 100
MAX_COMBINATIONS = 10_000  # of a space that are listed: all of a grid, else where drawing finds no new one
_FEW_INTEGERS = 64
_MAX_INTEGER = 2**53  # larger ones are not exact as floats, which samplers compute with


@dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high`, both included; floats, or ints where `integer`.

    Raises:
        ValueError: It is empty, not finite, or reaches zero on a logarithmic scale.
    """

    low: float
    high: float
    log: bool = False
    integer: bool = False

    def __post_init__(self) -> None:
        """Check the ends."""
        if self.integer and max(abs(self.low), abs(self.high)) > _MAX_INTEGER:
            raise ValueError(f"must have ends of at most {_MAX_INTEGER}")
        if not (math.isfinite(self.low) and math.isfinite(self.high)):
            raise ValueError("must have finite ends")
        if self.low >= self.high:
            raise ValueError("must have a low end that is below the high one")
        if self.log and self.low <= 0:
            raise ValueError("must begin above 0, where a logarithmic scale ends")

    @property
    def values(self) -> range | None:
        """All of them; None where they are floats."""
        return range(int(self.low), int(self.high) + 1) if self.integer else None

    @property
    def checked(self) -> Sequence[float]:
        """The ends, and the integers between them where these are few: experiments with them are checked."""
        ends = self.low, self.high
        return self.values if self.values and len(self.values) <= _FEW_INTEGERS else ends

    def __str__(self) -> str:
        """Return it as an experiment file has it."""
        form = next(name for name, kind in FORMS.items() if kind == (self.log, self.integer))
        return f"{form}({self.low!r}, {self.high!r})"


@dataclass(frozen=True)
class Choice:
    """Values of which each trial gets one, as JSON has them: lists, never tuples.

    Raises:
        ValueError: There are fewer than two, or very many.
    """

    values: tuple[Any, ...]

    def __post_init__(self) -> None:
        """Check their number."""
        if len(self.values) < 2:
            raise ValueError("must have at least two choices; a single one is a setting of the experiment")
        if len(self.values) > _MAX_CHOICES:
            raise ValueError(f"must have at most {_MAX_CHOICES} choices")

    @property
    def checked(self) -> Sequence[Any]:
        """All of them: see `Range.checked`."""
        return self.values


def setting_from(value: Any) -> Range | Choice:
    """Return what is to be searched from a file's text or list.

    Raises:
        ValueError: It is neither a range nor a list of choices.
    """
    if isinstance(value, Range | Choice):
        return value
    if isinstance(value, list | tuple):
        return Choice(tuple(map(_as_json, value)))
    match = re.fullmatch(_RANGE, value.strip()) if isinstance(value, str) else None
    if match is None:
        raise ValueError(_RULE)
    log, integer = FORMS[match[1]]
    try:
        low, high = (int(end) if integer else float(end) for end in match.groups()[1:])
    except ValueError:
        raise ValueError(f"must have {'whole ' if integer else ''}numbers as ends") from None
    return Range(low, high, log, integer)


def written(setting: Range | Choice) -> str | list[Any]:
    """Return a range's text, or a list of choices: as a file has it."""
    return str(setting) if isinstance(setting, Range) else list(setting.values)


def _as_json(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _as_json(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_as_json(inner) for inner in value]
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError("must have choices whose numbers are finite")
    return value


Setting = Annotated[
    Range | Choice,
    PlainValidator(setting_from),
    PlainSerializer(written),
    WithJsonSchema(
        {"anyOf": [{"type": "string", "pattern": f"^{_RANGE}$"}, {"type": "array", "minItems": 2}]}
    ),
]


class SweepConfig(Section):
    """A search over settings of the experiment; training the file itself ignores it."""

    space: Annotated[Mapping[str, Setting], Field(min_length=1, max_length=50)] = Field(
        description="What is searched, by dotted key: a list of choices, whatever the key takes, or a range: "
        "`uniform(low, high)`, `log(low, high)` on a logarithmic scale (Ray's `loguniform`, Optuna's "
        "`log=True`), `int(low, high)` or `int_log(low, high)` of whole numbers, both ends included."
    )
    sampler: Literal["tpe", "random", "grid"] = Field(
        "tpe",
        description="How settings are proposed: by Optuna's tree-structured Parzen estimator, which learns "
        "from the trials before, at random, or every combination of choices and `int` ranges.",
    )
    pruner: Literal["none", "median", "hyperband"] = Field(
        "median",
        description="Which trials end early: none; those whose best value so far is worse than the median of "
        "the finished trials (five at least) at the same epoch, from the epoch after the first quarter "
        "(rounded up) on; or by Hyperband.",
    )
    trials: Annotated[int, Field(ge=1, le=100_000)] = Field(30, description="Trials in all.")
    objective: Literal["val_accuracy", "val_loss"] = Field(
        "val_accuracy",
        description="Column of history.csv by which trials are compared; on validation images, never on the "
        "test split.",
    )
    budget_minutes: Positive | None = Field(
        None, description="Minutes after which the search ends; a trial under way stays resumable."
    )
    finalists: Annotated[int, Field(ge=0, le=100)] = Field(
        3, description="How many of the best settings are trained again with other seeds at the end."
    )
    seeds: Annotated[int, Field(ge=1, le=100)] = Field(3, description="Seeds of each finalist.")

    @field_validator("space", mode="before")
    @classmethod
    def _keys_are_dotted(cls, value: Any) -> Any:
        for key in value if isinstance(value, dict) else ():
            if not _KEY.fullmatch(key):
                rule = "must have keys such as training.batch_size (a range inside {} needs quotes)"
                raise ValueError(f"{rule}; one is {received(key)}")
        return value

    @property
    def num_combinations(self) -> int | None:
        """How many different settings the space has; None where ranges of floats have no number of them."""
        known = [each.values for each in self.space.values() if each.values is not None]
        return math.prod(map(len, known)) if len(known) == len(self.space) else None

    @property
    def direction(self) -> Literal["maximize", "minimize"]:
        """Whether the largest or the smallest objective is the best."""
        return "maximize" if best_mode(self.objective) == "max" else "minimize"
