"""Sampler, class weights by name and focal loss: refusals, and what they become."""

import shlex

import pytest

from app.cli import main
from app.config import dump_experiment, load_experiment
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
    assert main(["train", "tiny", "--set", shlex.quote(f"training.class_weight={weights}")]) == 2
    assert message in capsys.readouterr().err
    assert not (home / "runs").exists()


def test_settings_reach_the_loss_weights_in_the_order_of_the_classes(home):
    experiment = load_experiment("tiny", CLASSES)
    loss = prepare(experiment).classifier.loss
    assert loss.class_weight == [1, 1, 1, 2, 1, 1, 1, 0.5, 1, 1]
    assert (loss.focal_gamma, loss.label_smoothing) == (2.0, 0.1)
    (home / "tiny.yaml").write_text(dump_experiment(experiment))  # as a run keeps them
    assert load_experiment(home / "tiny.yaml") == experiment
