"""What can be found wrong with a command before the backend comes up, which takes seconds."""

import importlib.util
import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from app.config import Experiment
from app.data.dataset import Dataset
from app.data.datasets import check_corrections, load_dataset
from app.data.sources.published import local_path
from app.errors import UserError
from app.machine import check_processor
from app.paths import data_root, project_root, shown
from app.reading import read_record
from app.records import DatasetRecord, EnvironmentRecord
from app.runs import Run, find_run, load_run_experiment
from app.wording import first_difference, install_extra, nearest, received, unknown_name

BACKENDS = ("tensorflow", "jax")
WEIGHT_FILES = (".pth", ".pt", ".safetensors", ".h5")
IMAGENET = "imagenet"
_WHOLE, _COUNTS = "[0-9]{1,6}", "[1-9][0-9]{0,5}( *, *[1-9][0-9]{0,5})*"
_NUMBERS = {
    "TF_NUM_INTRAOP_THREADS": (_WHOLE, "must be a whole number"),
    "TF_NUM_INTEROP_THREADS": (_WHOLE, "must be a whole number"),
    "OMP_NUM_THREADS": (_COUNTS, "must be a whole number from 1 on"),
}
_LIMITS = ("KERAS_MAX_EPOCHS", "KERAS_MAX_STEPS_PER_EPOCH")
_JSON_KEYS = {
    "floatx": ("float16", "float32", "float64"),
    "image_data_format": ("channels_last", "channels_first"),
}


def weights_run(experiment: Experiment) -> Run | None:
    """Return the run whose weights an experiment starts from, if it names one.

    Raises:
        UserError: There is no such run, or it has no weights.
    """
    weights = experiment.model.weights
    if weights is None or weights == IMAGENET or weights_file(experiment):
        return None
    here = project_root() / weights  # a path is one from the project's folder
    run = find_run(str(here) if (here / "experiment.yaml").is_file() else weights, "model.weights: ")
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
    path = project_root() / weights
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


def load_images(experiment: Experiment) -> Dataset | None:
    """Load an experiment's data, unless Keras would have to download it: that needs the backend.

    Raises:
        UserError: Whatever is wrong with the data, or what `check_dataset` finds.
    """
    check_backend()  # which is to come up next
    config = experiment.dataset
    local = config.name in ("digits", "image_folder") or config.data_dir is not None
    if not local and not (data_root() / config.name).exists():
        return None
    dataset = load_dataset(config)
    check_dataset(experiment, dataset)
    return dataset


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
    check_corrections(experiment.dataset)
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
    if (run.finished or run.best_model.is_file()) and not any(run.states.glob("state-*.npz")):
        raise UserError(
            f"{run.name}: there is no state to go on from ({shown(run.states)}/ is empty). Put it back, or "
            f"train anew: {train_again(run)}"
        )


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
        raise UserError(
            "\n".join(f"{run.name}: {line}" for line in grave)
            + f"\nRestore what has changed, or go on all the same: make resume RUN={run.argument} FORCE=1 "
            f"(this is then recorded), or train anew: {train_again(run)}"
        )


def train_again(run: Run) -> str:
    """Return the command that trains a run's experiment from the start; in a set, its run is found there."""
    auto = read_record(run.environment, EnvironmentRecord).auto or []
    keys = " ".join(f"training.{key}=auto" for key in auto)
    return f"make train FROM={run.argument}" + (f' SET="{keys}"' if keys else "")


def check_backend(environment: Mapping[str, str] = os.environ) -> None:
    """See that Keras can come up.

    Raises:
        UserError: KERAS_BACKEND or keras.json name what does not exist, the backend is not installed, a
            variable is no number, or the processor has no AVX.
    """
    check_processor()
    for name, (pattern, rule) in _NUMBERS.items():
        if environment.get(name) and not re.fullmatch(pattern, environment[name].strip()):
            raise UserError(f"{name}: {rule}; got {received(environment[name])}. Leave it out for all cores")
    for name in _LIMITS:
        if environment.get(name):
            raise UserError(f"{name}: cuts every training of Keras short; leave it out (make train EPOCHS=2)")
    file = _keras_home(environment) / "keras.json"
    settings = _keras_settings(file)
    source, backend = "KERAS_BACKEND", environment.get("KERAS_BACKEND")
    if not backend:
        source, backend = f"{shown(file)}: backend", settings.get("backend", BACKENDS[0])
    if backend not in BACKENDS:
        meant = nearest(backend, BACKENDS) if isinstance(backend, str) else None
        guess = f"; did you mean '{meant}'?" if meant else ""
        raise UserError(
            f"{source}: must be one of {', '.join(BACKENDS)}, on which this program trains; got "
            f"{received(backend)}{guess}"
        )
    if backend != BACKENDS[0] and not _installed(backend):
        raise UserError(
            f"{source}: {backend} is not installed here; leave it out to train on {BACKENDS[0]}, or install "
            f"it: {install_extra(backend)}"
        )
    for library in ("keras", *BACKENDS[: backend == BACKENDS[0]]):
        if not _installed(library):
            raise UserError(
                f"{library} is not installed, or not whole: `make clean install` makes the installation anew"
            )


def _keras_home(environment: Mapping[str, str]) -> Path:
    """Return the folder in which Keras looks for keras.json."""
    home = os.path.expanduser("~")  # as Keras does, where there is no home
    default = os.path.join(home if os.access(home, os.W_OK) else "/tmp", ".keras")
    return Path(os.path.expanduser(environment.get("KERAS_HOME", default)))


def _keras_settings(file: Path) -> dict[str, Any]:
    """Return the settings in keras.json, none where there is no such file."""
    if not file.exists():
        return {}
    advice = "; mend it, or delete it: Keras writes it anew"
    try:
        settings = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{shown(file)}: cannot be read ({error}){advice}") from error
    if not isinstance(settings, dict):
        raise UserError(f"{shown(file)}: must be a mapping of keys; got {received(settings)}{advice}")
    for key, allowed in _JSON_KEYS.items():
        if key in settings and settings[key] not in allowed:
            rule = f"must be one of {', '.join(allowed)}; got {received(settings[key])}"
            raise UserError(f"{shown(file)}: {key}: {rule}{advice}")
    if not isinstance(settings.get("epsilon", 1e-7), float):
        raise UserError(f"{shown(file)}: epsilon: must be a number such as 1e-07{advice}")
    return settings


def _installed(library: str) -> bool:
    """Return whether a library is there, as more than an empty folder of a broken installation."""
    try:
        found = importlib.util.find_spec(library)
    except (ImportError, ValueError):
        return False
    return found is not None and found.origin is not None
