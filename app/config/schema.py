"""What an experiment may say: frozen, strict pydantic models without any TensorFlow.

The sections mirror the YAML file, with one difference: the further keys of `model`, `optimizer` and of an
augmentation layer, which are constructor arguments, are gathered under `arguments` by the loader.
"""

from collections.abc import Iterator
from typing import Annotated, Any, Literal, Self

from pydantic import Field, ValidationInfo, field_validator

from app.config.arguments import ALTERNATING_FLIP
from app.config.dataset import DatasetConfig, Seed, Text
from app.config.schedules import AnySchedule, Epochs, NotNegative, Positive, Section

Fraction = Annotated[float, Field(ge=0, le=1)]


class LayerConfig(Section):
    """One augmentation layer and its constructor arguments."""

    name: Text = Field(description="Name of the layer.")
    arguments: dict[str, Any] = Field({}, description="Its constructor's arguments.")


class ModelConfig(Section):
    """A network of the registry, its constructor arguments, and the weights it starts from."""

    name: Text = Field(description="Name of the network; further keys are its constructor's arguments.")
    weights: Text | None = Field(
        None,
        description="Weights to start from: a run (its best), `imagenet`, or a file (`.pth`, `.safetensors`, "
        "`.h5`); the head is new where classes differ.",
    )
    arguments: dict[str, Any] = Field({}, description="The network's arguments.")


class OptimizerConfig(Section):
    """A Keras optimizer by its lower-case name, its learning rate, and its other arguments."""

    name: Text = Field(description="A Keras optimizer in lower case; further keys are its arguments.")
    learning_rate: AnySchedule = Field(description="A number, or a schedule (see Learning rates).")
    rate_multipliers: dict[Text, NotNegative] = Field(
        {},
        description='Factors of the learning rate by patterns of variable paths, such as `{"*/beta": 64}`; '
        "the first match counts. 0 does not freeze: weight decay and moving statistics go on.",
    )
    arguments: dict[str, Any] = Field({}, description="The optimizer's arguments.")


class LossConfig(Section):
    """Sparse categorical cross-entropy, as it is used in training."""

    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.0, description="Probability taken from the label and spread over all classes, in training only."
    )
    softmax_before_loss: bool = Field(False, description="Apply the softmax twice, as one source does.")


class EarlyStopping(Section):
    """Stop once `monitor` has not improved by more than `min_delta` for `patience_epochs`."""

    patience_epochs: Epochs = Field(description="Epochs without an improvement of `monitor` before the stop.")
    min_delta: NotNegative = Field(0.0, description="Smallest difference that counts as an improvement.")


class Lookahead(Section):
    """Every `every_steps` steps the weights are replaced by their exponential moving average.

    Its decay at step t of T is `decay * (t / T) ** power`.
    """

    every_steps: Annotated[int, Field(ge=1)] = Field(description="Steps between two replacements.")
    decay: Annotated[float, Field(ge=0, lt=1)] = Field(description="Decay of the average at the last step.")
    power: NotNegative = Field(0.0, description="Exponent of t / T in the decay at step t of T.")


class TrainingConfig(Section):
    """How long, in what batches, in what precision, and which epoch counts as the best."""

    epochs: Epochs = Field(description="Passes over the training images.")
    batch_size: Annotated[int, Field(ge=1, le=65_536)] = Field(
        description="Images a step, over all replicas together; the last, partial batch is kept."
    )
    precision: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "float32", description="Number format; `auto` is bfloat16 where the device has instructions for it."
    )
    loss: LossConfig = Field(LossConfig(), description="Options of the cross-entropy in training.")
    monitor: Literal["val_accuracy", "val_loss", "accuracy", "loss"] = Field(
        "val_accuracy", description="Metric that decides which epoch's weights are kept as the best."
    )
    mode: Literal["max", "min"] = Field(
        default_factory=lambda data: best_mode(data.get("monitor", "")),
        description="Whether the largest or the smallest `monitor` is the best; follows from it.",
    )
    early_stopping: EarlyStopping | None = Field(
        None, description="Stop where `monitor` no longer improves; without it all epochs are trained."
    )
    class_weight: Literal["balanced"] | None = Field(
        None, description="`balanced` weights the loss of each class by the inverse of its frequency."
    )
    lookahead: Lookahead | None = Field(
        None, description="Replace the weights by their moving average; not with `early_stopping`."
    )
    sync_batch_norm: bool = Field(
        False, description="With several replicas, take batch statistics of the whole batch."
    )
    checkpoint_every_minutes: Positive = Field(
        10.0, description="Minutes between two saved states within an epoch."
    )
    devices: Literal["auto", "cpu", "gpu"] = Field("auto", description="Devices to train on.")
    determinism: Literal["strict", "fast"] | None = Field(
        None, description="`strict` gives the same bits every time (default on a CPU, not offered by JAX)."
    )

    @field_validator("mode")
    @classmethod
    def _mode_fits_monitor(cls, value: str, info: ValidationInfo) -> str:
        monitor = info.data.get("monitor")
        if monitor and value != best_mode(monitor):
            raise ValueError(f"must be '{best_mode(monitor)}' with monitor '{monitor}', or be left out")
        return value


class EvaluationConfig(Section):
    """How the finished network is used."""

    test_time_views: Literal["none", "flip", "flip_and_shift"] = Field(
        "none",
        description="A second accuracy at the end, with logits averaged over 2 or 6 views of each image.",
    )


class Reference(Section):
    """What the source reports; shown beside our figures, never used in training."""

    source: Text = Field(description="Author, year and place.")
    data: Text | None = Field(None, description="The source's images, where ours are others.")
    val_accuracy: Fraction | None = Field(None, description="Validation accuracy, 0 to 1.")
    best_val_accuracy: Fraction | None = Field(None, description="Validation accuracy of its best epoch.")
    best_epoch: Epochs | None = Field(None, description="Its best epoch, from 1.")
    last_val_accuracy: Fraction | None = Field(None, description="Validation accuracy of its last epoch.")
    epochs: Epochs | None = Field(None, description="Epochs it trained.")
    seconds_per_epoch: Positive | None = Field(None, description="Seconds an epoch took it.")
    note: str | None = Field(None, description="Anything else.")


class Experiment(Section):
    """One experiment file, complete: everything a run needs besides the images."""

    name: str = Field(description="Name of the file.")
    description: str = Field("", description="The file's first comment line.")
    seed: Seed = Field(0, description="Draws initial weights, dropout, augmentation and the order of images.")
    dataset: DatasetConfig = Field(description="Which images, in which size, how many held out.")
    augmentation: tuple[LayerConfig, ...] = Field(
        (), description="Layers that change training images, in this order, drawn anew for each image."
    )
    normalization: Literal["none", "unit", "symmetric", "per_channel", "per_pixel", "pretrained"] = Field(
        "per_channel",
        description="Pixels as they are, to [0, 1], to [-1, 1], to mean 0 and standard deviation 1, or as "
        "published weights expect them.",
    )
    model: ModelConfig = Field(description="The network.")
    optimizer: OptimizerConfig = Field(description="The optimizer and its learning rate.")
    training: TrainingConfig = Field(description="How long, in what batches, in what precision.")
    evaluation: EvaluationConfig = Field(
        EvaluationConfig(), description="How the finished network is evaluated."
    )
    reference: Reference | None = Field(
        None, description="What the source reports; shown beside the result, never used in training."
    )

    @property
    def alternating_flip(self) -> bool:
        """Whether images are flipped in alternate epochs as they are read: the augmentation's first item."""
        return any(layer.name == ALTERNATING_FLIP for layer in self.augmentation[:1])

    @property
    def augmentation_layers(self) -> tuple[LayerConfig, ...]:
        """The augmentation that layers do, on the accelerator."""
        return self.augmentation[1:] if self.alternating_flip else self.augmentation

    def flat(self, exclude: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return the settings as JSON values by dotted key, arguments beside their `name` as in a file."""

        def leaves(content: dict[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
            for key, value in content.items():
                if isinstance(value, dict):
                    yield from leaves(value, prefix if key == "arguments" else f"{prefix}{key}.")
                else:
                    yield prefix + key, value

        return dict(leaves(self.model_dump(mode="json", exclude=exclude), ""))

    def with_auto_as(self, precision: str) -> Self:
        """Return the experiment with a number format in the place of `training.precision: auto`."""
        if self.training.precision != "auto":
            return self
        training = self.training.model_copy(update={"precision": precision})
        return self.model_copy(update={"training": training})


def best_mode(monitor: str) -> Literal["max", "min"]:
    """Return whether the largest or the smallest value of `monitor` is the best."""
    return "max" if monitor.endswith("accuracy") else "min"
