"""What describes the keys, from the fields' own descriptions (`make schema`).

The JSON schema lets an editor complete and check experiment files. It describes files as they are written.
Keys are not marked as required, because a file with `extends` may leave out any; the loader knows better.
A layer's arguments are, because a list of layers replaces the inherited one.
The tables of keys go into experiments/README.md.
"""

from collections.abc import Iterator
from typing import Any, get_args

from app.config.arguments import without_muon
from app.config.schedules import AnySchedule, Schedule
from app.config.schema import Experiment
from app.files import split_at_marks

_SHARED = {"schedule", *Schedule.model_fields}
_BOUNDS = {
    "minimum": "≥ {}", "exclusiveMinimum": "> {}", "maximum": "≤ {}", "exclusiveMaximum": "< {}",
}  # fmt: skip
_TYPES = {"integer": "whole number", "number": "number", "string": "text", "boolean": "`true`, `false`"}
_HEAD = "| key | values | default | meaning |\n| --- | --- | --- | --- |\n"


def experiment_schema(catalogue: dict[str, Any]) -> dict[str, Any]:
    """Return the JSON schema of an experiment, the names of datasets included."""
    schema = Experiment.model_json_schema()
    schema["$defs"]["DatasetConfig"]["properties"]["name"]["enum"] = catalogue["datasets"]
    return schema


def editor_schema(catalogue: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of experiment files, given the content of catalogue.json."""
    schema = _for_editors(experiment_schema(catalogue))
    for key in ("name", "description"):
        del schema["properties"][key]
    extends = {"type": "string", "description": "A file in this folder to inherit from."}
    schema["properties"]["extends"] = extends
    definitions = schema["$defs"]
    optimizers = catalogue["optimizers"]
    for definition, known in (
        ("ModelConfig", catalogue["models"]),
        ("OptimizerConfig", optimizers),
        ("OtherOptimizer", without_muon(optimizers)),
    ):
        definitions[definition] = _named(definitions[definition], known)
    rate = definitions["OptimizerConfig"]["anyOf"][0]["properties"]["learning_rate"]
    # A file with `extends` may leave out the schedule's name, and then fits several.
    schedules = {
        "description": rate["description"],
        "anyOf": [{"type": "number", "exclusiveMinimum": 0}, *rate["oneOf"]],
    }
    for option in (*definitions["OptimizerConfig"]["anyOf"], *definitions["OtherOptimizer"]["anyOf"]):
        option["properties"]["learning_rate"] = schedules
    layers = catalogue["layers"]
    definitions["LayerConfig"] = {
        "description": definitions["LayerConfig"]["description"],
        "anyOf": [
            {"enum": [name for name in layers if not _required(layers[name])]},
            *map(_layer, layers.items()),
        ],
    }
    return {"$schema": "http://json-schema.org/draft-07/schema#", "title": "Experiment", **schema}


def _named(definition: dict[str, Any], known: dict[str, Any]) -> dict[str, Any]:
    """Return one alternative for each name, with that constructor's arguments and no others."""
    shared = definition["properties"]
    options = [
        _mapping(shared | {"name": shared["name"] | {"const": name}} | own) for name, own in known.items()
    ]
    return {"description": definition["description"], "anyOf": options}


def _layer(item: tuple[str, dict[str, Any]]) -> dict[str, Any]:
    name, arguments = item
    required = _required(arguments)
    kind = "object" if required else ["object", "null"]
    return _mapping({name: _mapping(arguments, type=kind, required=required)}, required=[name])


def _required(arguments: dict[str, Any]) -> list[str]:
    return [key for key, schema in arguments.items() if "default" not in schema]


def _mapping(properties: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, **more, "additionalProperties": False}


def _for_editors(schema: Any) -> Any:
    """Return a schema without required keys, which `extends` may give, and with tuples as in draft-07."""
    if isinstance(schema, dict):
        words = {"prefixItems": "items"}
        return {
            words.get(key, key): _for_editors(value) for key, value in schema.items() if key != "required"
        }
    if isinstance(schema, list):
        return [_for_editors(item) for item in schema]
    return schema


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
        if key == "schedule" or (not prefix and key in ("name", "description")):
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
    return field.get("anyOf") or [field]


def _values(option: dict[str, Any]) -> str:
    """Return what a key may be, in words; nothing for null."""
    if "oneOf" in option:
        return "number or mapping"
    if constants := option.get("enum", [option["const"]] if "const" in option else None):
        return ", ".join(f"`{value}`" for value in constants)
    kind = option.get("type")
    if kind == "array":
        items = option.get("prefixItems") or [option.get("items", {})]
        if not items[0]:
            return "list"
        return "list of layers" if "$ref" in items[0] else f"list: {_values(items[0])}"
    if kind == "object":
        return f"mapping: {' or '.join(map(_values, _options(option['additionalProperties'])))}"
    bounds = [text.format(f"{option[name]:.10g}") for name, text in _BOUNDS.items() if name in option]
    return " ".join([_TYPES[kind], ", ".join(bounds)]).strip() if kind in _TYPES else ""


def _shown(default: Any) -> str:
    """Return a default as a file would give it; nothing for what is absent."""
    if default is None or isinstance(default, dict | list | tuple):
        return ""
    return f"`{str(default).lower() if isinstance(default, bool) else default}`" if default != "" else ""
