"""Experiment files: strict loading into frozen objects, without TensorFlow or Keras."""

from app.config.loader import dump_experiment, list_experiments, load_experiment, misnamed_files
from app.config.schema import LABELS, Experiment
from app.config.space import changed_experiment, load_with_sweep, trial_experiment

__all__ = [
    "LABELS",
    "changed_experiment",
    "Experiment",
    "dump_experiment",
    "list_experiments",
    "load_experiment",
    "load_with_sweep",
    "misnamed_files",
    "trial_experiment",
]
