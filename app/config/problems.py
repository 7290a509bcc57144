"""Finds everything wrong with an experiment's content and says it with file, line, column and dotted key."""

import functools
import inspect
import re
from collections.abc import Callable, Iterator
from typing import Any, get_args

from pydantic import ValidationError

from app.config.arguments import Finding
from app.config.nodes import Node, Problem
from app.config.schedules import Section
from app.config.schema import Experiment
from app.wording import unknown_key, unknown_name, with_received

Path = tuple[str | int, ...]
SCHEDULE_PATH = ("optimizer", "learning_rate")
SET_BY_LOADER = ("name", "description")

RULES: dict[str, Callable[[dict[str, Any]], str]] = {
    "int_type": lambda limits: "must be a whole number",
    "float_type": lambda limits: "must be a number",
    "string_type": lambda limits: "must be text",
    "bool_type": lambda limits: "must be true or false",
    "tuple_type": lambda limits: "must be a list",
    "dict_type": lambda limits: "must be a mapping",
    "finite_number": lambda limits: "must be a finite number",
    "string_too_short": lambda limits: "must not be empty",
    "literal_error": lambda limits: f"must be {limits['expected']}",
    "greater_than": lambda limits: f"must be above {limits['gt']:g}",
    "greater_than_equal": lambda limits: f"must be at least {limits['ge']:g}",
    "less_than": lambda limits: f"must be below {limits['lt']:.10g}",
    "less_than_equal": lambda limits: f"must be at most {limits['le']:.10g}",
    "too_long": lambda limits: f"must have at most {limits['max_length']} items",
    "too_short": lambda limits: f"must have at least {limits['min_length']} items",
    "value_error": lambda limits: str(limits["error"]),
}
MAPPING_ERRORS = ("model_type", "model_attributes_type")


def schema_findings(error: ValidationError) -> Iterator[Finding]:
    """Turn what pydantic found into our words."""
    for detail in error.errors(include_url=False):
        kind, value, path = detail["type"], detail["input"], detail["loc"]
        limits = detail.get("ctx", {})
        if path[:2] == SCHEDULE_PATH and len(path) > 2:  # the third item is the schedule's name
            section, path = f"{path[2]}", (*path[:2], *path[3:])
        else:
            section = ""
        if kind == "default_factory_not_called":  # follows from an error that is reported itself
            continue
        if kind == "missing":
            yield Finding(path, "required key is missing" if isinstance(path[-1], str) else "item is missing")
        elif kind == "literal_error" and isinstance(value, str):
            options = re.findall(r"'([^']*)'", limits["expected"])
            yield Finding(path, unknown_name("value", value, options))
        elif kind == "extra_forbidden":
            yield Finding(path, _unknown_key(path, section), at_key=True)
        elif path == SCHEDULE_PATH and kind in (*MAPPING_ERRORS, "union_tag_not_found"):
            yield _no_schedule_name(path, value)
        elif kind in MAPPING_ERRORS:
            rule = f"must be a mapping (keys: {', '.join(_keys(path, section))})"
            yield Finding(path, with_received(rule, value))
        elif kind == "union_tag_invalid":
            names, tag = re.findall(r"'([^']*)'", limits["expected_tags"]), value["schedule"]
            if isinstance(tag, str):
                message = unknown_name("schedule", tag, names)
            else:
                message = with_received(f"must be one of {', '.join(sorted(names))}", tag)
            yield Finding((*path, "schedule"), message)
        else:
            rule = RULES[kind](limits) if kind in RULES else detail["msg"]
            yield Finding(path, with_received(rule, value))


def _no_schedule_name(path: Path, value: Any) -> Finding:
    if isinstance(value, dict):
        return Finding((*path, "schedule"), "required key is missing")
    return Finding(path, with_received("must be a number or a mapping with the key 'schedule'", value))


def _section(path: Path, schedule: str) -> type[Section] | None:
    """Return the model that describes the mapping at `path`."""
    current: type[Section] = Experiment
    for step in path:
        if not isinstance(step, str) or step not in current.model_fields:
            return None
        annotation = current.model_fields[step].annotation
        options = [
            option
            for option in (annotation, *get_args(annotation))
            if inspect.isclass(option) and issubclass(option, Section)
        ]
        if len(options) > 1:
            options = [option for option in options if option.model_fields["schedule"].default == schedule]
        if not options:
            return None
        current = options[0]
    return current


@functools.cache
def _keys(path: Path, schedule: str) -> list[str]:
    section = _section(path, schedule)
    hidden = SET_BY_LOADER if not path else ("arguments",)
    return [key for key in section.model_fields if key not in hidden] if section else []


def _unknown_key(path: Path, schedule: str) -> str:
    """Return the message for an unknown key, looking for it in the other sections too."""
    word, keys = str(path[-1]), _keys(path[:-1], schedule)
    message = unknown_key(word, keys if path[:-1] else [*keys, "extends"])
    if len(path) == 1 and "did you mean" not in message:
        homes = [f"{section}.{word}" for section in keys if word in _keys((section,), "")]
        if homes:
            return f"unknown key; did you mean '{homes[0]}'?"
    return message


def locate(root: Node, finding: Finding) -> Problem:
    """Give a finding its place in the file; what is not in the file gets the place of its parent."""
    node, mark, key = root, root.mark, ""
    for position, step in enumerate(finding.path):
        children = node.value
        if isinstance(children, dict) and step in children:
            mark = node.key_marks[str(step)] if finding.at_key else children[step].mark
            node = children[step]
        elif isinstance(children, list) and isinstance(step, int) and step < len(children):
            node = children[step]
            mark = node.mark
        elif position + 1 < len(finding.path) or not isinstance(children, dict | list):
            continue  # a level the schema has and the file has not, such as a bare number's schedule
        key += f"[{step}]" if isinstance(step, int) else f".{step}" if key else step
    return Problem(mark, key, finding.message)


def without_consequences(problems: list[Problem]) -> list[Problem]:
    """Return the problems without 'missing' keys that are there but misspelt."""
    meant = set()
    for problem in problems:
        if "did you mean '" in problem.message:
            parent = problem.key.rpartition(".")[0]
            guess = problem.message.split("did you mean '")[1].split("'")[0]
            meant.add(f"{parent}.{guess}" if parent else guess)
    return [p for p in problems if not (p.message == "required key is missing" and p.key in meant)]
