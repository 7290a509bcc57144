"""What can be found wrong with a command before the backend comes up, which takes seconds."""

import contextlib
import os
from collections.abc import Sequence
from pathlib import Path

from app.config import Experiment
from app.data.dataset import Dataset
from app.data.datasets import load_dataset, read_corrections
from app.data.sources.published import local_path
from app.errors import UserError
from app.files import file_hash
from app.machine import check_backend
from app.paths import data_root, project_root, shown
from app.reading import read_record
from app.records import DatasetRecord, EnvironmentRecord
from app.runs import Run, find_run, load_run_experiment
from app.wording import first_difference, nearest, unknown_name

WEIGHT_FILES = (".pth", ".pt", ".safetensors", ".h5")
IMAGENET = "imagenet"


def weights_run(experiment: Experiment) -> Run | None:
    """Return the run whose weights an experiment starts from, if it names one.

    Raises:
        UserError: There is no such run, or it has no weights.
    """
    weights = experiment.model.weights
    if weights is None or weights == IMAGENET or weights_file(experiment):
        return None
    here = project_root() / weights  # a path is one from the project's folder
    is_here = os.path.isfile(here / "experiment.yaml")  # false, too, for a name that cannot be one
    try:
        run = find_run(str(here) if is_here else weights, "model.weights: ")
    except UserError as error:
        meant = f"; did you mean {IMAGENET}?" if nearest(weights.lower(), [IMAGENET]) else "."
        kinds = f"a run's, a file's ({', '.join(WEIGHT_FILES)}) or {IMAGENET}"
        raise UserError(f"{error}{meant} Weights are {kinds}") from error
    if not run.best_model.is_file():
        raise UserError(f"model.weights: {run.name} has no {run.best_model.name} yet; train it first")
    return run


def weights_file(experiment: Experiment, must_exist: bool = True) -> Path | None:
    """Return the file of published weights that an experiment starts from, if it names one.

    Raises:
        UserError: There is no such file, and it must exist.
    """
    weights = experiment.model.weights or ""
    if not weights.endswith(WEIGHT_FILES):
        return None
    path = project_root() / os.path.expanduser(weights)
    if must_exist and not path.is_file():
        raise UserError(
            f"model.weights: {weights}: no such file below {shown(project_root())}. It takes a run, a file "
            f"({', '.join(WEIGHT_FILES)}), or {IMAGENET}"
        )
    return path


def settle_weights(experiment: Experiment) -> Experiment:
    """Return an experiment with `model.weights` as the run that it means now, not as a link to the newest."""
    run = weights_run(experiment)
    if run is None:
        return experiment
    model = experiment.model.model_copy(update={"weights": run.name_or_path})
    return experiment.model_copy(update={"model": model})


def weights_hash(experiment: Experiment) -> str | None:
    """Return the hash of the run's weights, or of the file, that an experiment starts from now.

    None for `imagenet`, which stays the same, and where it starts from none.
    """
    run = weights_run(experiment)
    path = run.best_model if run else weights_file(experiment)
    return file_hash(path) if path else None


def load_images(experiment: Experiment) -> Dataset | None:
    """Load an experiment's data, unless Keras would have to download it: that needs the backend.

    Raises:
        UserError: Whatever is wrong with the data.
    """
    check_backend()  # which is to come up next
    config = experiment.dataset
    local = config.name in ("digits", "image_folder") or config.data_dir is not None
    if not local and not (data_root() / config.name).exists():
        return None
    return load_dataset(config)


def check_dataset(experiment: Experiment, dataset: Dataset) -> None:
    """Raise a UserError where a batch is larger than the training images, or a class does not exist."""
    size = experiment.training.batch_size
    if size > len(dataset.train):
        raise UserError(
            f"training.batch_size: received {size}, but there are only {len(dataset.train)} training images; "
            f"choose a batch no larger than that: SET=training.batch_size={len(dataset.train)}"
        )
    named = experiment.training.class_weight
    if named is None or named == "balanced":
        return
    for name in named:
        if name not in dataset.class_names:
            raise UserError(f"training.class_weight: {unknown_name('class', name, dataset.class_names)}")
    if not any(named.get(name, 1.0) for name in dataset.class_names):
        raise UserError("training.class_weight: every class has weight 0; give one of them more than that")


def check_data(experiment: Experiment) -> None:
    """Raise a UserError where an experiment names images or corrections that do not exist."""
    read_corrections(experiment.dataset)
    local_path(experiment.dataset)


def check_resumable(run: Run, epochs: int | None) -> None:
    """See that there is something left to train; `epochs` are all that are asked for, None the experiment's.

    Raises:
        UserError: The run is finished, or more epochs would not be trained.
    """
    if epochs is None:
        if run.finished:
            page = "" if run.report.is_file() else f"make report RUN={run.argument} writes its page. "
            raise UserError(
                f"{run.name}: this run is finished; its curves are in {shown(run.curves)}. {page}"
                "EPOCHS=n trains it further, to n epochs in all"
            )
    else:
        planned = load_run_experiment(run).training.num_epochs
        if epochs <= planned:
            rest = "" if run.finished else f"; make resume RUN={run.argument} goes on to these"
            raise UserError(
                f"EPOCHS={epochs}: {run.name} is planned for {planned} epochs{rest}; choose more than that"
            )
        load_run_experiment(run, [f"training.epochs={epochs}"])  # it knows how many are too many
    # best.keras comes after the first state: without one, all would be trained anew over what there is.
    if (run.finished or run.best_model.is_file()) and not run.state_files:
        raise UserError(
            f"{run.name}: there is no state to go on from in {shown(run.states)}/. Put it back, or "
            f"train anew: {train_again(run)}"
        )


def as_trained(run: Run) -> Experiment:
    """Return what a run recorded, with its own copies of `exclude` and `relabel` that were edited since."""
    experiment = load_run_experiment(run)
    own: dict[str, str] = {}
    for key, path in run.corrections.items():
        given = getattr(experiment.dataset, key)
        if given and path.is_file() and not _same_text(given, path):
            own[key] = str(path.resolve())
    return experiment.model_copy(update={"dataset": experiment.dataset.model_copy(update=own)})


def _same_text(given: str, own: Path) -> bool:
    with contextlib.suppress(OSError, ValueError, RuntimeError):
        file = project_root() / Path(given).expanduser()
        return file.read_text("utf-8-sig") == own.read_text("utf-8-sig")
    return False  # one is gone, or no text by now, which is said when it is loaded


def changed_data(run: Run, dataset: Dataset) -> list[str]:
    """Return a line where a run's data are not those that it began with.

    Raises:
        UserError: The classes are others, which the outputs of its network do not stand for.
    """
    data, now = read_record(run.dataset, DatasetRecord), [*dataset.class_names]
    if data.class_names != now:
        raise UserError(
            f"{run.name}: its classes are not those of the data: {first_difference(data.class_names, now)}. "
            f"Put the old ones back, or train anew: {train_again(run)}"
        )
    before, after = data.fingerprint, dataset.fingerprint
    line = f"the data have changed: fingerprint {after[:12]}, recorded {before[:12]} in {shown(run.dataset)}"
    return [f"{line}; validation images may be among those trained on"] if before != after else []


def refuse_or_force(run: Run, grave: Sequence[str], force: bool) -> None:
    """Raise a UserError if anything forbids going on and nobody forces it."""
    if grave and not force:
        more = " with EPOCHS and SCHEDULE as before" if run.finished else ""
        raise UserError(
            "\n".join(f"{run.name}: {line}" for line in grave)
            + f"\nRestore what has changed, or go on all the same: make resume RUN={run.argument} "
            f"FORCE=1{more} (this is then recorded), or train anew: {train_again(run)}"
        )


def train_again(run: Run) -> str:
    """Return the command that trains a run's experiment from the start; in a set, its run is found there."""
    auto = read_record(run.environment, EnvironmentRecord).auto or []
    keys = " ".join(f"training.{key}=auto" for key in auto)
    return f"make train FROM={run.argument}" + (f' SET="{keys}"' if keys else "")
