"""Loads an experiment by name or path, and reports everything that is wrong with it in one message."""

import math
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from app.config.arguments import OTHERS, Finding, known_names, name_and_argument_findings, split_layer
from app.config.combinations import conflict_findings, mixing_findings, optimizer_findings, schedule_findings
from app.config.inheritance import load_file, merge, parse_overrides
from app.config.nodes import Mark, Node, Problem, add_resolvers, parse_yaml
from app.config.problems import locate, schema_findings, without_consequences
from app.config.schedules import Section
from app.config.schema import Experiment
from app.errors import UserError
from app.paths import experiments_dir, shown
from app.wording import nearest, received

NAME = re.compile(r"(?!.*\.\.)\w[\w.-]{0,99}")  # letters of any script: names of run folders come from it
MAX_LINES = 50  # of a message; a file with more mistakes is no experiment
DERIVED_KEY = "unknown key; the file's name is the experiment's, its first comment line the description"


def list_experiments() -> list[str]:
    """Return the names of all experiment files, sorted."""
    files = experiments_dir().glob("*.yaml")
    return sorted(path.stem for path in files if NAME.fullmatch(path.stem) and path.is_file())


def misnamed_files() -> dict[str, str]:
    """Return the files that would be experiments but for their names, each with a line on what to do."""
    misnamed = {}
    for path in sorted(experiments_dir().glob("[!.]*")):
        fits = NAME.fullmatch(path.stem) and path.suffix == ".yaml"
        if fits or path.suffix.lower() not in (".yaml", ".yml") or not path.is_file():
            continue
        better = re.sub(r"[^\w-]+", "_", path.stem).strip("_-")[:90] or "experiment"
        while (path.parent / f"{better}.yaml").exists():
            better += "_2"
        letters = "consists of at most 100 letters, digits, _ - and ., the first no - or ., and no two dots"
        rule = letters if path.suffix == ".yaml" else "ends in .yaml"
        misnamed[path.name] = (
            f"{shown(path)!r}: the name of an experiment's file {rule}; rename it, such as to {better}.yaml"
        )
    return misnamed


def load_experiment(
    name_or_path: str | Path, overrides: Sequence[str] = (), option: str = "--set"
) -> Experiment:
    """Load, merge and check one experiment, without its `sweep`, which only `load_with_sweep` returns.

    Args:
        name_or_path: a str is the name of a file in `experiments/`; a Path is that very file.
        overrides: `dotted.key=value` items, the values in YAML.
        option: With which they were given; messages name it.

    Raises:
        UserError: with one line for everything that is wrong.
    """
    experiment, _ = read_experiment(name_or_path, overrides, option)
    return experiment.model_copy(update={"sweep": None}) if experiment.sweep else experiment


def read_experiment(
    name_or_path: str | Path, overrides: Sequence[str] = (), option: str = "--set"
) -> tuple[Experiment, Node]:
    """Return an experiment with its `sweep`, and the tree that it was made of; see `load_experiment`."""
    by_name = isinstance(name_or_path, str)
    path = _experiment_path(name_or_path) if isinstance(name_or_path, str) else name_or_path
    problems: list[Problem] = []
    root, description = load_file(path, problems)
    changes = parse_overrides(overrides, problems, option)
    if root is None:
        raise UserError(message_of(problems, path))
    root = merge(root, changes)
    plain = root.plain()
    experiment, findings = validated(plain, path.stem, description)
    if by_name and not changes.has("training", "epochs"):
        # A run shortened by an override, or such a run's own file, may well end inside its warm-up.
        findings += schedule_findings(plain)
    unreadable = {problem.mark for problem in problems}  # what could not be read is wrong once, not twice
    located = [locate(root, finding) for finding in findings]
    problems += [problem for problem in located if problem.mark not in unreadable]
    if problems or experiment is None:
        raise UserError(message_of(without_consequences(problems), path))
    return experiment, root


def validated(plain: dict[str, Any], name: str, description: str) -> tuple[Experiment | None, list[Finding]]:
    """Return the experiment that a file's content makes, None where it makes none, and what is wrong."""
    checks = (name_and_argument_findings, optimizer_findings, mixing_findings, conflict_findings)
    findings = [finding for check in checks for finding in check(plain)]
    experiment, content = None, _gathered(plain) | {"name": name, "description": description}
    try:
        experiment = Experiment.model_validate(content)
    except ValidationError as error:
        findings += schema_findings(error)
    findings += [Finding((key,), DERIVED_KEY, at_key=True) for key in ("name", "description") if key in plain]
    return experiment, findings


def message_of(problems: Sequence[Problem], path: Path) -> str:
    """Return one line for each problem, in file order, and one for those that are too many to list."""
    each_once = sorted(set(problems))
    lines = [str(problem) for problem in each_once[:MAX_LINES]]
    if len(each_once) > MAX_LINES:
        lines.append(f"{shown(path)}: and {len(each_once) - MAX_LINES} more mistakes")
    return "\n".join(lines)


def dump_experiment(experiment: Experiment, *, mark_defaults: bool = False) -> str:
    """Return the experiment as YAML with every default written out; loading it gives an equal one.

    Args:
        experiment: What to write.
        mark_defaults: Whether a comment marks what was not given, neither by a file nor by an override.
    """
    header = f"# {experiment.description}\n" if experiment.description else ""
    content = file_content(experiment)
    text = header + _dumped(content, width=110)
    return _with_marks(text, experiment) if mark_defaults else text


def file_content(experiment: Experiment) -> dict[str, Any]:
    """Return the experiment as a file has it, without inheritance and with every default."""
    content = experiment.model_dump(exclude={"name", "description"})
    for part in filter(None, (content["optimizer"], content["optimizer"]["others"])):
        schedule = part["learning_rate"]
        part["learning_rate"] = {"schedule": schedule.pop("schedule")} | schedule
    content["augmentation"] = [
        {layer.name: layer.arguments} if layer.arguments else layer.name for layer in experiment.augmentation
    ]
    return content


def as_yaml(value: Any, *, one_line: bool = True) -> str:
    """Return a JSON value as YAML that this loader reads back as the same."""
    options = {"default_flow_style": True, "width": math.inf} if one_line else {"width": 110}
    return _dumped(value, **options).removesuffix("...\n").removesuffix("\n")


def _dumped(value: Any, **options: Any) -> str:
    text: str = yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, **options)
    return text


def _with_marks(text: str, experiment: Experiment) -> str:
    """Return an experiment's YAML with a comment where a value is a default, or arguments have defaults."""
    root, lines = parse_yaml(text, "", []), text.splitlines(keepends=True)
    assert root is not None

    def note(mark: Mark, words: str) -> None:
        lines[mark.line - 1] = lines[mark.line - 1].rstrip("\n") + f"  # {words}\n"

    for keys in _default_keys(experiment):
        node = root
        for key in keys:
            mark, node = node.key_marks[key], node.value[key]
        note(mark, "default")
    model, optimizer, layers = (root.value[key] for key in ("model", "optimizer", "augmentation"))
    parts: list[tuple[str, Any, Node]] = [
        *(("model", experiment.model, model), ("optimizer", experiment.optimizer, optimizer)),
        *(("augmentation layer", *pair) for pair in zip(experiment.augmentation, layers.value, strict=True)),
    ]
    if experiment.optimizer.others:
        parts.append((OTHERS, experiment.optimizer.others, optimizer.value["others"]))
    for kind, part, node in parts:
        options = {key: option.get("default") for key, option in known_names(kind)[part.name].items()}
        left = {key: value for key, value in options.items() if key not in part.arguments}
        if left := {key: value for key, value in left.items() if value is not None}:
            note(node.key_marks.get("name", node.mark), f"defaults: {as_yaml(left)}")
    return "".join(lines)


def _default_keys(section: Section) -> Iterator[tuple[str, ...]]:
    """Yield the path of each key that was not given; where that is a section, of its keys."""
    for name in type(section).model_fields:
        value = getattr(section, name)
        if isinstance(value, Section):
            yield from ((name, *path) for path in _default_keys(value))
        elif name not in section.model_fields_set:
            yield (name,)


class _Dumper(yaml.SafeDumper):
    """Quotes exactly the text that our loader would take for something else."""

    yaml_implicit_resolvers: dict[str, Any] = {}

    def ignore_aliases(self, data: Any) -> bool:
        return True


add_resolvers(_Dumper)
_Dumper.add_representer(
    tuple, lambda dumper, items: dumper.represent_sequence("tag:yaml.org,2002:seq", items, flow_style=True)
)


def _experiment_path(name: str) -> Path:
    """Return the file of a named experiment, which lies in `experiments/` and nowhere else."""
    folder = experiments_dir()
    names = list_experiments()
    path = folder / f"{name}.yaml"
    if NAME.fullmatch(name) and os.path.isfile(path):  # false, too, for a name that is too long
        if path.resolve().is_relative_to(folder.resolve()):
            return path
        raise UserError(
            f"experiment {received(name)}: {shown(path)} is a link that leads out of {shown(folder)}/"
        )
    misnamed = misnamed_files()
    for file in (name, *(name + end for end in (".yaml", ".yml", ".YAML", ".YML"))):
        if file in misnamed:
            raise UserError(misnamed[file])
    meant = nearest(name, names)
    guess = f" Did you mean '{meant}'?" if meant else ""
    available = f"Available: {', '.join(names)}." if names else f"There is no *.yaml in {shown(folder)}/."
    rule = " It must be the name of a file in experiments/, without path and .yaml."
    rule = "" if NAME.fullmatch(name) else rule
    raise UserError(f"unknown experiment {received(name)}.{rule}{guess} {available}")


def _gathered(plain: dict[str, Any]) -> dict[str, Any]:
    """Return a file's content in the shape of the schema: layers of augmentation with `name` as a key."""
    if not isinstance(plain.get("augmentation"), tuple):
        return plain
    layers = [split_layer(item) for item in plain["augmentation"]]
    named = tuple(given | {"name": name} for name, given in layers if name and given is not None)
    return plain | {"augmentation": named}
