"""What every test starts from: a quiet TensorFlow, no settings of the user's, GPU tests only beside a GPU."""

import gc
import os
import shutil
import signal
import sys
import tempfile
from pathlib import Path

import pytest

import app  # noqa: F401 - before any import of TensorFlow: the kernels that the program's processes have
from app.options import all_variables

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
# Set by make for its own children, or by a user for the program: neither may reach a test.
for _name in ("MAKEFLAGS", "MFLAGS", "MAKELEVEL", "TRAINER_HOME", "ARGS", *all_variables()):
    os.environ.pop(_name, None)

# Keras reads and writes its own home folder at import; tests get one that goes away with them.
_keras_home = Path(tempfile.mkdtemp(prefix="keras-home-"))
os.environ["KERAS_HOME"] = str(_keras_home)


# The files that take longest: begun first, two processes that share the files end at about the same time.
LONG = ["training/test_workers.py", "test_notebooks.py", "models/test_zoo_training.py"]


def pytest_collection_modifyitems(items):
    tests = Path(__file__).parent
    ranks = {tests / name: rank for rank, name in enumerate(LONG)}
    items.sort(key=lambda item: ranks.get(item.path, len(LONG)))
    if shutil.which("nvidia-smi"):
        return
    for item in items:
        if "gpu" in item.keywords:
            item.add_marker(pytest.mark.skip(reason="no NVIDIA GPU on this machine"))


def pytest_collection_finish():
    """Spare the garbage collector the objects of imported libraries, which each of its rounds would visit."""
    gc.collect()
    gc.freeze()


def pytest_unconfigure():
    shutil.rmtree(_keras_home, ignore_errors=True)


@pytest.fixture(autouse=True)
def interruptible():
    """Signals as a user at a terminal has them, for the test and the processes that it starts.

    Where pytest is started in the background (`&` in a script, cron) SIGINT is ignored, under nohup SIGHUP,
    and every process inherits that.
    """
    defaults = {signal.SIGINT: signal.default_int_handler, signal.SIGHUP: signal.SIG_DFL}
    before = {number: signal.signal(number, handler) for number, handler in defaults.items()}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture(scope="session")
def bfloat16():
    """Skips what computes in bfloat16 where a limit set for oneDNN bars TensorFlow from it."""
    from models import processor  # brings up the backend

    if processor.is_barred("bfloat16"):
        pytest.skip("ONEDNN_MAX_CPU_ISA bars TensorFlow from bfloat16 on this processor")


@pytest.fixture(autouse=True)
def no_reports(monkeypatch):
    """Spare runs that a test trains for another purpose the seconds that their page and pictures take.

    Runs of fixtures for a whole session, such as `digits_run`, end as a user's do.
    """
    runner = sys.modules.get("app.training.runner")
    if runner is not None:
        monkeypatch.setattr(runner, "write_report", lambda run, dataset: None)
