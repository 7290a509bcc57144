import pytest

from app import runs
from app.errors import UserError


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("TRAINER_HOME", str(tmp_path))
    return tmp_path


def test_runs_of_one_second_get_folders_of_their_own_in_order(home):
    made = [runs.create_run("x") for _ in range(12)]
    assert len({run.path for run in made}) == 12
    assert [run.path for run in runs.list_runs("x")] == [run.path for run in made]
    assert (home / "runs" / "x" / "latest").resolve() == made[-1].path


def test_atomic_path_keeps_the_old_file_when_writing_fails(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(RuntimeError), runs.atomic_path(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]
    with runs.atomic_path(path) as temporary:
        temporary.write_text("new")
        assert temporary.suffix == path.suffix and path.read_text() == "old"
    assert path.read_text() == "new" and list(tmp_path.iterdir()) == [path]


def test_history_round_trip_keeps_every_digit(tmp_path):
    row = dict.fromkeys(runs.HISTORY_COLUMNS, 0.1) | {"epoch": 1, "loss": 1 / 3, "val_loss": float("nan")}
    runs.write_history(tmp_path / "history.csv", [row])
    (read,) = runs.read_history(tmp_path / "history.csv")
    assert read["loss"] == 1 / 3 and read["epoch"] == 1 and read["val_loss"] != read["val_loss"]


def test_json_has_no_infinities(tmp_path):
    runs.write_json(tmp_path / "a.json", {"a": [float("inf"), 1.5], "b": {"c": float("nan")}})
    assert runs.read_json(tmp_path / "a.json") == {"a": [None, 1.5], "b": {"c": None}}


def test_unknown_run_names_the_newest_ones():
    run = runs.create_run("x")
    run.experiment.write_text("")
    assert runs.find_run(run.name).path == run.path
    assert runs.find_run(str(run.path)).path == run.path
    assert runs.find_run("x/latest").path == run.path
    with pytest.raises(UserError, match=f"RUN=x/nope: no run folder .* newest runs: {run.name}"):
        runs.find_run("x/nope")
    with pytest.raises(UserError, match="EXP=x: no finished run .* train it first"):
        runs.newest_run("x", finished=True)
    assert runs.newest_run("x", finished=False).path == run.path
