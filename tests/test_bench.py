"""`make bench`: what it prints and writes; no time is asserted, only how figures hang together."""

import importlib.util
import io
import json

import pytest

from app.bench import rival
from app.bench.report import bench, ratios
from app.config import load_experiment
from app.errors import UserError
from models import build_model
from models.macs import count_weights

TINY = """\
seed: 3
dataset: {name: digits, image_size: [16, 16]}
augmentation: [{random_crop: {padding_pixels: 1}}]
model: {name: baseline}
optimizer: {name: sgd, learning_rate: 0.01, momentum: 0.9}
training: {epochs: 2, batch_size: 128}
"""
needs_torch = pytest.mark.skipif(
    importlib.util.find_spec("torch") is None, reason="PyTorch, the extra 'torch', is not installed"
)


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    (tmp_path / "experiments").mkdir()
    (tmp_path / "experiments" / "tiny.yaml").write_text(TINY)
    monkeypatch.setenv("TRAINER_HOME", str(tmp_path))
    return load_experiment("tiny")


@pytest.mark.slow
def test_bench_against_plain_keras(tiny, tmp_path):
    out = io.StringIO()
    path = bench(tiny, ["keras"], rounds=2, out=out)
    result = json.loads(path.read_text())
    assert path.parent.parent == tmp_path / "runs" / "bench" and path.name == "bench.json"
    assert sorted(folder.name for folder in (tmp_path / "runs").iterdir()) == ["bench"]  # no run is left
    for name in ("fit", "bare", "keras"):
        assert len(result[name]["rounds"]) == 2 and min(result[name]["rounds"]) > 0
    ratios = [a / b for a, b in zip(result["keras"]["rounds"], result["fit"]["rounds"], strict=True)]
    assert result["keras"]["times_as_fast"]["least"] == pytest.approx(min(ratios))
    macs = 5 * 5 * 6 * 16 * 16 + 8 * 8 * 6 * 128 + 128 * 10
    assert result["operations_per_step"] == 6 * 128 * macs
    assert 0 < result["share_of_peak"] < 1.2
    start = result["start_up_seconds"]
    assert start["total"] == pytest.approx(start["imports"] + start["preparation"] + start["first_step"])
    assert 0 < start["own_code"] < start["total"]
    text = out.getvalue()
    assert "tiny: float32, batches of 128" in text and "-bound" in text and "times as fast" in text


def test_ratios_are_those_of_neighbours():
    assert ratios([2.0, 9.0, 4.0], [1.0, 3.0, 4.0]) == {"median": 2.0, "least": 1.0, "most": 3.0}


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["model.name=lenet5"], "twins in PyTorch are resnet18, minimodel, fast_cifar10"),
        (["model={name: fast_cifar10, widths: [8, 8, 8]}"], "received fast_cifar10 {'widths': (8, 8, 8)}"),
        (["model.name=resnet18", "optimizer={name: lion, learning_rate: 0.1}"], "knows sgd and adam"),
        (["model.name=resnet18", "training.precision=float16"], "knows sgd and adam"),
    ],
)
def test_what_pytorch_cannot_take_is_said_at_once(tiny, overrides, message, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    with pytest.raises(UserError, match="AGAINST=torch") as error:
        rival.require("torch", load_experiment("tiny", overrides))
    assert message in str(error.value)


def test_missing_pytorch_is_said_at_once(tiny, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="PyTorch is not installed"):
        rival.require("torch", tiny)


def test_rival_that_dies_is_a_message(tiny, tmp_path):
    with pytest.raises(UserError, match="AGAINST=nobody: the process ended before it answered: KeyError"):
        rival.Rival("nobody", tmp_path / "experiments" / "tiny.yaml", (16, 16, 1), 10)


@needs_torch
@pytest.mark.parametrize("name", rival.TORCH_NETWORKS)
def test_pytorch_twins_train_the_same_weights(name):
    torch = pytest.importorskip("torch")
    from app.bench import torch_networks

    twin = torch_networks.build(name, 10)
    trained = sum(weight.numel() for weight in twin.parameters() if weight.requires_grad)
    assert trained == count_weights(build_model(name, (32, 32, 3), 10).trainable_weights)
    assert twin(torch.zeros(2, 3, 32, 32)).shape == (2, 10)
