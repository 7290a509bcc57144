"""Cells of tables: what pages and the results table say of a run and its source."""

import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from app.config import LABELS, Experiment
from app.records import DatasetRecord
from app.wording import printable

# What a run may change without training another recipe.
FREE_SETTINGS: dict[str, Any] = {
    **LABELS,
    "dataset": {"data_dir"},
    "training": {"epochs", "checkpoint_every_minutes", "devices"},
}


def percent(fraction: float | None) -> str:
    """Return a fraction in percent; nothing for none."""
    return "" if fraction is None else f"{100 * fraction:.2f} %"


def seconds_text(seconds: float) -> str:
    """Return seconds with two digits at least, but whole from 10 on."""
    return f"{seconds:,.0f}" if seconds >= 9.95 else f"{seconds:.1f}" if seconds >= 0.95 else f"{seconds:.2g}"


def data_name(experiment: Experiment, dataset: DatasetRecord) -> str:
    """Return the data's name, with the kind of files where they are not the published arrays."""
    settings = experiment.dataset
    name: str = settings.name
    if name == "image_folder" and settings.data_dir:
        name = printable(Path(settings.data_dir).name) or name
    kinds = re.findall(r"\((?:[\d,]+ )?(\.\w+(?: \.\w+)*) files\)", dataset.source)
    return f"{name} as {kinds[-1]}" if kinds else name


def source_accuracies(experiment: Experiment) -> str:
    """Return the source's last and best accuracy, as far as it gives them."""
    reference = experiment.reference
    if reference is None:
        return ""
    last = reference.last_val_accuracy or reference.val_accuracy
    best, epoch = reference.best_val_accuracy, reference.best_epoch
    words = [percent(last), percent(best) + (f" ({epoch})" if best and epoch else "")]
    return ", ".join(word for word in words if word)


def source_sentence(experiment: Experiment) -> str:
    """Return what the source of an experiment reports, in a sentence."""
    reference = experiment.reference
    assert reference is not None
    accuracies = source_accuracies(experiment)
    sentence = f"Source: {reference.source}"
    if accuracies:
        sentence += f"; it reports {accuracies}{' (last, best epoch)' * (',' in accuracies)}"
        sentence += f" on {reference.data}" * bool(reference.data)
    sentence += f"; {reference.epochs} epochs" if reference.epochs else ""
    sentence += f"; {reference.seconds_per_epoch:g} s an epoch" if reference.seconds_per_epoch else ""
    note = reference.note or ""
    return f"{sentence}." + (f" {note[0].upper()}{note[1:].rstrip('.')}." if note else "")


def source_cell(experiment: Experiment) -> str:
    """Return the source's accuracies for a table, and the data behind them where they are other ones."""
    accuracies, reference = source_accuracies(experiment), experiment.reference
    if not (accuracies and reference and reference.data):
        return accuracies
    return f"{accuracies} on {' '.join(reference.data.split())}"  # a cell is one line


def train_command(experiment_name: str, overrides: Sequence[str]) -> str:
    """Return the command that trains an experiment with changed keys, quoted as shell and program read it."""
    if not overrides:
        return f"make train EXP={experiment_name}"
    text = shlex.join(overrides)
    quoted = shlex.quote(text) if any(sign in text for sign in '"$`\\!') else f'"{text}"'
    return f"make train EXP={experiment_name} SET={quoted}"
