"""What every test starts from: a quiet TensorFlow, no settings of the user's, GPU tests only beside a GPU."""

import os
import re
import shutil
import sys
import tempfile
from pathlib import Path

import pytest

import app  # noqa: F401 - before any import of TensorFlow: the kernels that the program's processes have

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
# Set by make for its own children, or by a user for the program: neither may reach a test.
_makefile = (Path(__file__).resolve().parents[1] / "Makefile").read_text(encoding="utf-8")
_users = re.search(r"^USER_VARIABLES := (.+)$", _makefile, re.MULTILINE)[1].split()
for _name in ("MAKEFLAGS", "MFLAGS", "MAKELEVEL", "TRAINER_HOME", *_users):
    os.environ.pop(_name, None)

# Keras reads and writes its own home folder at import; tests get one that goes away with them.
_keras_home = Path(tempfile.mkdtemp(prefix="keras-home-"))
os.environ["KERAS_HOME"] = str(_keras_home)


def pytest_collection_modifyitems(items):
    if shutil.which("nvidia-smi"):
        return
    for item in items:
        if "gpu" in item.keywords:
            item.add_marker(pytest.mark.skip(reason="no NVIDIA GPU on this machine"))


def pytest_unconfigure():
    shutil.rmtree(_keras_home, ignore_errors=True)


@pytest.fixture(autouse=True)
def no_reports(monkeypatch):
    """Spare runs that a test trains for another purpose the seconds that their page and pictures take.

    Runs of fixtures for a whole session, such as `digits_run`, end as a user's do.
    """
    runner = sys.modules.get("app.training.runner")
    if runner is not None:
        monkeypatch.setattr(runner, "write_report", lambda run, dataset: None)
