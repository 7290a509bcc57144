"""Reports everything wrong with an experiment's content, with file, line, column and dotted key."""

import functools
import inspect
import re
from collections.abc import Iterator
from typing import get_args

from pydantic import ValidationError

from app.config.arguments import Finding
from app.config.inheritance import IDENTITY_KEYS
from app.config.nodes import Node, Problem
from app.config.schedules import SCHEDULE_PATHS, AnySchedule, Section
from app.config.schema import Experiment
from app.wording import broken_rule, clipped, received, unknown_key, unknown_name, with_received

Path = tuple[str | int, ...]
SET_BY_LOADER = ("name", "description")
MAPPING_ERRORS = ("model_type", "model_attributes_type")


def schema_findings(error: ValidationError) -> Iterator[Finding]:
    """Turn errors of pydantic into findings in the words of our messages."""
    for detail in error.errors(include_url=False):
        kind, value, path, section = detail["type"], detail["input"], detail["loc"], ""
        limits = detail.get("ctx", {})
        for rate in SCHEDULE_PATHS:
            if path[: len(rate)] == rate and len(path) > len(rate):  # the next item is the schedule's name
                section, path = f"{path[len(rate)]}", (*rate, *path[len(rate) + 1 :])
        if kind == "union_tag_not_found":
            schedules = [each.model_fields for each in get_args(get_args(AnySchedule)[0])]
            allowed = ", ".join(sorted(each["schedule"].default for each in schedules))
            message = f"required key is missing; one of {allowed}"
            yield Finding((*path, "schedule"), message, is_missing=True)
            for key in sorted(set(value if isinstance(value, dict) else ()).difference(*schedules)):
                message, guess = unknown_key(str(key), {key for each in schedules for key in each})
                yield Finding((*path, key), message, at_key=True, guess=guess)
        elif kind == "missing":
            is_key = isinstance(path[-1], str)
            yield Finding(path, f"{'required key' if is_key else 'item'} is missing", is_missing=is_key)
        elif kind == "literal_error" and isinstance(value, str):
            options = re.findall(r"'([^']*)'", limits["expected"])
            yield Finding(path, unknown_name("value", value, options))
        elif kind == "extra_forbidden":
            message, guess = _unknown_key(path, section)
            yield Finding(path, message, at_key=True, guess=guess)
        elif kind == "union_tag_invalid":
            names, tag = re.findall(r"'([^']*)'", limits["expected_tags"]), value["schedule"]
            if isinstance(tag, str):
                message = unknown_name("schedule", tag, names)
            else:
                message = with_received(f"must be one of {', '.join(sorted(names))}", tag)
            yield Finding((*path, "schedule"), message)
        else:
            rule = broken_rule(detail)
            if kind in MAPPING_ERRORS and path in SCHEDULE_PATHS:
                rule = "must be a number or a mapping with the key 'schedule'"
            elif kind in MAPPING_ERRORS:
                rule = f"must be a mapping (keys: {', '.join(_keys(path, section))})"
            yield Finding(path, with_received(rule, value))


def _section(path: Path, schedule: str) -> type[Section] | None:
    """Return the model that describes the mapping at `path`."""
    current: type[Section] | None = Experiment
    for step in path:
        if current is None or not isinstance(step, str) or step not in current.model_fields:
            return None
        annotation = current.model_fields[step].annotation
        options = [
            option
            for option in (annotation, *get_args(annotation))
            if inspect.isclass(option) and issubclass(option, Section)
        ]
        if len(options) > 1:
            options = [option for option in options if option.model_fields["schedule"].default == schedule]
        current = options[0] if options else None
    return current


@functools.cache
def _keys(path: Path, schedule: str) -> list[str]:
    section = _section(path, schedule)
    hidden = SET_BY_LOADER if not path else ()
    return [key for key in section.model_fields if key not in hidden] if section else []


def _unknown_key(path: Path, schedule: str) -> tuple[str, str]:
    """Return message and guess for an unknown key, looking for it in the other sections too."""
    if path == ("training", "mode"):  # a key of earlier commits
        return "follows from training.monitor; leave it out", ""
    word, keys = str(path[-1]), _keys(path[:-1], schedule)
    message, guess = unknown_key(word, keys if path[:-1] else [*keys, "extends"])
    if len(path) == 1:
        # Not `reference` and `sweep`, unless nothing is nearer: they have words such as data and seeds.
        for section in keys if not guess else ("dataset", "model", "optimizer", "training", "evaluation"):
            if word in _keys((section,), ""):
                return f"unknown key; did you mean '{section}.{word}'?", f"{section}.{word}"
    return message, guess


def locate(root: Node, finding: Finding) -> Problem:
    """Give a finding its place in the file; what is not in the file gets the place of its parent."""
    node, mark, key, guess, message = root, root.mark, "", finding.guess, finding.message
    for position, step in enumerate(finding.path):
        children = node.value
        if node.replaced and finding.is_missing and node.replaced.has(*map(str, finding.path[position:])):
            message += _dropped_with(node, key, finding.path)
        if position + 1 == len(finding.path) and guess and key:
            guess = f"{key}.{guess}"
        if isinstance(children, dict) and step in children:
            mark = node.key_marks[str(step)] if finding.at_key else children[step].mark
            node = children[step]
        elif isinstance(children, list) and isinstance(step, int) and step < len(children):
            node = children[step]
            mark = node.mark
        elif position + 1 < len(finding.path) or not isinstance(children, dict | list):
            continue  # a level the schema has and the file has not, such as a bare number's schedule
        key += f"[{step}]" if isinstance(step, int) else f".{step}" if key else step
    return Problem(mark, key, message, guess, finding.is_missing)


def _dropped_with(node: Node, key: str, path: Path) -> str:
    """Return what to do about a key that was there until another name dropped it."""
    assert node.replaced is not None
    identity = IDENTITY_KEYS[tuple(key.split("."))]
    former, name = (mapping.value[identity].plain() for mapping in (node.replaced, node))
    rule = f"; that of {received(former)} is dropped with another {key}.{identity}"
    if node.mark.line:
        return rule
    value = "0.001" if path[-1] == "learning_rate" else "..."
    if (option := node.mark.source.partition(" ")[0]) != "--set":  # each word of BESIDE= is one variant
        return f"{rule}: {option}=\"'{key}={{{identity}: {clipped(str(name))}, {path[-1]}: {value}}}'\""
    missing = ".".join(map(str, path))
    return f'{rule}: SET="{key}.{identity}={clipped(str(name))} {missing}={value}"'


def without_consequences(problems: list[Problem]) -> list[Problem]:
    """Return the problems without missing keys that are misspelt or go with a name that is misspelt."""
    guesses = {problem.guess for problem in problems}
    wrong = {problem.key for problem in problems if not problem.is_missing}
    names = [(".".join(section), name) for section, name in IDENTITY_KEYS.items()]
    sections = tuple(f"{section}." for section, name in names if f"{section}.{name}" in wrong)
    return [
        problem
        for problem in problems
        if not (problem.is_missing and (problem.key in guesses or problem.key.startswith(sections)))
    ]
