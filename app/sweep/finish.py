"""The end of a sweep: its finalists, its page, and the last lines in the terminal."""

from pathlib import Path
from typing import TextIO

from app.paths import shown
from app.sweep.finalists import train_finalists
from app.sweep.page import write_sweep
from app.sweep.trials import read_experiment, read_trials
from app.sweep.verdict import finalist_sentences


def finish(folder: Path, out: TextIO) -> None:
    """Train the finalists of a sweep, or resume that, write its page, and print what was found.

    Args:
        folder: Of the sweep, all of whose trials have ended.
        out: Receives progress and the sentences.

    Raises:
        UserError: A file of the sweep is damaged, or a run cannot be trained.
        Interrupted: As for a training; the same call goes on.
    """
    experiment, _ = read_experiment(folder)
    assert experiment.sweep is not None
    write_sweep(folder, final=True)  # to be looked at while the finalists are trained
    record = train_finalists(folder, experiment, read_trials(folder), out)
    path = write_sweep(folder, final=True)
    sentences = finalist_sentences(record, experiment.sweep) if record else []
    print(f"page {shown(path)}", *sentences, sep="\n", file=out, flush=True)
