import io
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from app import cli, files, reading, runs
from app.ablation.ablate import AblationSet
from app.config import dump_experiment, load_experiment
from app.errors import UserError
from app.labels.folds import FoldSet
from app.preflight import settle_weights
from app.reading import read_json
from app.reports.results_table import END, START
from app.run_set import ChangedError, run_of, warn_of_formats
from tests.conftest import set_project
from tests.test_records import DATASET, ENVIRONMENT


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("TRAINER_HOME", str(tmp_path))
    return tmp_path


def test_runs_of_one_second_get_folders_of_their_own_in_order(home):
    made = [runs.create_run("x") for _ in range(12)]
    assert len({run.path for run in made}) == 12
    assert [run.path for run in runs.list_runs("x")] == [run.path for run in made]
    assert (home / "runs" / "x" / "latest").resolve() == made[-1].path


def test_a_copied_latest_gives_way_to_the_newest_run(home):
    """As `scp -r` copies runs, which follows links."""
    copied = runs.create_run("x")
    latest = home / "runs" / "x" / "latest"
    latest.unlink()
    shutil.copytree(copied.path, latest)
    with runs.locked(runs.Run(latest)):  # it is being trained, under this name
        runs.create_run("x")
        assert latest.is_dir() and not latest.is_symlink()
    newest = runs.create_run("x")
    assert latest.resolve() == newest.path and runs.list_runs("x")[-1].path == newest.path
    assert not list(latest.parent.glob(".*"))


def test_names_stay_in_order_where_the_clock_is_set_back(home, monkeypatch):
    times = iter(["20260102-000000", "20260101-235959", "20260101-000000", "20260102-000001"])
    monkeypatch.setattr(runs.time, "strftime", lambda _: next(times, "20260101-120000"))
    made = [runs.create_run("x") for _ in range(5)]
    names = [
        "20260102-000000",
        "20260102-000000-2",
        "20260102-000000-3",
        "20260102-000001",
        "20260102-000001-2",
    ]
    assert [run.path.name for run in made] == names
    assert [run.path for run in runs.list_runs("x")] == [run.path for run in made]
    for run in made:
        run.experiment.write_text("")
    assert runs.newest_run("x", finished=False).path == runs.find_run("x/latest").path == made[-1].path


def test_folders_that_never_became_runs_hide_none(home, monkeypatch):
    (home / "runs").mkdir()
    whole = runs.create_run("x")
    for file in (whole.experiment, whole.metrics):
        file.write_text("")
    runs.create_run("x")  # full disk: there is no experiment.yaml
    assert runs.find_run("x/latest").path == runs.newest("x").path == whole.path
    monkeypatch.chdir(home)
    assert runs.find_run("runs/x/latest").path == whole.path
    runs.create_run("y")
    for find in (lambda: runs.newest("y"), lambda: runs.newest_run("y", finished=False)):
        with pytest.raises(UserError, match="EXP=y: no (whole|finished|unfinished) run in [^(]*$"):
            find()


def test_many_processes_at_once_get_folders_of_their_own(home):
    with ThreadPoolExecutor(16) as pool:
        made = list(pool.map(lambda _: files.new_folder(home / "runs" / "x"), range(64)))
    assert len(set(made)) == 64 and sorted(made) == sorted(run.path for run in runs.list_runs("x"))


@pytest.mark.parametrize("name", ["runs", "runs/quickstart"])
@pytest.mark.parametrize(
    "command",
    [
        ["train", "quickstart"], ["resume", "quickstart"], ["curves", "quickstart"], ["list"],
        ["compare", "--exps", "quickstart quickstart"], ["evaluate", "--run", "quickstart/latest"],
        ["predict", "--run", "quickstart/latest", "--images", "a.png"], ["results"],
    ],
    ids=lambda command: command[0],
)  # fmt: skip
def test_a_file_where_runs_belong_is_one_message(home, capsys, monkeypatch, name, command):
    # Found before these would come up, which other tests have loaded.
    for module in ("tensorflow", "app.training.train", "app.inference.evaluate", "app.inference.predict"):
        monkeypatch.setitem(sys.modules, module, None)
    (home / "experiments").mkdir()
    (home / "experiments" / "quickstart.yaml").write_text(
        "dataset: {name: digits}\nmodel: {name: lenet5}\noptimizer: {name: sgd, learning_rate: 0.1}\n"
        "training: {epochs: 1, batch_size: 32}\n"
    )
    (home / "experiments" / "README.md").write_text(f"{START}\n{END}\n")
    (home / name).parent.mkdir(exist_ok=True)
    (home / name).write_text("no folder")
    assert cli.main(command) == 2
    error = capsys.readouterr().err
    assert error == f"{home / name}: is no folder, but run folders belong there; move it away or rename it\n"
    assert (home / name).read_text() == "no folder"


def test_a_file_where_comparisons_belong_is_one_message(home):
    (home / "runs").mkdir()
    (home / "runs" / "comparisons").write_text("")
    with pytest.raises(UserError, match="comparisons: is no folder"):
        files.new_folder(home / "runs" / "comparisons")


def test_atomic_path_keeps_the_old_file_when_writing_fails(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(RuntimeError), files.atomic_path(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]
    with files.atomic_path(path) as temporary:
        temporary.write_text("new")
        assert temporary.suffix == path.suffix and path.read_text() == "old"
    assert path.read_text() == "new" and list(tmp_path.iterdir()) == [path]


def test_history_round_trip_keeps_every_digit(tmp_path):
    row = dict.fromkeys(reading.HISTORY_COLUMNS, 0.1) | {"epoch": 1, "loss": 1 / 3, "val_loss": float("nan")}
    runs.write_history(tmp_path / "history.csv", [row])
    (read,) = reading.read_history(tmp_path / "history.csv")
    assert read["loss"] == 1 / 3 and read["epoch"] == 1 and read["val_loss"] != read["val_loss"]


def test_json_has_no_infinities(tmp_path):
    files.write_json(tmp_path / "a.json", {"a": [float("inf"), 1.5], "b": {"c": float("nan")}})
    assert read_json(tmp_path / "a.json") == {"a": [None, 1.5], "b": {"c": None}}


def test_unknown_run_names_the_newest_ones(monkeypatch):
    run = runs.create_run("x")
    run.experiment.write_text("")
    assert runs.find_run(run.name).path == run.path
    assert runs.find_run(str(run.path)).path == run.path
    assert runs.find_run("x/latest").path == run.path
    monkeypatch.setenv("HOME", str(run.path.parent))
    assert runs.find_run(f"~/{run.path.name}").path == run.path
    with pytest.raises(UserError, match=f"RUN=x/nope: no run folder .* newest runs: {run.name}"):
        runs.find_run("x/nope")
    with pytest.raises(UserError, match="EXP=x: no finished run .* train it first"):
        runs.newest_run("x", finished=True)
    assert runs.newest_run("x", finished=False).path == run.path


def test_commands_are_told_the_path_of_a_run_elsewhere(tmp_path, monkeypatch):
    monkeypatch.setenv("TRAINER_HOME", str(tmp_path))
    assert runs.Run(tmp_path / "runs" / "x" / "20260101-000000").argument == "x/20260101-000000"
    copy = tmp_path / "my runs" / "x" / "20260101-000000"
    assert runs.Run(copy).argument == f"'{copy}'"
    assert runs.Run(Path("/model")).argument == "/model"  # as a container may have it


def test_a_run_of_a_set_is_found_again_where_its_images_moved_and_not_for_a_variant(tmp_path, monkeypatch):
    text = (
        "dataset: {name: image_folder, data_dir: photos}\nmodel: {name: lenet5}\n"
        "optimizer: {name: adam, learning_rate: 1e-3}\ntraining: {epochs: auto, batch_size: 8}\n"
    )
    set_project(monkeypatch, tmp_path, x=text)
    asked = load_experiment("x")
    run = runs.create_run("x.ablation")
    files.write_text(run.experiment, dump_experiment(asked.with_epochs_for(4_000)))
    files.write_json(run.dataset, DATASET | {"num_images": {"train": 4_000, "val": 10}})
    files.write_json(run.environment, ENVIRONMENT | {"auto": ["epochs"]})
    moved = load_experiment("x", ["dataset.data_dir=elsewhere"])
    assert run_of("x.ablation", asked, None).name == run_of("x.ablation", moved, None).name == run.name
    without_auto = load_experiment("x", ["training.epochs=25"])
    assert run_of("x.ablation", without_auto, None) is None
    assert run_of("x.ablation", load_experiment("x", ["seed=1"]), None) is None
    others = runs.create_run("x.ablation")  # a newer one, by `make train FROM=... DATA_DIR=elsewhere`
    shutil.copytree(run.path, others.path, dirs_exist_ok=True)
    files.write_json(
        others.dataset, DATASET | {"num_images": {"train": 4_000, "val": 10}, "fingerprint": "others"}
    )
    assert run_of("x.ablation", asked, DATASET["fingerprint"]).name == run.name
    assert run_of("x.ablation", asked, "others").name == others.name


def test_number_formats_that_auto_came_to_are_told(tmp_path, monkeypatch):
    text = (
        "dataset: {name: digits}\nmodel: {name: lenet5}\noptimizer: {name: adam, learning_rate: 1e-3}\n"
        "training: {epochs: 2, batch_size: 8, precision: %s}\n"
    )
    formats = ("bfloat16", "float32")
    set_project(monkeypatch, tmp_path, **{name: text % name for name in formats})
    for number, name in enumerate(formats):
        run, out = runs.create_run("x.ablation"), io.StringIO()
        files.write_text(run.experiment, dump_experiment(load_experiment(name)))
        files.write_json(run.dataset, DATASET)
        files.write_json(run.environment, ENVIRONMENT | {"auto": ["precision"]})
        warn_of_formats("x.ablation", out)
        assert ("auto came to bfloat16 and to float32" in out.getvalue()) == bool(number)


def test_a_run_of_a_set_does_not_count_once_its_schedule_was_stretched(tmp_path, monkeypatch):
    text = (
        "dataset: {name: digits}\nmodel: {name: lenet5}\n"
        "optimizer: {name: adam, learning_rate: %s}\ntraining: {epochs: 20, batch_size: 8}\n"
    )
    spans = {"constant": "1e-3", "kept": "{schedule: cosine, peak: 1e-3, span_epochs: 10}",
             "cosine": "{schedule: cosine, peak: 1e-3}"}  # fmt: skip
    set_project(monkeypatch, tmp_path, **{name: text % rate for name, rate in spans.items()})
    for name in spans:
        asked, run = load_experiment(name), runs.create_run(f"{name}.ablation")
        files.write_text(run.experiment, dump_experiment(asked))
        files.write_json(run.dataset, DATASET)
        files.write_json(run.environment, ENVIRONMENT)
        assert run_of(f"{name}.ablation", asked, None).name == run.name
        # With the same schedule, whatever its length, or stopped before it was written that there are more.
        for before in (None, 20):
            resumes = [{"epoch": 11, "epochs_before": before}]
            files.write_json(run.environment, ENVIRONMENT | {"resumes": resumes})
            assert run_of(f"{name}.ablation", asked, None).name == run.name
        files.write_json(run.environment, ENVIRONMENT | {"resumes": [{"epoch": 11, "epochs_before": 10}]})
        assert run_of(f"{name}.ablation", asked, None) is None


def test_a_set_is_found_again_where_its_images_moved(tmp_path, monkeypatch):
    text = (
        "dataset: {name: image_folder, data_dir: %s}\nmodel: {name: lenet5}\n"
        "optimizer: {name: adam, learning_rate: 1e-3}\ntraining: {epochs: 2, batch_size: 8}\n"
        "augmentation: [random_resized_crop: {area: [0.5, 1.0]}]\n"
    )
    set_project(monkeypatch, tmp_path, x=text % "here", y=text % "there")
    here, there = (load_experiment(name).model_copy(update={"name": "x"}) for name in "xy")
    for kind in (AblationSet, FoldSet):
        folder = kind.find(here, "81").folder
        found = kind.find(there, "81")
        assert found.folder == folder and found.experiment.dataset.data_dir == "there"
        assert kind.find(there, "82").folder != folder


def test_a_set_belongs_to_its_starting_weights(tmp_path, monkeypatch):
    """A run keeps its name when it is trained further."""
    text = (
        "dataset: {name: digits}\nmodel: {name: lenet5, weights: %s}\n"
        "optimizer: {name: adam, learning_rate: 1e-3}\ntraining: {epochs: 2, batch_size: 8}\n"
    )
    set_project(monkeypatch, tmp_path, x=text % "base/latest")
    base = runs.create_run("base")
    base.experiment.write_text("")
    folders = []
    for content in "aba":
        base.best_model.write_text(content)
        folders.append(AblationSet.find(settle_weights(load_experiment("x")), "81").folder.name)
    assert folders == ["x.ablation", "x.ablation-2", "x.ablation"]
    found = AblationSet.all_of("x")[0]
    found.check_weights()
    base.best_model.write_text("c")  # while its runs are trained
    with pytest.raises(ChangedError, match=f"x.ablation: {base.name} has other weights now"):
        found.check_weights()


def test_the_order_of_rate_multipliers_tells_sets_and_runs_apart(tmp_path, monkeypatch):
    """The first pattern that matches counts."""
    text = (
        "dataset: {name: digits}\nmodel: {name: lenet5}\n"
        "optimizer: {name: adam, learning_rate: 1e-3, rate_multipliers: {%s}}\n"
        "training: {epochs: 2, batch_size: 8}\n"
    )
    patterns = '"*/bias": 2', '"*/*": 0.5'
    orders = {"x": text % ", ".join(patterns), "y": text % ", ".join(reversed(patterns))}
    set_project(monkeypatch, tmp_path, **orders)
    one, other = (load_experiment(name).model_copy(update={"name": "x"}) for name in orders)
    first, second = (AblationSet.find(each, "81").folder for each in (one, other))
    assert first != second
    assert [AblationSet.find(each, "81").folder for each in (one, other)] == [first, second]
    run = runs.create_run(first.name)
    files.write_text(run.experiment, dump_experiment(one))
    files.write_json(run.dataset, DATASET)
    files.write_json(run.environment, ENVIRONMENT)
    assert run_of(first.name, one, None).name == run.name and run_of(first.name, other, None) is None
