"""What is done with a trained network, from its run folder and images alone."""

import app.training  # noqa: F401 - first: it keeps TensorFlow quiet while it comes up
