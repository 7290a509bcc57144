"""Optimizers by name, and the learning rate as a function of the step."""

from app.training.optimizers.build import build_optimizer
from app.training.optimizers.learning_rate import follow_history, learning_rate_at
from app.training.optimizers.warnings import optimizer_warnings

__all__ = ["build_optimizer", "follow_history", "learning_rate_at", "optimizer_warnings"]
