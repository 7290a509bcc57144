"""Several runs in one picture."""

import pytest

from app import cli, runs
from app.reports import compare
from tests.reports.test_plots import has_colour, pixels

EXPERIMENT = """\
# Tiny.
dataset: {name: digits}
model: {name: lenet5}
optimizer: {name: adam, learning_rate: 1e-3}
training: {epochs: 3, batch_size: 32}
"""


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("TRAINER_HOME", str(tmp_path))
    (tmp_path / "experiments").mkdir()
    for name in ("one", "two", "three"):
        (tmp_path / "experiments" / f"{name}.yaml").write_text(EXPERIMENT)
    return tmp_path


def leave_run(name, num_epochs=3):
    run = runs.create_run(name)
    runs.write_text(run.experiment, EXPERIMENT)
    row = dict.fromkeys(runs.HISTORY_COLUMNS, 0.5)
    runs.write_history(
        run.history, [row | {"epoch": epoch, "loss": 2 / epoch} for epoch in range(1, num_epochs + 1)]
    )
    return run


def test_each_run_gets_its_colour(home, capsys):
    leave_run("one"), leave_run("two", 7)
    assert cli.main(["compare", "--exps", "one two"]) == 0
    (picture,) = (home / "runs" / "comparisons").glob("*/curves.png")
    assert f"curves {picture}" in capsys.readouterr().out
    assert pixels(picture).shape == (700, 1600, 3)
    assert [has_colour(picture, colour) for colour in compare.COLOURS[:3]] == [True, True, False]
    names = "one/latest", "two/latest", "one/latest"
    assert cli.main(["compare", "--runs", " ".join(names)]) == 0
    assert len(list((home / "runs" / "comparisons").iterdir())) == 2


def test_legend_tells_runs_of_one_experiment_apart(home):
    first, second, other = leave_run("one"), leave_run("one"), leave_run("two")
    assert compare._labels([first, second, other]) == [first.name, second.name, "two"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "received 0 runs; a picture holds 2 to"),
        (["--exps", "one"], "received 1 run;"),
        (["--exps", "one twoo"], "Did you mean 'two'"),
        (["--exps", "one two"], "no finished run"),
        (["--exps", "one three"], "has not finished an epoch yet"),
        (["--runs", "one/latest two/latest"], "no run folder of that name"),
    ],
)
def test_wrong_use_leaves_no_folder(home, capsys, arguments, words):
    leave_run("one"), leave_run("three", 0)
    assert cli.main(["compare", *arguments]) == 2
    assert words in capsys.readouterr().err
    assert not (home / "runs" / "comparisons").exists()
