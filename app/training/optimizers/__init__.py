"""Optimizers by name, and the learning rate as a function of the step."""

from app.training.optimizers.build import ACCUMULATION, build_optimizer, unapplied_steps
from app.training.optimizers.learning_rate import LearningRate, learning_rate_at
from app.training.optimizers.variables import no_decay_warnings

__all__ = [
    "ACCUMULATION",
    "LearningRate",
    "build_optimizer",
    "learning_rate_at",
    "no_decay_warnings",
    "unapplied_steps",
]
