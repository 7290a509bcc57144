import io

import pytest

from app.config import load_experiment

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


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A project folder of its own, with one experiment `tiny`."""
    (tmp_path / "experiments").mkdir()
    (tmp_path / "experiments" / "tiny.yaml").write_text(TINY)
    monkeypatch.setenv("TRAINER_HOME", str(tmp_path))
    return tmp_path


@pytest.fixture(scope="session")
def straight(tmp_path_factory):
    """A run of `tiny` that was never stopped."""
    from app.training import runner  # brings up the backend

    root = tmp_path_factory.mktemp("straight")
    (root / "experiments").mkdir()
    (root / "experiments" / "tiny.yaml").write_text(TINY)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRAINER_HOME", str(root))
        return runner.train(load_experiment("tiny"), out=io.StringIO(), overrides=[])
