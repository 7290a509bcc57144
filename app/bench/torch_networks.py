"""The networks of the bench in PyTorch: the same layers, sizes and counts as ours, channels-last inside."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn import functional


def _conv(inputs: int, outputs: int, size: int, stride: int = 1, bias: bool = False) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, size, stride=stride, padding=size // 2, bias=bias)


class _ResNetBlock(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int):
        super().__init__()
        self.conv1, self.norm1 = _conv(inputs, outputs, 3, stride), nn.BatchNorm2d(outputs)
        self.conv2, self.norm2 = _conv(outputs, outputs, 3), nn.BatchNorm2d(outputs)
        self.shortcut = nn.Sequential()
        if stride > 1:
            self.shortcut = nn.Sequential(_conv(inputs, outputs, 1, stride), nn.BatchNorm2d(outputs))

    def forward(self, x: Any) -> Any:
        y = functional.relu(self.norm1(self.conv1(x)))
        return functional.relu(self.norm2(self.conv2(y)) + self.shortcut(x))


def _resnet18(num_classes: int) -> nn.Module:
    blocks: list[nn.Module] = []
    channels = 64
    for filters in (64, 128, 256, 512):
        blocks.append(_ResNetBlock(channels, filters, 1 if filters == 64 else 2))
        blocks.append(_ResNetBlock(filters, filters, 1))
        channels = filters
    stem = [_conv(3, 64, 3), nn.BatchNorm2d(64), nn.ReLU()]
    return nn.Sequential(*stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, num_classes))


class _MiniModelUnit(nn.Module):
    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.halve = inputs != outputs
        if self.halve:
            self.shortcut = _conv(inputs, outputs, 1, 2, bias=True)
        self.norm1, self.conv1 = nn.BatchNorm2d(inputs), _conv(inputs, outputs, 3, bias=True)
        self.norm2, self.conv2 = nn.BatchNorm2d(outputs), _conv(outputs, outputs, 3, bias=True)

    def forward(self, x: Any) -> Any:
        shortcut = self.shortcut(x) if self.halve else x
        y = functional.max_pool2d(x, 2) if self.halve else x
        y = self.conv1(functional.relu(self.norm1(y)))
        return self.conv2(functional.relu(self.norm2(y))) + shortcut


def _minimodel(num_classes: int) -> nn.Module:
    units, channels = [], 32
    for filters in (32, 64, 128, 256):
        for _ in range(3):
            units.append(_MiniModelUnit(channels, filters))
            channels = filters
    end = [nn.BatchNorm2d(256), nn.ReLU(), nn.Dropout(0.25), nn.AvgPool2d(4), nn.Flatten()]
    return nn.Sequential(_conv(3, 32, 3, bias=True), *units, *end, nn.Linear(256, num_classes))


class _FastBlock(nn.Module):
    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.conv1, self.conv2 = _conv(inputs, outputs, 3), _conv(outputs, outputs, 3)
        self.norm1, self.norm2 = (nn.BatchNorm2d(outputs, eps=1e-12, momentum=0.4) for _ in range(2))
        for norm in (self.norm1, self.norm2):
            norm.weight.requires_grad_(False)

    def forward(self, x: Any) -> Any:
        x = functional.gelu(self.norm1(functional.max_pool2d(self.conv1(x), 2)))
        return functional.gelu(self.norm2(self.conv2(x)))


class _Ninth(nn.Module):
    def forward(self, x: Any) -> Any:
        return x / 9


def _fast_cifar10(num_classes: int) -> nn.Module:
    whitening = nn.Conv2d(3, 24, 2)
    whitening.weight.requires_grad_(False)
    blocks = [_FastBlock(24, 64), _FastBlock(64, 256), _FastBlock(256, 256)]
    end = [nn.MaxPool2d(3), nn.Flatten(), nn.Linear(256, num_classes, bias=False), _Ninth()]
    return nn.Sequential(whitening, nn.GELU(), *blocks, *end)


NETWORKS: dict[str, Callable[[int], nn.Module]] = {
    "resnet18": _resnet18,
    "minimodel": _minimodel,
    "fast_cifar10": _fast_cifar10,
}


def build(name: str, num_classes: int) -> torch.nn.Module:
    """Return a network of `NETWORKS` for 32x32 colour images, with its weights channels-last."""
    return NETWORKS[name](num_classes).to(memory_format=torch.channels_last)
