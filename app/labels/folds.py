"""`make folds`: one ordinary run a fold, and the logits of all of them on images that they did not see.

The runs are a set (app/run_set.py) in `runs/<experiment>.<number>-folds/`. Its folds.json has the
settings of the first fold's run; predictions.npz beside it joins the predictions of all.
"""

import time
from pathlib import Path
from typing import TextIO

import numpy as np

from app.config import Experiment
from app.config.dataset import Fold
from app.data.dataset import Source, fingerprint
from app.data.datasets import divided, load_source
from app.data.splits import fold_numbers
from app.errors import UserError
from app.files import atomic_path, write_json
from app.paths import shown
from app.preflight import check_dataset, settle_weights
from app.reading import read_predictions, read_record
from app.records import MetricsRecord
from app.run_set import RunSet, run_of, train_or_resume, warn_of_formats
from app.runs import Run, locked


class FoldSet(RunSet):
    """A folder with the runs of all folds."""

    kind = "folds"

    @property
    def predictions(self) -> Path:
        """Labels and logits of all training images."""
        return self.folder / "predictions.npz"

    @property
    def number(self) -> int:
        """How many folds there are."""
        return _number(self.experiment)

    def run_of(self, index: int) -> Run | None:
        """Return the newest run of a fold, None where there is none that could be resumed."""
        return run_of(self.folder.name, with_fold(self.experiment, index), self.record.fingerprint)


def with_fold(experiment: Experiment, index: int) -> Experiment:
    """Return an experiment that names a fold, with another one in its place."""
    fold = Fold(of=_number(experiment), index=index)
    return experiment.model_copy(update={"dataset": experiment.dataset.model_copy(update={"fold": fold})})


def train_folds(experiment: Experiment, out: TextIO) -> None:
    """Train an experiment once for each fold, and join the predictions; what is finished stays.

    Args:
        experiment: Names a fold; the number of folds is its.
        out: Receives what was done.

    Raises:
        UserError: Something that the user can mend, before anything is written.
        Interrupted: As for a training; the same call goes on.
    """
    experiment, number = settle_weights(experiment), _number(experiment)
    source = load_source(experiment.dataset)
    every = [with_fold(experiment, index) for index in range(number)]
    datasets = [divided(source, one.dataset) for one in every]
    for one, dataset in zip(every, datasets, strict=True):  # copies stay together: folds differ in size
        check_dataset(one, dataset)
    found = FoldSet.find(experiment, fingerprint(source), f"{number}-")
    print(f"{number} folds in {shown(found.folder)}; the same command resumes them", file=out, flush=True)
    with locked(Run(found.folder)):
        for index, (one, dataset) in enumerate(zip(every, datasets, strict=True), 1):
            found.check_weights()
            train_or_resume(found.folder.name, one, dataset, out, f"fold {index} of {number}")
        _join(found, source, out)


def _number(experiment: Experiment) -> int:
    assert experiment.dataset.fold is not None  # of an experiment with folds
    return experiment.dataset.fold.of


def _join(found: FoldSet, source: Source, out: TextIO) -> None:
    """Write predictions.npz and complete folds.json, both of which say nothing that the runs do not say."""
    seed = found.experiment.dataset.split_seed
    labels, names = source.train.labels, source.class_names
    folds = fold_numbers(source.train, found.number, seed, names)
    logits = np.zeros((len(labels), len(names)), np.float32)
    runs, accuracies = [], []
    for index in range(found.number):
        run, held_out = found.run_of(index), folds == index
        assert run is not None  # they are trained
        metrics = read_record(run.metrics, MetricsRecord)
        own_labels, own = read_predictions(run.predictions, metrics.checkpoint, len(names))
        if not np.array_equal(own_labels, labels[held_out]):
            raise UserError(
                f"{shown(run.predictions)} is of other images than the other folds; delete "
                f"{shown(run.path)}, and the same command trains this fold anew"
            )
        logits[held_out] = own
        runs.append(run.name)
        accuracies.append(100 * float(np.mean(own.argmax(-1) == own_labels)))
    with atomic_path(found.predictions) as temporary:
        # The names of a run's own predictions.npz; `rows` are the images as the data number them.
        np.savez(
            temporary,
            allow_pickle=False,
            labels=labels,
            best_logits=logits,
            rows=source.train.rows,
            folds=folds,
        )
    done = {"runs": runs, "images": len(labels), "joined": time.strftime("%F %T")}
    write_json(found.path, found.record.model_copy(update=done).content)
    right = 100 * float(np.mean(logits.argmax(-1) == labels))
    monitor = found.experiment.training.monitor
    by = "for them, so slightly optimistic" if monitor.startswith("val_") else f"by {monitor}"
    print(
        f"{len(labels):,} images, each predicted by the network that was not trained on it, at its "
        f"best epoch {by}: accuracy {right:.2f} % (folds: mean "
        f"{np.mean(accuracies):.2f} %, standard deviation {np.std(accuracies, ddof=1):.2f})\n"
        f"predictions {shown(found.predictions)}",
        file=out,
    )
    warn_of_formats(found.folder.name, out)
