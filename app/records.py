"""What the JSON files of a run hold, as typed records; app/reading.py reads them.

Runs of earlier versions lack the fields that have a default here. Fields that nothing reads are not listed.
"""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

from app.wording import best_words

FROM_STATE = "`make resume` with this run writes it again from the last state"

Count = Annotated[int, Field(ge=0, lt=2**63)]
Epoch = Annotated[int, Field(ge=1, lt=2**31)]
Fraction = Annotated[float, Field(ge=0)]


class Record(BaseModel):
    """A mapping of a JSON file. Other keys than the listed ones are kept; nothing is converted."""

    model_config = ConfigDict(frozen=True, extra="allow", strict=True, allow_inf_nan=False)
    advice: ClassVar[str] = "Restore it from a copy"

    @property
    def content(self) -> dict[str, Any]:
        """The mapping as the file has it, without the defaults of what it lacks."""
        return self.model_dump(exclude_unset=True)


class WeightsRecord(Record):
    """Which weights were evaluated: those of the training, or `training.ema`'s average of them."""

    weights: Literal["raw", "average"] = "raw"

    @property
    def averaged(self) -> str:
        """What is added to a heading."""
        return ", averaged weights" if self.weights == "average" else ""


class EpochRecord(Record):
    """An epoch in metrics.json."""

    epoch: Epoch
    val_accuracy: Fraction


class HeadlineRecord(EpochRecord):
    """The epoch whose accuracy a run reports."""

    which: Literal["last epoch", "best epoch"]


class CalibratedRecord(Record):
    """Scaled probabilities on some images; a prediction with one below `unsure_below` is called unsure."""

    temperature: Annotated[float, Field(gt=0)]
    unsure_below: Annotated[float, Field(ge=0, le=1)]
    expected_calibration_error: Fraction
    sure_fraction: Fraction
    sure_precision: Fraction | None
    remark: str | None = None


class FinalTestRecord(Record):
    """One evaluation on the test split."""

    accuracy: Fraction


class ViewsRecord(Record):
    """Accuracies with test-time views."""

    views: str
    val_accuracy: Fraction
    test_accuracy: Fraction | None = None
    views_below: Fraction | None = None
    val_passes: Count = 0
    val_passes_saved: Count = 0


class ParametersRecord(Record):
    """The size of a network."""

    total: Count
    trainable: Count
    macs: Count | None = None


class TimingRecord(Record):
    """How long a run took."""

    epochs: Epoch
    seconds: Fraction
    seconds_per_epoch: Fraction
    images_per_second: Fraction
    resumed_epochs: list[Epoch]
    peak_memory_megabytes: Count | None = None


class MetricsRecord(WeightsRecord):
    """metrics.json, the last file of a training; evaluations and the page may follow."""

    advice = f"Delete it, and {FROM_STATE}"

    monitor: str
    headline: HeadlineRecord
    final: EpochRecord
    best: EpochRecord | None
    test: FinalTestRecord | None
    test_time_views: ViewsRecord | None = None
    calibration: dict[Literal["best", "last"], CalibratedRecord] = {}  # by whose weights
    parameters: ParametersRecord
    timing: TimingRecord

    @property
    def on_test(self) -> bool:
        """Whether the test split served for validation, so that the last epoch is reported."""
        return self.headline.which == "last epoch"

    @property
    def split(self) -> Literal["test", "validation"]:
        """What the validation images are."""
        return "test" if self.on_test else "validation"

    @property
    def best_words(self) -> str:
        """What the best epoch is called."""
        return best_words(self.monitor, self.on_test)

    @property
    def checkpoint(self) -> Literal["last", "best"]:
        """The weights that the headline is measured with."""
        return "last" if self.on_test else "best"

    def of(self, checkpoint: str) -> EpochRecord:
        """Return the epoch of a checkpoint's weights."""
        return self.final if checkpoint == "last" else self.best or self.final


class CpuRecord(Record):
    """The processor in environment.json."""

    model: str
    count: Count | None


class ResumeRecord(Record):
    """One resume in environment.json."""

    epoch: Epoch
    workers: Count = 1
    replicas: Count = 1
    epochs_before: Epoch | None = None  # over which the schedule was laid out; None where it still is
    forced: list[str] = []
    differs: list[str] = []


class EnvironmentRecord(Record):
    """environment.json: what a run was trained on."""

    advice = "Restore it from a copy, or train anew with FROM= this run"

    python: str
    backend: str
    versions: dict[str, str]
    cpu: CpuRecord
    devices: list[str]
    threads: dict[str, int]
    onednn: dict[str, Any] = {}
    deterministic: bool
    commit: str | None = None
    workers: Count = 1
    replicas: Count = 1
    overrides: list[str] | None = None
    auto: list[str] | None = None  # keys of `training` that were; None in older runs
    resumes: list[ResumeRecord] = []
    starting_weights: dict[str, str] = {}


class NumImagesRecord(Record):
    """Images in each split."""

    train: Count
    val: Count
    test: Count | None = None


class DatasetRecord(Record):
    """dataset.json: the data of a run."""

    advice = "Restore it from a copy, or train anew with FROM= this run"

    name: str
    class_names: list[str]
    image_shape: Annotated[list[Epoch], Field(min_length=3, max_length=3)]
    num_images: NumImagesRecord
    split_rule: str
    source: str
    fingerprint: str
    validation_fingerprint: str | None = None
    skipped: list[str] = []
    fingerprints_before: list[str] = []

    def held_out_others(self, other: "DatasetRecord") -> bool:
        """Return whether data of the same name and classes had other validation images."""
        alike = (self.name, self.class_names) == (other.name, other.class_names)
        known = self.validation_fingerprint is not None  # older runs did not record it
        return alike and known and self.validation_fingerprint != other.validation_fingerprint


class FailureRecord(Record):
    """failure.json: where the loss stopped being finite."""

    advice = f"Delete it; {FROM_STATE}, should it blow up again"

    epoch: Count
    step: Count
    what: str
