"""The preview: the pictures show what training will do, and nothing else is touched."""

import io
import subprocess

import keras
import matplotlib
import numpy as np
import pytest
from PIL import Image

from app import cli
from app.config import load_experiment
from app.data.order import epoch_order, flipped_images
from app.doctor.preview import DRAWS, augmented, preview
from app.errors import UserError
from app.paths import module_command
from app.training.setup import prepare
from models.augmentation.pixel_layers import RandomCrop
from tests.evaluation.test_image_sheets import assert_legible, drawn_texts


def run_preview(*overrides):
    out = io.StringIO()
    return preview(load_experiment("tiny", overrides), out), out.getvalue()


def legend_of(figure):
    return [text.get_text() for legend in figure.legends for text in legend.get_texts()]


def test_two_pictures_in_a_new_folder_and_nothing_else(home, figures, capsys):
    assert cli.main(["preview", "tiny"]) == 0
    (folder,) = (home / "runs" / "previews").iterdir()
    pictures = [folder / "augmentation.png", folder / "schedule.png"]
    assert sorted(path for path in (home / "runs").rglob("*") if path.is_file()) == pictures
    lines = capsys.readouterr().out.splitlines()
    assert lines == [f"augmentation {pictures[0]}", f"schedule {pictures[1]}"]
    for figure in figures:
        assert_legible(figure)
    texts = [text.get_text() for text in drawn_texts(figures[0])]
    assert "random_crop (padding_pixels 1), random_flip (mode horizontal)" in texts
    assert len(figures[0].axes) == 1 + DRAWS
    with Image.open(pictures[0]) as image:
        assert len(np.unique(np.asarray(image))) > 30


@pytest.mark.slow
def test_nothing_but_the_report_is_printed(home):
    command, environment = module_command("app", "preview", "tiny")
    environment.pop("TF_CPP_MIN_LOG_LEVEL", None)  # of conftest, which hides warnings that a user sees
    environment["MPLCONFIGDIR"] = matplotlib.get_cachedir()  # without a remark where the home is read-only
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0 and done.stderr == ""  # no remark of TensorFlow's


def test_the_first_tile_is_the_stored_image_of_the_first_step(home, figures):
    run_preview()
    job = prepare(load_experiment("tiny"))
    stored, labels = job.dataset.train.take(epoch_order(3, 0, job.dataset.train.labels)[:1])
    shown = [np.asarray(axes.images[0].get_array()) for axes in figures[0].axes]
    np.testing.assert_array_equal(shown[0], stored[0, ..., 0])
    assert f"as stored: {job.dataset.class_names[labels[0]]}" in [
        text.get_text() for text in figures[0].texts
    ]
    assert len({tile.tobytes() for tile in shown}) > 5  # 9 crops, mirrored or not


def test_a_preview_is_the_same_each_time(home):
    first, second = run_preview()[0], run_preview()[0]
    assert first != second
    for name in ("augmentation.png", "schedule.png"):
        assert (first / name).read_bytes() == (second / name).read_bytes()


def test_draws_differ_and_are_those_of_the_layers():
    keras.utils.set_random_seed(0)
    image = np.zeros((8, 8, 3), np.uint8)
    image[4, 4] = 200
    drawn = augmented([RandomCrop(padding_pixels=1, dtype="float32")], image, np.zeros(50, bool))
    assert drawn.shape == (50, 8, 8, 3) and drawn.dtype == np.uint8
    places = {tuple(np.argwhere(each[..., 0] == 200)[0]) for each in drawn}
    assert places == {(row, column) for row in (3, 4, 5) for column in (3, 4, 5)}


def test_mirrored_ones_are_mirrored_before_the_layers():
    image = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    drawn = augmented([], image, np.array([False, True]))
    np.testing.assert_array_equal(drawn, [image, image[:, ::-1]])


def test_pixels_stay_within_their_range():
    brighter = keras.layers.RandomBrightness((0.9, 1.0), dtype="float32", seed=1)
    drawn = augmented([brighter], np.full((2, 2, 1), 250, np.uint8), np.zeros(3, bool))
    assert (drawn == 255).all()


def test_an_alternating_flip_mirrors_every_second_epoch(home, figures):
    run_preview("augmentation=[alternating_flip]")
    job = prepare(load_experiment("tiny"))
    position = epoch_order(3, 0, job.dataset.train.labels)[0]
    image = job.dataset.train.take(np.array([position]))[0][0, ..., 0]
    shown = [np.asarray(axes.images[0].get_array()) for axes in figures[0].axes]
    texts = [text.get_text() for text in figures[0].texts]
    for epoch in range(DRAWS):
        flipped = flipped_images(3, epoch, len(job.dataset.train))[position]
        np.testing.assert_array_equal(shown[1 + epoch], image[:, ::-1] if flipped else image)
        assert f"epoch {epoch + 1}{', mirrored' if flipped else ''}" in texts
    assert not np.array_equal(shown[1], shown[2])


def test_mixed_images_name_both_classes_and_their_weights(home, figures):
    run_preview("augmentation=[alternating_flip, {mixup: {probability: 0.5}}]")
    job = prepare(load_experiment("tiny"))
    train = job.dataset.train
    positions = epoch_order(3, 0, train.labels)[: DRAWS + 1]
    images, labels = train.take(positions)
    images, names = images.astype(float), [job.dataset.class_names[label] for label in labels]
    tiles = [np.asarray(axes.images[0].get_array()) for axes in figures[0].axes]
    texts, mixed = [text.get_text() for text in figures[0].texts], 0
    assert_legible(figures[0])
    place = texts.index(f"as stored: {names[0]}") + 1
    for epoch in range(DRAWS):
        own, other = (
            images[index, :, ::-1, 0] if flipped else images[index, ..., 0]
            for index, flipped in (
                (index, flipped_images(3, epoch, len(train))[positions[index]]) for index in (0, epoch + 1)
            )
        )
        assert texts[place].startswith(f"epoch {epoch + 1}")
        weight = int(texts[place + 1].removesuffix(f"% {names[0]}"))
        place += 2
        if not texts[place : place + 1] or texts[place].startswith("epoch"):
            np.testing.assert_array_equal(tiles[1 + epoch], own)
            continue
        mixed += 1
        assert texts[place] == f"{100 - weight}% {names[epoch + 1]}"
        place += 1
        expected = (weight * own + (100 - weight) * other) / 100
        assert np.abs(tiles[1 + epoch] - expected).max() <= 0.5 + 0.0051 * 255
    assert 4 <= mixed <= 20


def test_without_augmentation_it_says_so(home):
    folder, text = run_preview("augmentation=[]")
    assert [path.name for path in folder.iterdir()] == ["schedule.png"]
    assert "augmentation none" in text and "schedule.png" in text


def test_missing_data_leaves_nothing_behind(home):
    with pytest.raises(UserError, match="nowhere"):
        run_preview("dataset.name=image_folder", "dataset.data_dir=nowhere")
    assert not (home / "runs").exists()


@pytest.mark.parametrize(
    ("schedule", "epochs", "legend"),
    [
        # 1,618 images in batches of 256 are 7 steps.
        ("{schedule: cosine, peak: 0.003, end: 0.001, warmup_epochs: 1}", 10,
         ["warm-up to epoch 1", "start: 0.000429", "peak: 0.003 at epoch 0.857", "end: 0.001"]),
        ("0.01", 3, ["start: 0.01", "end: 0.01"]),
        ("{schedule: step, peak: 0.1, boundaries_epochs: [2, 4], factor: 0.1}", 5,
         ["start: 0.1", "end: 0.001"]),
        ("{schedule: one_cycle, start: 0.1, peak: 0.4, end: 0.02, peak_epoch: 3}", 6000,
         ["start: 0.1", "peak: 0.4 at epoch 3", "end: 0.02"]),
    ],
)  # fmt: skip
def test_schedule_says_warm_up_peak_and_end(home, figures, schedule, epochs, legend):
    run_preview("augmentation=[]", f"optimizer.learning_rate={schedule}", f"training.epochs={epochs}")
    assert legend_of(figures[0]) == legend
    assert_legible(figures[0])
    axes = figures[0].axes[0]
    assert axes.get_xlim()[1] >= epochs and axes.get_xlabel() == "epoch"
    if "step" in schedule:
        passed, rates = axes.lines[0].get_data()
        np.testing.assert_allclose(rates, 0.1 * np.where(passed < 2, 1, np.where(passed < 4, 0.1, 0.01)))


def test_rate_multipliers_are_named(home, figures):
    run_preview('optimizer.rate_multipliers={"*/beta": 64}')
    assert any("*/beta 64 times this rate" in text.get_text() for text in drawn_texts(figures[1]))


@pytest.mark.parametrize(
    ("optimizer", "line"),
    [
        (
            "{name: sgd, learning_rate: "
            "{schedule: reduce_on_plateau, peak: 0.1, factor: 0.5, patience_epochs: 9}}",
            "its reductions follow from the training: 0.5 times after 9 epochs without a better val_accuracy",
        ),
        (
            "{name: muon, learning_rate: 0.02, others: {name: sgd, learning_rate: "
            "{schedule: one_cycle, start: 0.25, peak: 0.5, end: 0.01, peak_epoch: 0.2}}}",
            "kernels; the rest, sgd: one_cycle, peak 0.5, start 0.25, end 0.01, peak_epoch 0.2",
        ),
    ],
)
def test_schedule_says_what_it_cannot_draw(home, figures, optimizer, line):
    run_preview(f"optimizer={optimizer}", "augmentation=[]")
    assert_legible(figures[-1])
    assert line in "\n".join(text.get_text() for text in drawn_texts(figures[-1]))


def test_what_a_sampler_shows_of_the_classes_is_printed(home):
    job = prepare(load_experiment("tiny"))
    counts = np.bincount(job.dataset.train.labels)
    even = len(job.dataset.train) / len(counts)
    _, printed = run_preview("dataset.sampler=balanced", "augmentation=[]")
    assert printed.splitlines()[0] == (
        f"sampler balanced: classes have {counts.min()} to {counts.max()} images; "
        f"an epoch shows {np.floor(even):.0f} to {np.ceil(even):.0f} of each"
    )
