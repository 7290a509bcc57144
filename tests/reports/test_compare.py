"""Several runs in one picture, and which of them are seeds of one recipe."""

import io
import itertools
import subprocess
import sys

import numpy as np
import pytest
import yaml

from app import cli, files, reading, runs
from app.drawing.curves import draw_curves
from app.errors import UserError
from app.records import DatasetRecord
from app.reports import compare
from app.reports.compare_groups import differing_settings, gather
from tests.conftest import set_project
from tests.drawing.test_curves import has_colour, pixels
from tests.test_records import DATASET, ENVIRONMENT, METRICS

EXPERIMENT = """\
# Tiny.
dataset: {name: digits}
model: {name: lenet5}
optimizer: {name: adam, learning_rate: 1e-3}
training: {epochs: 3, batch_size: 32}
"""


@pytest.fixture
def home(tmp_path, monkeypatch):
    return set_up_home(tmp_path, monkeypatch)


def set_up_home(tmp_path, monkeypatch):
    """Lay out three experiments in `tmp_path` and make it the program's home."""
    set_project(monkeypatch, tmp_path, one=EXPERIMENT, two=EXPERIMENT, three=EXPERIMENT)
    return tmp_path


def leave_run(name, num_epochs=3, accuracy=None, seed=0, images="same", **sections):
    """Put a run folder there as the trainer leaves it; without `accuracy` the run is not finished.

    `sections` are merged into the experiment: `training={"batch_size": 64}`.
    """
    run = runs.create_run(name)
    content = yaml.safe_load(EXPERIMENT) | {"seed": seed}
    content["optimizer"]["learning_rate"] = 0.001
    for section, changes in sections.items():
        content[section] = content.get(section, {}) | changes
    files.write_text(run.experiment, "# Tiny.\n" + yaml.safe_dump(content, sort_keys=False))
    height = 0.5 if accuracy is None else accuracy
    rows = [
        dict.fromkeys(reading.HISTORY_COLUMNS, 0.5)
        | {"epoch": epoch, "loss": 2 / epoch, "accuracy": height, "val_accuracy": height - 0.1 / epoch}
        for epoch in range(1, num_epochs + 1)
    ]
    runs.write_history(run.history, rows)
    drawn = f"{images} {content['dataset'].get('validation')}"
    counts, classes = {"train": 400, "val": 100}, ["a", "b", "c"]
    data = {
        "fingerprint": images,
        "validation_fingerprint": drawn,
        "num_images": counts,
        "class_names": classes,
    }
    files.write_json(run.dataset, DATASET | data)
    files.write_json(run.environment, ENVIRONMENT)
    if accuracy is not None:
        on_test = content["dataset"].get("validation") == "test"
        which = "last epoch" if on_test else "best epoch"
        files.write_json(run.metrics, METRICS | {
            "headline": METRICS["headline"] | {"which": which, "val_accuracy": accuracy},
            "test": {"accuracy": accuracy - 0.01},
            "parameters": {"total": 62_006, "trainable": 62_006, "macs": 651_720},
            "timing": METRICS["timing"] | {"seconds_per_epoch": 12.4},
        })  # fmt: skip
    return run


def test_paths_with_spaces_are_quoted(home, tmp_path, capsys):
    leave_run("two")
    folder = tmp_path / "my runs" / "a one"
    folder.mkdir(parents=True)
    leave_run("one").path.rename(folder / "the run")
    path = folder / "the run"
    assert cli.main(["compare", "--runs", f"'{path}' two/latest"]) == 0
    assert "a one " in capsys.readouterr().out
    assert cli.main(["compare", "--runs", f"{path} two/latest"]) == 2
    assert "quotes keep a path with spaces together: RUNS=" in capsys.readouterr().err
    assert cli.main(["compare", "--runs", f"'{path} two/latest"]) == 2
    assert "put a name with spaces into a pair of quotes" in capsys.readouterr().err
    assert cli.main(["compare", "--runs", "one/x two/latest"]) == 2
    assert "quotes" not in capsys.readouterr().err


def test_each_run_gets_its_colour(home, capsys):
    leave_run("one"), leave_run("two", 7)
    assert cli.main(["compare", "--exps", "one two"]) == 0
    (picture,) = (home / "runs" / "comparisons").glob("*/curves.png")
    printed = capsys.readouterr().out
    assert f"curves {picture}\npage {picture.with_name('compare.html')}\n" in printed
    assert picture.with_name("compare.html").is_file()
    assert pixels(picture).shape[1] == 1600
    assert [has_colour(picture, colour) for colour in compare.COLOURS[:3]] == [True, True, False]
    assert cli.main(["compare", "--runs", "one/latest two/latest"]) == 0
    assert len(list((home / "runs" / "comparisons").iterdir())) == 2


def test_a_run_of_a_single_epoch_shows_in_both_panels(home):
    leave_run("one", 1), leave_run("two", 7)
    assert cli.main(["compare", "--exps", "two one"]) == 0
    (picture,) = (home / "runs" / "comparisons").glob("*/curves.png")
    panels = np.split(pixels(picture)[:500], 2, axis=1)
    colour = [int(compare.COLOURS[1][i : i + 2], 16) for i in (1, 3, 5)]
    # Two marks in each panel, that of training filled, that of validation hollow.
    assert all((panel == colour).all(axis=-1).sum() > 30 for panel in panels)


def test_legend_tells_runs_of_one_experiment_apart(home):
    first, second, other = leave_run("one"), leave_run("one"), leave_run("two")
    groups = gather([first, second, other])
    assert [group.label for group in groups] == [first.name, second.name, "two"]


def test_names_are_taken_literally(home, tmp_path):
    for name in ("_hidden", "cost$1$x_2"):
        (tmp_path / "elsewhere" / name).mkdir(parents=True)
        leave_run("one").path.rename(tmp_path / "elsewhere" / name / "run")
    chosen = [runs.find_run(str(tmp_path / "elsewhere" / name / "run")) for name in ("_hidden", "cost$1$x_2")]
    figure = compare._draw(gather(chosen))
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["_hidden", "cost$1$x_2"]
    compare.compare(chosen)


def test_long_names_stay_within_the_picture(home, tmp_path):
    for number in range(compare.MOST_GROUPS):
        leave_run(f"a_rather_long_name_of_an_experiment_number_{number}" + "_x" * 20)
    names = sorted(path.name for path in (home / "runs").iterdir())
    figure = compare._draw(gather([runs.list_runs(name)[0] for name in names]))
    figure.canvas.draw()
    extent = figure.legends[0].get_window_extent()
    assert 0 <= extent.x0 and extent.x1 <= 1600 and extent.y0 >= 0
    bottom = min(axes.get_tightbbox().y0 for axes in figure.axes)
    assert extent.y1 <= bottom
    styles = [(line.get_color(), line.get_marker()) for line in figure.legends[0].get_lines()]
    assert len(set(styles)) == compare.MOST_GROUPS


def test_seeds_are_drawn_as_their_mean_in_a_band(home):
    seeds = [leave_run("one", accuracy=accuracy, seed=seed) for seed, accuracy in enumerate((0.6, 0.9, 0.75))]
    other = leave_run("two", accuracy=0.5)
    groups = gather([seeds[2], other, *seeds[:2]])
    assert [group.label for group in groups] == ["one (3 seeds)", "two"]
    assert [trial.experiment.seed for trial in groups[0].trials] == [0, 1, 2]
    panel = compare._draw(groups).axes[0]
    curves = {
        (line.get_color(), line.get_linestyle()): line.get_ydata()
        for line in panel.lines
        if len(line.get_xdata()) == 3
    }
    blue, vermilion = compare.COLOURS[:2]
    np.testing.assert_allclose(curves[blue, "-"], [0.75] * 3)
    np.testing.assert_allclose(curves[blue, "--"], [0.65, 0.70, 0.75 - 0.1 / 3])
    np.testing.assert_allclose(curves[vermilion, "-"], [0.5] * 3)
    bands = [band.get_paths()[0].vertices[:, 1] for band in panel.collections]
    assert sorted((round(y.min(), 4), round(y.max(), 4)) for y in bands) == [(0.5, 0.8667), (0.6, 0.9)]


def test_a_mean_ends_with_the_shortest_seed(home):
    leave_run("one", 3, accuracy=0.6), leave_run("one", 2, accuracy=0.9, seed=1)
    panel = compare._draw(gather(compare.newest_seeds("one", io.StringIO()))).axes[0]
    assert {len(line.get_xdata()) for line in panel.lines} == {2}


def test_only_seeds_of_one_finished_recipe_belong_together(home):
    first = leave_run("one", accuracy=0.6)
    others = [
        leave_run("one", accuracy=0.6, seed=1, training={"batch_size": 64}),
        leave_run("one", accuracy=0.6, seed=1, training={"epochs": 4}),
        leave_run("one", accuracy=0.6, seed=1, images="other"),
        leave_run("one", seed=1),
        leave_run("two", accuracy=0.6, seed=1),
    ]
    assert [len(group.trials) for group in gather([first, *others])] == [1] * 6
    same = leave_run(
        "one", accuracy=0.6, seed=1, training={"devices": "cpu"}, reference={"source": "A paper"}
    )
    assert [len(group.trials) for group in gather([first, *others, same])] == [2, *[1] * 5]


def test_runs_that_were_trained_another_way_stay_alone(home):
    runs = [leave_run("one", accuracy=0.6, seed=seed) for seed in range(3)]
    forced = leave_run("one", accuracy=0.6, seed=3)
    content = reading.read_record(forced.dataset, DatasetRecord).content
    files.write_json(forced.dataset, content | {"fingerprints_before": ["others"]})
    orders = [
        leave_run("one", accuracy=0.6, seed=seed, optimizer={"rate_multipliers": dict(pairs)})
        for seed, pairs in enumerate(itertools.permutations([("*/bias", 2.0), ("*/*", 0.5)]))
    ]
    assert [len(group.trials) for group in gather([*runs, forced, *orders])] == [3, 1, 1, 1]
    assert [run.name for run in compare.newest_seeds("one", io.StringIO())] == [orders[-1].name]


def test_runs_that_began_with_other_weights_of_a_run_are_not_pooled(home):
    """`model.weights` names a run, which was trained further in between."""
    runs = [leave_run("one", accuracy=0.6, seed=seed) for seed in range(4)]
    for run, digest in zip(runs, ("a", "a", "b", None), strict=True):  # an older one does not say
        started = {"starting_weights": {"sha256": digest}} if digest else {}
        files.write_json(run.environment, ENVIRONMENT | started)
    assert [len(group.trials) for group in gather(runs[:3])] == [2, 1]
    assert [len(group.trials) for group in gather([runs[3], *runs[:2]])] == [1, 2]
    with pytest.raises(
        UserError, match="received 1 run .other runs are taken with it where they are known to"
    ):
        compare.compare(compare.newest_seeds("one", io.StringIO()))


def test_weights_of_a_run_that_was_trained_further_in_between_are_named_among_the_settings(home):
    pair = [leave_run("one", accuracy=0.6, seed=0, model={"weights": "base/1"}) for _ in "ab"]
    assert differing_settings(gather(pair)) == []
    for run, digest in zip(pair, ("a" * 64, "b" * 64), strict=True):
        files.write_json(run.environment, ENVIRONMENT | {"starting_weights": {"sha256": digest}})
    assert differing_settings(gather(pair)) == [("model.weights", [f"base/1 (hash {c * 12})" for c in "ab"])]


def test_runs_that_repeat_a_seed_stay_alone(home):
    three = [leave_run("one", accuracy=0.6, seed=seed) for seed in (0, 0, 1)]
    assert [group.label for group in gather(three)] == [run.name for run in three]


def test_a_trial_that_settings_were_chosen_by_is_not_pooled_with_its_finalists(home):
    trial, *finalists = (leave_run("one", accuracy=0.9, seed=seed) for seed in range(3))
    files.write_json(trial.path.parent / "sweep.json", {"settings": {"seed": 0}})
    assert [run.name for run in compare.newest_seeds("one", io.StringIO())] == [run.name for run in finalists]
    assert len(gather([trial, *finalists])) == 2


def test_newest_seeds_of_an_experiment(home):
    leave_run("one", accuracy=0.5, seed=2)
    second = leave_run("one", accuracy=0.6, seed=2)
    third = leave_run("one", accuracy=0.6, seed=7)
    leave_run("one", accuracy=0.6, seed=3, training={"batch_size": 64})
    newest = leave_run("one", accuracy=0.6, seed=0)
    leave_run("one", seed=5)
    unreadable = leave_run("one", accuracy=0.6, seed=9)
    unreadable.metrics.unlink()
    assert [run.name for run in compare.newest_seeds("one", io.StringIO())] == [
        newest.name,
        second.name,
        third.name,
    ]
    leave_run("two"), leave_run("two", seed=1)
    assert [run.name for run in compare.newest_seeds("two", io.StringIO())] == [
        runs.list_runs("two")[-1].name
    ]


def test_curves_drawn_again_mark_where_an_unfinished_run_was_resumed(home):
    run = leave_run("one", 5)
    files.write_json(run.environment, ENVIRONMENT | {"resumes": [{"epoch": 3}]})
    assert cli.main(["curves", "--run", run.name]) == 0
    drawn = pixels(run.curves)
    draw_curves(run, runs.load_run_experiment(run), reading.read_history(run.history), [3])
    np.testing.assert_array_equal(pixels(run.curves), drawn)


def test_the_seeds_of_one_experiment_are_enough(home, capsys):
    for seed in range(3):
        leave_run("one", accuracy=0.6 + 0.1 * seed, seed=seed)
    assert cli.main(["compare", "--exps", "one"]) == 0
    assert "one (3 seeds)" in capsys.readouterr().out
    assert cli.main(["compare", "--exps", "one", "--runs", "one/latest"]) == 0  # which is one of them


def test_why_seeds_are_not_pooled_is_said(home, capsys):
    stretched = {"resumes": [{"epoch": 3, "epochs_before": 2}]}
    for seed in range(2):
        run = leave_run("one", accuracy=0.6, seed=seed)
        files.write_json(run.environment, ENVIRONMENT | stretched)
    assert cli.main(["compare", "--exps", "one"]) == 2
    message = capsys.readouterr().err
    assert "is not pooled with other seeds: its schedule was one for fewer epochs before" in message


def test_an_order_of_multipliers_is_a_setting(home):
    """The first match counts, and a mapping has no order."""
    multipliers = {"*/bias": 2.0, "*/kernel": 3.0}
    orders = (multipliers, dict(reversed(multipliers.items())))
    every = [leave_run("one", accuracy=0.6, optimizer={"rate_multipliers": each}) for each in orders]
    (row,) = differing_settings(gather(every))
    assert row == ("optimizer.rate_multipliers", ["*/bias, */kernel", "*/kernel, */bias"])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "received 0 runs; a picture holds 2 to"),
        (["--exps", "one"], "received 1 run;"),
        (["--runs", "one/latest one/latest"], "received 1 run (one that is named twice counts once);"),
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


def test_too_many_to_tell_apart(home, capsys):
    names = [leave_run("one").name for _ in range(compare.MOST_GROUPS + 1)]
    assert cli.main(["compare", "--runs", " ".join(names)]) == 2
    assert "received 15 runs; a picture holds 2 to 14" in capsys.readouterr().err


def test_comparing_needs_no_backend(home):
    for seed in range(3):
        leave_run("one", accuracy=0.6, seed=seed), leave_run("two", accuracy=0.5, seed=seed)
    program = (
        "import sys; from app import cli; assert cli.main(['compare', '--exps', 'one two']) == 0;"
        "assert not {'matplotlib.pyplot', 'tensorflow', 'keras', 'jax'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True, stdout=subprocess.DEVNULL)
