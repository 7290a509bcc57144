"""Importing this module brings up Keras and its backend: without start-up messages, with a GPU to share."""

import contextlib
import logging
import os
import sys
import tempfile
from collections.abc import Iterator

from app.machine import check_backend

check_backend()
# Before any import of TensorFlow: hide its C++ INFO lines; warnings and errors still show. Of several workers
# none shows them: app.distributed reports the end of another one, in one line instead of twenty.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3" if os.environ.get("TF_CONFIG") else "1")
# A GPU's memory is taken as it is needed: else one command has nearly all of it, and one beside it fails.
os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")


@contextlib.contextmanager
def silence() -> Iterator[None]:
    """Hold back what C++ writes to the standard error; show it all if the block fails.

    TensorFlow's first lines are printed before its log level is read, so no variable turns them off.
    """
    sys.stderr.flush()
    saved = os.dup(2)
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            yield
        except Exception:
            os.dup2(saved, 2)
            held.seek(0)
            os.write(2, held.read())
            raise
        finally:
            os.dup2(saved, 2)
            os.close(saved)


with silence():
    import keras

    keras.config.set_image_data_format("channels_last")  # a keras.json in the home folder may say otherwise
    with contextlib.suppress(ImportError):  # where JAX trains, TensorFlow may be absent, or feed it
        import tensorflow  # noqa: F401

# Every run in a process (SEEDS=, bench) has functions of its own. TensorFlow takes them for one that is
# traced again and again, and warns.
logging.getLogger("tensorflow").addFilter(lambda record: "tf.function retracing" not in str(record.msg))
