"""Reads experiment files with what they extend, and overrides, into one tree of nodes.

A file may say `extends: other.yaml`: mappings merge, everything else is replaced. Where the child names
another model, optimizer or schedule, its mapping replaces the parent's as a whole, because arguments of the
old one mean nothing to the new one. Overrides (`training.epochs=2`) merge over the file by the same rules,
all at once.
"""

import dataclasses
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from app.config.nodes import LINE_END, Mark, Node, Problem, parse_yaml
from app.errors import UserError
from app.paths import shown
from app.wording import clipped, nearest, received

OVERRIDE = re.compile(r"([A-Za-z_][A-Za-z0-9_]*(?:\.[A-Za-z_][A-Za-z0-9_]*)*)=(.*)", re.DOTALL)
SPACE = "sweep.space."  # what follows is a key of the experiment
MAX_BYTES = 100_000  # PyYAML takes a second or two for a million
IDENTITY_KEYS = {
    ("model",): "name",
    ("optimizer",): "name",
    ("optimizer", "learning_rate"): "schedule",
    ("optimizer", "others"): "name",
    ("optimizer", "others", "learning_rate"): "schedule",
}
# Mappings with keys of the user's own: an empty one takes the place of what is inherited.
FREE_KEYS = {("optimizer", "rate_multipliers"), ("training", "class_weight")}


def load_file(
    path: Path, problems: list[Problem], children: tuple[Path, ...] = ()
) -> tuple[Node | None, str]:
    """Read a file and what it extends; `children` are the files that led here by their `extends`.

    Returns:
        The merged content (None if unreadable, then `problems` says why) and the file's first comment line.

    Raises:
        UserError: if the file itself cannot be read.
    """
    source = shown(path)
    text = _read_text(path)
    comment = re.match(r"\ufeff?\s*#(.*)", text)
    node = parse_yaml(text, source, problems)
    if node is not None and not isinstance(node.value, dict):
        problems.append(Problem(node.mark, "", f"must be a mapping of keys; got {received(node.plain())}"))
        node = None
    if node is not None and "extends" in node.value:
        extends = node.value.pop("extends")
        parent_path = _parent_path(path, extends.plain())
        if isinstance(parent_path, Path) and parent_path.resolve() in (path.resolve(), *children):
            parent_path = f"{received(extends.plain())} leads back to a file that extends it"
        if isinstance(parent_path, Path):
            parent, _ = load_file(parent_path, problems, (path.resolve(), *children))
            node = merge(parent, node) if parent else None
        else:
            problems.append(Problem(extends.mark, "extends", parent_path))
            node = None  # without what it inherits, nothing can be said of the rest
    return node, LINE_END.split(comment[1])[0].strip() if comment else ""


def parse_overrides(overrides: Sequence[str], problems: list[Problem], option: str = "--set") -> Node:
    """Return the overrides as one mapping; of two for the same key the later one counts.

    Messages name the option that they were given with.
    """
    changes = Node({}, Mark(option))
    for override in overrides:
        searched = override.startswith(SPACE)
        shown_override = f"SPACE {override.removeprefix(SPACE)}" if searched else f"{option} {override}"
        mark, match = Mark(clipped(shown_override, 106)), OVERRIDE.fullmatch(override)
        if not match:
            rule = "must be KEY=VALUE with a dotted key, such as training.epochs=2; quote what has spaces"
            if searched:
                rule = "must be KEY=[choices] or KEY=log(low,high) and so on, without spaces or in quotes"
            problems.append(Problem(mark, "", rule))
            continue
        keys, text = match[1].split("."), match[2]
        if searched:  # the keys of a space have dots themselves
            keys = [*keys[:2], ".".join(keys[2:])]
        if keys[0] == "extends":
            problems.append(Problem(mark, "extends", "cannot be set from outside; write it into a file"))
            continue
        if re.search(r"(^|\s)#", text) and text.lstrip()[:1] not in ("'", '"', "[", "{"):
            rule = "# begins a comment; quote the value for YAML, too: \"KEY='...'\""
            problems.append(Problem(mark, match[1], rule))
            continue
        value = parse_yaml(text, mark.source, problems, positions=False) if text.strip() else Node(None, mark)
        for key in reversed(keys):
            value = Node({key: value}, mark, {key: mark}) if value else None
        if value:
            changes = merge(changes, value)
    return changes


def merge(parent: Node, child: Node, path: tuple[str, ...] = ()) -> Node:
    """Return the child's content over the parent's."""
    if path[-1:] == ("learning_rate",) and type(parent.value) in (int, float):  # a constant one's peak
        children = {"schedule": Node("constant", parent.mark), "peak": parent}
        parent = Node(children, parent.mark, dict.fromkeys(children, parent.mark))
    if not isinstance(parent.value, dict) or not isinstance(child.value, dict):
        return child
    identity = IDENTITY_KEYS.get(path)
    if identity in parent.value and identity in child.value:
        if parent.value[identity].plain() != child.value[identity].plain():
            return dataclasses.replace(child, replaced=parent)
    if path in FREE_KEYS and not child.value:
        return child
    merged = {
        key: merge(parent.value[key], value, (*path, key)) if key in parent.value else value
        for key, value in child.value.items()
    }
    mark = child.mark if child.mark.line else parent.mark  # an override cannot show where a key is missing
    value = parent.value | merged
    if path in FREE_KEYS:  # the first pattern that fits counts: the child's come before
        value = merged | value
    return Node(value, mark, parent.key_marks | child.key_marks, parent.replaced)


def _parent_path(path: Path, value: Any) -> Path | str:
    """Return the file that `path` extends, or what is wrong with the value."""
    if not isinstance(value, str):
        return f"must be the name of a file; got {received(value)}"
    parent = path.parent / value
    try:
        inside, exists = parent.resolve().is_relative_to(path.parent.resolve()), parent.is_file()
    except (OSError, ValueError, RuntimeError):  # too long, a null character, a circle of links
        inside, exists = True, False
    if not inside:
        return f"must be a file in {shown(path.parent)}/; got {received(value)}"
    if not exists:
        files = [file.name for file in path.parent.glob("*.yaml") if file.name != path.name]
        meant = nearest(value, files)
        return f"no such file: {received(value)}" + (f"; did you mean '{meant}'?" if meant else "")
    return parent


def _read_text(path: Path) -> str:
    try:
        if not path.is_file():
            raise UserError(f"{shown(path)}: no such file")
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise UserError(f"{shown(path)}: {size} bytes; an experiment file has at most {MAX_BYTES}")
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"{shown(path)}: not UTF-8 text (byte {error.start})") from None
    except OSError as error:
        raise UserError(f"{shown(path)}: cannot be read: {error.strerror}") from None
