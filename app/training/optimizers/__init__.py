"""Optimizers by name, and the learning rate as a function of the step."""

from app.training.optimizers.build import build_optimizer, optimizer_warnings
from app.training.optimizers.learning_rate import LearningRate, follow_history

__all__ = ["LearningRate", "build_optimizer", "follow_history", "optimizer_warnings"]
