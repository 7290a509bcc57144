"""What can be found wrong with a command before the backend comes up, which takes seconds."""

from collections.abc import Sequence

from app.backend import check_backend
from app.config import Experiment
from app.data.datasets import Dataset, load_dataset, local_path
from app.errors import UserError
from app.paths import data_root, runs_root, shown
from app.reading import read_history, read_record
from app.records import DatasetRecord
from app.runs import Run, find_run, load_run_experiment


def weights_run(experiment: Experiment) -> Run | None:
    """Return the run whose weights an experiment starts from, if it names one.

    Raises:
        UserError: There is no such run, or it has no weights.
    """
    if experiment.model.weights is None:
        return None
    try:
        run = find_run(experiment.model.weights)
    except UserError as error:
        raise UserError(f"model.weights: {str(error).removeprefix('RUN=')}") from error
    if not run.best_model.is_file():
        raise UserError(f"model.weights: {run.name} has no {run.best_model.name} yet; train it first")
    return run


def settle_weights(experiment: Experiment) -> Experiment:
    """Return an experiment with `model.weights` as the run that it means now, not as a link to the newest."""
    run = weights_run(experiment)
    if run is None:
        return experiment
    inside = run.path.parents[1] == runs_root().resolve()
    model = experiment.model.model_copy(update={"weights": run.name if inside else str(run.path)})
    return experiment.model_copy(update={"model": model})


def load_images(experiment: Experiment) -> Dataset | None:
    """Load an experiment's data, unless Keras would have to download it: that needs the backend.

    Raises:
        UserError: Whatever is wrong with the data, or a batch that is larger.
    """
    check_backend()  # which is to come up next
    config = experiment.dataset
    local = config.name in ("digits", "image_folder") or config.data_dir is not None
    if not local and not (data_root() / config.name).exists():
        return None
    dataset = load_dataset(config, data_root())
    check_batch(experiment, dataset)
    return dataset


def check_batch(experiment: Experiment, dataset: Dataset) -> None:
    """Raise a UserError where a batch is larger than the training images."""
    size = experiment.training.batch_size
    if size > len(dataset.train):
        raise UserError(
            f"training.batch_size: received {size}, but there are only {len(dataset.train)} training images; "
            "choose a batch no larger than that"
        )


def check_data(experiment: Experiment) -> None:
    """Raise a UserError where an experiment names a folder of images that does not exist."""
    config = experiment.dataset
    if config.data_dir is not None or config.name == "image_folder":
        local_path(config, data_root())


def check_resumable(run: Run, epochs: int | None) -> None:
    """See that there is something left to train.

    Args:
        run: The run.
        epochs: Epochs in all that are asked for; None for those of its experiment.

    Raises:
        UserError: The run is finished, or more epochs would not be trained.
    """
    if epochs is None:
        if run.finished:
            raise UserError(
                f"{run.name}: this run is finished; its curves are in {shown(run.curves)}. "
                "EPOCHS=n trains it further, to n epochs in all"
            )
        return
    training = load_run_experiment(run).training
    planned = training.epochs
    if epochs <= planned:
        raise UserError(f"EPOCHS={epochs}: {run.name} has {planned} epochs already; choose more than that")
    load_run_experiment(run, [f"training.epochs={epochs}"])  # the strict loader knows how many are too many
    if not run.finished:
        return
    trained = len(read_history(run.history))
    if trained < planned:
        raise UserError(
            f"EPOCHS={epochs}: {run.name} was stopped early after {trained} of {planned} epochs, because "
            f"{training.monitor} no longer improved; more epochs would not be trained. "
            f'Train anew: make train FROM={run.name} SET="training.epochs={epochs} '
            'training.early_stopping=null"'
        )
    if not any(run.states.glob("state-*.npz")):
        raise UserError(
            f"EPOCHS={epochs}: {run.name} has no state to go on from ({shown(run.states)}/ is empty). "
            f'Train anew: make train FROM={run.name} SET="training.epochs={epochs}"'
        )


def changed_data(run: Run, dataset: Dataset) -> list[str]:
    """Return a line where a run's data are not those that it began with."""
    before = read_record(run.dataset, DatasetRecord).fingerprint
    if before == dataset.fingerprint:
        return []
    return [
        f"the data have changed: fingerprint {dataset.fingerprint[:12]}, recorded {before[:12]} in "
        f"{shown(run.dataset)}"
    ]


def refuse_or_force(run: Run, grave: Sequence[str], force: bool) -> None:
    """Raise a UserError if anything forbids going on and nobody forces it."""
    if grave and not force:
        raise UserError(
            "\n".join(f"{run.name}: {line}" for line in grave)
            + "\nRestore what has changed, or go on all the same with FORCE=1 (this is then recorded), "
            f"or train anew with FROM={run.name}"
        )
