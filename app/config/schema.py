"""What an experiment may say: frozen, strict pydantic models without any TensorFlow.

The sections mirror the YAML file, but for the augmentation: the loader makes `name` a key of each layer.
"""

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import Field, ValidationInfo, field_validator

from app.config.dataset import DatasetConfig, Seed, Text
from app.config.nodes import Mark, node_of
from app.config.optimizer import OptimizerConfig
from app.config.schedules import Epochs, Positive, Section, WithArguments, one_rule
from app.config.sweep import SweepConfig
from app.config.training import AUTO_EPOCHS, AUTO_IMAGES_SEEN, TrainingConfig

ALTERNATING_FLIP = "alternating_flip"  # no layer: images are flipped as they are read
MIXING = ("mixup", "cutmix")  # layers that mix images in pairs, and their labels
LABELS = dict.fromkeys(("name", "description", "reference"), True)  # say nothing of what is trained
Fraction = Annotated[float, Field(ge=0, le=1)]


class LayerConfig(WithArguments):
    """One augmentation layer and its constructor arguments."""

    name: Text = Field(description="Name of the layer.")


class ModelConfig(WithArguments):
    """A network of the registry, its constructor arguments, and the weights it starts from."""

    name: Text = Field(description="Name of the network; further keys are its constructor's arguments.")
    weights: Text | None = Field(
        None,
        description="Weights to start from: a run (its best), `imagenet`, or a file (`.pth`, `.pt`, "
        "`.safetensors`, `.h5`); the head is new where classes differ.",
    )
    freeze: Annotated[
        Literal["backbone"] | tuple[Text, ...],
        one_rule("must be a list of patterns of layers' names, or 'backbone'"),
    ] = Field(
        (),
        description='Layers that keep their weights: patterns of names such as `["stem*", "units.0"]` (see '
        "Fine-tuning), or `backbone`, all but the head.",
    )
    unfreeze_epoch: Annotated[int, Field(ge=2, le=100_000)] | None = Field(
        None, description="Epoch, counted from 1, from which on everything is trained; by default never."
    )


class EvaluationConfig(Section):
    """How the finished network is used."""

    test_time_views: Literal["none", "flip", "flip_and_shift"] = Field(
        "none",
        description="A second accuracy at the end, with logits averaged over 2 or 6 views of each image.",
    )
    views_below: Annotated[float, Field(gt=0, le=1)] | None = Field(
        None,
        description="Average the views only of images whose largest softmax probability without them, "
        "before any temperature, is below this; by default of all.",
    )

    @field_validator("views_below")
    @classmethod
    def _views_are_asked_for(cls, value: float | None, info: ValidationInfo) -> float | None:
        if value is not None and info.data.get("test_time_views") == "none":
            raise ValueError("must be left out where test_time_views is none")
        return value


class Reference(Section):
    """What the source reports; shown beside our metrics, never used in training."""

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
        description="Pixels as they are, to [0, 1], to [-1, 1], each channel to mean 0 and standard "
        "deviation 1, minus one mean of all and divided by a standard deviation of each pixel and channel, "
        "or as published weights expect them.",
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
    sweep: SweepConfig | None = Field(
        None, description="A search over these settings (`make sweep`); a training ignores it."
    )

    @classmethod
    def from_json(cls, settings: Any) -> Self:
        """Return the experiment of `model_dump(mode="json")`, with tuples for its lists as from a file.

        Raises:
            ValidationError: The settings are none of an experiment.
        """
        return cls.model_validate(node_of(settings, Mark("")).plain())

    @property
    def alternating_flip(self) -> bool:
        """Whether images are flipped in alternate epochs as they are read: the augmentation's first item."""
        return any(layer.name == ALTERNATING_FLIP for layer in self.augmentation[:1])

    @property
    def augmentation_layers(self) -> tuple[LayerConfig, ...]:
        """The augmentation that layers do, on the accelerator."""
        return self.augmentation[1:] if self.alternating_flip else self.augmentation

    @property
    def mixes_images(self) -> bool:
        """Whether the metrics of training are those of mixed images."""
        return any(layer.name in MIXING for layer in self.augmentation)

    @property
    def scaled_optimizer(self) -> OptimizerConfig:
        """The optimizer with its learning rates for this batch size, see `per_images`."""
        optimizer, size = self.optimizer, self.training.batch_size
        rates: dict[str, Any] = {"learning_rate": optimizer.learning_rate.for_batches_of(size)}
        if optimizer.others:
            scaled = optimizer.others.learning_rate.for_batches_of(size)
            rates["others"] = optimizer.others.model_copy(update={"learning_rate": scaled})
        return optimizer.model_copy(update=rates)

    @property
    def schedule_epochs(self) -> list[int]:
        """Over how many epochs what has an end is laid out: learning rates, and lookahead's average."""
        epochs = self.training.num_epochs
        rates = [each.learning_rate for each in (self.optimizer, self.optimizer.others) if each]
        spans = [rate.span_epochs or epochs for rate in rates if hasattr(rate, "span_epochs")]
        return [*spans, epochs] if self.training.lookahead else spans

    def agrees_with(self, other: "Experiment", exclude: Mapping[str, Any] | set[str] | None = None) -> bool:
        """Return whether two experiments say the same, `exclude` aside."""
        return self.flat(exclude) == other.flat(exclude)

    def flat(self, exclude: Mapping[str, Any] | set[str] | None = None) -> dict[str, Any]:
        """Return the settings as JSON values by dotted key."""
        content = self.model_dump(mode="json", exclude=exclude)
        found = {key: value for key, value in leaves(content) if value != {}}
        if len(self.optimizer.rate_multipliers) > 1:  # a mapping has no order, but the first match counts
            found["optimizer.rate_multipliers"] = [*self.optimizer.rate_multipliers]
        return found

    def with_auto(self, **values: Any) -> Self:
        """Return the experiment with values for those keys of `training` that are `auto` in it."""
        update = {key: value for key, value in values.items() if getattr(self.training, key) == "auto"}
        if not update:
            return self
        return self.model_copy(update={"training": self.training.model_copy(update=update)})

    def with_epochs_for(self, num_images: int) -> Self:
        """Return the experiment with epochs in the place of `auto`, for a number of training images."""
        epochs = round(AUTO_IMAGES_SEEN / num_images)
        return self.with_auto(epochs=min(max(epochs, AUTO_EPOCHS[0]), AUTO_EPOCHS[-1]))

    def with_auto_of(self, trained: Self) -> Self:
        """Return the experiment with the values that its keys `auto` came to in a run."""
        return self.with_auto(precision=trained.training.precision, epochs=trained.training.epochs)


def leaves(content: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield what a mapping of mappings holds by dotted key; of a mapping, where that is empty."""
    for key, value in content.items():
        if isinstance(value, dict) and value:
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value
