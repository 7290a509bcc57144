"""Files of a run that were edited, torn or written by another program: one message with file and key."""

import json
import math

import pytest

from app.errors import UserError
from app.evaluation.metrics import chance_remark
from app.files import MAX_BYTES
from app.reading import HISTORY_COLUMNS, parse_record, read_history, read_json, read_record
from app.records import DatasetRecord, EnvironmentRecord, FailureRecord, MetricsRecord

ROW = {
    "epoch": 2, "loss": 2.05, "accuracy": 0.25, "val_loss": None, "val_accuracy": 0.5,
    "learning_rate": 0.01, "seconds": 0.2, "images_per_second": 8495.8,
}  # fmt: skip
METRICS = {
    "experiment": "tiny", "run": "tiny/20261125-021408", "monitor": "val_accuracy", "mode": "max",
    "validation": "0.2 of each class of the training split, drawn with seed 0",
    "headline": {"which": "best epoch", **ROW}, "final": ROW, "best": {"selected_on": "validation", **ROW},
    "test": None, "test_time_views": None, "reference": None,
    "parameters": {"total": 15626, "trainable": 15626, "non_trainable": 0, "macs": 44040},
    "timing": {
        "epochs": 2, "epochs_planned": 2, "seconds": 1, "seconds_per_epoch": 0.5, "images_per_second": 5481.3,
        "resumed_epochs": [], "peak_memory_megabytes": 2113,
    },
}  # fmt: skip
DATASET = {
    "name": "digits", "class_names": ["0", "1"], "image_shape": [16, 16, 1],
    "num_images": {"train": 9, "val": 3}, "num_images_per_class": {"train": {"0": 5, "1": 4}},
    "split_rule": "drawn", "source": "scikit-learn", "fingerprint": "81", "duplicates": {}, "skipped": [],
}  # fmt: skip
# As the first versions wrote it: without workers, replicas, overrides.
ENVIRONMENT = {
    "python": "3.11.7", "platform": "Linux", "backend": "tensorflow", "versions": {"numpy": "2.4.6"},
    "commit": None, "devices": ["CPU"], "cpu": {"model": "AMD", "count": 2, "flags": ["avx2"]},
    "threads": {"intra_op": 0}, "deterministic": True, "command": ["-c"],
}  # fmt: skip


def changed(content, path, *value):
    """Return a copy with another value at a dotted path, or without that key where none is given."""
    copy = json.loads(json.dumps(content))
    *parents, last = path.split(".")
    place = copy
    for key in parents:
        place = place[key]
    del place[last]
    if value:
        place[last] = value[0]
    return copy


@pytest.mark.parametrize(
    ("kind", "content"),
    [(MetricsRecord, METRICS), (DatasetRecord, DATASET), (EnvironmentRecord, ENVIRONMENT)],
)
def test_whole_records_keep_every_key(tmp_path, kind, content):
    (tmp_path / "a.json").write_text(json.dumps(content))
    assert read_record(tmp_path / "a.json", kind).content == content


def test_what_older_runs_lack_has_a_default():
    parse = parse_record
    environment = parse(json.dumps(ENVIRONMENT).encode(), EnvironmentRecord)
    assert (environment.workers, environment.replicas, environment.overrides) == (1, 1, None)
    assert parse(json.dumps(DATASET).encode(), DatasetRecord).validation_fingerprint is None
    older = changed(changed(METRICS, "test_time_views"), "parameters.macs")
    older = changed(older, "timing.peak_memory_megabytes")
    assert parse(json.dumps(older).encode(), MetricsRecord).parameters.macs is None


@pytest.mark.parametrize(
    ("which", "expected"), [("last epoch", ("test", "last")), ("best epoch", ("validation", "best"))]
)
def test_what_counts_follows_from_the_headline(which, expected):
    content = changed(METRICS, "headline.which", which)
    metrics = parse_record(json.dumps(content).encode(), MetricsRecord)
    assert (metrics.split, metrics.checkpoint) == expected


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (changed(METRICS, "headline"), "headline: is missing. Delete it"),
        (changed(METRICS, "headline.which", "x"), "headline.which: must be 'last epoch' or 'best epoch'"),
        (changed(METRICS, "final.val_accuracy", None), "final.val_accuracy: must be a number; got null"),
        (changed(METRICS, "final.val_accuracy", True), "final.val_accuracy: must be a number; got true"),
        (changed(METRICS, "final.epoch", 2.5), "final.epoch: must be a whole number; got 2.5"),
        (changed(METRICS, "parameters.total", 10**30), "parameters.total: must be below"),
        (changed(METRICS, "timing", None), "timing: must be a mapping; got null"),
        (changed(METRICS, "timing.resumed_epochs", 3), "timing.resumed_epochs: must be a list; got 3"),
        (changed(METRICS, "timing.resumed_epochs", [1, "x"]), "timing.resumed_epochs[1]: must be a whole"),
        ({}, "monitor: is missing (and 6 more)"),
        ([], "must be a mapping; got []"),
        (None, "must be a mapping; got null"),
    ],
)  # fmt: skip
def test_another_content_is_one_message_with_its_key(tmp_path, content, words):
    path = tmp_path / "metrics.json"
    path.write_text(json.dumps(content))
    with pytest.raises(UserError) as caught:
        read_record(path, MetricsRecord)
    assert f"metrics.json: {words}" in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "content",
    [b"", b'{"a":', b"\xff\xfe\x00", b'{"a": "\xff"}', b"[" * 100_000 + b"]" * 100_000, b'{"a":' * 100_000,
     b'{"monitor": NaN}', b'{"seconds": ' + b"9" * 5000 + b"}"],
    ids=["empty", "torn", "binary", "latin", "deep lists", "deep mappings", "nan", "huge"],
)  # fmt: skip
def test_what_is_no_json_is_one_message(tmp_path, content):
    path = tmp_path / "dataset.json"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"dataset\.json: ") as caught:
        read_record(path, DatasetRecord)
    assert "\n" not in str(caught.value)


def test_missing_unreadable_and_huge_files_are_one_message(tmp_path):
    with pytest.raises(UserError, match=r"failure\.json: no such file"):
        read_record(tmp_path / "failure.json", FailureRecord)
    (tmp_path / "failure.json").mkdir()
    with pytest.raises(UserError, match=r"failure\.json: cannot be read \(Is a directory\)"):
        read_record(tmp_path / "failure.json", FailureRecord)
    with open(tmp_path / "huge.json", "wb") as file:
        file.truncate(MAX_BYTES + 1)
    with pytest.raises(UserError, match=r"huge\.json: has more than"):
        read_json(tmp_path / "huge.json")


HEAD = ",".join(HISTORY_COLUMNS) + "\n"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", ":1: the columns must be epoch,loss,"),
        ("a,b\n1,2\n", ":1: the columns must be epoch,loss,"),
        (HEAD + "1,x\n", ":2: must have 8 values; got 2"),
        (HEAD + "inf,1,1,1,1,1,1,1\n", ":2: epoch: must be 1, one line for each in order; got 'inf'"),
        (HEAD + "1,1,1,1,1,1,1,1\n" * 2, ":3: epoch: must be 2, one line for each in order; got '1'"),
        (HEAD + "1,1,1,1,1,inf,1,1\n", ":2: learning_rate: must be a finite number; got 'inf'"),
        (HEAD + "1,1,1,1,1,1,,1\n", ":2: seconds: must be a finite number; got ''"),
        (HEAD + f"1,{'x' * 140_000},1,1,1,1,1,1\n", ":2: loss: must be a number; got 'xxx"),
        ("\0", ":1: the columns must be"),
    ],
)
def test_broken_history_is_one_message_with_its_line(tmp_path, content, words):
    (tmp_path / "history.csv").write_text(content)
    with pytest.raises(UserError) as caught:
        read_history(tmp_path / "history.csv")
    assert f"history.csv{words}" in str(caught.value)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 500


def test_history_that_is_no_text(tmp_path):
    (tmp_path / "history.csv").write_bytes(HEAD.encode() + b"\xff\xfe")
    with pytest.raises(UserError, match=r"history\.csv: no text in UTF-8"):
        read_history(tmp_path / "history.csv")


def test_history_may_say_that_training_blew_up(tmp_path):
    (tmp_path / "history.csv").write_text(HEAD + "1,2,0.5,inf,0.5,0.1,1,9\r\n\n2,nan,,1,0.5,0.1,1,9\n")
    first, second = read_history(tmp_path / "history.csv")
    assert first["val_loss"] == math.inf and math.isnan(second["loss"]) and math.isnan(second["accuracy"])
    assert [type(first["epoch"]), type(first["seconds"])] == [int, float]


@pytest.mark.parametrize(
    ("accuracy", "words"),
    [(1 / 3, "at chance level"), (1.0, "3 validation images cannot tell this accuracy from guessing")],
)
def test_of_a_few_images_even_all_may_be_right_by_chance(accuracy, words):
    metrics = METRICS | {"headline": METRICS["headline"] | {"val_accuracy": accuracy}}
    dataset = DATASET | {"class_names": ["a", "b"], "num_images": {"train": 9, "val": 3}}
    remark = chance_remark("x", MetricsRecord.model_validate(metrics), DatasetRecord.model_validate(dataset))
    assert words in remark


@pytest.mark.parametrize(("accuracy", "at_chance"), [(0.0, True), (0.1, True), (0.118, True), (0.12, False)])
def test_a_result_at_chance_level_is_remarked(accuracy, at_chance):
    # 'quickstart' has a file; a run of one of its sets is in a folder of another name.
    # 1,000 images of 10 classes: two standard errors of 0.1 are 0.019.
    headline = METRICS["headline"] | {"val_accuracy": accuracy}
    metrics = MetricsRecord.model_validate(METRICS | {"headline": headline})
    dataset = DATASET | {"class_names": list("0123456789"), "num_images": {"train": 9, "val": 1000}}
    remarks = [
        chance_remark(name, metrics, DatasetRecord.model_validate(dataset))
        for name in ("quickstart", "quickstart.sweep")
    ]
    assert [remark is not None for remark in remarks] == [at_chance] * 2
    if at_chance:
        chance = "1000 validation images cannot tell" if accuracy > 0.1 else "The accuracy is at chance level"
        assert remarks[0].startswith(chance)
        assert "10 classes" in remarks[0] and remarks[0].endswith(
            "the doctor with the same SET= and DATA_DIR=: make doctor EXP=quickstart"
        )
        assert remarks[1].endswith("run the doctor")
