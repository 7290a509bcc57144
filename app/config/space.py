"""What a sweep's settings make of an experiment: one trial, and the check of the space before the first."""

import collections
import dataclasses
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from app.config.arguments import Finding, l2_penalty
from app.config.combinations import schedule_findings, search_findings
from app.config.inheritance import IDENTITY_KEYS, merge, parse_overrides
from app.config.loader import file_content, message_of, read_experiment, validated
from app.config.nodes import Mark, Node, Problem, node_of
from app.config.problems import locate, without_consequences
from app.config.schema import Experiment
from app.config.sweep import Choice, Range
from app.errors import UserError
from app.paths import experiments_dir
from app.wording import received

MAX_CORNERS = 500  # combinations that are all checked; of a larger space each value by itself
TEST = (
    "a sweep chooses by the validation images, and the test split would no longer test what was chosen on "
    "it; give a fraction such as 0.1"
)

Corner = tuple[int, ...]  # one trial: for each key of the space, in its order, the index of its value


def trial_experiment(base: Experiment, settings: Mapping[str, Any]) -> Experiment:
    """Return an experiment with some keys changed as SET changes them, strictly checked, without its sweep.

    Args:
        base: What the keys are changed of, complete as it is.
        settings: JSON values by dotted key. Another `model.name` or `optimizer.name` drops the old one's
            arguments.

    Raises:
        UserError: With a line for everything that is wrong.
    """
    root = _base(base, Mark("trial"))
    return checked(merge(root, _changes(settings, root.mark)), base)


def checked(changed: Node, base: Experiment, shortened: bool = False) -> Experiment:
    """Return the experiment that the changed file of another one makes, strictly checked.

    Args:
        changed: The content of the file, with its changes.
        base: What was changed; what is wrong with it already, because it was shortened, is not reported.
        shortened: Whether the training may end within its schedule, as where an override gives the epochs.

    Raises:
        UserError: With a line for everything that is wrong, which begins with the mark of `changed`.
    """
    experiment, findings = _new_run(changed, base, shortened)
    known = _new_run(_base(base, changed.mark), base)[1]
    findings = [finding for finding in findings if finding not in known]
    if findings or experiment is None:
        problems = without_consequences([locate(changed, finding) for finding in findings])
        raise UserError("\n".join(map(str, problems)))
    return experiment


def changed_experiment(base: Experiment, overrides: Sequence[str], option: str = "--set") -> Experiment:
    """Return an experiment with overrides, strictly checked as a new run; see `load_experiment`."""
    problems: list[Problem] = []
    changes = parse_overrides(overrides, problems, option)
    root = merge(_base(base, Mark(option)), changes)
    if problems:
        raise UserError("\n".join(map(str, problems)))
    return checked(root, base, shortened=changes.has("training", "epochs"))


def load_with_sweep(name_or_path: str | Path, overrides: Sequence[str] = ()) -> Experiment:
    """Load an experiment with its sweep, if it has one, and check the whole space; see `load_experiment`.

    An override of `sweep.space.KEY` replaces what the file has for this key, or adds it.
    """
    experiment, root = read_experiment(name_or_path, overrides)
    sweep, file = experiment.sweep, experiments_dir() / f"{experiment.name}.yaml"
    if sweep is None:
        return experiment
    findings = [Finding(("dataset", "validation"), TEST)] if experiment.dataset.validates_on_test else []
    findings += search_findings(sweep, experiment.training.epochs)
    unfit = {finding.path[2] for finding in findings if finding.path[:2] == ("sweep", "space")}
    space = {key: setting for key, setting in sweep.space.items() if key not in unfit}
    findings += _trial_findings(experiment, space)
    if findings:
        problems = [locate(root, finding) for finding in findings]
        raise UserError(message_of(without_consequences(problems), file))
    return experiment


def _trial_findings(experiment: Experiment, space: Mapping[str, Range | Choice]) -> Iterator[Finding]:
    """Check the corners of the space, that all have one objective, and that no two choices are the same."""
    keys, values = list(space), [setting.checked for setting in space.values()]
    root = _base(experiment, Mark(""))
    known = _new_run(root, experiment)[1]  # of a base that an override has shortened
    corners = _corners(list(space.values()))
    failing: dict[Finding, list[Corner]] = collections.defaultdict(list)
    alone: list[dict[int, Experiment]] = [{} for _ in keys]  # trials with the other keys at their first
    for corner in corners:
        settings = {key: some[index] for key, some, index in zip(keys, values, corner, strict=True)}
        trial, findings = _new_run(merge(root, _changes(settings, root.mark)), experiment)
        for finding in findings:
            if finding not in known:
                failing[finding].append(corner)
        for position, index in enumerate(corner):
            if trial and not any(corner[:position] + corner[position + 1 :]):
                alone[position][index] = trial
    for finding, cases in failing.items():
        owner, message = _owner(finding, keys)
        where = [f"{keys[i]} is {received(values[i][cases[0][i]])}" for i in _where(cases, corners, owner)]
        message += f"; where {', '.join(where)}" if where else ""
        if owner is None:
            yield dataclasses.replace(finding, message=message)
            continue
        rest = finding.path[keys[owner].count(".") + 1 :]
        at_key = finding.at_key and not rest
        indices = sorted({case[owner] for case in cases})
        for index in indices if isinstance(space[keys[owner]], Choice) else indices[:1]:
            step = (index,) if isinstance(space[keys[owner]], Choice) and not at_key else ()
            path = ("sweep", "space", keys[owner], *step, *rest)
            yield dataclasses.replace(finding, path=path, message=message)
    penalties = {l2_penalty(trial.model) for trials in alone for trial in trials.values()}
    if experiment.sweep and experiment.sweep.objective == "val_loss" and len(penalties) > 1:
        message = "holds the L2 penalty that some of these networks have (model.head_l2); choose val_accuracy"
        yield Finding(("sweep", "objective"), message)
    for key, trials in zip(keys, alone, strict=True):
        for (first, one), (second, other) in itertools.combinations(sorted(trials.items()), 2):
            if one.agrees_with(other):
                yield Finding(("sweep", "space", key, second), f"the same setting as choice {first}")


def _owner(finding: Finding, keys: Sequence[str]) -> tuple[int | None, str]:
    """Return which key of the space a finding of a trial is about, if one is, and the message for it."""
    path = tuple(step for step in finding.path if isinstance(step, str))
    for key in sorted(keys, key=len, reverse=True):
        parts = tuple(key.split("."))
        if finding.path[: len(parts)] == parts or parts[: len(finding.path)] == finding.path:
            return keys.index(key), finding.message
    for place, name in reversed(IDENTITY_KEYS.items()):
        key = ".".join((*place, name))
        if finding.is_missing and key in keys and path[: len(place)] == place:
            whole, missing = ".".join(place), ".".join(path)
            rule = f"drops what belongs to another one, and {missing} is missing; search {whole} as a whole"
            return keys.index(key), f"{rule}, as a list of mappings"
    return None, finding.message


def _where(cases: Sequence[Corner], corners: Sequence[Corner], owner: int | None) -> list[int]:
    """Return the keys, by position, whose values set the cases apart from the other corners."""
    if owner is not None:
        mine = {case[owner] for case in cases}
        corners = [corner for corner in corners if corner[owner] in mine]
    own, every = ([set(column) for column in zip(*some, strict=True)] for some in (cases, corners))
    apart = [i for i in range(len(own)) if i != owner and len(own[i]) == 1 < len(every[i])]
    if all(sum(map(bool, corner)) <= 1 for corner in corners):  # the others are at their first throughout
        return [i for i in apart if cases[0][i]] or apart
    return apart


def _corners(settings: Sequence[Range | Choice]) -> list[Corner]:
    """Return the trials to check: each value with the others' first, and all combinations if they are few."""
    sizes = [len(setting.checked) for setting in settings]
    ends = [
        range(size) if isinstance(setting, Choice) else (0, size - 1)
        for setting, size in zip(settings, sizes, strict=True)
    ]
    few = math.prod(map(len, ends)) <= MAX_CORNERS
    combinations = list(itertools.product(*ends)) if few else []
    first = (0,) * len(settings)
    singles = [
        (*first[:position], index, *first[position + 1 :])
        for position, size in enumerate(sizes)
        for index in range(size)
    ]
    return list(dict.fromkeys([*combinations, *singles]))


def _base(experiment: Experiment, mark: Mark) -> Node:
    """Return what trials change: the experiment without its sweep."""
    return node_of(file_content(experiment.model_copy(update={"sweep": None})), mark)


def _changes(settings: Mapping[str, Any], mark: Mark) -> Node:
    """Return settings by dotted key as one mapping."""
    changes = Node({}, mark)
    for key, value in settings.items():
        node = node_of(value, mark)
        for part in reversed(key.split(".")):
            node = Node({part: node}, mark, {part: mark})
        changes = merge(changes, node)
    return changes


def _new_run(
    root: Node, base: Experiment, shortened: bool = False
) -> tuple[Experiment | None, list[Finding]]:
    """Return what a tree says of a new run that is called as `base`, and what is wrong with it."""
    plain = root.plain()
    experiment, findings = validated(plain, base.name, base.description)
    return experiment, findings if shortened else [*findings, *schedule_findings(plain)]
