"""The section `training` of an experiment file."""

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from app.config.dataset import Text
from app.config.schedules import Epochs, NotNegative, Positive, Section, one_rule

# What `training.epochs: auto` means, chosen on fine-tuning from published weights.
AUTO_IMAGES_SEEN = 100_000
AUTO_EPOCHS = range(5, 101)


class LossConfig(Section):
    """Sparse categorical cross-entropy, as it is used in training."""

    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.0, description="Probability taken from the label and spread over all classes, in training only."
    )
    focal_gamma: NotNegative = Field(
        0.0,
        description="Focal loss in training: every term times (1 - probability) to this power, such as 2.",
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


class Ema(Section):
    """An exponential moving average of the weights beside those that are trained."""

    decay: Annotated[float, Field(ge=0, lt=1)] = Field(
        description="Decay of the average at each step, once it has risen to that."
    )
    warmup_steps: Annotated[int, Field(ge=1)] = Field(
        10,
        description="The decay at step t, from 0, is at most (1 + t) / (`warmup_steps` + t), as in "
        "TensorFlow's `ExponentialMovingAverage`; 1 is without warm-up.",
    )


class TrainingConfig(Section):
    """How long, in what batches, in what precision, and which epoch counts as the best."""

    epochs: Annotated[
        Epochs | Literal["auto"], one_rule("must be a whole number from 1 to 100000, or 'auto'")
    ] = Field(
        description="Passes over the training images; `auto`, for fine-tuning, is as many as show 100,000 "
        "images in all, but from 5 to 100."
    )
    batch_size: Annotated[int, Field(ge=1, le=65_536)] = Field(
        description="Images a step, over all replicas together; the last, partial batch is kept."
    )
    precision: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "float32", description="Number format; `auto` is bfloat16 where the device has instructions for it."
    )
    loss: LossConfig = Field(LossConfig(), description="Options of the cross-entropy in training.")
    monitor: Literal["val_accuracy", "val_loss", "accuracy", "loss"] = Field(
        "val_accuracy",
        description="Metric that decides which epoch's weights are kept as the best: those of the largest "
        "accuracy or of the smallest loss.",
    )
    early_stopping: EarlyStopping | None = Field(
        None, description="Stop where `monitor` no longer improves; without it all epochs are trained."
    )
    class_weight: Annotated[
        Literal["balanced"] | dict[Text, NotNegative] | None,
        one_rule("must be 'balanced', or a mapping of class names to numbers from 0 on"),
    ] = Field(
        None,
        description="Factors of the training loss by class name, such as `{cat: 2.0}`, and 1 for all others; "
        "or `balanced`: the inverse of each class's frequency in an epoch.",
    )
    lookahead: Lookahead | None = Field(
        None, description="Replace the weights by their moving average; not with `early_stopping`."
    )
    ema: Ema | None = Field(
        None,
        description="Average weights and moving statistics over the steps, and validate, save, evaluate and "
        "export the average, while training goes on from the raw weights; not with `lookahead`.",
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

    @property
    def auto(self) -> list[str]:
        """The keys of this section that are `auto`."""
        return [key for key in ("epochs", "precision") if getattr(self, key) == "auto"]

    @property
    def num_epochs(self) -> int:
        """The epochs of a run, whose `auto` is resolved (`Experiment.with_auto`)."""
        assert self.epochs != "auto"
        return self.epochs

    @property
    def weights(self) -> Literal["raw", "average"]:
        """Which weights are validated, evaluated and exported."""
        return "average" if self.ema else "raw"

    @model_validator(mode="before")
    @classmethod
    def _without_mode(cls, content: Any) -> Any:
        """Leave out a key of earlier commits, of which only what follows from `monitor` was legal."""
        given = content if isinstance(content, dict) else {}
        known = given.get("mode") == best_mode(given.get("monitor", "val_accuracy"))
        return {key: each for key, each in given.items() if key != "mode"} if known else content


def best_mode(monitor: Any) -> Literal["max", "min"]:
    """Return whether the largest or the smallest value of `monitor` is the best."""
    return "max" if str(monitor).endswith("accuracy") else "min"
