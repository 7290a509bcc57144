"""`make bench`: what it prints and writes; no time is asserted, only how results hang together."""

import contextlib
import importlib.util
import inspect
import io
import json
import math
import os
import subprocess

import numpy as np
import pytest

from app.bench import baselines, scaling
from app.bench import bench as report
from app.bench.bench import bench, interleaved, ratios
from app.bench.json_worker import JsonWorker
from app.bench.timers import compare_draws
from app.config import load_experiment
from app.errors import UserError
from app.paths import module_command
from app.reading import read_json
from models import build_model, processor, published_networks
from models.inspect import count_weights
from tests.conftest import set_project

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
    set_project(monkeypatch, tmp_path, tiny=TINY)
    return load_experiment("tiny")


def test_draws_are_compared_in_distribution():
    random = np.random.default_rng(0)
    one, other = random.normal(100, 20, (2, 3, 400, 50))
    assert compare_draws(one, one + 0.1).startswith("equal: 100.0% the same")
    assert compare_draws(one, other).startswith("equal: ")
    assert compare_draws(one, other + 5).startswith("NOT EQUAL: ")
    assert compare_draws(one, 1.2 * (other - 100) + 100).startswith("NOT EQUAL: ")


@pytest.mark.slow
def test_bench_against_plain_keras(tiny, tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(report, "ROUND_SECONDS", 0.2)  # no speed is judged here
    kernels = {"here": True, "by_itself": False}  # as on every processor without AVX-512
    monkeypatch.setattr(baselines, "onednn_kernels", lambda: kernels)
    out = io.StringIO()
    changed = {setting: load_experiment("tiny", [setting]) for setting in ("training.ema={decay: 0.9}",)}
    path = bench(tiny, ["keras"], rounds=2, out=out, beside=changed)
    result = json.loads(path.read_text())
    assert path.parent.parent == tmp_path / "runs" / "bench" and path.name == "bench.json"
    assert sorted(folder.name for folder in (tmp_path / "runs").iterdir()) == ["bench"]  # no run is left
    for name in ("fit", "bare", "keras", "keras_default"):
        assert len(result[name]["rounds"]) == 2 and min(result[name]["rounds"]) > 0
    ratios = [a / b for a, b in zip(result["keras"]["rounds"], result["fit"]["rounds"], strict=True)]
    assert result["keras"]["times_as_fast"]["least"] == pytest.approx(min(ratios))
    (beside,) = result["beside"].values()
    assert beside["times_as_long"]["most"] == pytest.approx(
        max(a / b for a, b in zip(beside["rounds"], result["fit"]["rounds"], strict=True))
    )
    macs = 5 * 5 * 6 * 16 * 16 + 8 * 8 * 6 * 128 + 128 * 10
    assert result["operations_per_step"] == 6 * 128 * macs
    assert 0 < result["share_of_peak"] < 1.2
    start = result["start_up_seconds"]
    assert start["total"] == pytest.approx(start["imports"] + start["preparation"] + start["first_step"])
    assert 0 < start["own_code"] < start["total"]
    assert capfd.readouterr().err == ""  # no remark of TensorFlow's
    text = out.getvalue()
    assert "tiny: float32, batches of 128" in text and "-bound" in text and text.count("times as fast") == 2
    assert "beside        training.ema={decay: 0.9}: " in text
    assert "with oneDNN kernels on, as ours:" in text and "as it comes, oneDNN kernels off:" in text


@pytest.mark.slow
def test_frozen_layers_are_no_work_of_training(tiny, monkeypatch):
    monkeypatch.setattr(report, "ROUND_SECONDS", 0.2)
    out = io.StringIO()
    changes = ["model={name: lenet5, freeze: backbone}", "augmentation=[]"]
    frozen = load_experiment("tiny", changes)  # the baseline has dropout in its backbone
    result = json.loads(bench(frozen, [], rounds=1, out=out).read_text())
    convolutions, head = 5 * 5 * 6 * 12 * 12 + 5 * 5 * 6 * 16 * 2 * 2, 84 * 10
    backbone = convolutions + 16 * 120 + 120 * 84
    # Forward through all (2 operations a multiply-accumulate), and back through the head.
    assert result["operations_per_step"] == 128 * (2 * (backbone + head) + 4 * head)
    assert "in all; less, as the frozen backbone is computed once" in out.getvalue()


@pytest.mark.slow
def test_tensorflow_is_asked_which_kernels_it_would_choose(tmp_path):
    kernels = baselines.onednn_kernels()
    flags = processor.cpu_flags()
    if processor.onednn_settings()["TF_ENABLE_ONEDNN_OPTS"] == "1":
        assert kernels["here"]
    if {"avx512_vnni", "avx512_bf16", "avx_vnni", "amx_tile"} & flags:
        assert kernels["by_itself"]
    elif "avx2" in flags:
        assert not kernels["by_itself"]


@pytest.mark.slow
def test_a_killed_worker_leaves_nothing_outside_its_folder(tiny, tmp_path, monkeypatch):
    elsewhere, folder = tmp_path / "elsewhere", tmp_path / "folder"
    for each in (elsewhere, folder):
        each.mkdir()
    monkeypatch.setenv("TMPDIR", str(elsewhere))
    file = folder / "tiny.yaml"
    file.write_text(TINY)
    with contextlib.ExitStack() as stack:
        seconds = scaling.start_workers(file, sorted(os.sched_getaffinity(0))[:1], stack)
        assert len(seconds(2)) == 2
    assert list(elsewhere.iterdir()) == []
    assert len(list(folder.iterdir())) > 1  # what it leaves, and what the bench removes


def test_ratios_are_those_of_neighbours():
    assert ratios([2.0, 9.0, 4.0], [1.0, 3.0, 4.0]) == {"median": 2.0, "least": 1.0, "most": 3.0}


def test_every_other_round_is_measured_in_reverse():
    order = []
    contenders = {name: lambda steps, name=name: order.append(name) or [1.0, 2.0, 9.0] for name in "ab"}
    assert interleaved(contenders, 3, rounds=3) == {"a": [2.0] * 3, "b": [2.0] * 3}
    assert "".join(order) == "abbaab"


def test_what_pytorch_cannot_take_is_said_before_tensorflow_is_imported(tiny):
    code = """
import sys
sys.modules |= dict.fromkeys(("tensorflow", "keras", "torch", "jax"))  # an import of any of them fails
from app.cli import main
lion = "optimizer={name: lion, learning_rate: 0.1}"
for change in (f"'{lion}'", "training.precision=float16", "model.freeze=backbone", "seed=1"):
    assert main(["bench", "tiny", "--against", "keras torch", "--set", change]) == 2
"""
    command, environment = module_command("")
    done = subprocess.run([command[0], "-c", code], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    optimizer, precision, frozen, missing = done.stderr.splitlines()
    assert frozen.startswith("AGAINST=keras: model.freeze: the baselines train all layers")
    assert "optimizer.name: received lion; the PyTorch loop knows sgd and adam" in optimizer
    assert "training.precision: received float16; the PyTorch loop knows float32" in precision
    assert missing.startswith("AGAINST=torch: PyTorch is not installed")


def test_networks_without_a_twin_in_pytorch(tiny, monkeypatch):
    deep = load_experiment("tiny", ["model={name: vgg, depth: 19}", "dataset.image_size=[32, 32]"])
    monkeypatch.setitem(baselines.TORCH_NETWORKS, "vgg", ())
    with pytest.raises(UserError, match="twin of vgg in PyTorch does not take depth=19"):
        baselines.require("torch", deep)
    monkeypatch.delitem(baselines.TORCH_NETWORKS, "vgg")
    with pytest.raises(UserError, match="vgg has no twin in PyTorch; there are baseline, lenet5"):
        baselines.require("torch", deep)


def test_a_users_pythonpath_reaches_the_processes_that_are_started(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(["one", "two"]))
    _, environment = module_command("app")
    code, *rest = environment["PYTHONPATH"].split(os.pathsep)
    assert os.path.samefile(code, os.path.dirname(os.path.dirname(__file__))) and rest == ["one", "two"]


def test_baseline_that_dies_is_a_message(tiny, tmp_path):
    with pytest.raises(UserError, match="AGAINST=nobody: the process ended before it answered: KeyError"):
        file = tmp_path / "experiments" / "tiny.yaml"
        module, *arguments = "app.bench.baselines", "nobody", file, (16, 16, 1), 10
        JsonWorker("AGAINST=nobody", module, *arguments, folder=tmp_path).answer()


def test_worker_that_ends_early_is_a_message_with_its_last_line(tmp_path):
    worker = JsonWorker("bench: it", "app.nowhere", folder=tmp_path)
    with pytest.raises(UserError, match="bench: it: the process ended .*: .*No module named 'app.nowhere'"):
        worker.seconds(2)
    assert list(tmp_path.iterdir()) == []


@needs_torch
@pytest.mark.parametrize(
    "row",
    [row for row in published_networks() if row.name in baselines.TORCH_NETWORKS],
    ids=lambda row: row.label,
)
def test_pytorch_twins_are_the_same_networks(row):
    """Tests of the zoo hold our networks to the same numbers."""
    import torch

    from app.bench import torch_networks

    macs = []

    def count(layer, inputs, outputs):
        macs.append(layer.weight.numel() * math.prod(outputs.shape[2:]))

    with torch.device("meta"):  # shapes without values
        twin = torch_networks.build(row.name, (row.pixels, row.pixels, 3), row.num_classes, **row.arguments)
        for layer in twin.modules():
            if isinstance(layer, torch.nn.Conv2d | torch.nn.Linear):
                layer.register_forward_hook(count)
        logits = twin(torch.zeros(2, 3, row.pixels, row.pixels))
    assert sum(weight.numel() for weight in twin.parameters() if weight.requires_grad) == row.trainable
    assert sum(macs) == row.macs and logits.shape == (2, row.num_classes)


@needs_torch
@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("fast_cifar10", {"widths": [8, 16, 24], "whitening": False}),
        ("cifar_resnet", {"depth": 8, "preactivation": True}),
        ("vgg16", {}),
    ],
)
def test_pytorch_twins_take_arguments_and_image_sizes(name, arguments):
    import torch

    from app.bench import torch_networks

    assert set(arguments) <= set(baselines.TORCH_NETWORKS[name])
    with torch.device("meta"):
        twin = torch_networks.build(name, (40, 36, 1), 5, **arguments)
    trained = sum(weight.numel() for weight in twin.parameters() if weight.requires_grad)
    assert trained == count_weights(build_model(name, (40, 36, 1), 5, **arguments).trainable_weights)


@needs_torch
def test_every_twin_is_known_without_pytorch():
    from app.bench import torch_networks

    assert set(torch_networks.NETWORKS) == set(baselines.TORCH_NETWORKS)
    for name, function in torch_networks.NETWORKS.items():
        assert set(inspect.signature(function).parameters) == {"num_classes", *baselines.TORCH_NETWORKS[name]}


@pytest.mark.slow
def test_a_folder_of_photographs_is_measured(tmp_path):
    theirs = tmp_path / "data" / "cifar10" / "x"
    theirs.parent.mkdir(parents=True)
    theirs.touch()
    command, environment = module_command("app.bench.large_folder", str(tmp_path), "32", "--images", "60")
    subprocess.run(command, env=environment, check=True, capture_output=True)
    found = read_json(tmp_path / "measured.json")
    whole = [values for name, values in found.items() if name != "killed"]
    assert len(whole) == 4 and all(each["images"] + each["bad"] == 60 for each in whole)
    suffixes = {path.suffix for path in (tmp_path / "photos").rglob("*.*")}
    assert suffixes == {".jpg", ".png", ".webp"} and theirs.exists()
