"""Sampler, class weights by name, focal loss and stochastic depth in a run: refusals and records."""

import io
import shlex

import pytest

import app.training.train as runner
from app.cli import main
from app.config import load_experiment
from app.errors import UserError
from app.reading import read_json
from app.runs import load_run_experiment
from app.training.setup import prepare

CLASSES = [
    "dataset.sampler=balanced",
    'training.class_weight={"3": 2.0, "7": 0.5}',
    "training.loss={focal_gamma: 2.0, label_smoothing: 0.1}",
]


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (
            '{"3": 2.0, "10": 1.0}',
            "training.class_weight: unknown class '10'; did you mean '1'? allowed: 0, 1,",
        ),
        ("{" + ", ".join(f'"{digit}": 0' for digit in range(10)) + "}", "every class has weight 0"),
    ],
)
def test_weights_that_no_class_can_have_make_no_folder(home, capsys, weights, message):
    with pytest.raises(UserError) as error:
        runner.train(load_experiment("tiny", [f"training.class_weight={weights}"]), out=io.StringIO())
    assert message in str(error.value)
    assert main(["train", "tiny", "--set", shlex.quote(f"training.class_weight={weights}")]) == 2
    assert message in capsys.readouterr().err
    assert not (home / "runs").exists()


def test_settings_reach_the_loss_weights_in_the_order_of_the_classes(home):
    loss = prepare(load_experiment("tiny", CLASSES)).classifier.loss
    assert loss.class_weight == [1, 1, 1, 2, 1, 1, 1, 0.5, 1, 1]
    assert (loss.focal_gamma, loss.label_smoothing) == (2.0, 0.1)


@pytest.mark.slow
def test_records_of_a_run_with_all_of_them(home):
    network = "model={name: cifar_resnet, depth: 8, drop_path: 0.5}"
    views = "evaluation={test_time_views: flip, views_below: 0.5}"
    experiment = load_experiment("tiny", [*CLASSES, network, views])
    straight = runner.train(experiment, out=io.StringIO())
    assert load_run_experiment(straight) == experiment
    assert read_json(straight.dataset)["split_rule"].endswith("training draws classes equally often")
    recorded = read_json(straight.metrics)["test_time_views"]
    assert (recorded["views"], recorded["views_below"], recorded["val_passes"]) == ("flip", 0.5, 2 * 179)
    assert 0 <= recorded["val_passes_saved"] <= 179
