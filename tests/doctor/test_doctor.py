"""The doctor: every check meets something that has exactly its fault, and a healthy experiment."""

import io

import keras
import numpy as np
import pytest
from keras import ops
from PIL import Image

from app.config import load_experiment
from app.config.schema import ModelConfig
from app.data.dataset import whole_split
from app.data.normalization import normalization_constants
from app.doctor import data_checks, doctor, resource_checks, statistics_checks, trial_checks
from app.runs import load_run_experiment
from app.training.setup import prepare
from models.augmentation.mixing import Cutmix, Mixup
from models.network import MODELS, Network

HEALTHY = (
    "training.batch_size=64",
    "training.epochs=3",
    "normalization=per_channel",
    "model.bn_momentum=0.8",
)


def examine(*overrides, experiment=None):
    """The verdict, and the lines by subject, each as (level, rest)."""
    out = io.StringIO()
    passed = doctor.examine(experiment or load_experiment("tiny", [*HEALTHY, *overrides]), out)
    lines = [line.split(maxsplit=1) for line in out.getvalue().splitlines()[:-1]]
    return passed, {rest[:12].strip(): (level, rest[12:].strip()) for level, rest in lines}


def levels(results):
    return {result.subject: result.level for result in results if result.level != "ok"}


def tried(job):
    """What the quick checks find amiss, and the results by subject."""
    images, labels = trial_checks.trial_batch(job)
    logits, loss, gradients = trial_checks.first_step(job, images, labels)
    results = [
        trial_checks.check_first_loss(job, loss),
        trial_checks.check_logits(job, logits),
        statistics_checks.check_batch_norm(job),
        trial_checks.check_gradients(job, gradients, images, labels),
    ]
    return levels(results), {result.subject: str(result) for result in results}


class Planted(Network):
    """Two dense layers, from which the tests derive networks with a fault."""

    head_options = {}

    def __init__(self, num_classes, **kwargs):
        super().__init__(**kwargs)
        self.flatten = keras.layers.Flatten()
        self.hidden = keras.layers.Dense(24, activation="relu")
        self.head = keras.layers.Dense(num_classes, **self.head_options)

    def call(self, x, training=None):
        return self.head(self.hidden(self.flatten(x)))


@pytest.fixture
def plant(home, monkeypatch):
    """Prepares the healthy experiment with another network."""

    def prepared(network, *overrides):
        monkeypatch.setitem(MODELS, "planted", network)
        experiment = load_experiment("tiny", [*HEALTHY, *overrides])
        return prepare(experiment.model_copy(update={"model": ModelConfig(name="planted")}))

    return prepared


@pytest.fixture
def healthy(home):
    return prepare(load_experiment("tiny", HEALTHY))


def test_healthy_experiment_passes_without_a_warning(home, monkeypatch):
    monkeypatch.setattr(doctor, "available_memory_bytes", lambda: 10**11)
    passed, lines = examine()
    assert passed
    assert {level for level, _ in lines.values()} == {"ok"}, lines
    assert "1,618 training, 179 validation images" in lines["data"][1]
    assert "ln(10) = 2.3" in lines["first loss"][1]
    assert " for 3 epochs" in lines["speed"][1]
    picture = home / "runs" / "doctor" / "tiny-augmentation.png"
    assert [path for path in (home / "runs").rglob("*") if path.is_file()] == [picture]
    with Image.open(picture) as image:
        width, height = image.size
        assert width > 2 * height and len(np.unique(np.asarray(image))) > 50
    assert str(picture) in lines["augmentation"][1]


def test_warnings_of_the_training_are_the_doctor_s_too(home, monkeypatch):
    monkeypatch.setattr(doctor, "_trial_checks", lambda *_: iter(()))
    found = examine("optimizer.no_decay=norm_and_bias", "augmentation=[alternating_flip]")[1]
    assert found["settings"] == ("warn", "optimizer.no_decay has no effect: there is no weight_decay")
    assert found["augmentation"][1].startswith("alternating_flip; ")


def test_missing_data_is_a_fail_with_the_loader_s_message(home):
    passed, lines = examine("dataset.name=image_folder", "dataset.data_dir=nowhere")
    assert not passed and list(lines) == ["start"]
    assert lines["start"][0] == "FAIL" and "nowhere" in lines["start"][1]


def test_too_little_memory_leaves_the_trial_checks_out(home, monkeypatch):
    monkeypatch.setattr(doctor, "available_memory_bytes", lambda: 10**6)
    passed, lines = examine()
    assert not passed and list(lines)[-2:] == ["memory", "trial checks"]
    assert "1 MB free. Choose a smaller training.batch_size" in lines["memory"][1]


def test_healthy_network_passes_the_trial_checks(plant):
    assert tried(plant(Planted))[0] == {}


def test_images_scaled_before_they_were_stored(healthy):
    images = healthy.dataset.train.images[:8]
    assert data_checks.check_images(healthy.dataset, images).level == "ok"
    assert data_checks.check_images(healthy.dataset, images // 255).level == "warn"


def test_unbalanced_class_folders(home, tmp_path):
    for name, number in (("common", 44), ("rare", 4)):
        folder = tmp_path / "images" / name
        folder.mkdir(parents=True)
        for i in range(number):
            Image.fromarray(np.full((16, 16, 3), i, np.uint8)).save(folder / f"{i}.png")
    overrides = ["dataset={name: image_folder, data_dir: images, validation: 0.25}", "training.batch_size=8"]
    dataset = prepare(load_experiment("tiny", overrides)).dataset
    result = data_checks.check_classes(dataset, None, None)
    assert result.level == "warn"
    assert "from 3 (rare) to 33 (common) images" in result.measured
    assert "class_weight" in result.advice and "sampler: balanced" in result.advice
    for remedy in (("balanced", None), ({"rare": 9.0}, None), (None, "square_root")):
        assert data_checks.check_classes(dataset, *remedy).level == "ok"


class Spoil(keras.layers.Layer):
    def call(self, x, training=None):
        return x * float("nan")


class Darken(keras.layers.Layer):
    def call(self, x, training=None):
        return x * 0.05


@pytest.mark.parametrize(
    ("layers", "level", "text"),
    [
        (
            [keras.layers.RandomBrightness(0.3), keras.layers.RandomContrast(0.0)],
            "warn",
            "random_contrast left",
        ),
        ([Spoil(name="spoil")], "FAIL", "spoil makes pixels that are not finite"),
        ([Darken()], "warn", "5% of the images' contrast"),
        ([keras.layers.RandomBrightness(0.3)], "ok", "random_brightness"),
        ([Mixup(probability=0.5), Cutmix(probability=0.5)], "ok", "cutmix"),
    ],
    ids=["idle", "nan", "dark", "healthy", "mixing"],
)
def test_augmentation(home, layers, level, text):
    images = np.random.default_rng(0).integers(0, 256, (12, 16, 16, 3), dtype=np.uint8)
    path = home / "runs" / "doctor" / "x.png"
    result = data_checks.check_augmentation(layers, images, ["cat"] * 12, path, "x")
    assert result.level == level and text in str(result)


@pytest.mark.parametrize("dark", [0, 255])
def test_pixels_that_hardly_ever_differ_become_huge(monkeypatch, dark):
    images = np.random.default_rng(0).integers(0, 256, (600, 4, 5, 3), dtype=np.uint8)

    def look():
        split = whole_split(images, np.zeros(len(images)))
        constants = normalization_constants("per_pixel", split)
        every = np.abs(images / 255 - constants["mean"]) / np.array(constants["deviation"])
        largest = data_checks.largest_input(split, constants)
        assert largest == pytest.approx(every.max())
        return str(data_checks.check_pixels(np.random.normal(size=(9, 4)), "per_pixel", largest)), largest

    result, largest = look()
    assert result.startswith("ok") and largest < 4
    images[:, 0, 0] = dark
    images[7, 0, 0, 1] = abs(dark - 1)
    result, largest = look()
    assert largest > 1000
    assert (
        result.startswith("warn  pixels ")
        and f"largest {largest:,.1f} in training images (limit 50)" in result
    )
    monkeypatch.setattr(data_checks, "SAMPLE_VALUES", 60 * 10)  # ten images, without the one that differs
    split = whole_split(images, np.zeros(len(images)))
    assert data_checks.largest_input(split, normalization_constants("per_pixel", split)) > 1000


def test_pixels_that_are_not_normalised(home):
    job = prepare(load_experiment("tiny", [*HEALTHY, "normalization=none"]))
    images, _ = trial_checks.trial_batch(job)
    normalized = np.asarray(job.classifier.normalization(images))
    largest = data_checks.largest_input(job.dataset.train, job.constants)
    assert largest == job.dataset.train.images.max()  # of pixels that stay as they are
    result = data_checks.check_pixels(normalized, "none", largest)
    assert result.level == "warn" and "normalization: per_channel" in result.advice
    assert data_checks.check_pixels(normalized, "pretrained", largest).level == "ok"  # as Keras' ResNets want


@pytest.mark.parametrize(
    ("overrides", "level", "text"),
    [
        (["model.bn_momentum=0.999"], "FAIL", "Set model.bn_momentum: 0.8"),
        (["model.bn_momentum=0.95"], "warn", "before epoch 3"),
        (["model.bn_momentum=0.1"], "warn", "PyTorch's 0.1 is 0.9 here"),
        (
            ["model.bn_momentum=0.8", "training.ema={decay: 0.999, warmup_steps: 1}"],
            "FAIL",
            "Lower training.ema.decay or raise its warmup_steps",
        ),
        (
            ["model.bn_momentum=0.8", "training.lookahead={every_steps: 20, decay: 0.5}"],
            "FAIL",
            "Lower training.lookahead.decay",
        ),
        (  # the first validation comes before the average, which brings the initial values back
            ["model.bn_momentum=0.5", "training.lookahead={every_steps: 60, decay: 0.9}"],
            "FAIL",
            "lower its every_steps",
        ),
        (["model.bn_momentum=0.8", "training.ema={decay: 0.999}"], "ok", "momentum 0.8"),  # warmed up
        (["model={name: lenet5}", "dataset.image_size=[32, 32]"], "ok", "none in this network"),
    ],
)
def test_batch_normalisation_that_cannot_settle(home, overrides, level, text):
    job = prepare(load_experiment("tiny", [*HEALTHY[:3], *overrides]))
    result = statistics_checks.check_batch_norm(job)
    assert result.level == level and text in str(result)


MUON = "optimizer={name: muon, learning_rate: 0.1, others: {name: sgd, learning_rate: 0.1}}"


@pytest.mark.parametrize(
    ("overrides", "level", "text"),
    [
        (["optimizer={name: sgd, learning_rate: 0.02, momentum: 0.9}"], "ok", "at most 0.02 below the head"),
        (["optimizer={name: sgd, learning_rate: 0.03, momentum: 0.9}"], "warn", "Above about 0.02 little is"),
        (["optimizer={name: sgd, learning_rate: 0.03}"], "ok", "at most 0.03"),
        (["optimizer={name: adamw, learning_rate: 0.004}"], "warn", "Above about 0.001 little"),
        (["optimizer={name: adamw, learning_rate: 0.004, layer_decay: 0.2}"], "ok", "at most 0.0008 below"),
        (
            ['optimizer={name: adam, learning_rate: 0.001, rate_multipliers: {"head.*": 10}}'],
            "ok",
            "at most 0.001",
        ),
        (["optimizer={name: adam, learning_rate: 0.1}", "model.freeze=backbone"], "ok", "only the head"),
        ([MUON], "ok", "muon with at most"),
        ([MUON, "model.freeze=['*norm*']"], "warn", "muon rescales all kernels"),
    ],
)
def test_rate_that_spoils_pretrained_weights(home, overrides, level, text):
    job = prepare(load_experiment("tiny", overrides))
    result = data_checks.check_rate(job)
    assert result.level == level and text in str(result)


def test_frozen_statistics_need_not_settle(home):
    overrides = ["training.batch_size=1024", "model.freeze=backbone"]
    result = statistics_checks.check_batch_norm(prepare(load_experiment("tiny", overrides)))
    assert (result.level, result.measured) == ("ok", "all frozen")
    job = prepare(load_experiment("tiny", [*overrides, "model.unfreeze_epoch=2"]))
    job.begin(job.experiment.training.num_epochs - 1)  # as the doctor does
    result = statistics_checks.check_batch_norm(job)
    assert result.level == "FAIL" and "first validation with them trained, in epoch 2, " in result.measured


def test_statistics_of_pretrained_weights_serve_from_the_start(home):
    job = prepare(load_experiment("tiny", ["model.bn_momentum=0.999"]))
    job.experiment = load_experiment("tiny", ["model.bn_momentum=0.999", "model.weights=x.weights.h5"])
    result = statistics_checks.check_batch_norm(job)
    assert result.level == "ok" and "of the weights' statistics is left" in result.measured


@pytest.mark.parametrize(
    ("need", "free", "level"), [(100, 150, "ok"), (100, 149, "warn"), (100, 100, "warn"), (100, 99, "FAIL")]
)
def test_room(need, free, level):
    assert resource_checks.check_room("disk", need, free, "Free some").level == level


def test_a_run_takes_no_more_disk_than_was_said(digits_run):
    need = resource_checks.disk_need(prepare(load_run_experiment(digits_run)))
    assert sum(path.stat().st_size for path in digits_run.path.rglob("*") if path.is_file()) < need < 50e6


def test_head_that_starts_too_large(plant):
    class Loud(Planted):
        head_options = {"kernel_initializer": keras.initializers.RandomNormal(0, 9)}

    faults, lines = tried(plant(Loud))
    assert faults == {"first loss": "warn"} and "initial values" in lines["first loss"]


def test_network_that_ends_in_softmax(plant):
    class Softmax(Planted):
        def call(self, x, training=None):
            return ops.softmax(super().call(x, training=training))

    faults, lines = tried(plant(Softmax))
    assert faults == {"logits": "FAIL"} and "without softmax" in lines["logits"]


def test_softmax_before_the_loss_where_it_is_asked_for(plant):
    job = plant(Planted, "training.loss={softmax_before_loss: true, label_smoothing: 0.1}")
    faults, lines = tried(job)
    assert faults == {} and "as asked for" in lines["logits"]
    images, labels = trial_checks.trial_batch(job)
    assert trial_checks.check_overfitting(job, images, labels, budget_seconds=1e9).level == "ok"


def test_layer_that_is_dead_and_layer_that_is_cut_off(plant):
    class Dead(Planted):
        def __init__(self, num_classes, **kwargs):
            super().__init__(num_classes, **kwargs)
            self.blocks = [keras.layers.Dense(24, "relu", bias_initializer=keras.initializers.Constant(-1e3))]

        def call(self, x, training=None):
            x = self.hidden(self.flatten(x))
            return self.head(x + self.blocks[0](x))

    class CutOff(Dead):
        def call(self, x, training=None):
            x = self.hidden(self.flatten(x))
            return self.head(x + ops.stop_gradient(ops.tanh(self.blocks[0](x))))

    faults, lines = tried(plant(Dead))
    assert faults == {"gradients": "FAIL"}
    assert "none for blocks.0.kernel (zero), blocks.0.bias (zero), of 6 variables" in lines["gradients"]
    faults, lines = tried(plant(CutOff))
    assert faults == {"gradients": "FAIL"}
    assert "blocks.0.kernel (not connected to the loss)" in lines["gradients"]


def test_layer_that_is_never_called(plant):
    class Unused(Planted):
        def __init__(self, num_classes, **kwargs):
            super().__init__(num_classes, **kwargs)
            self.blocks = [keras.layers.Conv2D(3, 3)]

    faults, lines = tried(plant(Unused))
    assert faults == {"gradients": "FAIL"}
    assert "blocks.0 (never called)" in lines["gradients"]


def test_branch_behind_a_scale_of_zero_is_not_dead(plant):
    class ZeroScale(Planted):
        def __init__(self, num_classes, **kwargs):
            super().__init__(num_classes, **kwargs)
            self.branch = keras.layers.Dense(24, "tanh")
            self.norm = keras.layers.BatchNormalization(gamma_initializer="zeros", momentum=0.8)

        def call(self, x, training=None):
            x = self.hidden(self.flatten(x))
            return self.head(x + self.norm(self.branch(x), training=training))

    assert tried(plant(ZeroScale))[0] == {}


def test_network_that_cannot_learn_two_batches(plant):
    class Mean(Planted):
        """Sees one number of each image."""

        def call(self, x, training=None):
            return self.head(self.hidden(ops.mean(self.flatten(x), axis=1, keepdims=True)))

    job = plant(Mean)
    assert tried(job)[0] == {}
    images, labels = trial_checks.trial_batch(job)
    result = trial_checks.check_overfitting(job, images, labels, budget_seconds=1e9, most_steps=100)
    assert result.level == "FAIL" and "in 100 steps" in result.measured
    result = trial_checks.check_overfitting(job, images, labels, budget_seconds=0.0)
    assert result.level == "warn" and "all that 0 s allow" in result.measured


def test_overfitting_leaves_the_experiment_s_own_network_alone(healthy):
    before = [np.array(weight) for weight in healthy.classifier.weights]
    images, labels = trial_checks.trial_batch(healthy)
    assert trial_checks.check_overfitting(healthy, images, labels, budget_seconds=1e9).level == "ok"
    for weight, value in zip(healthy.classifier.weights, before, strict=True):
        np.testing.assert_array_equal(weight, value)


def test_loss_that_is_lost_in_the_first_steps(plant):
    result = resource_checks.check_speed(plant(Planted, "optimizer={name: sgd, learning_rate: 1e30}"))
    assert result.level == "FAIL" and "optimizer.learning_rate" in result.advice
