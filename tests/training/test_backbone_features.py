"""Features of a frozen backbone train the head as images do, with exact resume; where images are needed."""

import io
import os
import signal

import keras
import numpy as np
import pytest

import app.training.train as runner
from app.cli import main
from app.config import load_experiment
from app.reading import read_history, read_json
from app.runs import Run, list_runs
from app.training import backbone_features
from app.training.backbone_features import features_once, halves_of
from app.training.setup import prepare
from models import ImageClassifier, Normalization, build_model
from models.network import MODELS, Network
from tests.conftest import TINY, trained
from tests.training.stopped_runs import assert_resumes_on_jax, assert_same_bits, stopped_run

FROZEN = ["model.freeze=backbone", "model.dropout=0.0", "augmentation=[]"]
FLIPPED = [*FROZEN[:2], "augmentation=[random_flip]"]


def fitted(overrides, home):
    """Losses of an epoch, weights after it, what was said, and the shape of what the steps were fed."""
    job, out = prepare(load_experiment("tiny", overrides)), io.StringIO()
    with features_once(job, Run(home / "runs" / "tiny" / "now"), out) as fed:
        val_ds, val_steps = fed.validation_batches()
        history = job.classifier.fit(
            fed.batches(), steps_per_epoch=job.steps_per_epoch, epochs=2, shuffle=False, verbose=0,
            validation_data=val_ds, validation_steps=val_steps,
            callbacks=job.step_callbacks(0),
        ).history  # fmt: skip
    weights = [keras.ops.convert_to_numpy(each) for each in job.classifier.variables]
    return history, weights, out.getvalue(), fed.dataset.train.images.shape


@pytest.mark.parametrize(
    ("overrides", "views"),
    [
        (FLIPPED, 2),
        pytest.param([*FROZEN[:2], "augmentation=[alternating_flip]"], 2, marks=pytest.mark.slow),
        pytest.param(
            [
                *FROZEN,
                "dataset.sampler=balanced",
                'training.class_weight={"3": 2.0}',
                "training.lookahead={every_steps: 2, decay: 0.9, power: 1}",
                "optimizer.gradient_accumulation_steps=2",
                "training.precision=float16",
            ],
            1,
            marks=pytest.mark.slow,
        ),
        pytest.param(  # with dropout before the head
            [
                "dataset={name: digits, image_size: [32, 32], channels: 3}",
                "model={name: efficientnet_lite0, freeze: backbone, dropout: 0.5}",
                "augmentation=[random_flip]",
            ],
            2,
            marks=pytest.mark.slow,
        ),
    ],
    ids=["flip", "alternating flip", "rich", "dropout"],
)
def test_head_learns_from_features_what_it_learns_from_images(home, monkeypatch, overrides, views):
    history, weights, said, shape = fitted(overrides, home)
    assert said.startswith("features of the frozen backbone: 1,797 images, computed once in ")
    assert shape[:3] == (1618, 1, views)
    monkeypatch.setattr(backbone_features, "MAX_BYTES", 0)
    expected, others, said, shape = fitted(overrides, home)
    assert not said and len(shape) == 4 and shape[1] > 1
    for name, values in expected.items():
        tolerance = 0.006 if "accuracy" in name else 1e-4 * values[0]  # of an image that is decided narrowly
        assert history[name] == pytest.approx(values, abs=tolerance), name
    for ours, theirs in zip(weights, others, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    "overrides",
    [
        ["model.freeze=backbone", "augmentation=[]"],  # dropout within the backbone
        pytest.param([*FROZEN, 'model.freeze=["conv", "norm"]'], marks=pytest.mark.slow),
        [*FROZEN, "model.unfreeze_epoch=2"],
        [*FROZEN, "augmentation=[{random_crop: {padding_pixels: 1}}, random_flip]"],
        pytest.param([*FROZEN, "augmentation=[mixup]"], marks=pytest.mark.slow),
        [*FROZEN, "augmentation=[{random_flip: {mode: vertical}}]"],
    ],
    ids=["dropout", "part", "unfrozen later", "crop", "mixup", "vertical"],
)
def test_elsewhere_the_steps_take_images(home, overrides):
    job = prepare(load_experiment("tiny", overrides))
    with features_once(job, Run(home / "runs" / "tiny" / "now"), io.StringIO()) as fed:
        assert fed is job


@pytest.fixture(scope="module")
def flipped(tmp_path_factory):
    """A run on features of images and their mirror images that was never stopped."""
    return trained(tmp_path_factory.mktemp("flipped"), FLIPPED, report=False, tiny=TINY)


def test_run_leaves_the_whole_classifier(flipped):
    with np.load(flipped.predictions) as predictions:
        labels, logits = predictions["labels"], predictions["last_logits"]
    last = read_history(flipped.history)[-1]
    assert np.mean(logits.argmax(-1) == labels) == pytest.approx(last["val_accuracy"], abs=0.006)
    classifier = keras.saving.load_model(flipped.best_model)
    images = np.zeros((2, 16, 16, 1), np.uint8)
    assert classifier.predict(images, verbose=0).shape == (2, 10)
    metrics = read_json(flipped.metrics)
    assert metrics["parameters"]["trainable"] == 128 * 10 + 10
    assert metrics["timing"]["seconds"] > sum(row["seconds"] for row in read_history(flipped.history))


@pytest.mark.parametrize(
    ("hook", "call", "kill"),
    [("on_train_batch_end", 9, False), pytest.param("on_test_batch_end", 1, True, marks=pytest.mark.slow)],
)
def test_interrupted_run_resumes_to_the_same_bits(home, flipped, hook, call, kill):
    run = stopped_run(load_experiment("tiny", FLIPPED), call, hook, kill=kill)
    out = io.StringIO()
    runner.resume(run, out=out)
    assert "features of the frozen backbone" in out.getvalue()
    assert_same_bits(run, flipped)


def test_stop_while_features_are_computed_says_how_to_go_on(home, monkeypatch, capsys):
    monkeypatch.setattr(
        keras.Model, "predict_on_batch", lambda *_: os.kill(os.getpid(), signal.SIGTERM) or np.zeros(())
    )
    assert main(["train", "tiny", *(word for each in FROZEN for word in ("--set", each))]) == 143
    (run,) = list_runs("tiny")
    message = f"stopped before the first step; go on with: make resume RUN={run.name}"
    assert capsys.readouterr().err.strip() == message


class TwoPaths(Network):
    """Logits that do not come from the head alone."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.pool = keras.layers.GlobalAveragePooling2D()
        self.body, self.head = keras.layers.Dense(3), keras.layers.Dense(3)

    def call(self, images, training=None):
        pooled = self.pool(images)
        return self.head(self.body(pooled)) + pooled


def test_logits_that_need_more_than_the_head_take_images():
    network = TwoPaths()
    network.build((None, 8, 8, 3))
    classifier = ImageClassifier(network, [*"abc"], Normalization())
    classifier.build((None, 8, 8, 3))
    assert halves_of(classifier, (8, 8, 3)) is None


@pytest.mark.slow
@pytest.mark.parametrize("name", list(MODELS))
def test_halves_are_the_network(name):
    pixels = MODELS[name].pixels_from(32)
    shape = (pixels, pixels, 3)
    network = build_model(name, input_shape=shape, num_classes=5)
    classifier = ImageClassifier(network, [*"abcde"], Normalization())
    classifier.build((None, *shape))
    halves = halves_of(classifier, shape)
    images = np.random.default_rng(0).integers(0, 256, (3, *shape), np.uint8)
    if halves is None:
        assert any(isinstance(each, keras.layers.Dropout) for each in classifier._flatten_layers())
        return
    logits = halves.head(halves.backbone(images, training=False), training=False)
    expected = classifier(images, training=False)
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())


@pytest.mark.slow
def test_jax_trains_and_resumes_on_features(home):
    assert_resumes_on_jax(home, FLIPPED, 9)
