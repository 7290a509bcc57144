import pytest

from app.config import load_experiment
from app.errors import UserError

VALID = """\
# A small network.
dataset:
  name: digits
model:
  name: baseline
optimizer:
  name: sgd
  learning_rate: 0.1
training:
  epochs: 10
  batch_size: 8
"""
# Aliases that would unfold into a million million values.
BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 12)
)


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Write experiments/NAME.yaml below a project folder of the test's own, which is also the current one."""
    folder = tmp_path / "experiments"
    folder.mkdir()
    monkeypatch.setenv("TRAINER_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)

    def write(text=VALID, name="x"):
        path = folder / f"{name}.yaml"
        path.write_text(text, encoding="utf-8")
        return path

    return write


@pytest.fixture
def errors():
    """Load what must not load; return the lines of the message."""

    def errors(name_or_path="x", overrides=()):
        with pytest.raises(UserError) as caught:
            load_experiment(name_or_path, overrides)
        return str(caught.value).splitlines()

    return errors
