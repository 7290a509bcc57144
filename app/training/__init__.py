"""The training run on one device, from the experiment to the finished run folder."""

import app.backend  # noqa: F401 - first: it keeps TensorFlow quiet while it comes up
