"""Strict YAML: text to nodes that remember their line and column, with every trap an error.

Stricter than PyYAML: only `true` and `false` are booleans, `1e-3` is a number, a duplicate key is an error,
and no tag builds anything but text, numbers, booleans, null, lists and mappings.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import yaml

from app.wording import clipped, printable

MAX_DEPTH = 20
MAX_INTEGER = 2**63
MAX_SHOWN_KEY = 120  # characters of a dotted key in a message
NO_ALIASES = (
    "anchors (&), aliases (*) and merge keys (<<) are not allowed; quote text that begins so, or inherit the "
    "keys of another file with `extends: other.yaml`"
)
LINE_END = re.compile("[\n\x85\u2028\u2029]")  # as YAML 1.1 counts lines
TAG = "tag:yaml.org,2002:"
SCALARS = {TAG + kind for kind in ("str", "int", "float", "bool", "null")}


@dataclass(frozen=True, order=True)
class Mark:
    """A place to point at: a file with line and column from 1, or an override (line 0)."""

    source: str
    line: int = 0
    column: int = 0

    def __str__(self) -> str:
        """Return it the way compilers do: `file:line:column`."""
        return f"{self.source}:{self.line}:{self.column}" if self.line else self.source


@dataclass(frozen=True, order=True)
class Problem:
    """One thing that is wrong, and where."""

    mark: Mark
    key: str  # dotted; empty for the file as a whole
    message: str
    guess: str = ""  # the dotted key that was meant
    is_missing: bool = False  # a required key

    def __str__(self) -> str:
        """Return the one line a user sees, whatever a file's keys or tags were made of."""
        key = f"{clipped(self.key, MAX_SHOWN_KEY)}: " if self.key else ""
        return printable(f"{self.mark}: {key}{self.message}")


@dataclass
class Node:
    """A value (scalar, list of nodes or dict of nodes) with its place and, for a dict, its keys' places."""

    value: Any
    mark: Mark
    key_marks: dict[str, Mark] = field(default_factory=dict)
    replaced: "Node | None" = None  # the mapping of another model, optimizer or schedule

    def has(self, *keys: str) -> bool:
        """Return whether a value lies below these keys."""
        if not keys:
            return True
        return isinstance(self.value, dict) and keys[0] in self.value and self.value[keys[0]].has(*keys[1:])

    def plain(self) -> Any:
        """Return the bare value; lists become tuples."""
        if isinstance(self.value, dict):
            return {key: child.plain() for key, child in self.value.items()}
        if isinstance(self.value, list):
            return tuple(child.plain() for child in self.value)
        return self.value


def node_of(plain: Any, mark: Mark) -> Node:
    """Return bare values as nodes that all point at one place."""
    if isinstance(plain, dict):
        children = {key: node_of(value, mark) for key, value in plain.items()}
        return Node(children, mark, dict.fromkeys(children, mark))
    if isinstance(plain, list | tuple):
        return Node([node_of(value, mark) for value in plain], mark)
    return Node(plain, mark)


RESOLVERS = (
    ("bool", r"true|false", "tf"),
    ("null", r"~|null|", ["~", "n", ""]),
    ("int", r"[-+]?(?:0|[1-9][0-9]*)", "-+0123456789"),
    (
        "float",
        r"[-+]?(?:(?:[0-9]+\.[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?|[0-9]+[eE][-+]?[0-9]+|\.(?:inf|Inf|INF))"
        r"|\.(?:nan|NaN|NAN)",
        "-+.0123456789",
    ),
)


def add_resolvers(loader_or_dumper: type) -> None:
    """Teach a PyYAML class which plain words are not text; it must start with an empty table."""
    for kind, pattern, first_characters in RESOLVERS:
        loader_or_dumper.add_implicit_resolver(  # type: ignore[attr-defined]
            TAG + kind, re.compile(rf"^(?:{pattern})$"), list(first_characters)
        )


class _Refused(Exception):  # noqa: N818
    """YAML that no experiment needs: what, and where that is known."""

    def __init__(self, message: str, place: yaml.Mark | None = None):
        super().__init__(message)
        self.place = place


class _Composer(yaml.SafeLoader):
    """PyYAML's parser with our idea of numbers and booleans; it stops at aliases and at deep nesting."""

    yaml_implicit_resolvers: dict[str, Any] = {}
    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        event = self.peek_event()
        if isinstance(event, yaml.AliasEvent) or event.anchor:
            sign = "*" if isinstance(event, yaml.AliasEvent) else "&"
            raise _Refused(f"{sign}{clipped(event.anchor)}: {NO_ALIASES}", event.start_mark)
        self.depth += 1
        if self.depth > MAX_DEPTH + 1:
            raise _Refused(f"nested deeper than {MAX_DEPTH} levels")
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


add_resolvers(_Composer)


def parse_yaml(text: str, source: str, problems: list[Problem], *, positions: bool = True) -> Node | None:
    """Parse one YAML document, which messages call `source`, with line and column if `positions`.

    Returns:
        The document, or None if it has no readable structure (then `problems` says why).
    """

    def mark_of(place: yaml.Mark | None) -> Mark:
        return Mark(source, place.line + 1, place.column + 1) if place and positions else Mark(source)

    composer = None
    try:
        composer = _Composer(text)
        root = composer.get_single_node()
        if root is not None:
            return _Builder(problems, mark_of).build(root, "")
        mark, message = Mark(source), "empty"
    except yaml.MarkedYAMLError as error:
        mark = mark_of(error.problem_mark or error.context_mark)
        message = f"not valid YAML: {clipped(str(error.problem or error.context), 200)}"
        if "alphabetic or numeric character" in message:
            message += "; quote text that begins with * or &"
    except yaml.reader.ReaderError as error:
        before = LINE_END.split(text[: error.position])
        mark = Mark(source, len(before), len(before[-1]) + 1) if positions else Mark(source)
        message = "not valid YAML: a control character"
    except (ValueError, OverflowError):  # PyYAML's, from an escape such as \UFFFFFFFF or %YAML 1.999...
        mark = mark_of(composer.get_mark() if composer else None)
        message = "not valid YAML: a number that is out of range"
    except _Refused as refusal:
        mark, message = mark_of(refusal.place), str(refusal)
    finally:
        if composer is not None:
            composer.dispose()
    problems.append(Problem(mark, "", message))
    return None


class _Builder:
    """Turns PyYAML's nodes into ours."""

    def __init__(self, problems: list[Problem], mark_of: Callable[[yaml.Mark], Mark]):
        self.problems, self.mark_of = problems, mark_of

    def build(self, node: yaml.Node, key: str) -> Node:
        mark = self.mark_of(node.start_mark)
        if isinstance(node, yaml.MappingNode) and node.tag == TAG + "map":
            return self.mapping(node, mark, key)
        if isinstance(node, yaml.SequenceNode) and node.tag == TAG + "seq":
            return Node([self.build(item, f"{key}[{i}]") for i, item in enumerate(node.value)], mark)
        if isinstance(node, yaml.ScalarNode) and node.tag in SCALARS:
            return Node(self.scalar(node, mark, key), mark)
        tag = clipped(node.tag.replace(TAG, "!!"))
        self.problems.append(Problem(mark, key, f"tag {tag} is not allowed"))
        return Node(None, mark)

    def mapping(self, node: yaml.MappingNode, mark: Mark, key: str) -> Node:
        result = Node({}, mark)
        for key_node, value_node in node.value:
            name, place = key_node.value, self.mark_of(key_node.start_mark)
            is_scalar = isinstance(key_node, yaml.ScalarNode)
            if not is_scalar or key_node.tag != TAG + "str" or not name.isprintable():
                shown = f"; got {clipped(name) or 'nothing'}" if is_scalar else ""
                self.problems.append(
                    Problem(place, key, f"a key must be a word, or a number in quotes{shown}")
                )
                continue
            dotted = f"{key}.{name}" if key else name
            if name == "<<" and key_node.style is None:
                raise _Refused(f"<<: {NO_ALIASES}", key_node.start_mark)
            if name in result.value:
                first = result.key_marks[name].line
                where = f"; it was given first at line {first}" if first else ""
                self.problems.append(Problem(place, dotted, f"duplicate key{where}"))
            else:
                result.value[name] = self.build(value_node, dotted)
                result.key_marks[name] = place
        return result

    def scalar(self, node: yaml.ScalarNode, mark: Mark, key: str) -> Any:
        kind, text = node.tag.removeprefix(TAG), node.value
        try:
            if kind == "int":
                number = int(text)
                if abs(number) >= MAX_INTEGER:
                    raise ValueError
                return number
            if kind == "float":
                return float(re.sub(r"\.(inf|nan)$", r"\1", text.lower()))
            if kind == "bool":
                return {"true": True, "false": False}[text]
            text.encode()  # refuses the halves of surrogate pairs, which no file can hold
        except (ValueError, KeyError):
            self.problems.append(Problem(mark, key, f"not a usable {kind}: {text[:40]!r}"))
            return None
        return None if kind == "null" else text
