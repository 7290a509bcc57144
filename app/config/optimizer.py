"""The section `optimizer` of an experiment file."""

from typing import Annotated, Literal

from pydantic import Field

from app.config.dataset import Text
from app.config.schedules import AnySchedule, NotNegative, WithArguments, one_rule

NORM_AND_BIAS: Literal["norm_and_bias"] = "norm_and_bias"  # a word for patterns, see `no_decay_patterns`


class OtherOptimizer(WithArguments):
    """What trains the variables that are no kernels, beside `muon`."""

    name: Text = Field(description="A Keras optimizer in lower case; further keys are its arguments.")
    learning_rate: AnySchedule = Field(description="A number, or a schedule (see Learning rates).")
    decoupled: bool = Field(True, description="As `optimizer.decoupled`.")


class OptimizerConfig(WithArguments):
    """A Keras optimizer by its lower-case name or `muon`, its learning rate, and its other arguments."""

    name: Text = Field(
        description="A Keras optimizer in lower case, or `muon`; further keys are its arguments."
    )
    learning_rate: AnySchedule = Field(description="A number, or a schedule (see Learning rates).")
    rate_multipliers: dict[Text, NotNegative] = Field(
        {},
        description='Factors of the learning rate by patterns of variable paths, such as `{"*/beta": 64}` '
        'or names, such as `{"head.*": 10}` (see Fine-tuning); the first match counts. 0 does not freeze: '
        "decoupled weight decay and moving statistics go on.",
    )
    layer_decay: Annotated[float, Field(gt=0, le=1)] | None = Field(
        None,
        description="Multiplies the learning rate, and weight decay with it, once for each block or layer "
        "from the head down to the variable's (see Fine-tuning).",
    )
    no_decay: Annotated[
        Literal["norm_and_bias"] | tuple[Text, ...],
        one_rule(f"must be a list of patterns of variable paths, or '{NORM_AND_BIAS}'"),
    ] = Field(
        (),
        description='Patterns of paths or names of variables without weight decay, such as `["*/bias"]`; '
        "`norm_and_bias` stands for `*/bias`, `*/gamma` and `*/beta`.",
    )
    decoupled: bool = Field(
        True,
        description="`false`, for `sgd` alone: PyTorch's SGD, which adds weight decay to the gradient (see "
        "Weight decay).",
    )
    others: OtherOptimizer | None = Field(
        None, description="With `muon`, the optimizer of biases, normalisations and the head; required there."
    )

    @property
    def no_decay_patterns(self) -> tuple[str, ...]:
        """Shell patterns of the paths of variables that weight decay leaves out."""
        return ("*/bias", "*/gamma", "*/beta") if self.no_decay == NORM_AND_BIAS else tuple(self.no_decay)
