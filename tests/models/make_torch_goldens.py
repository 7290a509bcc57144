"""Makes torch_goldens.npz: what PyTorch computes for the two networks that were published in PyTorch.

Not a test and no dependency of the project. It was run once, from the checkout, with torch 2.13.0 (CPU):

    python -m venv torch-venv && torch-venv/bin/pip install torch==2.13.0 numpy
    torch-venv/bin/python -m tests.models.make_torch_goldens

The networks are written down from the sources' layer tables, independently of the Keras code. Logits are
those before the softmax.
"""

from pathlib import Path

import numpy as np
import torch
from torch import nn

from tests.models.golden_values import Values, images


class D2LBlock(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.side = nn.Conv2d(inputs, outputs, 1, stride=stride) if stride > 1 else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.relu(self.bn1(self.conv1(x)))
        y = torch.relu(self.bn2(self.conv2(y)))
        return torch.relu(y + (x if self.side is None else self.side(x)))


def resnet18_d2l() -> nn.Module:
    layers = [
        nn.Conv2d(3, 64, 7, stride=2),
        nn.BatchNorm2d(64, eps=1e-3),
        nn.ReLU(),
        nn.MaxPool2d(3, stride=2, padding=1),
    ]
    inputs = 64
    for outputs in (64, 128, 256, 512):
        layers += [D2LBlock(inputs, outputs, 1 if outputs == 64 else 2), D2LBlock(outputs, outputs, 1)]
        inputs = outputs
    return nn.Sequential(*layers, nn.AvgPool2d(3), nn.Flatten(), nn.Linear(512, 10))


class Bottleneck(nn.Module):
    def __init__(self, inputs: int, width: int, stride: int, project: bool) -> None:
        super().__init__()
        self.main = nn.Sequential(
            nn.Conv2d(inputs, width, 1, stride=stride),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Conv2d(width, 4 * width, 1),
            nn.BatchNorm2d(4 * width),
        )
        self.side = None
        if project:
            self.side = nn.Sequential(
                nn.Conv2d(inputs, 4 * width, 1, stride=stride), nn.BatchNorm2d(4 * width)
            )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.main(x) + (x if self.side is None else self.side(x)))


def resnet50() -> nn.Module:
    layers = [
        nn.Conv2d(3, 64, 7, stride=2, padding=3),
        nn.BatchNorm2d(64),
        nn.ReLU(),
        nn.MaxPool2d(3, stride=2),
    ]
    inputs = 64
    for width, number in ((64, 3), (128, 4), (256, 6), (512, 3)):
        for block in range(number):
            stride = 2 if block == 0 and width > 64 else 1
            layers.append(Bottleneck(inputs, width, stride, project=block == 0))
            inputs = 4 * width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(7), nn.Flatten(), nn.Linear(2048 * 7 * 7, 4))


@torch.no_grad()
def fill(network: nn.Module, values: Values) -> None:
    """Sets all weights; `modules()` lists them in the order in which they were made."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.weight.copy_(torch.from_numpy(values.kernel(*module.weight.shape)))
            if module.bias is not None:
                module.bias.copy_(torch.from_numpy(values.bias(len(module.bias))))
        elif isinstance(module, nn.BatchNorm2d):
            tensors = (module.weight, module.bias, module.running_mean, module.running_var)
            for tensor, value in zip(tensors, values.normalization(len(module.weight)), strict=True):
                tensor.copy_(torch.from_numpy(value))


@torch.no_grad()
def main() -> None:
    goldens = {}
    for name, make, sizes in (("resnet18_d2l", resnet18_d2l, (71, 96)), ("resnet50", resnet50, (96, 224))):
        for pixels in sizes:
            network = make()
            fill(network, Values(seed=1))
            batch = torch.from_numpy(images(pixels)).permute(0, 3, 1, 2)
            goldens[f"{name}_{pixels}_inference"] = network.eval()(batch).numpy()
            goldens[f"{name}_{pixels}_training"] = network.train()(batch).numpy()
    for key, logits in goldens.items():
        print(key, logits.shape, "deviation over the batch", logits.std(axis=0).round(3))
    np.savez(Path(__file__).with_name("torch_goldens.npz"), **goldens)


if __name__ == "__main__":
    main()
