"""The generated files are current, and what they promise is what Keras and our networks accept."""

import json

import keras
import pytest

from app.config import Experiment
from app.config.arguments import CATALOGUE, argument_rule, catalogue
from app.config.catalogue import build_catalogue, to_json
from app.config.nodes import parse_yaml
from app.config.optimizer import OptimizerConfig, OtherOptimizer
from app.config.reference import editor_schema, with_tables
from app.config.schedules import ConstantSchedule
from app.errors import UserError
from app.paths import experiments_dir
from app.training.optimizers import build_optimizer
from tests.conftest import shipped_experiments


def test_generated_files_are_current():
    current = build_catalogue()
    hint = "run `make schema`"
    assert CATALOGUE.read_text() == to_json(current) + "\n", hint
    assert (experiments_dir() / "schema.json").read_text() == to_json(editor_schema(current)) + "\n", hint


@pytest.mark.parametrize("name", catalogue()["optimizers"])
def test_every_optimizer_takes_the_defaults_listed(name):
    classes = {cls.__name__.lower(): cls for cls in vars(keras.optimizers).values() if isinstance(cls, type)}
    defaults = {key: schema["default"] for key, schema in catalogue()["optimizers"][name].items()}
    if name == "muon":  # ours, not Keras'
        others = OtherOptimizer(name="sgd", learning_rate=ConstantSchedule(peak=0.5))
        config = OptimizerConfig(name=name, learning_rate=others.learning_rate, others=others, **defaults)
        assert float(build_optimizer(config, 1, 9).learning_rate) == 0.5
    else:
        assert float(classes[name](learning_rate=0.5, **defaults).learning_rate) == 0.5


def test_no_name_is_both_known_and_refused():
    for kind in ("layers", "optimizers"):
        assert not catalogue()[kind].keys() & catalogue()[f"refused_{kind}"].keys()


def test_every_default_passes_its_own_rule():
    for kind in ("optimizers", "layers", "models"):
        for arguments in catalogue()[kind].values():
            for schema in arguments.values():
                if "default" in schema:
                    value = schema["default"]
                    assert argument_rule(schema, tuple(value) if isinstance(value, list) else value) is None


@pytest.mark.parametrize(
    ("schema", "good", "bad"),
    [
        ({"type": "number"}, [1, 1.5], [True, "1", None, float("nan"), float("inf"), ()]),
        ({"type": "integer", "minimum": 2}, [2], [1, 2.0, True]),
        ({"type": "boolean"}, [True, False], [1, 0, "true"]),
        ({"type": ["number", "null"], "exclusiveMinimum": 0}, [None, 0.1], [0, -1]),
        ({"type": "number", "exclusiveMaximum": 1, "maximum": 2}, [0.9], [1]),
        ({"type": "array", "items": {"type": "integer"}}, [(), (1, 2)], [(1, True), (1, "a"), 3]),
        ({"type": "integer", "enum": [18, 34]}, [18], [19, 18.0, True]),
    ],
)
def test_argument_rules(schema, good, bad):
    assert not [value for value in good if argument_rule(schema, value)]
    assert all(argument_rule(schema, value) for value in bad)


def test_every_field_is_described():
    schema = Experiment.model_json_schema()
    for name, section in {"Experiment": schema, **schema["$defs"]}.items():
        for key, field in section["properties"].items():
            assert field.get("description", "").endswith("."), f"{name}.{key} has no sentence of its own"


def test_tables_of_keys_are_current():
    page = (experiments_dir() / "README.md").read_text()
    assert "| `training.batch_size` |" in page
    assert with_tables(page, catalogue()) == page, "run `make schema`"


def test_a_page_without_the_marks_of_a_table_is_refused():
    page = (experiments_dir() / "README.md").read_text().replace("<!-- end of the schedules -->", "")
    with pytest.raises(UserError, match="no place for the schedules; write the lines <!-- make schema"):
        with_tables(page, catalogue())


def test_editor_schema_describes_files_as_written():
    schema = json.loads((experiments_dir() / "schema.json").read_text())
    assert "extends" in schema["properties"] and "name" not in schema["properties"]
    models = schema["$defs"]["ModelConfig"]["anyOf"]
    resnet18 = next(option for option in models if option["properties"]["name"]["const"] == "resnet18")
    assert "bn_momentum" in resnet18["properties"] and "arguments" not in resnet18["properties"]


def test_shipped_experiments_fit_the_editor_schema():
    jsonschema = pytest.importorskip("jsonschema")
    schema = json.loads((experiments_dir() / "schema.json").read_text())
    validator = jsonschema.Draft7Validator(schema)
    for name in shipped_experiments():
        node = parse_yaml((experiments_dir() / f"{name}.yaml").read_text(), name, [])
        content = json.loads(json.dumps(node.plain()))
        assert list(validator.iter_errors(content)) == []
        assert list(validator.iter_errors(content | {"batch_size": 3}))
        misspelt = {"name": "sgd", "momentm": 0.9}
        assert list(validator.iter_errors(content | {"optimizer": misspelt}))
        for size, fits in (([64, 96], True), ([64, "wide"], False), ([64, 96, 3], False)):
            sized = content | {"dataset": content.get("dataset", {}) | {"image_size": size}}
            assert (list(validator.iter_errors(sized)) == []) == fits
    for layer, fits in (
        ("random_flip", True),
        ({"random_flip": None}, True),
        ("random_rotation", False),  # needs `degrees`
        ({"random_rotation": {"fill": "nearest"}}, False),
        ({"random_rotation": {"degrees": 10}}, True),
    ):
        assert (list(validator.iter_errors({"augmentation": [layer]})) == []) == fits
