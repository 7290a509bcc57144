"""The JSON schema that lets an editor complete and check experiment files: experiments/schema.json.

It describes files as they are written, so the constructors' arguments stand beside `name` again. Nothing is
marked as required, because a file with `extends` may leave out anything; the loader knows better.
"""

from typing import Any

from app.config.arguments import RESERVED_KEYS
from app.config.schema import Experiment


def experiment_schema(catalogue: dict[str, Any]) -> dict[str, Any]:
    """Return the JSON schema of an experiment, the names of datasets included."""
    schema = Experiment.model_json_schema()
    schema["$defs"]["DatasetConfig"]["properties"]["name"]["enum"] = catalogue["datasets"]
    return schema


def editor_schema(catalogue: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of experiment files.

    Args:
        catalogue: the content of catalogue.json.
    """
    schema = _without_required(experiment_schema(catalogue))
    for key in ("name", "description"):
        del schema["properties"][key]
    schema["properties"]["extends"] = {
        "type": "string",
        "description": "A file in this folder to inherit from.",
    }
    definitions = schema["$defs"]
    definitions["ModelConfig"] = _named("ModelConfig", "model", definitions, catalogue["models"])
    definitions["OptimizerConfig"] = _named(
        "OptimizerConfig", "optimizer", definitions, catalogue["optimizers"]
    )
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


def _named(
    definition: str, section: str, definitions: dict[str, Any], known: dict[str, Any]
) -> dict[str, Any]:
    """Return one alternative for each name, with that constructor's arguments and no others."""
    shared = definitions[definition]["properties"]
    return {
        "description": definitions[definition]["description"],
        "anyOf": [
            {
                "type": "object",
                "properties": {key: shared[key] for key in RESERVED_KEYS[section]}
                | {"name": {"const": name}}
                | arguments,
                "additionalProperties": False,
            }
            for name, arguments in known.items()
        ],
    }


def _layer(item: tuple[str, dict[str, Any]]) -> dict[str, Any]:
    name, arguments = item
    inner = {"type": ["object", "null"], "properties": arguments, "additionalProperties": False}
    return {"type": "object", "properties": {name: inner}, "required": [name], "additionalProperties": False}


def _without_required(schema: Any) -> Any:
    if isinstance(schema, dict):
        return {key: _without_required(value) for key, value in schema.items() if key != "required"}
    if isinstance(schema, list):
        return [_without_required(item) for item in schema]
    return schema
