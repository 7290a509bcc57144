"""Experiment files: strict loading into frozen objects, without TensorFlow or Keras."""

from app.config.loader import dump_experiment, list_experiments, load_experiment, misnamed_files
from app.config.schema import (
    AnySchedule,
    ConstantSchedule,
    CosineSchedule,
    DatasetConfig,
    EarlyStopping,
    Experiment,
    ExponentialSchedule,
    LayerConfig,
    LossConfig,
    ModelConfig,
    OneCycleSchedule,
    OptimizerConfig,
    Reference,
    StepSchedule,
    TrainingConfig,
)

__all__ = [
    "AnySchedule",
    "ConstantSchedule",
    "CosineSchedule",
    "DatasetConfig",
    "EarlyStopping",
    "Experiment",
    "ExponentialSchedule",
    "LayerConfig",
    "LossConfig",
    "ModelConfig",
    "OneCycleSchedule",
    "OptimizerConfig",
    "Reference",
    "StepSchedule",
    "TrainingConfig",
    "dump_experiment",
    "list_experiments",
    "load_experiment",
    "misnamed_files",
]
