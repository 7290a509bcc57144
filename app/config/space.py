"""What a sweep's settings make of an experiment: one trial, and the check of the space before the first."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from app.config.arguments import Finding
from app.config.combinations import lookahead_findings, schedule_findings
from app.config.inheritance import merge
from app.config.loader import file_content, read_experiment, validated
from app.config.nodes import Mark, Node, node_of
from app.config.problems import locate
from app.config.schema import Experiment
from app.errors import UserError


def trial_experiment(base: Experiment, settings: Mapping[str, Any]) -> Experiment:
    """Return an experiment with some keys changed as SET changes them, strictly checked, without its sweep.

    Args:
        base: What the keys are changed of, complete as it is.
        settings: JSON values by dotted key. Another `model.name` or `optimizer.name` drops the old one's
            arguments.

    Raises:
        UserError: With a line for everything that is wrong.
    """
    mark = Mark("trial")
    root = node_of(file_content(base.model_copy(update={"sweep": None})), mark)
    changed = merge(root, _changes(settings, mark))
    experiment, findings = _new_run(changed, base)
    findings = [finding for finding in findings if finding not in _new_run(root, base)[1]]
    if findings or experiment is None:
        raise UserError("\n".join(str(locate(changed, finding)) for finding in findings))
    return experiment


def _changes(settings: Mapping[str, Any], mark: Mark) -> Node:
    """Return settings by dotted key as one mapping."""
    changes = Node({}, mark)
    for key, value in settings.items():
        changes = merge(changes, _nested(key, node_of(value, mark)))
    return changes


def _nested(key: str, node: Node) -> Node:
    for part in reversed(key.split(".")):
        node = Node({part: node}, node.mark, {part: node.mark})
    return node


def _new_run(root: Node, base: Experiment) -> tuple[Experiment | None, list[Finding]]:
    """Return what a tree says of a new run that is called as `base`, and what is wrong with it."""
    plain = root.plain()
    experiment, findings = validated(plain, base.name, base.description)
    return experiment, [*findings, *lookahead_findings(plain), *schedule_findings(plain)]


def load_with_sweep(name_or_path: str | Path, overrides: tuple[str, ...] | list[str] = ()) -> Experiment:
    """Load an experiment with its sweep, if it has one, and check the whole space; see `load_experiment`.

    An override of `sweep.space.KEY` replaces what the file has for this key, or adds it.
    """
    experiment, root = read_experiment(name_or_path, overrides)
    if experiment.sweep:
        check_space(experiment, root)
    return experiment


def check_space(experiment: Experiment, root: Node | None = None) -> None:
    """Check that a sweep can search its space, and that whatever it draws is a valid experiment.

    Args:
        experiment: With its sweep.
        root: The tree that it was made of, so that messages point into the file.

    Raises:
        UserError: With a line for everything that is wrong.
    """
    raise NotImplementedError
