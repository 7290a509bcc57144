"""The table of results in experiments/README.md."""

import shutil

import pytest
import yaml

from app import files, runs
from app.errors import UserError
from app.reading import read_json
from app.reports.results_table import END, HEADINGS, START, write_results_table
from tests.conftest import set_project
from tests.test_records import DATASET, ENVIRONMENT, METRICS

EXPERIMENT = """\
# Tiny.
# make train EXP=tiny  measured: by hand
dataset: {name: image_folder, data_dir: data/my birds}
model: {name: lenet5}
optimizer: {name: adam, learning_rate: 1e-3}
training: {epochs: 50, batch_size: 32}
reference: {source: A paper, last_val_accuracy: 0.9, best_val_accuracy: 0.915, best_epoch: 7, data: others}
"""


@pytest.fixture
def home(tmp_path, monkeypatch):
    set_project(monkeypatch, tmp_path, tiny=EXPERIMENT)
    (tmp_path / "experiments" / "README.md").write_text(f"# Mine\n\n{START}\n{END}\n\nThe rest.\n")
    return tmp_path


def leave_run(epochs, accuracy, on_test=False, finished=True, **changes):
    """Put a run folder there as the trainer leaves it."""
    run = runs.create_run("tiny")
    content = yaml.safe_load(EXPERIMENT) | {"seed": 0}
    content["optimizer"]["learning_rate"] = 0.001
    content["training"]["epochs"] = epochs
    content["seed"] = changes.pop("seed", 0)
    content["training"] |= changes
    files.write_text(run.experiment, yaml.safe_dump(content))
    row = {"epoch": epochs, "val_accuracy": accuracy}
    best = {"epoch": 3, "val_accuracy": accuracy + 0.01}
    files.write_json(run.dataset, DATASET | {
        "name": "image_folder", "source": "class folders in data/my birds (12 .jpeg .png files)",
        "num_images": {"train": 9000, "val": 1000},
    })  # fmt: skip
    cpu = {"model": "Intel(R) Xeon(R) CPU @ 2.20GHz", "count": 2}
    versions = {"tensorflow": "2.21.0"}
    files.write_json(run.environment, ENVIRONMENT | {"cpu": cpu, "versions": versions})
    if finished:
        headline = {"which": "last epoch", **row} if on_test else {"which": "best epoch", **best}
        files.write_json(run.metrics, METRICS | {
            "final": row, "best": best, "test": None if on_test else {"accuracy": 0.5}, "headline": headline,
            "timing": METRICS["timing"] | {"epochs": epochs, "seconds_per_epoch": 12.345},
        })  # fmt: skip
    return run


def change(file, **keys):
    files.write_json(file, read_json(file) | keys)


def change_recipe(home, **changes):
    file = home / "experiments" / "tiny.yaml"
    content = yaml.safe_load(file.read_text())
    content["training"] |= changes
    file.write_text("# Tiny.\n#\n" + yaml.safe_dump(content))


def line_of(home, name="tiny"):
    (line,) = [
        text
        for text in (home / "experiments" / "README.md").read_text().splitlines()
        if text.startswith(f"| `{name}`")
    ]
    return dict(zip(HEADINGS, [cell.strip() for cell in line.strip("|").split("|")], strict=True))


def test_line_holds_what_the_run_left_behind(home):
    leave_run(20, 0.8)
    write_results_table()
    assert line_of(home) == {
        "experiment": "`tiny`",
        "network": "lenet5",
        "data": "my birds as .jpeg .png, 9,000 + 1,000 images",
        "validated on": "validation",
        "epochs": "20 of 50",
        "seeds": "1",
        "last epoch": "80.00 %",
        "best epoch": "81.00 % (3)",
        "test": "50.00 %",
        "source: last, best": "90.00 %, 91.50 % (7) on others",
        "seconds an epoch": "12",
        "machine": "2 x Intel Xeon, tensorflow 2.21.0, float32",
    }
    text = (home / "experiments" / "README.md").read_text()
    assert text.startswith("# Mine\n") and text.endswith("\nThe rest.\n")


def test_several_evaluations_on_the_test_split_are_said(home):
    run = leave_run(20, 0.8)
    looks = [{"when": "once", "accuracy": 0.5}, {"when": "again", "accuracy": 0.5}]
    run.evaluations.mkdir()
    files.write_json(run.evaluations / "test_evaluations.json", {"test_evaluations": looks})
    write_results_table()
    assert line_of(home)["test"] == "50.00 %, evaluated 2 times"


def test_machine_names_the_workers(home):
    run = leave_run(20, 0.8)
    change(run.environment, workers=2, replicas=2)
    write_results_table()
    assert line_of(home)["machine"] == "2 x Intel Xeon, 2 workers, tensorflow 2.21.0, float32"


def test_most_epochs_of_the_same_recipe_count(home):
    chosen = leave_run(20, 0.8, on_test=True)
    leave_run(10, 0.9)
    other = leave_run(50, 0.99, batch_size=64)
    leave_run(50, 0.99, finished=False)
    said = "\n".join(write_results_table())
    assert line_of(home)["last epoch"] == "80.00 %"
    assert f"80.00 % on test, 20 of 50 epochs of 12 s ({chosen.name})" in said
    assert f"{other.name}: left out; it trained another recipe" in said
    newer = leave_run(20, 0.85)
    assert newer.name in "\n".join(write_results_table())
    assert line_of(home)["last epoch"] == "85.00 %"


def test_a_run_that_came_to_its_settings_another_way_is_left_out(home):
    """Trained on other images before, on a shorter schedule, or with the first match another one."""
    factors = "rate_multipliers: {'*/bias': 2.0, '*/*': 0.5}"
    schedule = "{schedule: cosine, peak: 1e-3}"
    text = EXPERIMENT.replace("learning_rate: 1e-3", f"learning_rate: {schedule}, {factors}")
    (home / "experiments" / "tiny.yaml").write_text(text)

    def leave(seed, order=1):
        run = leave_run(50, 0.8, seed=seed)
        content = yaml.safe_load(text) | {"seed": seed}
        pairs = list(content["optimizer"]["rate_multipliers"].items())
        content["optimizer"]["rate_multipliers"] = dict(pairs[::order])
        files.write_text(run.experiment, yaml.safe_dump(content, sort_keys=False))
        return run

    leave(0)
    forced, stretched, reversed_one = leave(1), leave(2), leave(4, order=-1)
    change(forced.dataset, fingerprints_before=["x"])
    change(stretched.environment, resumes=[{"epoch": 11, "epochs_before": 10}])
    said = "\n".join(write_results_table())
    assert line_of(home)["seeds"] == "1"
    assert f"{forced.name}: left out; it was trained on other images before" in said
    assert f"{stretched.name}: left out; its schedule was one for fewer epochs before" in said
    assert f"{reversed_one.name}: left out; it trained another recipe" in said


def test_test_accuracy_with_views_stands_beside_the_one_without(home):
    run = leave_run(20, 0.8)
    views = {"views": "flip", "val_accuracy": 0.82, "test_accuracy": 0.523}
    change(run.metrics, test_time_views=views)
    write_results_table()
    line = line_of(home)
    assert (line["last epoch"], line["test"]) == ("80.00 %", "50.00 % (52.30 % with test-time views)")


def test_run_of_a_format_that_was_chosen_counts(home):
    run = leave_run(20, 0.8, precision="bfloat16")
    assert "another recipe" in "\n".join(write_results_table())
    change_recipe(home, precision="auto")
    assert run.name in "\n".join(write_results_table())
    assert line_of(home)["machine"].endswith("tensorflow 2.21.0, bfloat16")


def test_writing_twice_changes_nothing(home):
    leave_run(20, 0.8)
    write_results_table()
    before = (home / "experiments" / "README.md").read_bytes()
    write_results_table()
    assert before == (home / "experiments" / "README.md").read_bytes()


def test_experiment_files_stay_as_they_were_written(home):
    path = home / "experiments" / "tiny.yaml"
    content = b"# Tiny.\r\n" + path.read_bytes().split(b"\n", 1)[1]  # every byte, its line ends too
    path.write_bytes(content)
    leave_run(20, 0.8)
    assert any("80.00 %" in line or "81.00 %" in line for line in write_results_table())
    assert path.read_bytes() == content


def test_data_names_do_not_break_the_table(home):
    path = home / "experiments" / "tiny.yaml"
    text = path.read_text().replace("data: others", 'data: "c |\\n d\\n"')
    path.write_text(text.replace("data/my birds", '"data/a | b\\tc"'))
    run = leave_run(20, 0.8)
    files.write_text(run.experiment, run.experiment.read_text().replace("my birds", "a | b"))
    write_results_table()
    line = line_of(home)
    assert line["data"] == "a &#124; b as .jpeg .png, 9,000 + 1,000 images"
    assert line["source: last, best"].endswith(" on c &#124; d")


def test_a_run_that_cannot_be_read_is_left_out(home):
    leave_run(20, 0.8)
    broken = leave_run(30, 0.9)
    broken.environment.write_text("[]")
    said = "\n".join(write_results_table())
    assert f"{broken.name}: left out; it cannot be read (" in said
    assert "environment.json: must be a mapping" in said
    assert line_of(home)["last epoch"] == "80.00 %"


def test_figures_from_elsewhere_stay(home):
    (home / "experiments" / "never.yaml").write_text(EXPERIMENT)
    leave_run(20, 0.8)
    write_results_table()
    assert "Not run as they are: `never`." in (home / "experiments" / "README.md").read_text()
    shutil.rmtree(home / "runs")
    write_results_table()
    assert line_of(home)["last epoch"] == "80.00 %"
    leave_run(2, 0.3)
    assert "tiny: the line of 20 of 50 epochs stays" in "\n".join(write_results_table())
    assert line_of(home)["last epoch"] == "80.00 %"


def test_seeds_are_mean_and_standard_deviation(home):
    leave_run(50, 0.8, on_test=True, seed=1)
    leave_run(50, 0.7, on_test=True)
    leave_run(50, 0.81, on_test=True)  # in the place of the other one with seed 0
    leave_run(20, 0.1, on_test=True, seed=2)
    write_results_table()
    line = line_of(home)
    assert (line["seeds"], line["epochs"]) == ("2", "50 of 50")
    assert (line["last epoch"], line["best epoch"]) == ("80.50 ± 0.71 %", "81.50 ± 0.71 %")


def test_a_line_of_the_recipe_before_gives_way(home):
    leave_run(50, 0.8, on_test=True, seed=1)
    leave_run(50, 0.7, on_test=True)
    write_results_table()
    change_recipe(home, batch_size=64)
    run = leave_run(50, 0.6, on_test=True, batch_size=64)
    assert run.name in "\n".join(write_results_table())
    assert (line_of(home)["last epoch"], line_of(home)["seeds"]) == ("60.00 %", "1")
    change_recipe(home, epochs=30)
    leave_run(30, 0.5, on_test=True, batch_size=64)
    write_results_table()
    assert (line_of(home)["last epoch"], line_of(home)["epochs"]) == ("50.00 %", "30 of 30")


def test_seeds_that_stopped_early_are_one_recipe(home):
    change_recipe(home, early_stopping={"patience_epochs": 3})
    for seed, (epochs, accuracy) in enumerate([(31, 0.7), (40, 0.8), (35, 0.72)]):
        run = leave_run(50, accuracy, on_test=True, seed=seed, early_stopping={"patience_epochs": 3})
        change(run.metrics, timing=METRICS["timing"] | {"epochs": epochs, "seconds_per_epoch": 12.345})
    write_results_table()
    line = line_of(home)
    assert (line["epochs"], line["seeds"]) == ("50 of 50, stopped after 31 to 40", "3")
    assert line["last epoch"] == "74.00 ± 5.29 %"


def test_the_newest_machine_and_starting_weights_count_and_the_rest_is_named(home):
    slow, tuned, fast = leave_run(50, 0.8, seed=1), leave_run(50, 0.8, seed=2), leave_run(50, 0.7)
    change(tuned.environment, starting_weights={"sha256": "a"})
    change(fast.environment, cpu={"model": "AMD EPYC 9B14", "count": 2})
    said = "\n".join(write_results_table())
    assert f"{slow.name}: left out; other machine, beside {fast.name}" in said
    assert f"{tuned.name}: left out; other machine and starting weights, beside" in said
    assert (line_of(home)["seeds"], line_of(home)["machine"][:9]) == ("1", "2 x AMD E")


def test_the_newest_run_of_an_experiment_to_start_from_is_any_of_its_runs_and_no_other(home):
    file = home / "experiments" / "tiny.yaml"
    file.write_text(EXPERIMENT.replace("model: {name: lenet5", "model: {name: lenet5, weights: base/latest"))
    assert "base/latest" in file.read_text()
    for name in ("base/20260101-000000", "other/20260101-000000"):
        run = leave_run(50, 0.8)
        content = yaml.safe_load(run.experiment.read_text())
        content["model"]["weights"] = name
        run.experiment.write_text(yaml.safe_dump(content))
    (said,) = (line for line in write_results_table() if "left out" in line)
    assert f"{run.name}: left out; it trained another recipe" in said


def test_networks_page_has_what_was_trained_to_the_end(home):
    (home / "experiments" / "never.yaml").write_text(EXPERIMENT)
    page = home / "models" / "README.md"
    page.parent.mkdir()
    page.write_text(f"# Networks\n{START}\n{END}\nThe rest.\n")
    leave_run(20, 0.8, on_test=True)
    write_results_table()
    assert "80.00" not in page.read_text()
    leave_run(50, 0.9, on_test=True)
    write_results_table()
    text = page.read_text()
    assert (
        "| lenet5 | `tiny` | my birds as .jpeg .png, 9,000 + 1,000 images | test | 50 of 50 | 1 | 90.00 %"
        in text
    )
    assert text.startswith("# Networks\n") and text.endswith("\nThe rest.\n")
    shared = EXPERIMENT.replace("data/my birds", "data/my birds, train_share: 0.2")
    (home / "experiments" / "tiny.yaml").write_text(shared)
    write_results_table()
    assert line_of(home)["last epoch"] == "90.00 %" and "90.00" not in page.read_text()


def test_page_without_a_place_for_the_table(home):
    (home / "experiments" / "README.md").write_text("# Mine\n")
    with pytest.raises(UserError, match="no place for the results"):
        write_results_table()
    assert (home / "experiments" / "README.md").read_text() == "# Mine\n"
