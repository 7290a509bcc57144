"""What an experiment may say: frozen, strict pydantic models without any TensorFlow.

The sections mirror the YAML file, with one difference: the further keys of `model`, `optimizer` and of an
augmentation layer, which are constructor arguments, are gathered under `arguments` by the loader.
"""

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

Epochs = Annotated[int, Field(ge=1, le=100_000)]
Rate = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
Pixels = Annotated[int, Field(ge=1, le=4096)]
Level = Annotated[int, Field(ge=0, le=255)]
Text = Annotated[str, Field(min_length=1)]


class Section(BaseModel):
    """A mapping of the file: no unknown keys, no conversions (but an int may stand for a float), no nan."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class DatasetConfig(Section):
    """Which images, in which size, and what share of them is held out."""

    name: Literal["cifar10", "cifar100", "mnist", "fashion_mnist", "digits", "image_folder"]
    data_dir: Text | None = None
    image_size: tuple[Pixels, Pixels] | None = None  # height, width
    channels: Literal[1, 3] | None = None
    interpolation: Literal["bilinear", "nearest", "bicubic", "lanczos", "area"] = "bilinear"
    resize: Literal["stretch", "crop"] = "stretch"
    background: Level | tuple[Level, Level, Level] = 255  # behind transparent pixels: a gray, or RGB
    on_bad_image: Literal["fail", "skip"] = "fail"
    validation: float | Literal["test"] = 0.1
    train_share: Annotated[float, Field(gt=0, le=1)] | None = None  # of the training split; all that is left
    split_seed: Seed = 0

    @field_validator("channels", mode="before")
    @classmethod
    def _channels_is_a_number(cls, value: object) -> object:
        """Python's `True == 1` would let true through."""
        if value is not None and (type(value) is not int or value not in (1, 3)):
            raise ValueError("must be 1 or 3")
        return value

    @field_validator("background", mode="before")
    @classmethod
    def _background_is_a_colour(cls, value: object) -> object:
        levels = value if isinstance(value, tuple) and len(value) == 3 else (value,)
        if all(type(level) is int and 0 <= level <= 255 for level in levels):
            return value
        raise ValueError("must be a gray from 0 to 255, or [red, green, blue] of these")

    @property
    def validates_on_test(self) -> bool:
        """Whether the test split serves for validation."""
        return self.validation == "test"

    @property
    def background_colour(self) -> tuple[int, int, int]:
        """The background as RGB."""
        return (self.background,) * 3 if isinstance(self.background, int) else self.background

    @field_validator("validation", mode="before")
    @classmethod
    def _validation_is_a_share_or_test(cls, value: object) -> object:
        if value == "test" or (type(value) is float and 0 < value < 1):
            return value
        raise ValueError("must be a share between 0 and 1 (both excluded) or 'test'")


class LayerConfig(Section):
    """One augmentation layer and its constructor arguments."""

    name: Text
    arguments: dict[str, Any] = {}


class ModelConfig(Section):
    """A network of the registry, its constructor arguments, and the run whose weights it starts from."""

    name: Text
    weights: Text | None = None
    arguments: dict[str, Any] = {}


class Schedule(Section):
    """What all learning-rate schedules share; the rate rises linearly over the warm-up."""

    peak: Rate
    warmup_epochs: Annotated[int, Field(ge=0, le=100_000)] = 0


class ConstantSchedule(Schedule):
    """The peak throughout."""

    schedule: Literal["constant"] = "constant"


class CosineSchedule(Schedule):
    """Half a cosine from the peak to the end value at the last step."""

    schedule: Literal["cosine"] = "cosine"
    end: Annotated[float, Field(ge=0)] = 0.0
    span_epochs: Epochs | None = None  # the epoch of the end value, where it is not the last


class StepSchedule(Schedule):
    """The peak times `factor` to the number of boundaries passed."""

    schedule: Literal["step"] = "step"
    boundaries_epochs: Annotated[tuple[Epochs, ...], Field(min_length=1)]
    factor: Rate

    @field_validator("boundaries_epochs")
    @classmethod
    def _increasing(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if any(later <= earlier for earlier, later in zip(value, value[1:], strict=False)):
            raise ValueError("must increase from one to the next")
        return value


class ExponentialSchedule(Schedule):
    """The peak times `factor` to the power of epochs / decay_epochs, in whole steps if `staircase`."""

    schedule: Literal["exponential"] = "exponential"
    decay_epochs: Epochs
    factor: Rate
    staircase: bool = False


class OneCycleSchedule(Schedule):
    """Linear from `start` up to the peak at `peak_epoch`, linear down to the end value at the last step."""

    schedule: Literal["one_cycle"] = "one_cycle"
    start: Annotated[float, Field(ge=0)] = 0.0
    end: Annotated[float, Field(ge=0)] = 0.0
    peak_epoch: Annotated[float, Field(gt=0, le=100_000)]
    span_epochs: Epochs | None = None  # the epoch of the end value, where it is not the last


AnySchedule = Annotated[
    ConstantSchedule | CosineSchedule | StepSchedule | ExponentialSchedule | OneCycleSchedule,
    Field(discriminator="schedule"),
]


class OptimizerConfig(Section):
    """A Keras optimizer by its lower-case name, its learning rate, and its other arguments."""

    name: Text
    learning_rate: AnySchedule
    rate_multipliers: dict[
        Text, Annotated[float, Field(ge=0)]
    ] = {}  # by a pattern of the variables' paths; 0 is no freeze
    arguments: dict[str, Any] = {}


class LossConfig(Section):
    """Sparse categorical cross-entropy, as it is used in training."""

    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    softmax_before_loss: bool = False


class EarlyStopping(Section):
    """Stop once `monitor` has not improved by more than `min_delta` for so many epochs."""

    patience_epochs: Epochs
    min_delta: Annotated[float, Field(ge=0)] = 0.0


class Lookahead(Section):
    """Every so many steps the weights become the running average of what they were at such steps.

    At step t of T the average keeps `decay * (t / T) ** power` of itself.
    """

    every_steps: Annotated[int, Field(ge=1)]
    decay: Annotated[float, Field(ge=0, lt=1)]
    power: Annotated[float, Field(ge=0)] = 0.0


class TrainingConfig(Section):
    """How long, in what batches, in what precision, and which epoch counts as the best."""

    epochs: Epochs
    batch_size: Annotated[int, Field(ge=1, le=65_536)]  # over all replicas together
    precision: Literal["auto", "float32", "bfloat16", "float16"] = "float32"  # auto: what the device has
    loss: LossConfig = LossConfig()
    monitor: Literal["val_accuracy", "val_loss", "accuracy", "loss"] = "val_accuracy"
    mode: Literal["max", "min"] = Field(default_factory=lambda data: best_mode(data.get("monitor", "")))
    early_stopping: EarlyStopping | None = None
    class_weight: Literal["balanced"] | None = None
    lookahead: Lookahead | None = None
    sync_batch_norm: bool = False  # with several replicas: statistics of the whole batch, not of each part
    checkpoint_every_minutes: Annotated[float, Field(gt=0)] = 10.0
    devices: Literal["auto", "cpu", "gpu"] = "auto"
    determinism: Literal["strict", "fast"] | None = None  # strict on a CPU, fast elsewhere

    @field_validator("mode")
    @classmethod
    def _mode_fits_monitor(cls, value: str, info: ValidationInfo) -> str:
        monitor = info.data.get("monitor")
        if monitor and value != best_mode(monitor):
            raise ValueError(f"must be '{best_mode(monitor)}' with monitor '{monitor}', or be left out")
        return value


class EvaluationConfig(Section):
    """How the finished network is used."""

    test_time_views: Literal["none", "flip", "flip_and_shift"] = "none"


class Reference(Section):
    """What the source reports; shown beside our figures, never used in training."""

    source: Text
    data: Text | None = None  # the source's, where ours are others and the figures not comparable
    val_accuracy: Share | None = None
    best_val_accuracy: Share | None = None
    best_epoch: Epochs | None = None
    last_val_accuracy: Share | None = None
    epochs: Epochs | None = None
    seconds_per_epoch: Rate | None = None
    note: str | None = None


class Experiment(Section):
    """One experiment file, complete: everything a run needs besides the images."""

    name: str
    description: str = ""  # the file's first comment line
    seed: Seed = 0
    dataset: DatasetConfig
    augmentation: tuple[LayerConfig, ...] = ()
    normalization: Literal["none", "unit", "symmetric", "per_channel", "per_pixel"] = "per_channel"
    model: ModelConfig
    optimizer: OptimizerConfig
    training: TrainingConfig
    evaluation: EvaluationConfig = EvaluationConfig()
    reference: Reference | None = None

    @property
    def alternating_flip(self) -> bool:
        """Whether images are flipped in alternate epochs as they are read: the augmentation's first item."""
        return any(layer.name == "alternating_flip" for layer in self.augmentation[:1])

    @property
    def augmentation_layers(self) -> tuple[LayerConfig, ...]:
        """The augmentation that layers do, on the accelerator."""
        return self.augmentation[1:] if self.alternating_flip else self.augmentation

    def with_auto_as(self, precision: str) -> Self:
        """Return the experiment with a number format in the place of `training.precision: auto`."""
        if self.training.precision != "auto":
            return self
        training = self.training.model_copy(update={"precision": precision})
        return self.model_copy(update={"training": training})


def best_mode(monitor: str) -> Literal["max", "min"]:
    """Return whether the largest or the smallest value of `monitor` is the best."""
    return "max" if monitor.endswith("accuracy") else "min"
