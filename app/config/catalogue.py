"""Generates catalogue.json, experiments/schema.json and tables of keys: `make schema`.

The catalogue lists the optimizers, augmentation layers and networks an experiment may name, each with its
constructor's arguments as small JSON schemas: `type`, `default` (absent if required), `enum`, limits. This is
the only module of app.config that imports Keras; the loader reads what it wrote.
"""

import collections.abc
import inspect
import json
import sys
import types
import typing
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from app.backend import keras  # without TensorFlow's start-up messages
from app.config.arguments import CATALOGUE, KERAS_EMA, OF_BOTH, types_of
from app.config.reference import editor_schema, with_tables
from app.config.schema import ALTERNATING_FLIP
from app.data.sources import LOADERS
from app.errors import UserError
from app.files import write_text
from app.paths import experiments_dir
from app.training.optimizers.muon import KernelSteps
from models.augmentation import LAYERS, REFUSED
from models.limits import Limits
from models.network import MODELS

REFUSED_OPTIMIZERS = {
    "ftrl": "made for sparse linear models, its first step replaces the weights that a network starts with",
    "lossscaleoptimizer": "training.precision: float16 puts it around the optimizer by itself",
    "multioptimizer": "it takes optimizer objects, which an experiment file cannot hold",
    "optimizermap": "it takes optimizer objects, which an experiment file cannot hold",
    "schedulefreeadamw": "on TensorFlow Keras computes another algorithm than the paper's, and weights that "
    "are not its average would be validated, saved and exported; use adamw",
}
LIMITED_FACTORS = (
    "random_brightness", "random_color_degeneration", "random_color_jitter", "random_contrast", "random_hue",
    "random_invert", "random_posterization", "random_saturation", "random_sharpness", "solarization",
)  # fmt: skip
# Set from elsewhere in the experiment, or meaningless in it.
HIDDEN_ARGUMENTS = {
    "self", "kwargs", "name", "dtype", "seed", "data_format", "learning_rate", "input_shape", "num_classes",
    "value_range", *KERAS_EMA,
}  # fmt: skip
PYTHON_TYPES: dict[Any, str] = {
    bool: "boolean", int: "integer", float: "number", str: "string", list: "array", tuple: "array",
    types.NoneType: "null", collections.abc.Sequence: "array", collections.abc.Iterable: "array",
}  # fmt: skip
# Keras leaves its arguments without annotations; where a default does not give the type, this does.
KERAS_TYPES: dict[str, str | list[str]] = {
    **dict.fromkeys(
        ("clipnorm", "clipvalue", "global_clipnorm", "loss_scale_factor", "weight_decay"), "number"
    ),
    "factor": ["number", "array"],
    "gradient_accumulation_steps": "integer",
}
POSITIVE = (
    "clip_threshold", "clipnorm", "clipvalue", "epsilon", "epsilon_1", "epsilon_2", "global_clipnorm",
    "loss_scale_factor",
)  # fmt: skip
LIMITS: dict[str, dict[str, Any]] = {  # by argument, beside what an annotation says
    **dict.fromkeys(POSITIVE, {"exclusiveMinimum": 0}),
    **dict.fromkeys(("beta_1", "beta_2", "rho"), {"minimum": 0, "exclusiveMaximum": 1}),
    **dict.fromkeys(("initial_accumulator_value", "weight_decay"), {"minimum": 0}),
    "gradient_accumulation_steps": {"minimum": 2},
    "momentum": {"minimum": 0, "maximum": 1},
}


def build_catalogue() -> dict[str, Any]:
    """Return the catalogue of the installed Keras and of our networks and layers."""
    # Keras' own muon takes its step for two-dimensional variables alone; ours replaces it.
    optimizers = _described({**_keras_optimizers(), "muon": KernelSteps})
    optimizers["muon"] |= {key: optimizers["sgd"][key] for key in OF_BOTH}
    layers = _described(LAYERS)
    probability = {"type": "number", "minimum": 0, "maximum": 1}  # no limits of a draw, as others' `factor`
    layers["random_grayscale"]["factor"] |= probability
    # Of two limits Keras refuses only those that both lie outside, and all of them late.
    for name in LIMITED_FACTORS:
        for argument in [key for key in layers[name] if key.endswith("factor")]:
            limits = {"minimum": -1 if "brightness" in name + argument else 0, "maximum": 1}
            kinds, two = types_of(layers[name][argument]), {"minItems": 2, "maxItems": 2}
            if name == "random_posterization":
                kinds, limits = ["integer", "array"], {"minimum": 1, "maximum": 8}
            layers[name][argument] |= {"type": kinds, "items": {"type": kinds[0], **limits}, **limits, **two}
    return {
        "datasets": sorted(LOADERS),
        "optimizers": optimizers,
        "refused_optimizers": REFUSED_OPTIMIZERS,
        "layers": {ALTERNATING_FLIP: {}, **layers},
        "refused_layers": dict(sorted(REFUSED.items())),
        "models": _described(MODELS),
        "image_sides": {
            name: [cls.smallest_pixels, cls.largest_pixels, cls.multiple_pixels]
            for name, cls in sorted(MODELS.items())
        },
    }


def to_json(content: Any, depth: int = 0, split_depth: int = 3) -> str:
    """Return JSON with one line for each value at `split_depth`, so that a difference reads well."""
    if depth == split_depth or not isinstance(content, dict) or not content:
        return json.dumps(content)
    indent = "  " * (depth + 1)
    lines = [
        f"{indent}{json.dumps(key)}: {to_json(value, depth + 1, split_depth)}"
        for key, value in content.items()
    ]
    return "{\n" + ",\n".join(lines) + "\n" + indent[2:] + "}"


def main() -> None:
    """Write both files and the tables of experiments/README.md."""
    catalogue, page = build_catalogue(), experiments_dir() / "README.md"
    try:
        tables = with_tables(page.read_text(encoding="utf-8"), catalogue)
    except UserError as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_code)
    write_text(CATALOGUE, to_json(catalogue) + "\n")
    write_text(experiments_dir() / "schema.json", to_json(editor_schema(catalogue)) + "\n")
    write_text(page, tables)


def _described(classes: Mapping[str, Any]) -> dict[str, dict[str, dict[str, Any]]]:
    """Return for each class a JSON schema of each argument that an experiment may give to it."""
    described: dict[str, dict[str, dict[str, Any]]] = {}
    for owner, cls in sorted(classes.items()):
        annotations = typing.get_type_hints(cls.__init__, include_extras=True)
        described[owner] = {
            parameter.name: _schema(parameter, annotations.get(parameter.name))
            for parameter in inspect.signature(cls.__init__).parameters.values()
            if parameter.name not in HIDDEN_ARGUMENTS
        }
    return described


def _keras_optimizers() -> dict[str, type]:
    classes = {cls.__name__.lower(): cls for cls in vars(keras.optimizers).values() if inspect.isclass(cls)}
    return {name: classes[name] for name in classes.keys() - REFUSED_OPTIMIZERS.keys() - {"optimizer"}}


def _schema(parameter: inspect.Parameter, annotation: Any) -> dict[str, Any]:
    required = parameter.default is parameter.empty
    if annotation is not None:
        schema = _from_annotation(annotation)
    elif parameter.name in KERAS_TYPES:
        schema = {"type": KERAS_TYPES[parameter.name]}
    else:
        schema = {"type": PYTHON_TYPES[type(parameter.default)]}
    if not required and parameter.default is None and "null" not in types_of(schema):
        schema["type"] = [*types_of(schema), "null"]
    schema |= LIMITS.get(parameter.name, {})
    return schema if required else schema | {"default": parameter.default}


def _from_annotation(annotation: Any) -> dict[str, Any]:
    origin, inner = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Annotated:
        schema = _from_annotation(inner[0])
        for extra in inner[1:]:
            schema |= extra.schema if isinstance(extra, Limits) else {}
        return schema
    if origin is Literal:
        return {"type": PYTHON_TYPES[type(inner[0])], "enum": list(inner)}
    if origin in (typing.Union, types.UnionType):
        merged: dict[str, Any] = {"type": []}
        for option in map(_from_annotation, inner):
            merged = option | merged | {"type": [*merged["type"], *types_of(option)]}
        return merged
    schema = {"type": PYTHON_TYPES[origin or annotation]}
    items = [item for item in inner if item is not ...]
    if schema["type"] == "array" and items:
        schema["items"] = _from_annotation(items[0])
    return schema


if __name__ == "__main__":
    main()
