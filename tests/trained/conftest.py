import io
import shutil

import pytest
from PIL import Image

from app.config import load_experiment

DIGITS = """\
# LeNet5 on digits: small, and quick to train.
seed: 1
dataset: {name: digits, image_size: [16, 16], validation: 0.2}
normalization: per_channel
model: {name: lenet5}
optimizer: {name: adam, learning_rate: 0.01}
training: {epochs: 2, batch_size: 32}
"""


def train_digits(folder, *overrides):
    """A finished run of DIGITS in a project folder of its own."""
    from app.training import runner  # brings up the backend

    (folder / "experiments").mkdir()
    (folder / "experiments" / "tiny_digits.yaml").write_text(DIGITS)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRAINER_HOME", str(folder))
        return runner.train(load_experiment("tiny_digits", overrides), out=io.StringIO())


@pytest.fixture(scope="session")
def digits_run(tmp_path_factory):
    """A finished run on digits of 16x16 pixels; nothing in it may be changed."""
    return train_digits(tmp_path_factory.mktemp("digits"))


@pytest.fixture(scope="session")
def bfloat16_run(tmp_path_factory, bfloat16):
    """The same, trained in bfloat16."""
    return train_digits(tmp_path_factory.mktemp("bfloat16"), "training.precision=bfloat16")


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


@pytest.fixture(scope="session")
def folder_run(tmp_path_factory):
    """A finished run on class folders, whose images are gone since."""
    from app.training import runner  # brings up the backend

    home = tmp_path_factory.mktemp("folders")
    for name, colour in (("10 $x^2$", "red"), ('2, "two"', "green"), ("été", "blue")):
        (home / "images" / name).mkdir(parents=True)
        for number in range(10):
            Image.new("RGB", (20 + number, 20), colour).save(home / "images" / name / f"{number}.png")
    (home / "experiments").mkdir()
    (home / "experiments" / "colours.yaml").write_text(FOLDERS.format(folder=home / "images"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRAINER_HOME", str(home))
        run = runner.train(load_experiment("colours"), out=io.StringIO())
    shutil.rmtree(home / "images")
    return run
