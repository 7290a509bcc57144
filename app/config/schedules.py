"""Learning-rate schedules of an experiment file, and the types of numbers that all sections share."""

from collections.abc import Callable
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    WrapValidator,
    field_validator,
)

Epochs = Annotated[int, Field(ge=1, le=100_000)]
Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]

SCHEDULE_PATHS = (("optimizer", "learning_rate"), ("optimizer", "others", "learning_rate"))  # in a file


def one_rule(rule: str) -> WrapValidator:
    """Return what gives a type of several alternatives one message, where pydantic has one for each."""

    def check(value: Any, validate: Callable[[Any], Any]) -> Any:
        try:
            return validate(value)
        except ValidationError:
            raise ValueError(rule) from None

    return WrapValidator(check)


class Section(BaseModel):
    """A mapping of the file: no unknown keys, no conversions (but an int may stand for a float), no nan."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class WithArguments(Section):
    """A mapping that names what is to be built; its further keys are the constructor's arguments."""

    model_config = ConfigDict(extra="allow")

    @property
    def arguments(self) -> dict[str, Any]:
        """The constructor's arguments, which `arguments.py` checks."""
        return self.model_extra or {}


class Schedule(Section):
    """What all learning-rate schedules share."""

    peak: Positive = Field(
        description="Largest learning rate; of `step` and `exponential` the one before any `factor`."
    )
    warmup_epochs: Annotated[int, Field(ge=0, le=100_000)] = Field(
        0, description="Epochs over which the learning rate rises linearly from zero."
    )
    per_images: Annotated[int, Field(ge=1)] | None = Field(
        None,
        description="Batch size that the learning rates are given for; they are multiplied by "
        "`training.batch_size / per_images`.",
    )

    @field_validator("start", "end", check_fields=False)
    @classmethod
    def _at_most_the_peak(cls, value: float, info: ValidationInfo) -> float:
        if value > info.data.get("peak", value):
            raise ValueError(f"must be at most the peak, which is {info.data['peak']:g}")
        return value

    def for_batches_of(self, batch_size: int) -> Self:
        """Return the schedule with its learning rates as they are for batches of this size."""
        if self.per_images is None:
            return self
        factor = batch_size / self.per_images
        rates = {key: getattr(self, key) * factor for key in ("peak", "start", "end") if hasattr(self, key)}
        return self.model_copy(update={**rates, "per_images": None})


class ConstantSchedule(Schedule):
    """The peak throughout."""

    schedule: Literal["constant"] = Field("constant", description="The learning rate stays at the peak.")


class CosineSchedule(Schedule):
    """Half a cosine from the peak to the end value at the last step."""

    schedule: Literal["cosine"] = Field("cosine", description="Half a cosine from the peak to the end value.")
    end: NotNegative = Field(0.0, description="Learning rate at the last step.")
    span_epochs: Epochs | None = Field(
        None, description="Epoch at whose end the end value is reached; by default the last."
    )


class StepSchedule(Schedule):
    """The peak times `factor` to the number of boundaries passed."""

    schedule: Literal["step"] = Field("step", description="The learning rate is multiplied at each boundary.")
    boundaries_epochs: Annotated[tuple[Epochs, ...], Field(min_length=1)] = Field(
        description="Epochs after which the learning rate is multiplied, increasing."
    )
    factor: Positive = Field(description="Multiplies the learning rate at each boundary.")

    @field_validator("boundaries_epochs")
    @classmethod
    def _increasing(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if any(later <= earlier for earlier, later in zip(value, value[1:], strict=False)):
            raise ValueError("must increase from one to the next")
        return value


class ExponentialSchedule(Schedule):
    """The peak times `factor` to the power of epochs / decay_epochs, in whole steps if `staircase`."""

    schedule: Literal["exponential"] = Field("exponential", description="Exponential decay from the peak.")
    decay_epochs: Epochs = Field(description="Epochs in which the learning rate is multiplied by `factor`.")
    factor: Positive = Field(description="Multiplies the learning rate every `decay_epochs`.")
    staircase: bool = Field(False, description="Multiply at once every `decay_epochs`, not smoothly.")


class OneCycleSchedule(Schedule):
    """Linear from `start` up to the peak at `peak_epoch`, linear down to the end value at the last step."""

    schedule: Literal["one_cycle"] = Field("one_cycle", description="Linear up to the peak, linear down.")
    start: NotNegative = Field(0.0, description="Learning rate at the first step.")
    end: NotNegative = Field(0.0, description="Learning rate at the last step.")
    peak_epoch: Annotated[float, Field(gt=0, le=100_000)] = Field(
        description="Epochs until the peak; 2.3, say, lies within the third."
    )
    span_epochs: Epochs | None = Field(
        None, description="Epoch at whose end the end value is reached; by default the last."
    )


class PlateauSchedule(Schedule):
    """The peak times `factor` whenever `training.monitor` has not improved for `patience_epochs`."""

    schedule: Literal["reduce_on_plateau"] = Field(
        "reduce_on_plateau",
        description="The learning rate is multiplied when `training.monitor` no longer improves.",
    )
    factor: Annotated[float, Field(gt=0, lt=1)] = Field(description="Multiplies the learning rate.")
    patience_epochs: Epochs = Field(description="Epochs without an improvement before that.")
    min_delta: NotNegative = Field(0.0, description="Smallest difference that counts as an improvement.")
    end: NotNegative = Field(0.0, description="Smallest learning rate.")


def _of_number(value: Any, validate: Callable[[Any], Any]) -> Any:
    """Return the schedule that a mapping or a bare number stands for."""
    return validate({"schedule": "constant", "peak": value} if type(value) in (int, float) else value)


AnySchedule = Annotated[
    ConstantSchedule
    | CosineSchedule
    | StepSchedule
    | ExponentialSchedule
    | OneCycleSchedule
    | PlateauSchedule,
    Field(discriminator="schedule"),
    WrapValidator(_of_number),
]
