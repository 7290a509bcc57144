"""What can be taken out of an experiment: every variant is the experiment but for one piece."""

import pytest

from app.ablation.pieces import pieces_of, variants_of
from app.config import load_experiment
from app.errors import UserError
from tests.conftest import shipped_experiments


def changed_keys(one, other):
    """The keys that differ; layers by their names, absent arguments as None."""
    before, after = one.flat(), other.flat()
    keys = {key for key in before | after if before.get(key) != after.get(key)}
    if "augmentation" in keys:
        names, left = ([layer.name for layer in each.augmentation] for each in (one, other))
        keys = (keys - {"augmentation"}) | {f"augmentation.{name}" for name in names if name not in left}
        assert left == [name for name in names if name in left]
    return keys


@pytest.mark.parametrize("name", shipped_experiments())
def test_variants_of_all_experiments_lack_their_piece_and_nothing_else(name):
    experiment = load_experiment(name)
    pieces = pieces_of(experiment)
    variants = variants_of(experiment, pieces)
    assert [*variants] == [f"without {piece}" for piece in pieces]
    for piece, variant in zip(pieces, variants.values(), strict=True):
        changed = changed_keys(experiment, variant)
        assert changed and all(f"{key}.".startswith(f"{piece}.") for key in changed)
        assert variant.name == experiment.name


def test_pieces_are_those_of_the_recipe():
    assert pieces_of(load_experiment("fast_cifar10")) == [
        "augmentation.alternating_flip",
        "augmentation.random_crop",
        "optimizer.weight_decay",
        "optimizer.nesterov",
        "optimizer.rate_multipliers",
        "training.loss.label_smoothing",
        "training.lookahead",
    ]
    muon = pieces_of(load_experiment("fast_cifar10_muon"))
    assert "optimizer.others.weight_decay" in muon and "optimizer.weight_decay" not in muon
    assert pieces_of(load_experiment("quickstart")) == []


def test_what_is_taken_out_is_off_even_where_the_optimizer_has_it_by_default():
    ((_, plain),) = variants_of(load_experiment("finetune_folder"), ["optimizer.weight_decay"]).items()
    ((_, muon),) = variants_of(load_experiment("fast_cifar10_muon"), ["optimizer.nesterov"]).items()
    assert plain.optimizer.arguments["weight_decay"] == 0.0  # by default adamw has 0.004
    assert muon.optimizer.arguments["nesterov"] is False


def test_a_key_with_a_value_is_set_as_set_does_it():
    experiment = load_experiment("fast_cifar10")
    ((name, variant),) = variants_of(experiment, ["model.whitening=false"]).items()
    assert name == "with model.whitening=false"
    assert variant == load_experiment("fast_cifar10", ["model.whitening=false"])


def test_another_order_of_multipliers_is_another_experiment():
    orders = ['{"*/*": 0.5, "*/bias": 2}', '{"*/bias": 2, "*/*": 0.5}']
    one = load_experiment("quickstart", [f"optimizer.rate_multipliers={orders[0]}"])
    ((_, variant),) = variants_of(one, [f"optimizer.rate_multipliers={orders[1]}"]).items()
    assert [*variant.optimizer.rate_multipliers] == ["*/bias", "*/*"]


def test_a_shortened_experiment_can_be_taken_apart():
    """Its peak lies behind its end, which is no fault of the variants."""
    experiment = load_experiment("fast_cifar10", ["training.epochs=1"])
    assert len(variants_of(experiment, pieces_of(experiment))) == 7


@pytest.mark.parametrize(
    ("piece", "message"),
    [
        ("training.lookahed", "training.lookahed: no such layer or key"),
        ("augmentation.mixup", "augmentation.mixup: no such layer or key"),
        ("optimizer.clipnorm", "optimizer.clipnorm: no such layer or key"),
        ("optimizer.name", "without optimizer.name: optimizer.name: required key is missing"),
        ("training.loss.focal_gamma", "training.loss.focal_gamma: changes nothing"),
        ("model.whitening=perhaps", "model.whitening: must be true or false; got 'perhaps'"),
        ("training.epochs=", "training.epochs"),
        ("=2", "must be KEY=VALUE"),
        ("evaluation.test_time_views", "evaluation.test_time_views is no piece of how"),
        ("dataset.validation=0.2", "dataset.validation is no piece of how"),
        ("dataset={split_seed: 3}", "dataset.split_seed is no piece of how"),
        ("seed=4", "seed is no piece of how"),
        ("training.loss", "the same experiment as without training.loss.label_smoothing"),
    ],
)
def test_all_mistakes_are_named_at_once(piece, message):
    pieces = ["training.loss.label_smoothing", piece, "no.such"]
    with pytest.raises(UserError) as error:
        variants_of(load_experiment("fast_cifar10"), pieces)
    mine, other, known = str(error.value).splitlines()
    assert message in mine and other.startswith("no.such: ") and "training.lookahead" in known
