"""The JSON schema that lets an editor complete and check experiment files: experiments/schema.json.

It describes files as they are written, so the constructors' arguments stand beside `name` again. Nothing is
marked as required, because a file with `extends` may leave out anything; the loader knows better.
"""

from collections.abc import Sequence
from typing import Any

from app.config.arguments import RESERVED_KEYS, TABLES
from app.config.schema import Experiment


def experiment_schema(catalogue: dict[str, Any]) -> dict[str, Any]:
    """Return the JSON schema of an experiment, the names of datasets included."""
    schema = Experiment.model_json_schema()
    schema["$defs"]["DatasetConfig"]["properties"]["name"]["enum"] = catalogue["datasets"]
    return schema


def editor_schema(catalogue: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of experiment files, given the content of catalogue.json."""
    schema = _without_required(experiment_schema(catalogue))
    for key in ("name", "description"):
        del schema["properties"][key]
    extends = {"type": "string", "description": "A file in this folder to inherit from."}
    schema["properties"]["extends"] = extends
    definitions = schema["$defs"]
    for section, reserved in RESERVED_KEYS.items():
        name = f"{section.capitalize()}Config"
        definitions[name] = _named(definitions[name], reserved, catalogue[TABLES[section]])
    rate = definitions["OptimizerConfig"]["anyOf"][0]["properties"]["learning_rate"]
    # A file with `extends` may leave out the schedule's name, and then fits several.
    schedules = {"anyOf": [{"type": "number", "exclusiveMinimum": 0}, *rate["oneOf"]]}
    for option in definitions["OptimizerConfig"]["anyOf"]:
        option["properties"]["learning_rate"] = schedules
    definitions["LayerConfig"] = {
        "description": definitions["LayerConfig"]["description"],
        "anyOf": [{"enum": list(catalogue["layers"])}, *map(_layer, catalogue["layers"].items())],
    }
    return {"$schema": "http://json-schema.org/draft-07/schema#", "title": "Experiment", **schema}


def _named(definition: dict[str, Any], reserved: Sequence[str], known: dict[str, Any]) -> dict[str, Any]:
    """Return one alternative for each name, with that constructor's arguments and no others."""
    shared = {key: definition["properties"][key] for key in reserved}
    options = [_mapping(shared | {"name": {"const": name}} | own) for name, own in known.items()]
    return {"description": definition["description"], "anyOf": options}


def _layer(item: tuple[str, dict[str, Any]]) -> dict[str, Any]:
    name, arguments = item
    return _mapping({name: _mapping(arguments, type=["object", "null"])}, required=[name])


def _mapping(properties: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, **more, "additionalProperties": False}


def _without_required(schema: Any) -> Any:
    if isinstance(schema, dict):
        return {key: _without_required(value) for key, value in schema.items() if key != "required"}
    if isinstance(schema, list):
        return [_without_required(item) for item in schema]
    return schema
