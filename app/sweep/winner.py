"""The settings that a sweep chose: an experiment file to copy, and the command that trains them again."""

from collections.abc import Mapping, Sequence
from typing import Any

from app.config import LABELS, Experiment, dump_experiment, trial_experiment
from app.config.combinations import schedule_findings
from app.config.inheritance import parse_overrides
from app.config.loader import as_yaml, file_content, read_experiment
from app.errors import UserError
from app.reports.cells import train_command


def winner_file(
    experiment: Experiment, overrides: Sequence[str], settings: Mapping[str, Any], comment: str
) -> tuple[str, str | None]:
    """Return the YAML of an experiment with a trial's settings, and the command that trains it as well.

    Args:
        experiment: What was searched.
        overrides: The `key=value` changes to its file that led to it.
        settings: Of the trial, JSON values by dotted key.
        comment: The first line, which says where the settings come from.

    Returns:
        The YAML extends the file of `experiment`. Where that is gone, or says something else by now, the YAML
        is complete in itself, and there is no such command. Where the search was too short for the recipe's
        schedule, which a file may not be, the YAML has the recipe's own epochs, or says that it needs more.
    """
    wanted = trial_experiment(experiment, settings)
    kept = [override for override in overrides if not override.startswith("sweep.")]
    changes = [*kept, *(f"{key}={as_yaml(value)}" for key, value in settings.items())]
    try:
        found, _ = read_experiment(experiment.name, changes)
    except UserError:
        found = None
    short = any(schedule_findings(file_content(wanted)))
    if found is None or not found.agrees_with(wanted, LABELS | {"sweep": True}):
        comment += " Its schedule needs more epochs: raise training.epochs first." if short else ""
        return dump_experiment(wanted.model_copy(update={"description": comment})), None
    content = parse_overrides(changes, []).plain()
    if short:
        del content["training"]["epochs"]  # however the override wrote it
        comment += f" With the epochs of {experiment.name}, whose schedule needs them."
    if found.sweep is not None:
        content["sweep"] = None  # of the file that is extended
    head = f"# {comment}\n# make train EXP={experiment.name}_best\nextends: {experiment.name}.yaml\n"
    return f"{head}{as_yaml(content, one_line=False)}\n", train_command(experiment.name, changes)
