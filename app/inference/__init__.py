"""Evaluate, apply, explain and export a trained network, from its run folder and the images alone."""

from app import backend  # noqa: F401 - first: it keeps TensorFlow quiet while it comes up
