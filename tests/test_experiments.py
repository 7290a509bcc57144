"""Every shipped experiment builds and trains: one step of each on a few tiny images."""

import json

import keras
import numpy as np
import pytest
from PIL import Image

from app.config import Experiment, load_experiment
from app.data.sources.cifar import CIFAR10
from app.training.setup import prepare
from tests.conftest import shipped_experiments


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Class folders, three images a class: of one size as in CIFAR-10, and of any size."""
    root, rng = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    for split in ("train", "test"):
        for name in CIFAR10:
            _fill(root / "cifar10" / split / name, lambda: (32, 32, 3), rng)
    for name in ("daisy", "rose", "tulip", "other"):
        _fill(root / "image_folder" / name, lambda: (*rng.integers(50, 90, 2), 3), rng)
    return root


def _fill(folder, shape, rng):
    folder.mkdir(parents=True)
    for number in range(3):
        Image.fromarray(rng.integers(0, 256, shape(), dtype=np.uint8)).save(folder / f"{number}.png")


def test_the_record_of_a_set_or_of_a_worker_gives_the_same_experiment():
    overrides = ["dataset.background=[0, 90, 255]", 'optimizer.rate_multipliers={"*/bias": 2}']
    for each in [*map(load_experiment, shipped_experiments()), load_experiment("finetune_folder", overrides)]:
        text = json.dumps(each.model_dump(mode="json"))
        again = Experiment.from_json(json.loads(text))
        assert again == each and again.agrees_with(each)


@pytest.mark.parametrize("name", shipped_experiments())
def test_accuracies_of_a_source_name_its_data(name):
    """Those on the original pixels of CIFAR-10 are not those on other copies of it."""
    reference = load_experiment(name).reference
    assert not (reference and reference.last_val_accuracy) or reference.data


@pytest.mark.slow
@pytest.mark.parametrize("name", shipped_experiments())
def test_one_step(name, folders):
    overrides = ["training.batch_size=4"]
    dataset = load_experiment(name).dataset.name
    if dataset != "digits":
        overrides.append(f"dataset.data_dir={folders / dataset}")
    job = prepare(load_experiment(name, overrides))
    job.classifier.run_eagerly = True  # tracing a step takes ten times as long as the step
    images, labels = job.dataset.train.take(np.arange(4))
    before = [keras.ops.convert_to_numpy(weight) for weight in job.classifier.trainable_weights]
    loss, _ = job.classifier.train_on_batch(images, labels)
    assert np.isfinite(loss)
    after = [keras.ops.convert_to_numpy(weight) for weight in job.classifier.trainable_weights]
    rates = job.experiment.optimizer.learning_rate
    if not getattr(rates, "warmup_epochs", 0):  # a warm-up starts at rate zero
        assert any((a != b).any() for a, b in zip(before, after, strict=True))
    assert all(np.isfinite(a).all() for a in after)
