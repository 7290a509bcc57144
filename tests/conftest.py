"""What every test starts from: a quiet TensorFlow, and no settings of the user's."""

import atexit
import gc
import io
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from PIL import Image

import app  # noqa: F401 - before any import of TensorFlow: the kernels that the program's processes have
from app.commands import options
from app.config import load_experiment
from app.runs import Run

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")  # the same bits each time are promised of a processor alone
# Set by make for its own children, or by a user for the program: neither may reach a test.
_variables = {_name for _function in options.COMMANDS.values() for _name in options._parameters(_function)}
for _name in ("MAKEFLAGS", "MFLAGS", "MAKELEVEL", "TRAINER_HOME", "ARGS", *_variables):
    os.environ.pop(_name, None)

# Keras reads and writes its own home folder at import; tests get one that goes away with them.
_keras_home = Path(tempfile.mkdtemp(prefix="keras-home-"))
os.environ["KERAS_HOME"] = str(_keras_home)
atexit.register(shutil.rmtree, _keras_home, ignore_errors=True)


SHIPPED = Path(__file__).resolve().parents[1] / "experiments"
LIMIT_SECONDS = 2400  # of one test; none takes a tenth of it on a quick processor
# The files that take longest: begun first, two processes that share the files end at about the same time.
LONG = ["distributed/test_workers.py", "test_notebooks.py", "models/test_zoo_training.py"]


@pytest.fixture(autouse=True, scope="module")
def float32():
    """Begin each file in float32: a training before it may have left another format behind."""
    if "keras" in sys.modules:
        sys.modules["keras"].config.set_dtype_policy("float32")


def pytest_collection_modifyitems(items):
    tests = Path(__file__).parent
    ranks = {tests / name: rank for rank, name in enumerate(LONG)}
    items.sort(key=lambda item: ranks.get(item.path, len(LONG)))


def pytest_collection_finish():
    """Spare the garbage collector the objects of imported libraries, which each of its rounds would visit."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol():
    """Let a test fail that waits for what never comes, in place of the whole run."""
    before = signal.signal(signal.SIGALRM, lambda *_: pytest.fail(f"took more than {LIMIT_SECONDS} s"))
    signal.alarm(LIMIT_SECONDS)
    try:
        return (yield)
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@pytest.fixture(autouse=True)
def interruptible():
    """Signals as a user at a terminal has them, for the test and the processes that it starts.

    Where pytest is started in the background (`&` in a script, cron) SIGINT is ignored, under nohup SIGHUP,
    behind a trap of a script SIGTERM, and every process inherits that.
    """
    defaults = {signal.SIGINT: signal.default_int_handler}
    defaults |= dict.fromkeys((signal.SIGHUP, signal.SIGTERM), signal.SIG_DFL)
    before = {number: signal.signal(number, handler) for number, handler in defaults.items()}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def shipped_experiments():
    """The names of the experiments but for a user's own files, as far as git tells."""
    names = sorted(path.stem for path in SHIPPED.glob("*.yaml"))
    if not shutil.which("git"):
        return names
    listed = subprocess.run(["git", "ls-files", "*.yaml"], cwd=SHIPPED, capture_output=True, text=True)
    tracked = {Path(name).stem for name in listed.stdout.split()}
    return [name for name in names if name in tracked] or names


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
    runner = sys.modules.get("app.training.train")
    if runner is not None:
        monkeypatch.setattr(runner, "write_report", lambda run, dataset: None)


@pytest.fixture
def figures(monkeypatch):
    """Every figure that the test saves."""
    from matplotlib.figure import Figure

    saved, savefig = [], Figure.savefig

    def spy(figure, *arguments, **keywords):
        saved.append(figure)
        return savefig(figure, *arguments, **keywords)

    monkeypatch.setattr(Figure, "savefig", spy)
    return saved


TINY = """\
# A small network on digits, with dropout and augmentation.
seed: 3
dataset: {name: digits, image_size: [16, 16]}
augmentation:
  - random_crop: {padding_pixels: 1}
  - random_flip: {mode: horizontal}
normalization: per_pixel
model: {name: baseline}
optimizer:
  name: adam
  learning_rate: {schedule: cosine, peak: 0.003, warmup_epochs: 1}
training: {epochs: 2, batch_size: 256, checkpoint_every_minutes: 0.000001}
"""


def on_jax(cache):
    """The environment of a process on JAX that compiles quickly: unoptimised, and each program once."""
    return {
        "KERAS_BACKEND": "jax",
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": "--xla_backend_optimization_level=0",
        "JAX_COMPILATION_CACHE_DIR": str(cache),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }


def set_project(patch, folder, **experiments):
    """Make `folder` the project folder, with these experiments, until `patch` is undone."""
    (folder / "experiments").mkdir()
    for name, text in experiments.items():
        (folder / "experiments" / f"{name}.yaml").write_text(text)
    patch.setenv("TRAINER_HOME", str(folder))


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A project folder of its own, with one experiment `tiny`."""
    set_project(monkeypatch, tmp_path, tiny=TINY)
    return tmp_path


def trained(folder, changes=(), out=None, *, report=True, overrides=None, **experiment):
    """A finished run of the experiment that is given as NAME=TEXT, in a project folder of its own."""
    from app.training import train as runner

    ((name, _),) = experiment.items()
    with pytest.MonkeyPatch.context() as patch:
        set_project(patch, folder, **experiment)
        if not report:
            patch.setattr(runner, "write_report", lambda run, dataset: None)
        return runner.train(load_experiment(name, changes), out or io.StringIO(), overrides)


@pytest.fixture(scope="session")
def straight(tmp_path_factory):
    """A run of `tiny` that was never stopped."""
    return trained(tmp_path_factory.mktemp("straight"), report=False, overrides=[], tiny=TINY)


DIGITS = """\
# LeNet5 on digits: small, and quick to train.
seed: 1
dataset: {name: digits, image_size: [16, 16], validation: 0.2}
normalization: per_channel
model: {name: lenet5}
optimizer: {name: adam, learning_rate: 0.01}
training: {epochs: 2, batch_size: 32}
"""


@pytest.fixture(scope="session")
def digits_run(tmp_path_factory):
    """A finished run on digits of 16x16 pixels; nothing in it may be changed."""
    return trained(tmp_path_factory.mktemp("digits"), tiny_digits=DIGITS)


def copied(run, home):
    """A copy of a run, in another project folder, that may be changed."""
    copy = Run(home / "runs" / run.name)
    shutil.copytree(run.path, copy.path)
    return copy


@pytest.fixture
def own_run(digits_run, tmp_path):
    """A copy of `digits_run` that may be changed."""
    return copied(digits_run, tmp_path)


def flip_bit(path):
    """Change a bit in the middle of a file."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.fixture(scope="session")
def bfloat16_run(tmp_path_factory, bfloat16):
    """The same, trained in bfloat16."""
    return trained(tmp_path_factory.mktemp("bfloat16"), ["training.precision=bfloat16"], tiny_digits=DIGITS)


FOLDERS = """\
# Three classes of one colour each, in folders with odd names.
dataset:
  name: image_folder
  data_dir: {folder}
  image_size: [16, 16]
  resize: crop
  interpolation: bicubic
  validation: 0.2
normalization: unit
model: {{name: lenet5}}
optimizer: {{name: adam, learning_rate: 0.01}}
training: {{epochs: 1, batch_size: 8}}
"""


def write_colours(folder):
    """Three class folders of ten images."""
    for name, colour in (("10 $x^2$", "red"), ('2, "two"', "green"), ("été", "blue")):
        (folder / name).mkdir(parents=True)
        for number in range(10):
            Image.new("RGB", (20 + number, 20), colour).save(folder / name / f"{number}.png")


@pytest.fixture(scope="session")
def folder_run(tmp_path_factory):
    """A finished run on class folders, whose images are gone since."""
    home = tmp_path_factory.mktemp("folders")
    write_colours(home / "images")
    run = trained(home, colours=FOLDERS.format(folder=home / "images"))
    shutil.rmtree(home / "images")
    return run
