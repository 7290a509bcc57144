"""Folds and what they say of labels: each image is predicted once, flipped labels are found."""

import csv
import io
import os
import re
import shutil
import subprocess
import time

import numpy as np
import pytest
from sklearn.datasets import load_digits

from app import cli
from app.config import load_experiment
from app.config.dataset import DatasetConfig
from app.data.datasets import load_dataset, load_source
from app.errors import UserError
from app.labels.folds import FoldSet, train_folds
from app.labels.wrong_labels import Suspect, _listing, write_labels
from app.paths import module_command
from app.reading import read_predictions, read_record
from app.records import DatasetRecord
from app.runs import list_runs, load_run_experiment

EXPERIMENT = """\
# A small network on digits, of which some have another digit's label.
seed: 1
dataset: {name: image_folder, data_dir: data/noisy.npz, image_size: [16, 16]}
model: {name: baseline}
optimizer: {name: adam, learning_rate: 0.003}
training: {epochs: 3, batch_size: 32}
"""
FOLD = ["dataset.fold.of=3", "dataset.fold.index=0"]
FLIPPED = 36  # 2 % of the 1,797


def make_home(folder):
    """Write the digits with 2 % of the labels flipped to any other, and return which."""
    (folder / "experiments").mkdir()
    (folder / "experiments" / "noisy.yaml").write_text(EXPERIMENT)
    bundle, rng = load_digits(), np.random.default_rng(0)
    flipped = rng.permutation(len(bundle.target))[:FLIPPED]
    labels = bundle.target.copy()
    labels[flipped] = (labels[flipped] + rng.integers(1, 10, FLIPPED)) % 10
    (folder / "data").mkdir()
    images = np.rint(bundle.images * (255 / 16)).astype(np.uint8)
    np.savez(folder / "data" / "noisy.npz", x_train=images, y_train=labels)
    return flipped


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """A home in which three folds are trained, and the images with flipped labels."""
    from app.training import train as runner

    home = tmp_path_factory.mktemp("folds")
    flipped = make_home(home)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRAINER_HOME", str(home))
        patch.setattr(runner, "write_report", lambda run, dataset: None)
        train_folds(load_experiment("noisy", FOLD), io.StringIO())
    return home, flipped


@pytest.fixture
def home(trained, tmp_path, monkeypatch):
    """A copy of it."""
    shutil.copytree(trained[0], tmp_path / "home", symlinks=True)
    monkeypatch.setenv("TRAINER_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.mark.slow
def test_each_image_is_predicted_once_by_a_run_that_did_not_see_it(home):
    (found,) = FoldSet.all_of("noisy")
    assert found.folder == home / "runs" / "noisy.3-folds" and found.record.images == 1797
    with np.load(found.predictions) as joined:
        rows, folds, labels, logits = (joined[key] for key in ("rows", "folds", "labels", "best_logits"))
    assert rows.tolist() == list(range(1797))
    validated = []
    for index, run in enumerate(list_runs("noisy.3-folds")):
        experiment = load_run_experiment(run)
        assert experiment.dataset.fold.index == index and found.record.runs[index] == run.name
        data = load_dataset(experiment.dataset)
        assert not set(data.train.rows) & set(data.val.rows)
        validated += data.val.rows.tolist()
        own_labels, own = read_predictions(run.predictions, "best", 10)
        np.testing.assert_array_equal(data.val.rows, rows[folds == index])
        np.testing.assert_array_equal(own, logits[folds == index])
        np.testing.assert_array_equal(own_labels, labels[folds == index])
    assert sorted(validated) == rows.tolist()


@pytest.mark.slow
def test_finished_folds_stay_and_other_settings_get_a_folder_of_their_own(home, capsys):
    before = [run.name for run in list_runs("noisy.3-folds")]
    assert cli.main(["folds", "noisy", "--folds", "3"]) == 0
    assert [run.name for run in list_runs("noisy.3-folds")] == before
    said = capsys.readouterr().out
    assert f"fold 3 of 3: {before[2]} is finished" in said and "1,797 images, each predicted by" in said
    assert len(list_runs("noisy")) == 0  # no run of the experiment's own
    (found,) = FoldSet.all_of("noisy")
    for seed in (2, 3):
        two = load_experiment("noisy", ["dataset.fold.of=2", "dataset.fold.index=0", f"seed={seed}"])
        FoldSet.find(two, found.record.fingerprint, "2-")
    names = [found.folder.name for found in FoldSet.all_of("noisy")]
    assert sorted(names) == ["noisy.2-folds", "noisy.2-folds-2", "noisy.3-folds"]


@pytest.mark.slow
def test_killed_folds_go_on_to_the_same_bits(trained, tmp_path, monkeypatch):
    make_home(tmp_path)
    monkeypatch.setenv("TRAINER_HOME", str(tmp_path))
    command, environment = module_command("app", "folds", "noisy", "--folds", "3")
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
    folder, deadline = tmp_path / "runs" / "noisy.3-folds", time.monotonic() + 240
    try:
        while not any(list(run.states.glob("state-*.npz")) for run in list_runs(folder.name)[1:]):
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.02)
    finally:
        process.kill()
        process.wait()
    runs = list_runs(folder.name)
    assert runs[0].finished
    left = ", ".join(str(fold) for fold in (2, 3) if len(runs) < fold or not runs[fold - 1].finished)
    out = io.StringIO()
    with pytest.raises(UserError, match=f"{left} (is|are) not finished; .* make folds EXP=noisy FOLDS=3"):
        write_labels("noisy", out)
    train_folds(load_experiment("noisy", FOLD), out)
    assert [run.name for run in list_runs(folder.name)][:2] == [run.name for run in runs]
    assert f"fold 1 of 3: {runs[0].name} is finished" in out.getvalue()
    with np.load(folder / "predictions.npz") as ours:
        with np.load(trained[0] / "runs" / folder.name / "predictions.npz") as theirs:
            for name in theirs:
                np.testing.assert_array_equal(ours[name], theirs[name])


@pytest.mark.slow
def test_flipped_labels_come_first_and_the_list_that_is_written_corrects_the_data(home, trained):
    suspects = write_labels("noisy", io.StringIO())
    first = [each.position for each in suspects[:30]]
    precision = np.mean(np.isin(first, trained[1]))
    print(f"precision among the first {len(first)}: {precision:.3f}")
    # Drawn at random, 2 % would be flipped ones.
    assert len(first) >= 10 and precision >= 0.4

    folder = home / "runs" / "noisy.3-folds"
    with open(folder / "labels.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["image"] for row in rows] == [str(each.position) for each in suspects]
    scores = [float(row["score"]) for row in rows]
    assert scores == sorted(scores) and all(row["given"] != row["suggested"] for row in rows)

    text = (folder / "labels.html").read_text()
    assert text.count('src="data:image/png;base64,') == len(suspects)
    assert "http:" not in text and "https:" not in text and "relabel: runs/noisy.3-folds/labels.csv" in text
    worst = suspects[0]
    assert f"1. {worst.name}<br>label {worst.given}: {100 * worst.given_probability:.1f} %" in text

    edited = "".join((folder / "labels.csv").read_text().splitlines(keepends=True)[:21])
    (folder / "labels.csv").write_text(edited)
    out = io.StringIO()
    write_labels("noisy", out)
    assert (folder / "labels.csv").read_text() == edited and "stays as it is" in out.getvalue()

    listing, truth = "runs/noisy.3-folds/labels.csv", load_digits().target
    before, relabelled, rest = (
        load_source(load_experiment("noisy", overrides).dataset)
        for overrides in ((), [f"dataset.relabel={listing}"], [f"dataset.exclude={listing}"])
    )
    assert np.sum(relabelled.train.labels != truth) < np.sum(before.train.labels != truth) == FLIPPED
    assert len(rest.train) == 1797 - 20


@pytest.mark.slow
def test_folds_of_other_data_or_without_a_file_are_refused(home, capsys):
    (found,) = FoldSet.all_of("noisy")
    joined = found.predictions.rename(home / "aside")
    assert cli.main(["labels", "noisy"]) == 2
    assert re.search("predictions.npz is missing; .* writes it", capsys.readouterr().err)
    joined.rename(found.predictions)
    run = list_runs("noisy.3-folds")[1]
    run.metrics.unlink()
    assert cli.main(["labels", "noisy"]) == 2
    assert "of the 3 folds in" in (said := capsys.readouterr().err) and " 2 is not finished" in said
    shutil.rmtree(run.path)
    assert cli.main(["labels", "noisy"]) == 2
    assert " 2 is not finished" in capsys.readouterr().err


@pytest.mark.slow
def test_folds_that_were_gone_back_to_are_taken(home):
    (older,) = FoldSet.all_of("noisy")
    two = load_experiment("noisy", ["dataset.fold.of=2", "dataset.fold.index=0"])
    begun = FoldSet.find(two, older.record.fingerprint, "2-")
    with pytest.raises(UserError, match="of the 2 folds in"):
        write_labels("noisy", io.StringIO())
    train_folds(load_experiment("noisy", FOLD), io.StringIO())
    write_labels("noisy", io.StringIO())
    assert (older.folder / "labels.html").is_file() and not (begun.folder / "labels.html").exists()


@pytest.mark.slow
def test_changed_images_are_noticed(home, capsys):
    with np.load(home / "data" / "noisy.npz") as arrays:
        images, labels = arrays["x_train"], arrays["y_train"]
    images[0] = 0
    np.savez(home / "data" / "noisy.npz", x_train=images, y_train=labels)
    assert cli.main(["labels", "noisy"]) == 2
    assert "the training images have changed since the folds" in capsys.readouterr().err
    run = list_runs("noisy.3-folds")[0]
    data = load_dataset(load_run_experiment(run).dataset)
    assert data.fingerprint != read_record(run.dataset, DatasetRecord).fingerprint


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["folds", "noisy", "--folds", "1"], "folds: FOLDS=1; at least 2"),
        (["folds", "noisy", "--set", "dataset.fold.of=3"], "FOLDS= is the number of folds"),
        (["folds", "noisy", "--folds", "1001"], "dataset.fold.of: must be at most 1000; got 1001"),
        (["folds", "noisy", "--folds", "500"], "different training images, too few for one in each of 500"),
        (["train", "noisy", "--set", "dataset.fold={of: 3, index: 3}"], "fold.index: must be below 3"),
        (["train", "noisy", "--set", "dataset.fold=3"], "dataset.fold: must be a mapping (keys: of, index)"),
        (["train", "noisy", "--set", "dataset.fold={of: 3}"], "dataset.fold.index: required key is missing"),
        (["train", "noisy", "--set", "dataset.relabel=no.csv"], "dataset.relabel: no.csv: cannot be read"),
        (["labels"], "labels: name an experiment"),
        (["labels", "noisi"], "Did you mean 'noisy'?"),
        (["labels", "noisy"], "noisy has no folds yet; train them: make folds EXP=noisy FOLDS=5"),
    ],
)
def test_bad_input_is_one_message_and_nothing_is_written(tmp_path, monkeypatch, capsys, arguments, words):
    make_home(tmp_path)
    monkeypatch.setenv("TRAINER_HOME", str(tmp_path))
    before = sorted(os.listdir(tmp_path))
    quoted = ["'" + text + "'" if "{" in text else text for text in arguments]
    assert cli.main(quoted) == 2
    assert words in capsys.readouterr().err
    assert sorted(os.listdir(tmp_path)) == before


@pytest.mark.slow
def test_folds_whose_images_were_moved_say_how_they_are_found(home):
    (home / "data" / "noisy.npz").rename(home / "data" / "moved.npz")
    with pytest.raises(UserError, match="noisy.npz, .* make folds EXP=noisy FOLDS=3 DATA_DIR='their place'"):
        write_labels("noisy", io.StringIO())


def test_a_second_list_holds_the_corrections_of_the_first(tmp_path, monkeypatch):
    monkeypatch.setenv("TRAINER_HOME", str(tmp_path))
    (tmp_path / "data").mkdir()
    np.savez(
        tmp_path / "data" / "some.npz", x_train=np.zeros((6, 4, 4), np.uint8), y_train=[0, 1, 0, 1, 0, 1]
    )
    (tmp_path / "first.csv").write_text("image,suggested\n1,0\n4,1\n")
    config = DatasetConfig(name="mnist", data_dir="data/some.npz", relabel="first.csv")
    source = load_source(config)
    assert source.train.labels.tolist() == [0, 0, 0, 1, 1, 1]
    softmax = np.full((6, len(source.class_names)), 0.1)
    suspects = [Suspect(1, "1", "0", "1", 0.2, 0.8), Suspect(2, "2", "0", "1", 0.3, 0.7)]
    text = _listing(source, suspects, softmax)
    assert [line.split(",")[:3] for line in text.splitlines()[1:]] == [
        ["1", "1", "1"],  # the first list was wrong: given is what the data say
        ["2", "0", "1"],
        ["4", "0", "1"],  # of the first list
    ]
    (tmp_path / "second.csv").write_text(text)
    again = load_source(config.model_copy(update={"relabel": "second.csv"}))
    assert again.train.labels.tolist() == [0, 1, 1, 1, 1, 1]
