"""Wording of messages: what was received, what is allowed, what was probably meant, how long it takes."""

import difflib
import unicodedata
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

# pydantic's types of errors in the words of our messages; the limits are the context it gives.
RULES = {
    "int_type": "must be a whole number",
    "float_type": "must be a number",
    "string_type": "must be text",
    "bool_type": "must be true or false",
    "tuple_type": "must be a list",
    "list_type": "must be a list",
    "dict_type": "must be a mapping",
    "model_type": "must be a mapping",
    "model_attributes_type": "must be a mapping",
    "named_tuple_type": "must be a mapping",
    "finite_number": "must be a finite number",
    "string_too_short": "must not be empty",
    "literal_error": "must be {expected}",
    "greater_than": "must be above {gt:g}",
    "greater_than_equal": "must be at least {ge:g}",
    "less_than": "must be below {lt:.10g}",
    "less_than_equal": "must be at most {le:.10g}",
    "too_long": "must have at most {max_length} items",
    "too_short": "must have at least {min_length} items",
    "value_error": "{error}",
}
ALMOST_BOOLEANS = dict.fromkeys(("yes", "on", "true"), "true") | dict.fromkeys(
    ("no", "off", "false"), "false"
)


def broken_rule(detail: Mapping[str, Any]) -> str:
    """Return the rule that one of pydantic's error details tells of."""
    rule = RULES.get(detail["type"])
    return rule.format(**detail.get("ctx", {})) if rule else detail["msg"]


def clipped(text: str, max_length: int = 60) -> str:
    """Return a text, or its beginning where it is too long for a message."""
    return text if len(text) <= max_length else text[: max_length - 3] + "..."


def printable(text: str) -> str:
    """Return a text with everything escaped that a terminal, or a message of one line, would trip over."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def composed(name: str) -> str:
    """Return a name in one Unicode form; an accent may be a character of its own, as on macOS."""
    return unicodedata.normalize("NFC", name)


def received(value: Any) -> str:
    """Return a value as a person would recognise it from the file."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return repr(clipped(value))
    if isinstance(value, dict):
        keys = ", ".join([*map(clipped, list(value)[:6]), *(["..."] if len(value) > 6 else [])])
        return f"a mapping (keys: {keys})" if value else "an empty mapping"
    if isinstance(value, list | tuple):
        inner = ", ".join("[...]" if isinstance(item, list | tuple) else received(item) for item in value[:4])
        return f"[{inner}{', ...' if len(value) > 4 else ''}]"
    return str(value)


def with_received(rule: str, value: Any) -> str:
    """Return a rule followed by what was there instead."""
    message = f"{rule}; got {received(value)}"
    meant = ALMOST_BOOLEANS.get(value.lower()) if isinstance(value, str) else None
    return f"{message}; write {meant}" if meant and "true or false" in rule else message


def nearest(word: str, options: Iterable[str]) -> str | None:
    """Return the option that `word` was probably meant to be."""
    matches = difflib.get_close_matches(word.lower().replace("-", "_"), list(options), n=1, cutoff=0.6)
    return matches[0] if matches else None


def unknown_key(word: str, options: Iterable[str]) -> tuple[str, str]:
    """Return the message for a key that does not exist, and the key that was probably meant."""
    options = sorted(options)
    meant = nearest(word, options)
    if meant:
        return f"unknown key; did you mean '{meant}'?", meant
    return f"unknown key; allowed: {', '.join(options) or 'none'}", ""


def unknown_name(kind: str, word: str, options: Iterable[str]) -> str:
    """Return the message for a name that is not in a list of names."""
    options = sorted(options)
    if twin := next((each for each in options if composed(each) == composed(word)), None):
        return f"unknown {kind} {ascii(word)}; {ascii(twin)} looks the same, in another Unicode form"
    meant = nearest(word, options)
    guess = f"did you mean '{meant}'? " if meant else ""
    return f"unknown {kind} {received(word)}; {guess}allowed: {', '.join(options)}"


def counted(number: int, noun: str) -> str:
    """Return a number with its noun: 1 epoch, 2 epochs."""
    return f"{number} {noun}{'s' * (number != 1)}"


def best_words(monitor: str, on_test: bool) -> str:
    """Return what the best epoch is called: picked on the test split, its accuracy there is optimistic."""
    return "best on test" if on_test and monitor.startswith("val_") else "best"


def duration(seconds: float) -> str:
    """Return seconds as a person would say them: 45 s, 12 min, 3 h 20 min."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02} min"


def aligned(
    rows: Sequence[Sequence[str]], right: Collection[int] = (), widths: Sequence[int] | None = None
) -> list[str]:
    """Return the lines of a table in plain text, two spaces between its columns.

    Args:
        rows: The cells, those of the heading first.
        right: Columns (from 0) that are flush right.
        widths: Of the columns, in the terminal's; by default those of the longest cells.
    """
    widths = widths or [max(map(_columns, column)) for column in zip(*rows, strict=True)]

    def padded(cell: str, width: int, is_right: bool) -> str:
        blanks = " " * (width - _columns(cell))
        return blanks + cell if is_right else cell + blanks

    return [
        "  ".join(
            padded(cell, width, column in right)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def _columns(text: str) -> int:
    """Return the columns of a terminal that a text takes: two for a Chinese, Japanese or Korean letter."""
    wide = sum(unicodedata.east_asian_width(each) in "WF" for each in text)
    return wide + sum(unicodedata.category(each) not in ("Mn", "Me") for each in text)


def first_difference(have: Sequence[str], want: Sequence[str]) -> str:
    """Return where two lists of class names first differ."""
    if len(have) != len(want):
        return f"{len(have)} against {len(want)}"
    number, pair = next(
        (i, pair) for i, pair in enumerate(zip(have, want, strict=True)) if pair[0] != pair[1]
    )
    show = ascii if composed(pair[0]) == composed(pair[1]) else repr
    return f"class {number} is {show(pair[0])} against {show(pair[1])}"


def install_extra(name: str) -> str:
    """Return the command that installs an extra of pyproject.toml."""
    return f'.venv/bin/python -m pip install --constraint constraints.txt --editable ".[{name}]"'
