"""The tables of keys in experiments/README.md, from the fields' descriptions (`make schema`)."""

from collections.abc import Iterator
from typing import Any, get_args

from app.config.editor_schema import experiment_schema
from app.config.schedules import AnySchedule, Schedule
from app.files import split_at_marks

_SHARED = {"schedule", *Schedule.model_fields}
_BOUNDS = {
    "minimum": "≥ {}", "exclusiveMinimum": "> {}", "maximum": "≤ {}", "exclusiveMaximum": "< {}",
}  # fmt: skip
_TYPES = {"integer": "whole number", "number": "number", "string": "text", "boolean": "`true`, `false`"}
_HEAD = "| key | values | default | meaning |\n| --- | --- | --- | --- |\n"


def with_tables(page: str, catalogue: dict[str, Any]) -> str:
    """Return experiments/README.md with its tables of keys and of schedules written anew.

    Raises:
        UserError: The marks of a table are missing.
    """
    schema = experiment_schema(catalogue)
    keys = _HEAD + "".join(_rows(schema, schema["$defs"], ""))
    schedules = f"All schedules:\n\n{_HEAD}" + "".join(_rows(Schedule.model_json_schema(), {}, ""))
    for option in get_args(get_args(AnySchedule)[0]):
        own = option.model_json_schema()
        own["properties"] = {key: own["properties"][key] for key in own["properties"] if key not in _SHARED}
        rows = "".join(_rows(own, {}, ""))
        schedules += f"\n`{option.model_fields['schedule'].default}`: {option.__doc__}\n"
        schedules += f"\n{_HEAD}{rows}" if rows else ""
    for name, table in (("keys", keys), ("schedules", schedules)):
        start, end = f"<!-- make schema writes the {name} from here -->", f"<!-- end of the {name} -->"
        before, _, after = split_at_marks(page, start, end, f"experiments/README.md: no place for the {name}")
        page = f"{before}{start}\n\n{table}\n{end}{after}"
    return page


def _rows(schema: dict[str, Any], definitions: dict[str, Any], prefix: str) -> Iterator[str]:
    """Yield a line for each key below `prefix`; those of a mapping follow it."""
    for key, field in schema["properties"].items():
        if key in ("arguments", "schedule") or (not prefix and key in ("name", "description")):
            continue
        names = (option["$ref"].rpartition("/")[2] for option in _options(field) if "$ref" in option)
        nested = definitions.get(next(names, ""))
        values = (
            f"keys of `{prefix}{key}`" if nested else " or ".join(filter(None, map(_values, _options(field))))
        )
        default = "required" if key in schema.get("required", ()) else _shown(field.get("default"))
        yield f"| `{prefix}{key}` | {values} | {default} | {field['description']} |\n"
        if nested:
            yield from _rows(nested, definitions, f"{prefix}{key}.")


def _options(field: dict[str, Any]) -> list[dict[str, Any]]:
    return field.get("anyOf") or field.get("allOf") or [field]


def _values(option: dict[str, Any]) -> str:
    """Return what a key may be, in words; nothing for null."""
    if "oneOf" in option:
        return "number or mapping"
    if constants := option.get("enum", [option["const"]] if "const" in option else None):
        return ", ".join(f"`{value}`" for value in constants)
    kind = option.get("type")
    if kind == "array":
        items = option.get("prefixItems") or [option["items"]]
        return "list of layers" if "$ref" in items[0] else f"list: {_values(items[0])}"
    if kind == "object":
        return f"mapping: {_values(option['additionalProperties'])}"
    bounds = [text.format(f"{option[name]:.10g}") for name, text in _BOUNDS.items() if name in option]
    return " ".join([_TYPES[kind], ", ".join(bounds)]).strip() if kind in _TYPES else ""


def _shown(default: Any) -> str:
    """Return a default as a file would give it; nothing for what is absent."""
    if default is None or isinstance(default, dict | list | tuple):
        return ""
    return f"`{str(default).lower() if isinstance(default, bool) else default}`" if default != "" else ""
