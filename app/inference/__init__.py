"""What is done with a trained network, from its run folder and images alone."""

from app import backend  # noqa: F401 - first: it keeps TensorFlow quiet while it comes up
