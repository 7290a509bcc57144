"""`make folds`: one ordinary run a fold, and the logits of all of them on images that they did not see.

The runs lie in a folder of their own, `runs/<experiment>.<number>-folds/`, beside folds.json, which says what
they are runs of, and predictions.npz, which joins their predictions. The same settings and data lead to the
same folder again, others to one with a further number behind its name.
"""

import itertools
import json
import re
import time
from pathlib import Path
from typing import Any, NamedTuple, TextIO

import numpy as np
from pydantic import ValidationError

from app.config import Experiment
from app.config.dataset import Fold
from app.data.dataset import Source, fingerprint
from app.data.datasets import divided, load_source
from app.data.splits import fold_numbers
from app.errors import UserError
from app.files import atomic_path, check_folder, write_json
from app.paths import data_root, runs_root, shown
from app.preflight import check_dataset, settle_weights
from app.reading import read_predictions, read_record
from app.records import Count, Record
from app.runs import Run, list_runs, load_finished, load_run_experiment, locked

_NOT_COMPARED = {"name", "description", "reference"}


class FoldsRecord(Record):
    """folds.json: what the runs of a folder are folds of, and their names once all are finished."""

    advice = "Restore it from a copy, or train the folds anew in another folder: delete it"

    experiment: str
    begun: str
    settings: dict[str, Any]  # of the first fold's run
    fingerprint: str
    runs: list[str] = []
    images: Count = 0


class FoldSet(NamedTuple):
    """A folder with the runs of all folds."""

    folder: Path
    record: FoldsRecord

    @property
    def predictions(self) -> Path:
        """Labels and logits of all training images."""
        return self.folder / "predictions.npz"

    @property
    def experiment(self) -> Experiment:
        """What was trained on the first fold."""
        try:
            return Experiment.model_validate_json(json.dumps(self.record.settings))
        except ValidationError as error:
            raise UserError(
                f"{shown(self.folder / 'folds.json')}: settings: not those of an experiment "
                f"({error.error_count()} mistakes). {FoldsRecord.advice}"
            ) from error

    @property
    def number(self) -> int:
        """How many folds there are."""
        return _number(self.experiment)

    def run_of(self, index: int) -> Run | None:
        """Return the newest run of a fold, None where there is none that could be resumed."""
        wanted = with_fold(self.experiment, index)
        for run in reversed(list_runs(self.folder.name)):
            if run.experiment.is_file() and run.dataset.is_file():
                trained = load_run_experiment(run)
                if _same(trained, wanted.with_auto_as(trained.training.precision)):
                    return run
        return None


def list_fold_sets(experiment_name: str) -> list[FoldSet]:
    """Return what `make folds` made of an experiment, oldest first."""
    check_folder(runs_root())
    pattern = re.compile(re.escape(experiment_name) + r"\.\d+-folds(-\d+)?")
    found = [
        FoldSet(path.parent, read_record(path, FoldsRecord))
        for path in sorted(runs_root().glob("*/folds.json"))
        if pattern.fullmatch(path.parent.name)
    ]
    return sorted(found, key=lambda each: each.record.begun)


def with_fold(experiment: Experiment, index: int) -> Experiment:
    """Return an experiment that names a fold, with another one in its place."""
    fold = Fold(of=_number(experiment), index=index)
    return experiment.model_copy(update={"dataset": experiment.dataset.model_copy(update={"fold": fold})})


def train_folds(experiment: Experiment, out: TextIO) -> FoldSet:
    """Train an experiment once for each fold, and join the predictions; what is finished stays.

    Args:
        experiment: Names a fold; the number of folds is its.
        out: Receives what was done.

    Returns:
        The folder, finished.

    Raises:
        UserError: Something that the user can mend, before anything is written.
        Interrupted: As for a training; the same call goes on.
    """
    from app.training.train import resume, train  # brings up the backend, which takes seconds

    experiment, number = settle_weights(experiment), _number(experiment)
    source = load_source(experiment.dataset, data_root())
    check_dataset(experiment, divided(source, experiment.dataset))
    found = _fold_set(experiment, fingerprint(source))
    print(f"{number} folds in {shown(found.folder)}; the same command resumes them", file=out, flush=True)
    with locked(Run(found.folder)):
        for index in range(number):
            one, run = with_fold(experiment, index), found.run_of(index)
            done = f": {run.name} is finished" if run and run.finished else ""
            print(f"fold {index + 1} of {number}{done}", file=out, flush=True)
            if done:
                continue
            dataset = divided(source, one.dataset)
            if run:
                resume(run, dataset=dataset)
            else:
                train(one.model_copy(update={"name": found.folder.name}), dataset=dataset)
        return _join(found, source, out)


def _number(experiment: Experiment) -> int:
    assert experiment.dataset.fold is not None  # of an experiment with folds
    return experiment.dataset.fold.of


def _same(one: Experiment, other: Experiment) -> bool:
    return one.model_dump(exclude=_NOT_COMPARED) == other.model_dump(exclude=_NOT_COMPARED)


def _fold_set(experiment: Experiment, data: str) -> FoldSet:
    """Return the newest folder for an experiment and its data; it is made where there is none."""
    for found in reversed(list_fold_sets(experiment.name)):
        if found.record.fingerprint == data and _same(found.experiment, experiment):
            return found
    first = runs_root() / f"{experiment.name}.{_number(experiment)}-folds"
    runs_root().mkdir(parents=True, exist_ok=True)
    for number in itertools.count(1):
        folder = first if number == 1 else first.with_name(f"{first.name}-{number}")
        try:
            folder.mkdir()
            break
        except FileExistsError:
            continue
    content = {
        "experiment": experiment.name,
        "begun": time.strftime("%F %T"),
        "settings": experiment.model_dump(mode="json"),
        "fingerprint": data,
    }
    write_json(folder / "folds.json", content)
    return FoldSet(folder, FoldsRecord.model_validate(content))


def _join(found: FoldSet, source: Source, out: TextIO) -> FoldSet:
    """Write predictions.npz and complete folds.json, both of which say nothing that the runs do not say."""
    seed = found.experiment.dataset.split_seed
    labels, names = source.train.labels, source.class_names
    folds = fold_numbers(source.train, found.number, seed, names)
    logits = np.zeros((len(labels), len(names)), np.float32)
    runs, accuracies = [], []
    for index in range(found.number):
        run, held_out = found.run_of(index), folds == index
        assert run is not None  # they are trained
        _, metrics, data = load_finished(run)
        own_labels, own = read_predictions(run.predictions, metrics.checkpoint, len(names))
        if data.fingerprint != found.record.fingerprint or not np.array_equal(own_labels, labels[held_out]):
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
    record = found.record.model_copy(update={"runs": runs, "images": len(labels)})
    write_json(found.folder / "folds.json", record.content)
    right = 100 * float(np.mean(logits.argmax(-1) == labels))
    print(
        f"{len(labels):,} images, each predicted by the network that was not trained on it: accuracy "
        f"{right:.2f} % (folds: mean {np.mean(accuracies):.2f} %, standard deviation "
        f"{np.std(accuracies, ddof=1):.2f})\n"
        f"predictions {shown(found.predictions)}",
        file=out,
    )
    return found._replace(record=record)
