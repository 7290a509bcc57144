"""Checks of an experiment before its run, and the replay of a step whose loss blew up."""

import app.backend  # noqa: F401 - first: it keeps TensorFlow quiet while it comes up
