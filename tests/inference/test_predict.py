import csv
import dataclasses
import io
import json
import os
import shutil
from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from app import cli
from app.classifier_files import load_classifier
from app.data.chosen import find_images
from app.errors import UserError
from app.inference import predict as prediction
from app.inference.load import load_split, load_trained
from app.inference.predict import COLUMNS, predict, read_images
from tests.evaluation.test_image_sheets import drawn_texts


def write_digit(path, number):
    """A digit as scikit-learn has it, 8x8 pixels, as an image file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.rint(load_digits().images[number] * (255 / 16)).astype(np.uint8)
    Image.fromarray(pixels).save(path, format="PNG")


def validation_rows(run):
    """Where the validation images lie in scikit-learn's digits."""
    return load_split(load_trained(run), "validation")[1].rows


def rows_of(folder):
    with open(folder / "predictions.csv", encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def names_in(folder, text):
    return [str(path.relative_to(folder)) for path in find_images(text)]


def test_a_folder_gives_its_images_in_natural_order(tmp_path):
    for name in (
        "10.png",
        "2.JPG",
        "b/1.webp",
        "b/.hidden.png",
        ".hidden/1.png",
        "__MACOSX/1.png",
        "notes.txt",
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    os.symlink(tmp_path, tmp_path / "b" / "circle")
    assert names_in(tmp_path, str(tmp_path)) == ["2.JPG", "10.png", "b/1.webp"]


def test_patterns_and_single_files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a/1.png", "a/deep/2.png", "a/deep/3.txt", "a/[x].png", "plain"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).touch()
    assert find_images("a/**/*.png") == [Path("a/1.png"), Path("a/[x].png"), Path("a/deep/2.png")]
    assert find_images("a/*/*") == [Path("a/deep/2.png")]
    assert find_images("a/[x].png") == [Path("a/[x].png")]  # a file of that name comes before the pattern
    assert find_images("plain") == [Path("plain")]
    for name in ("photos [2025]/1.png", "photos [2025]/@eaDir/1.png"):
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).touch()
    assert (
        find_images("photos [2025]/**/*.png") == find_images("photos [2025]") == [Path("photos [2025]/1.png")]
    )
    out = io.StringIO()
    assert len(find_images("a", out)) == 3 and out.getvalue() == "1 other file ignored (.txt)\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nowhere.jpg", "no such file or folder"),
        ("", "no such file or folder"),
        ("a\0b", r"IMAGES=a\\x00b: no such file or folder"),
        ("a" * 5000, "no such file or folder"),
        ("*.jpg", "this pattern finds no file"),
        ("texts", r"none of the 1 files that this folder holds is an image by its name \(.bmp .gif"),
        ("texts/*", "none of the 1 files that this pattern finds"),
        ("empty", "this folder holds no file"),
    ],
)
def test_nothing_found_is_one_message(tmp_path, monkeypatch, text, message):
    monkeypatch.chdir(tmp_path)
    Path("texts").mkdir()
    Path("texts/notes.txt").touch()
    Path("empty").mkdir()
    with pytest.raises(UserError, match=message) as caught:
        find_images(text)
    assert len(str(caught.value)) < 500


def test_files_are_read_as_the_run_read_its_images(digits_run, tmp_path):
    trained = load_trained(digits_run)
    split = load_split(trained, "validation")[1]
    paths = [tmp_path / f"{number}.png" for number in range(3)]
    for path, row in zip(paths, split.rows[:3], strict=True):
        write_digit(path, row)
    images, bad = read_images(paths, trained)
    assert bad == [] and images.dtype == np.uint8
    np.testing.assert_array_equal(images, split.take(np.arange(3))[0])  # 8x8 made 16x16


@pytest.mark.parametrize("checkpoint", ["best", "last"])
def test_predictions_are_those_that_training_recorded(digits_run, own_run, tmp_path, checkpoint):
    rows = validation_rows(digits_run)[:30]
    for number, row in enumerate(rows):
        write_digit(tmp_path / "digits" / f"{number}.png", row)
    with np.load(digits_run.predictions) as recorded:
        logits = recorded[f"{checkpoint}_logits"][:30].astype(np.float64)
    calibration = json.loads(own_run.metrics.read_text())["calibration"][checkpoint]
    powers = np.exp(logits / calibration["temperature"])
    shares = powers / powers.sum(-1, keepdims=True)
    out = io.StringIO()
    folder = predict(own_run, str(tmp_path / "digits"), checkpoint, out)
    assert folder.parent == own_run.path / "predictions"
    table = rows_of(folder)
    assert [Path(row["file"]).name for row in table] == [f"{number}.png" for number in range(30)]
    for row, share in zip(table, shares, strict=True):
        best = np.argsort(-share)[:5]
        assert row["class"] == row["class_1"] == str(best[0])
        assert [row[f"class_{rank}"] for rank in range(1, 6)] == [str(i) for i in best]
        found = [float(row[f"probability_{rank}"]) for rank in range(1, 6)]
        np.testing.assert_allclose(found, share[best], atol=2e-6)
        assert float(row["probability"]) == found[0] and row["problem"] == ""
        assert row["unsure"] == ("yes" if share.max() < calibration["unsure_below"] else "no")
    lines = out.getvalue().splitlines()
    assert lines[0].split() == ["file", "class", "probability"] and lines[11] == "and 20 more"
    assert lines[1].split()[1] == table[0]["class"]
    assert f"{100 * shares[0].max():.1f} %" in lines[1]
    unsure = [row["unsure"] == "yes" for row in table]
    assert [line.endswith(" unsure") for line in lines[1:11]] == unsure[:10]
    assert f"): {sum(unsure)} of 30" in lines[12]
    with Image.open(folder / "contact_sheet.png") as sheet:
        sheet.load()


def test_a_threshold_of_the_user(own_run, digits_run, tmp_path, capsys, figures):
    for number, row in enumerate(validation_rows(digits_run)[:20]):
        write_digit(tmp_path / "digits" / f"{number}.png", row)
    (tmp_path / "digits" / "broken.png").touch()
    command = ["predict", "--run", str(own_run.path), "--images", str(tmp_path / "digits")]
    for text in ("1.5", "-0.1", "nan", "inf"):
        assert cli.main([*command, f"--unsure={text}"]) == 2
        assert f"UNSURE={text}: must be a probability, from 0 to 1" in capsys.readouterr().err
    assert not (own_run.path / "predictions").exists()
    table = rows_of(predict(own_run, str(tmp_path / "digits"), None, io.StringIO()))
    probabilities = [float(row["probability"] or "nan") for row in table]
    limit = (sorted(probabilities[:-1])[9] + sorted(probabilities[:-1])[10]) / 2  # of 20
    figures.clear()
    table = rows_of(predict(own_run, str(tmp_path / "digits"), None, io.StringIO(), unsure=limit))
    wanted = ["yes" if each < limit else "no" for each in probabilities[:-1]]
    assert wanted.count("yes") == 10
    assert [row["unsure"] for row in table] == [*wanted, ""]  # the broken file is the last
    captions = [text.get_text() for text in drawn_texts(figures[0])]
    assert sum(text.endswith(" unsure") for text in captions) == wanted.count("yes")


def test_copies_are_sorted_by_class_and_the_unsure_ones_aside(own_run, digits_run, tmp_path, capsys):
    rows, digits, target = validation_rows(digits_run)[:20], tmp_path / "digits", tmp_path / "by class"
    for number, row in enumerate(rows):
        write_digit(digits / f"{number}.png", row)
        write_digit(digits / "more" / f"{number}.png", row)  # of the same names
    (digits / "broken.png").touch()
    command = ["predict", "--run", str(own_run.path), "--images", str(digits), "--sort-into", str(target)]
    target.mkdir()
    table = rows_of(predict(own_run, str(digits), None, io.StringIO()))
    limit = np.median([float(row["probability"]) for row in table if row["class"]])  # half are unsure
    assert cli.main([*command, f"--unsure={limit}"]) == 0
    assert f"in a folder for each class, {target}" in capsys.readouterr().out
    folder = max((own_run.path / "predictions").iterdir())
    expected = {}
    for row in rows_of(folder):
        if row["class"]:
            place, path = ("unsure/" if row["unsure"] == "yes" else "") + row["class"], Path(row["file"])
            name = f"{path.stem}-2.png" if path.parent.name == "more" else path.name
            expected[f"{place}/{name}"] = path.read_bytes()
    assert {key.split("/")[0] for key in expected} > {"unsure"} and len(expected) == 40
    found = {str(path.relative_to(target)): path.read_bytes() for path in target.rglob("*.png")}
    assert found == expected
    assert cli.main(command) == 2
    assert "by class: is there already; name a new folder" in capsys.readouterr().err
    (tmp_path / "file").touch()
    assert cli.main([*command[:-1], str(tmp_path / "file" / "sorted")]) == 2
    assert "cannot be written; name another folder" in capsys.readouterr().err


def test_a_copy_that_fails_leaves_no_folder(own_run, digits_run, tmp_path, monkeypatch):
    write_digit(tmp_path / "0.png", 0)

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shutil, "copy2", fail)
    with pytest.raises(OSError, match="No space"):
        predict(own_run, str(tmp_path / "0.png"), None, io.StringIO(), sort_into=str(tmp_path / "new" / "x"))
    assert not [*(tmp_path / "new" / "x").iterdir()]


def test_a_run_without_a_temperature_predicts_as_before(digits_run, own_run, tmp_path):
    metrics = json.loads(own_run.metrics.read_text())
    own_run.metrics.write_text(json.dumps(metrics | {"calibration": {}}))
    own_run.predictions.unlink()
    write_digit(tmp_path / "digit.png", validation_rows(digits_run)[0])
    with np.load(digits_run.predictions) as recorded:
        powers = np.exp(recorded["best_logits"][0].astype(np.float64))
    out = io.StringIO()
    (row,) = rows_of(predict(own_run, str(tmp_path / "digit.png"), "best", out))
    assert float(row["probability"]) == pytest.approx(powers.max() / powers.sum(), abs=2e-6)
    assert row["unsure"] == "" and "unsure" not in out.getvalue()
    (row,) = rows_of(predict(own_run, str(tmp_path / "digit.png"), "best", out, unsure=1.0))
    assert row["unsure"] == "yes"


def test_more_images_than_a_batch_and_than_the_sheet(digits_run, own_run, tmp_path, monkeypatch):
    for number in range(9):
        write_digit(tmp_path / "digits" / f"{number}.png", number)
    whole = rows_of(predict(own_run, str(tmp_path / "digits"), None, io.StringIO()))
    monkeypatch.setattr(prediction, "BATCH_SIZE", 4)
    monkeypatch.setattr(prediction, "SHEET_IMAGES", 5)
    parts = rows_of(predict(own_run, str(tmp_path / "digits"), None, io.StringIO()))
    assert [row["class"] for row in parts] == [row["class"] for row in whole]
    assert len(os.listdir(own_run.path / "predictions")) == 2  # the first one is still there


def test_bad_files_are_named_and_odd_names_are_kept(own_run, tmp_path):
    folder = tmp_path / "images"
    odd = ['a,"b";c.png', "line\nbreak.png", "carriage\rreturn.png", "été $x^2$ {0}.png", "=1+1.png"]
    for number, name in enumerate(odd):
        write_digit(folder / name, number)
    shutil.copy(folder / odd[4], os.fsencode(folder) + b"/latin\xe9.png")
    (folder / "broken.png").write_bytes(b"no image")
    (folder / "empty.png").touch()
    os.symlink("nowhere", folder / "link.png")
    out = io.StringIO()
    table = {row["file"]: row for row in rows_of(predict(own_run, str(folder), None, out))}
    assert set(table) == {
        str(folder / name) for name in [*odd, "latin\\xe9.png", "broken.png", "empty.png", "link.png"]
    }
    problems = {Path(name).name: row["problem"] for name, row in table.items() if row["problem"]}
    assert problems == {"broken.png": "not an image", "empty.png": "empty file", "link.png": "broken link"}
    for name in problems:
        filled = {column for column in COLUMNS if table[str(folder / name)][column]}
        assert filled == {"file", "problem"}
        assert f"{name}: {problems[name]}" in out.getvalue()
    assert "3 of 9 files cannot be read and are left out" in out.getvalue()
    assert "line\\nbreak.png" in out.getvalue()


def test_nothing_readable_is_an_error_and_leaves_nothing(own_run, tmp_path):
    (tmp_path / "one.txt").write_text("no image")
    with pytest.raises(UserError, match=r"one.txt cannot be read: not an image$"):
        predict(own_run, str(tmp_path / "one.txt"), None, io.StringIO())
    for number in range(30):
        (tmp_path / "bad").mkdir(exist_ok=True)
        (tmp_path / "bad" / f"{number}.jpg").write_bytes(b"no image")
    with pytest.raises(
        UserError, match=r"none of 30 files can be read:\n  .*0.jpg: not an image\n"
    ) as caught:
        predict(own_run, str(tmp_path / "bad"), None, io.StringIO())
    assert str(caught.value).endswith("and 10 more")
    assert not (own_run.path / "predictions").exists()


def test_a_broken_network_is_an_error_and_leaves_nothing(own_run, tmp_path):
    classifier = load_classifier(own_run.best_model)
    classifier.network.head.bias.assign(keras.ops.full((10,), np.nan))
    classifier.save(own_run.best_model)
    write_digit(tmp_path / "digit.png", 0)
    with pytest.raises(UserError, match="outputs are not all finite"):
        predict(own_run, str(tmp_path / "digit.png"), "best", io.StringIO())
    assert not (own_run.path / "predictions").exists()


@pytest.mark.parametrize(("background", "pixel"), [(255, [255] * 3), ((1, 2, 3), [1, 2, 3])])
def test_transparent_pixels_show_the_background_of_the_run(folder_run, tmp_path, background, pixel):
    trained = load_trained(folder_run)
    dataset = trained.experiment.dataset
    assert dataset.background == 255
    experiment = trained.experiment.model_copy(
        update={"dataset": dataset.model_copy(update={"background": background})}
    )
    Image.new("RGBA", (20, 20), (90, 0, 90, 0)).save(tmp_path / "clear.png")
    images, _ = read_images([tmp_path / "clear.png"], dataclasses.replace(trained, experiment=experiment))
    assert (images == pixel).all()


def test_class_names_and_cropping_of_a_folder_run(folder_run, tmp_path):
    """Three classes told apart by the colour of the middle, which stretching would not show alone."""
    names = load_trained(folder_run).classifier.class_names
    assert names == ('2, "two"', "10 $x^2$", "été")  # in natural order, not in that of the alphabet
    image = Image.new("RGB", (60, 20), (0, 0, 255))
    image.paste((255, 0, 0), (20, 0, 40, 20))
    image.save(tmp_path / "wide.png")
    images, _ = read_images([tmp_path / "wide.png"], load_trained(folder_run))
    assert images.shape == (1, 16, 16, 3) and images[..., 0].min() > 200  # stretched, blue would be left
    (row,) = rows_of(predict(folder_run, str(tmp_path / "wide.png"), None, io.StringIO()))
    assert row["class"] in names and {row[f"class_{rank}"] for rank in (1, 2, 3)} == set(names)
    assert row["class_4"] == row["probability_4"] == row["class_5"] == row["problem"] == ""
    assert sum(float(row[f"probability_{rank}"]) for rank in (1, 2, 3)) == pytest.approx(1, abs=2e-6)
