"""Experiment files: strict loading into frozen objects, without TensorFlow or Keras."""

from app.config.loader import dump_experiment, list_experiments, load_experiment, misnamed_files
from app.config.schema import Experiment

__all__ = ["Experiment", "dump_experiment", "list_experiments", "load_experiment", "misnamed_files"]
