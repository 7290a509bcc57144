"""The page of a comparison: its tables, and what it says of chance."""

import html
import json
import re

import numpy as np
import pytest
from PIL import Image

from app import files, runs
from app.config.dataset import DatasetConfig
from app.data.datasets import load_dataset
from app.paths import shown
from app.reading import read_json
from app.reports.compare import compare
from app.reports.compare_chance import chance_sentences
from app.reports.compare_groups import differing_settings, gather
from app.reports.compare_page import results
from tests.conftest import flip_bit
from tests.reports.test_compare import leave_run, set_up_home
from tests.test_records import ENVIRONMENT

ON_TEST = {"name": "digits", "validation": "test"}


@pytest.fixture
def home(tmp_path, monkeypatch):
    return set_up_home(tmp_path, monkeypatch)


def right(*spans, of=100):
    """Return (images,) bool, true within the spans."""
    mask = np.zeros(of, bool)
    for start, end in spans:
        mask[start:end] = True
    return mask


def predict(run, best, last=None):
    """Store predictions that are right where `best` (and `last`) say so; three classes."""
    labels = np.arange(len(best)) % 3
    logits = {
        name: np.eye(3, dtype=np.float32)[np.where(mask, labels, (labels + 1) % 3)]
        for name, mask in (("best_logits", best), ("last_logits", best if last is None else last))
    }
    np.savez(run.predictions, labels=labels, **logits)
    return run


def page_of(folder):
    (path,) = (folder / "runs" / "comparisons").glob("*/compare.html")
    return path.read_text(encoding="utf-8")


def cells(page, number):
    """Return a table of the page as rows of texts."""
    table = re.findall(r"<table>.*?</table>", page, re.DOTALL)[number]
    return [
        [html.unescape(cell) for cell in re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row)]
        for row in re.findall(r"<tr>(.*?)</tr>", table)
    ]


def test_table_holds_what_the_runs_left_behind(home):
    reference = {"source": "A paper", "last_val_accuracy": 0.9, "data": "others"}
    chosen = [
        leave_run("one", accuracy=0.8125, reference=reference),
        leave_run("two", 2, model={"name": "baseline"}),
        leave_run("three", 1, accuracy=0.5, dataset=ON_TEST, training={"epochs": 9}),
    ]
    metrics = read_json(chosen[2].metrics)
    metrics |= {"test": None, "test_time_views": {"views": "flip", "val_accuracy": 0.55}}
    del metrics["parameters"]["macs"]
    files.write_json(chosen[2].metrics, metrics)
    printed = compare(chosen)
    page = page_of(home)
    head, *rows = cells(page, 0)
    assert [dict(zip(head, row, strict=True)) for row in rows] == [
        {
            "run": "one",
            "network": "lenet5",
            "validated on": "validation",
            "accuracy": "81.25 %",
            "with test-time views": "",
            "test accuracy": "80.25 %",
            "epochs": "3 of 3",
            "parameters": "62,006",
            "MACs": "651,720",
            "seconds an epoch": "12",
            "source: last, best": "90.00 % on others",
        },
        {
            "run": "two",
            "network": "baseline",
            "validated on": "validation",
            "accuracy": "45.00 % (unfinished)",
            "with test-time views": "",
            "test accuracy": "",
            "epochs": "2 of 3",
            "parameters": "",
            "MACs": "",
            "seconds an epoch": "0.5",
            "source: last, best": "",
        },
        {
            "run": "three",
            "network": "lenet5",
            "validated on": "test",
            "accuracy": "50.00 %",
            "with test-time views": "55.00 %",
            "test accuracy": "",
            "epochs": "1 of 9",
            "parameters": "62,006",
            "MACs": "",
            "seconds an epoch": "12",
            "source: last, best": "",
        },
    ]
    assert "not comparable as such" in page and "highest accuracy" not in page
    assert re.split(r"  +", printed[1])[:4] == ["one", "81.25 %", "80.25 %", "validation"]
    assert 'src="data:image/png;base64,' in page and "http:" not in page and "https:" not in page


def test_seeds_show_mean_and_spread(home):
    group = [leave_run("one", accuracy=accuracy, seed=seed) for seed, accuracy in enumerate((0.6, 0.9, 0.72))]
    head, (row,), _ = results(gather(group))
    line = dict(zip(head, row, strict=True))
    assert (line["accuracy"], line["smallest to largest"]) == ("74.00 %", "60.00 to 90.00, n = 3")
    assert line["test accuracy"] == "73.00 % (59.00 to 89.00)"
    assert "source: last, best" not in line
    compare(group)
    page = page_of(home)
    assert [row[:3] for row in cells(page, 1)[1:]] == [
        [group[0].name, "0", "60.00 %"], [group[1].name, "1", "90.00 %"], [group[2].name, "2", "72.00 %"]
    ]  # fmt: skip
    assert "<b>15.10</b>" in page  # the root of (14**2 + 16**2 + 2**2) / 2
    assert "There are no two to compare." in page


def test_the_shortest_epoch_is_the_one_that_is_shown(home):
    runs_of = [leave_run("one", accuracy=0.6, seed=seed) for seed in range(3)] + [
        leave_run("two", accuracy=0.6)
    ]
    for run, seconds in zip(runs_of, (10.0, 30.0, 30.0, 15.0), strict=True):
        content = json.loads(run.metrics.read_text())
        content["timing"]["seconds_per_epoch"] = seconds
        files.write_json(run.metrics, content)
    compare(runs_of)
    assert re.search(r"<b>15 s</b>.{0,30}shortest epoch: two", page_of(home), re.DOTALL)


def test_epochs_on_different_processors_are_not_compared(home):
    chosen = [leave_run("one", accuracy=0.6), leave_run("two", accuracy=0.6)]
    for number, run in enumerate(chosen):
        files.write_json(run.environment, ENVIRONMENT | {"cpu": {"model": f"processor {number}", "count": 2}})
    compare(chosen)
    page = page_of(home)
    assert "Trained on different processors" in page and "shortest epoch" not in page


def test_only_the_settings_that_differ_are_listed(home):
    groups = gather(
        [
            leave_run("one", model={"name": "cifar_resnet", "depth": 20}),
            leave_run("two", model={"name": "cifar_resnet", "depth": 56, "shortcuts": False}),
            leave_run("three", seed=4, training={"early_stopping": {"patience_epochs": 5}}),
        ]
    )
    assert differing_settings(groups) == [
        ("seed", ["0", "0", "4"]),
        ("model.name", ["cifar_resnet", "cifar_resnet", "lenet5"]),
        ("model.depth", ["20", "56", "-"]),
        ("model.shortcuts", ["default", "false", "-"]),
        ("training.early_stopping.patience_epochs", ["-", "-", "5"]),
        ("training.early_stopping.min_delta", ["-", "-", "0"]),
    ]


def test_other_training_images_are_a_setting_that_differs(home):
    groups = gather([leave_run("one", images="a" * 64), leave_run("two", images="b" * 64)])
    counts = [f"400 + 100 (hash {letter * 12})" for letter in "ab"]
    assert differing_settings(groups) == [("dataset.images", counts)]


def test_losses_that_hold_different_penalties_are_said_not_to_be_comparable(home):
    compare([leave_run("one", accuracy=0.6), leave_run("two", accuracy=0.6, model={"name": "resnet18"})])
    assert "Losses are not comparable: they hold different L2 penalties" in page_of(home)


def test_settings_that_belong_together_stand_together(home):
    chosen = [leave_run("one"), leave_run("two"), leave_run("three", training={"monitor": "val_loss"})]
    text = chosen[1].experiment.read_text()
    cosine = "{schedule: cosine, peak: 0.1, span_epochs: 2}\n  momentum: 0.9"
    text = text.replace("learning_rate: 0.001", f"learning_rate: {cosine}").replace("name: adam", "name: sgd")
    files.write_text(chosen[1].experiment, text)
    assert differing_settings(gather(chosen)) == [
        ("optimizer.name", ["adam", "sgd", "adam"]),
        ("optimizer.learning_rate.peak", ["0.001", "0.1", "0.001"]),
        ("optimizer.learning_rate.schedule", ["constant", "cosine", "constant"]),
        ("optimizer.learning_rate.end", ["-", "0", "-"]),
        ("optimizer.learning_rate.span_epochs", ["-", "2", "-"]),
        ("optimizer.momentum", ["-", "0.9", "-"]),
        ("training.monitor", ["val_accuracy", "val_accuracy", "val_loss"]),
    ]


def test_settings_are_short_and_exact(home):
    layers = [{"random_crop": {"padding_pixels": 4}}, {"random_flip": {"mode": "horizontal"}}]
    first, second = leave_run("one"), leave_run("two")
    text = second.experiment.read_text()
    files.write_text(second.experiment, text.replace("0.001", "0.0010000001") + f"augmentation: {layers}\n")
    assert differing_settings(gather([first, second])) == [
        ("augmentation", ["none", "random_crop(padding_pixels=4), random_flip(mode=horizontal)"]),
        ("optimizer.learning_rate.peak", ["0.001", "0.0010000001"]),
    ]
    for seed in (1, 2):
        leave_run("three", seed=seed, accuracy=0.5)
    groups = gather([first, *runs.list_runs("three")])
    assert differing_settings(groups) == [("seed", ["0", "1, 2"])]


def test_mcnemar_tells_more_than_chance(home):
    # Of 12 images that only one gets right, 10 to 2: 2 * (1 + 12 + 66) / 2**12 = 0.0386.
    one = predict(leave_run("one", accuracy=0.5), right((0, 42)))
    two = predict(leave_run("two", accuracy=0.5), right((0, 40), (50, 60)))
    (sentence,), (remark,) = chance_sentences(gather([one, two]))
    assert sentence == (
        "two gets 10 of 100 images right that one gets wrong, 2 the other way round: significant at 5 % "
        "(McNemar, exact, p = 0.039)."
    )
    assert "these two trained networks, not of their recipes" in remark
    assert sentence in compare([one, two])
    assert sentence in html.unescape(page_of(home))


def test_mcnemar_tells_no_more_than_chance(home):
    # 5 to 3: 2 * (1 + 8 + 28 + 56) / 2**8 = 0.7266.
    one = predict(leave_run("one", accuracy=0.5), right((0, 15)))
    two = predict(leave_run("two", accuracy=0.5), right((0, 10), (20, 23)))
    (sentence,), _ = chance_sentences(gather([one, two]))
    assert sentence.endswith("3 the other way round: not significant at 5 % (McNemar, exact, p = 0.73).")


def test_equal_accuracies_are_called_equal(home):
    one = predict(leave_run("one", accuracy=0.5), right((0, 15)))
    two = predict(leave_run("two", accuracy=0.5), right((0, 10), (20, 25)))
    (sentence,), _ = chance_sentences(gather([one, two]))
    assert sentence.endswith("5 the other way round: equal accuracy (McNemar, exact, p = 1).")


def test_predictions_are_those_of_the_headline(home):
    half = right((0, 50))
    one = predict(leave_run("one", accuracy=0.5, dataset=ON_TEST), best=~half, last=half)
    two = predict(leave_run("two", accuracy=0.5, dataset=ON_TEST), best=~half, last=half)
    (sentence,), remarks = chance_sentences(gather([one, two]))
    assert "gets 0 of 100" in sentence and "p = 1)" in sentence
    assert remarks[0] == "The images are the test split."
    three = predict(leave_run("three", accuracy=0.5), best=~half, last=half)
    four = predict(leave_run("three", accuracy=0.5), best=half, last=half)
    (_, sentence, *_), remarks = chance_sentences(gather([one, two, three, four]))
    assert "gets 50 of 100" in sentence and remarks[0] == "The images of some are the test split."


def test_many_groups_are_held_against_the_best(home):
    groups = gather([predict(leave_run("one", accuracy=0.5), right((0, 50 + 5 * (n % 4)))) for n in range(6)])
    best = groups[3].label
    found, remarks = chance_sentences(groups)
    assert len(found) == 5 and all(sentence.startswith(f"{best} gets ") for sentence in found)
    # 15 to 0 has p = 2 / 2**15; 10 to 0 0.00195; 5 to 0 0.0625.
    assert sum("not significant at 5 %" in sentence for sentence in found) == 1
    counted = "Of 15 pairs of networks the smallest p has to lie below 0.05 / 15,"
    assert any(remark.startswith(counted) for remark in remarks)
    assert any(remark.startswith("Only pairs with the best one are named;") for remark in remarks)
    assert len(chance_sentences(groups[:5])[0]) == 10


def test_other_images_are_not_compared(home):
    one = predict(leave_run("one", accuracy=0.5), right((0, 50)))
    two = predict(leave_run("two", accuracy=0.5, images="others"), right((0, 50)))
    three = predict(leave_run("three", accuracy=0.5), right((0, 40), of=90))
    found, remarks = chance_sentences(gather([one, two, three]))
    assert found == [
        f"three is not compared: {shown(three.predictions)} has 90 images, and 100 validated it.",
        "Not compared, for their validation images are not known to be the same: one; two.",
    ]
    assert remarks == []


@pytest.fixture(scope="module")
def two_draws(tmp_path_factory):
    """dataset.json and labels of two draws that validate on half of the images of sorted class folders."""
    folder = tmp_path_factory.mktemp("sorted")
    for label, name in enumerate("abc"):
        (folder / name).mkdir()
        for number in range(20):
            pixels = np.full((4, 4, 3), 80 * label + number, np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{number:02}.png")
    draws = []
    for seed in (0, 1):
        config = DatasetConfig(name="image_folder", data_dir=str(folder), validation=0.5, split_seed=seed)
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("TRAINER_HOME", str(folder))
            data = load_dataset(config)
        draws.append((data.as_json(), data.val.labels))
    return draws


def leave_draw(name, draw, split_seed, **changes):
    """Put a run there that was validated on such a draw; it is right on a third of the images."""
    facts, labels = draw
    dataset = {"name": "image_folder", "validation": 0.5, "split_seed": split_seed}
    run = leave_run(name, accuracy=0.5, dataset=dataset)
    files.write_json(run.dataset, facts | changes)
    logits = np.eye(3, dtype=np.float32)[np.zeros(len(labels), int)]
    np.savez(run.predictions, labels=labels, best_logits=logits, last_logits=logits)
    return run


def test_two_draws_from_the_same_folders_are_not_paired(home, two_draws):
    (facts, labels), (others, other_labels) = two_draws
    assert facts["fingerprint"] == others["fingerprint"] and (labels == other_labels).all()
    one = leave_draw("one", two_draws[0], 0)
    two = leave_draw("two", two_draws[1], 1)
    found, _ = chance_sentences(gather([one, two]))
    assert found == ["Not compared, for their validation images are not known to be the same: one; two."]
    compare([one, two])
    page = html.unescape(page_of(home))
    assert found[0] in page and "not comparable as such" in page
    assert "highest accuracy" not in page and "McNemar" not in page


def test_the_same_draw_is_paired(home, two_draws):
    one = leave_draw("one", two_draws[0], 0)
    two = leave_draw("two", two_draws[0], 0)
    (sentence,), _ = chance_sentences(gather([one, two]))
    assert sentence.startswith("one gets 0 of 30 images right that two gets wrong, 0 the other way round")
    compare([one, two])
    assert "not comparable as such" not in page_of(home) and "highest accuracy" in page_of(home)


def test_the_images_count_and_not_what_they_were_drawn_from(home, two_draws):
    one = leave_draw("one", two_draws[0], 0)
    two = leave_draw("two", two_draws[0], 0, fingerprint="more training images beside the same others")
    (sentence,), _ = chance_sentences(gather([one, two]))
    assert "McNemar" in sentence


def stored(labels, logits):
    """Leave predictions of another content."""
    return lambda path: np.savez(path, labels=labels, best_logits=logits, last_logits=logits)


def single_array(path):
    with open(path, "wb") as file:
        np.save(file, np.zeros(3))


DAMAGES = {
    "missing": lambda path: path.unlink(),
    "torn": lambda path: path.write_bytes(path.read_bytes()[:300]),
    "bit flipped": flip_bit,
    "pickled": stored(np.array([{}]), np.array([None])),
    "single array": single_array,
    "other length": stored(np.zeros(3, int), np.zeros((2, 3))),
    "not finite": stored(np.zeros(2, int), np.full((2, 3), np.nan)),
    "other classes": stored(np.full(100, 2), np.zeros((100, 2), np.float32)),
    "no class": stored(np.full(100, 3), np.zeros((100, 3), np.float32)),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_predictions_are_a_sentence(home, damage):
    one = predict(leave_run("one", accuracy=0.5), right((0, 50)))
    two = predict(leave_run("two", accuracy=0.5), right((0, 50)))
    DAMAGES[damage](two.predictions)
    (sentence,) = [line for line in compare([one, two]) if "predictions.npz" in line]
    assert sentence.startswith("two is not compared: ")
    assert ("is missing" if damage == "missing" else "is damaged") in sentence
    assert "allow_pickle" not in sentence  # no advice to load it all the same
    assert html.escape(sentence) in page_of(home)


def test_unfinished_runs_are_not_compared(home):
    one = predict(leave_run("one", accuracy=0.5), right((0, 50)))
    found, _ = chance_sentences(gather([one, leave_run("two")]))
    assert found == ["two is not compared: its run is not finished."]


def leave_seeds(name, accuracies):
    """Put runs there that differ by their seed; all get the same images right."""
    mask = right((0, 50))
    return [
        predict(leave_run(name, accuracy=share, seed=seed), mask) for seed, share in enumerate(accuracies)
    ]


def test_several_seeds_speak_of_recipes(home):
    # Student's t with four degrees of freedom at sqrt(37.5): p = 0.0036.
    chosen = leave_seeds("one", (0.80, 0.82, 0.84)) + leave_seeds("two", (0.90, 0.92, 0.94))
    found, remarks = chance_sentences(gather(chosen))
    assert found[0].startswith("one (seed 0) gets 0 of 100 images right that two (seed 0) gets wrong")
    assert found[1] == (
        "two (3 seeds): 92.00 % on average; one (3 seeds): 82.00 % on average: significant at 5 % "
        "(Welch's t-test over seeds, p = 0.0036)."
    )
    assert remarks[-1].endswith("not of their recipes; of several seeds it takes the first.")


def test_too_few_or_equal_seeds(home):
    few = leave_seeds("one", (0.80, 0.82)) + leave_seeds("two", (0.90, 0.92, 0.94))
    found, remarks = chance_sentences(gather(few))
    assert len(found) == 1 and "make train SEEDS=3" in remarks[-1]
    equal = leave_seeds("three", (0.5, 0.5, 0.5))
    found, _ = chance_sentences(gather([*equal, *leave_seeds("four", (0.5, 0.5, 0.5))]))
    assert found[1].endswith("no test, for the seeds of each end equal.")


def test_names_are_no_markup(home, tmp_path):
    (tmp_path / "elsewhere" / "a<b>&c").mkdir(parents=True)
    leave_run("one").path.rename(tmp_path / "elsewhere" / "a<b>&c" / "run")
    compare([runs.find_run(str(tmp_path / "elsewhere" / "a<b>&c" / "run")), leave_run("two")])
    page = page_of(home)
    assert "<b>&c" not in page and "a&lt;b&gt;&amp;c" in page
