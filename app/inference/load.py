"""Load the trained network of a run, and the images of a split."""

from dataclasses import dataclass
from typing import Literal

import keras
import numpy as np

from app.classifier_files import load_classifier
from app.config import Experiment
from app.config.dataset import DatasetConfig
from app.data.dataset import Dataset, Split
from app.data.datasets import load_dataset
from app.errors import UserError
from app.paths import shown
from app.preflight import as_trained
from app.records import CalibratedRecord, DatasetRecord, MetricsRecord
from app.runs import Run, load_finished
from app.training import startup
from app.training.averaging import averages_in
from app.training.checkpoint import load_state
from app.wording import first_difference
from models import ImageClassifier

CheckpointName = Literal["best", "last"]
SplitName = Literal["validation", "test"]


@dataclass(frozen=True)
class Trained:
    """A run's network with its weights."""

    run: Run
    experiment: Experiment
    classifier: ImageClassifier  # takes raw uint8 images; not compiled
    checkpoint: CheckpointName  # whose weights it has, those of the best epoch or of the last
    epoch: int  # that epoch, from 1
    data: DatasetRecord
    metrics: MetricsRecord
    calibrated: CalibratedRecord | None  # of these weights, where validation was not the test split

    @property
    def temperature(self) -> float:
        """What the logits are divided by for the probabilities."""
        return self.calibrated.temperature if self.calibrated else 1.0

    def unsure_below(self, given: float | None) -> float | None:
        """Return the probability below which a prediction is called unsure: `given`, or else the run's."""
        return given if given is not None or self.calibrated is None else self.calibrated.unsure_below

    @property
    def title(self) -> str:
        """The heading of its pictures."""
        return f"{self.run.name}, {self.checkpoint} epoch ({self.epoch})"


def load_trained(
    run: Run, checkpoint: CheckpointName | None = None, *, precision: str | None = None
) -> Trained:
    """Load the network of a finished run.

    Args:
        run: The run.
        checkpoint: Whose weights; by default those of the run's headline: the best epoch's, or the
            last one's where validation is the test split.
        precision: Of layers that are made beside it; its own keep theirs.

    Raises:
        UserError: The run is not finished, or its files are damaged or fit each other no longer.
    """
    experiment, metrics, data = load_finished(run)
    experiment = startup.resolve_precision(experiment)
    startup.configure(
        seed=experiment.seed,
        precision=precision or experiment.training.precision,
        # Wherever it was trained: a GPU, or strict determinism, may not be offered here.
        devices="cpu" if experiment.training.devices == "cpu" else "auto",
        determinism=None if keras.backend.backend() == "jax" else experiment.training.determinism,
    )
    classifier = load_classifier(run.best_model)
    names = tuple(data.class_names)
    if classifier.class_names != names:
        raise UserError(
            f"{shown(run.best_model)}: its classes are not those of {shown(run.dataset)}: "
            f"{first_difference(classifier.class_names, names)}; one of the two files is another run's"
        )
    checkpoint = checkpoint or metrics.checkpoint
    epoch, calibrated = metrics.of(checkpoint).epoch, metrics.calibration.get(checkpoint)
    if epoch != metrics.of("best").epoch:
        _give_last_weights(run, classifier, epoch)
        # After a resume on other images (FORCE=1) they are not those of the best epoch.
        constants = data.content.get("normalization", {})
        for name in {"mean", "deviation"} & constants.keys():
            setattr(classifier.normalization, name, np.asarray(constants[name], "float32"))
    return Trained(run, experiment, classifier, checkpoint, epoch, data, metrics, calibrated)


def _give_last_weights(run: Run, classifier: ImageClassifier, epoch: int) -> None:
    """Assign the weights of the last epoch, from 1, to a classifier that holds the best epoch's."""
    state, damaged = load_state(run)
    if state is None or damaged or (state.progress.epoch, state.progress.step) != (epoch, 0):
        reasons = [line.partition("; using")[0] for line in damaged]
        reason = "\n".join(reasons) or f"{shown(run.states)}: no state of the last epoch ({epoch})"
        raise UserError(f"{reason}; CHECKPOINT=best uses {run.best_model.name}")
    have = [tuple(variable.shape) for variable in classifier.variables]
    stored = [value.shape for value in state.values["model"]]
    if have != stored:
        raise UserError(
            f"{shown(state.path)}: holds {len(stored)} variables that do not fit the {len(have)} of "
            f"{run.best_model.name}; CHECKPOINT=best does without it"
        )
    for variable, value in zip(classifier.variables, state.values["model"], strict=True):
        variable.assign(value)
    if averages := averages_in(state):
        for weight, value in zip(classifier.network.weights, averages, strict=True):
            weight.assign(value)


def load_split(
    trained: Trained, split: SplitName, config: DatasetConfig | None = None
) -> tuple[Dataset, Split]:
    """Load a run's data, by default from where the run found them, and the images of one split.

    Raises:
        UserError: The data is missing or has changed since, or there is no such split.
    """
    dataset = load_dataset(config or as_trained(trained.run).dataset)
    if dataset.class_names != trained.classifier.class_names:
        raise UserError(
            f"{trained.run.name}: the data's classes have changed since it was trained: "
            f"{first_difference(dataset.class_names, trained.classifier.class_names)}"
        )
    if dataset.fingerprint != trained.data.fingerprint:
        raise UserError(
            f"{trained.run.name}: the images have changed since it was trained ({dataset.source}; then: "
            f"{trained.data.source}); put the old ones back, or use other images with "
            f"make predict RUN={trained.run.argument} IMAGES=folder"
        )
    if split == "validation":
        return dataset, dataset.val
    if dataset.test is not None:
        return dataset, dataset.test
    if trained.experiment.dataset.validates_on_test:
        return dataset, dataset.val
    raise UserError(
        f"SPLIT=test: {dataset.source} has no test split; SPLIT=validation is what {trained.run.name} has"
    )


def finite_logits(logits: np.ndarray, run_name: str) -> np.ndarray:
    """Return what a network puts out, where all of it is finite.

    Raises:
        UserError: There is NaN or infinity in it.
    """
    if np.isfinite(logits).all():
        return logits
    raise UserError(
        f"{run_name}: the network's outputs are not all finite (NaN or infinity): its weights are broken, or "
        "values leave the range of training.precision. Try the other weights (CHECKPOINT=best or last), or "
        "train in float32"
    )


def batches_of(images: np.ndarray, batch_size: int) -> list[np.ndarray]:
    """Return images in batches, the last one perhaps smaller."""
    return [images[start : start + batch_size] for start in range(0, len(images), batch_size)]
