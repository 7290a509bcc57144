"""The proof of exact resume, and that it would tell a difference."""

import io
import re
import zipfile

import numpy as np
import pytest

from app import reading, runs
from app.bench import prove
from app.config import load_experiment
from app.errors import UserError
from tests.training.stopped_runs import EVERYTHING

STATE = "state-00002-0000000.npz"


def proof(kills, *overrides, seed=1):
    out = io.StringIO()
    identical = prove.prove_resume("tiny", overrides, kills, seed, out=out)
    lines = out.getvalue().splitlines()
    assert identical == lines[-1].startswith("identical"), out.getvalue()
    return lines


@pytest.mark.slow
def test_many_kills_with_all_that_a_recipe_can_have(home):
    """Long enough for the kills to fall into different epochs."""
    (home / "experiments" / "tiny.yaml").write_text(EVERYTHING)
    # The third kill waits for a file being written, which may be whole before it falls; see test_resume.py.
    lines = proof(3, "training.epochs=12", seed=4)
    assert re.match(r"identical after [23] kills", lines[-1]), lines
    *_, straight, killed = runs.list_runs("tiny")
    assert straight.name in lines[0] and killed.name in "\n".join(lines)
    assert reading.read_json(killed.metrics)["timing"]["resumed_epochs"]

    # What the run says of its recipe.
    assert runs.load_run_experiment(straight) == load_experiment("tiny", ["training.epochs=12"])
    rule = reading.read_json(straight.dataset)["split_rule"]
    assert rule.endswith("training draws classes by the square root of their images")
    views = reading.read_json(straight.metrics)["test_time_views"]
    assert (views["views"], views["views_below"], views["val_passes"]) == ("flip", 0.7, 2 * 179)
    assert 0 <= views["val_passes_saved"] <= 179


@pytest.fixture
def pair(home):
    """Two run folders with the same content."""
    made = []
    for _ in range(2):
        run = runs.create_run("tiny")
        row = dict.fromkeys(reading.HISTORY_COLUMNS, 0.5)
        runs.write_history(run.history, [row | {"epoch": 1}, row | {"epoch": 2}])
        leave(run.states / STATE, {"model/00000": np.ones(3), "optimizer/00000": np.zeros(2), "header": b"1"})
        leave(run.predictions, {"labels": np.arange(3), "last_logits": np.ones((3, 2))})
        leave_weights(run, b"weights")
        made.append(run)
    return made


def leave(path, arrays):
    np.savez(path, **arrays)


def leave_weights(run, content):
    with zipfile.ZipFile(run.best_model, "w") as archive:
        archive.writestr("model.weights.h5", content)


def test_equal_runs_have_no_difference(pair):
    assert list(prove._differences(*pair)) == []


def test_first_difference_is_named(pair):
    one, other = pair
    leave_weights(other, b"weightz")
    assert list(prove._differences(one, other)) == ["best.keras: weights"]
    leave(other.predictions, {"labels": np.arange(3), "last_logits": np.ones((3, 2)) * 2})
    assert next(prove._differences(one, other)) == "predictions.npz: last_logits"
    changed = np.nextafter(np.zeros(2), 1)
    leave(other.states / STATE, {"model/00000": np.ones(3), "optimizer/00000": changed, "header": b"2"})
    assert next(prove._differences(one, other)) == f"{STATE}: optimizer/00000"
    rows = reading.read_history(other.history)
    rows[1]["seconds"], rows[1]["val_loss"] = 9.0, 0.25
    runs.write_history(other.history, rows)
    assert next(prove._differences(one, other)) == "history: val_loss of epoch 2: 0.5 and 0.25"
    runs.write_history(other.history, rows[:1])
    assert next(prove._differences(one, other)) == "history: 2 and 1 epochs"


def test_experiment_that_cannot_be_trained_is_the_programs_own_message(home):
    with pytest.raises(UserError, match="training.batch_size: received 5000"):
        proof(1, "training.batch_size=5000")
