"""The networks of models/ in PyTorch: the same layers, sizes and counts as ours, channels-last inside.

Every name of the registry has its function here; `app.bench.baselines`, which can be read without PyTorch,
says which arguments each takes. Layers find out the channels of their input in a first pass (`nn.Lazy*`).
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn import functional


def _conv(outputs: int, size: int, stride: int = 1, bias: bool = True, pad: bool = True) -> nn.Module:
    return nn.LazyConv2d(outputs, size, stride, size // 2 if pad else 0, bias=bias)


_norm = nn.LazyBatchNorm2d


def _unit(outputs: int, size: int, stride: int = 1, bias: bool = True, pad: bool = True) -> list[Any]:
    """Return convolution, normalisation and ReLU."""
    return [_conv(outputs, size, stride, bias, pad), _norm(), nn.ReLU()]


def _head(num_classes: int) -> list[nn.Module]:
    return [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.LazyLinear(num_classes)]


class _Sum(nn.Module):
    """A body added to a shortcut, the identity by default."""

    def __init__(self, body: list[nn.Module], shortcut: nn.Module | None = None, relu: bool = True):
        super().__init__()
        self.body, self.shortcut, self.relu = nn.Sequential(*body), shortcut or nn.Identity(), relu

    def forward(self, x: Any) -> Any:
        y = self.body(x) + self.shortcut(x)
        return functional.relu(y) if self.relu else y


class _Branches(nn.Module):
    """Several ways through, their channels side by side."""

    def __init__(self, *branches: list[nn.Module]):
        super().__init__()
        self.branches = nn.ModuleList(nn.Sequential(*branch) for branch in branches)

    def forward(self, x: Any) -> Any:
        return torch.cat([branch(x) for branch in self.branches], 1)


class _EverySecond(nn.Module):
    """Every `stride`-th pixel, new channels zero: the shortcut without parameters."""

    def __init__(self, outputs: int, stride: int):
        super().__init__()
        self.outputs, self.stride = outputs, stride

    def forward(self, x: Any) -> Any:
        new_channels = self.outputs - x.shape[1]
        return functional.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, new_channels))


class _Ninth(nn.Module):
    def forward(self, x: Any) -> Any:
        return x / 9


def _baseline(num_classes: int) -> list[nn.Module]:
    stem = [*_unit(6, 5), nn.MaxPool2d(2, ceil_mode=True), nn.Dropout(0.2), nn.Flatten()]
    return [*stem, nn.LazyLinear(128), nn.ReLU(), nn.Dropout(0.2), nn.LazyLinear(num_classes)]


def _lenet5(num_classes: int) -> list[nn.Module]:
    maps: list[nn.Module] = []
    for filters in (6, 16):
        maps += [_conv(filters, 5, pad=False), nn.Sigmoid(), nn.MaxPool2d(2)]
    hidden = [nn.LazyLinear(120), nn.Sigmoid(), nn.LazyLinear(84), nn.Sigmoid()]
    return [*maps, nn.Flatten(), *hidden, nn.LazyLinear(num_classes)]


def _hidden(units: int, dropout: float) -> list[nn.Module]:
    return [layer for _ in range(2) for layer in (nn.LazyLinear(units), nn.ReLU(), nn.Dropout(dropout))]


def _alexnet8(num_classes: int) -> list[nn.Module]:
    maps: list[nn.Module] = []
    for filters in (96, 256):
        maps += [*_unit(filters, 3, pad=False), nn.MaxPool2d(3, 2)]
    for filters in (384, 384, 256):
        maps += [_conv(filters, 3), nn.ReLU()]
    return [*maps, nn.MaxPool2d(3, 2), nn.Flatten(), *_hidden(2048, 0.5), nn.LazyLinear(num_classes)]


def _vgg_maps(depth: int, layers: Callable[[int], list[nn.Module]], end: list[nn.Module]) -> list[nn.Module]:
    """Return five stages: `layers` for each convolution, then `end`."""
    maps: list[nn.Module] = []
    counts = {16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}[depth]
    for filters, count in zip((64, 128, 256, 512, 512), counts, strict=True):
        maps += [layer for _ in range(count) for layer in layers(filters)]
        maps += end
    return maps


def _vgg16(num_classes: int) -> list[nn.Module]:
    end = [nn.MaxPool2d(2, ceil_mode=True), nn.Dropout(0.2)]
    maps = _vgg_maps(16, lambda filters: _unit(filters, 3), end)
    return [*maps, nn.Flatten(), *_hidden(512, 0.2), nn.LazyLinear(num_classes)]


def _vgg(num_classes: int, depth: int = 16) -> list[nn.Module]:
    maps = _vgg_maps(depth, lambda filters: [_conv(filters, 3), nn.ReLU()], [nn.MaxPool2d(2)])
    return [*maps, nn.Flatten(), *_hidden(4096, 0.5), nn.LazyLinear(num_classes)]


def _inception10(num_classes: int) -> list[nn.Module]:
    cells = []
    for filters in (16, 32):
        for stride in (2, 1):
            one, two, three, four = (_unit(filters, 1, stride) for _ in range(4))
            pooled = [nn.MaxPool2d(3, 1, 1), *four]
            cells.append(_Branches(one, [*two, *_unit(filters, 3)], [*three, *_unit(filters, 5)], pooled))
    return [*_unit(16, 3), *cells, *_head(num_classes)]


def _basic(filters: int, stride: int, bias: bool) -> list[nn.Module]:
    """Return two 3x3 convolutions with their normalisations, a ReLU between them."""
    return [*_unit(filters, 3, stride, bias), _conv(filters, 3, bias=bias), _norm()]


def _bottleneck(filters: int, stride: int, bias: bool, stride_on: str) -> list[nn.Module]:
    first, middle = (stride, 1) if stride_on == "first" else (1, stride)
    start = [*_unit(filters, 1, first, bias=bias), *_unit(filters, 3, middle, bias=bias)]
    return [*start, _conv(4 * filters, 1, bias=bias), _norm()]


def _stages(*units: int, bottleneck: bool, bias: bool = False, stride_on: str = "first") -> list[nn.Module]:
    """Return four stages of residual units; the first of a stage has a projection where its shape changes."""
    made: list[nn.Module] = []
    for filters, count in zip((64, 128, 256, 512), units, strict=True):
        for unit in range(count):
            stride = 2 if filters > 64 and unit == 0 else 1
            if bottleneck:
                outputs, body = 4 * filters, _bottleneck(filters, stride, bias, stride_on)
            else:
                outputs, body = filters, _basic(filters, stride, bias)
            changes = unit == 0 and (bottleneck or filters > 64)
            shortcut = nn.Sequential(_conv(outputs, 1, stride, bias), _norm()) if changes else None
            made.append(_Sum(body, shortcut))
    return made


def _shallow_res(num_classes: int) -> list[nn.Module]:
    stem = [*_unit(64, 7, 2), nn.MaxPool2d(3, 2, 1)]
    return [*stem, *_stages(1, 1, 1, 1, bottleneck=False, bias=True), *_head(num_classes)]


RESNET_UNITS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}


def _resnet(
    num_classes: int, depth: int = 50, stem: str = "imagenet", stride_on: str = "first"
) -> list[nn.Module]:
    imagenet = [*_unit(64, 7, 2, bias=False), nn.MaxPool2d(3, 2, 1)]
    start = imagenet if stem == "imagenet" else _unit(64, 3, bias=False)
    stages = _stages(*RESNET_UNITS[depth], bottleneck=depth >= 50, stride_on=stride_on)
    return [*start, *stages, *_head(num_classes)]


def _resnet18(num_classes: int) -> list[nn.Module]:
    return _resnet(num_classes, depth=18, stem="cifar")


def _resnet50(num_classes: int) -> list[nn.Module]:
    stages = _stages(3, 4, 6, 3, bottleneck=True, bias=True)
    end = [nn.AdaptiveAvgPool2d(7), nn.Flatten(), nn.LazyLinear(num_classes)]
    return [*_unit(64, 7, 2), nn.MaxPool2d(3, 2), *stages, *end]


def _resnet18_d2l(num_classes: int) -> list[nn.Module]:
    layers = [*_unit(64, 7, 2, pad=False), nn.MaxPool2d(3, 2, 1)]
    for filters in (64, 128, 256, 512):
        for block in range(2):
            halves = filters > 64 and block == 0
            body = [*_unit(filters, 3, 2 if halves else 1, bias=False), *_unit(filters, 3, bias=False)]
            layers.append(_Sum(body, _conv(filters, 1, 2) if halves else None))
    return [*layers, nn.AvgPool2d(3), nn.Flatten(), nn.LazyLinear(num_classes)]


def _minimodel(num_classes: int) -> list[nn.Module]:
    units = []
    for filters in (32, 64, 128, 256):
        for unit in range(3):
            halves = filters > 32 and unit == 0
            body = [nn.MaxPool2d(2)] if halves else []
            body += [_norm(), nn.ReLU(), _conv(filters, 3), _norm(), nn.ReLU(), _conv(filters, 3)]
            units.append(_Sum(body, _conv(filters, 1, 2) if halves else None, relu=False))
    end = [_norm(), nn.ReLU(), nn.Dropout(0.25), nn.AvgPool2d(4), nn.Flatten()]
    return [_conv(32, 3), *units, *end, nn.LazyLinear(num_classes)]


def _cifar_resnet(
    num_classes: int, depth: int = 20, shortcuts: bool = True, preactivation: bool = False
) -> list[nn.Module]:
    layers = _unit(16, 3, bias=False)
    for filters in (16, 32, 64):
        for unit in range((depth - 2) // 6):
            stride = 2 if filters > 16 and unit == 0 else 1
            if preactivation:
                start = [] if filters == 16 and unit == 0 else [_norm(), nn.ReLU()]
                body = [*start, *_unit(filters, 3, stride, bias=False), _conv(filters, 3, bias=False)]
            else:
                body = _basic(filters, stride, bias=False)
            if shortcuts:
                layers.append(_Sum(body, _EverySecond(filters, stride), relu=not preactivation))
            else:
                layers += body if preactivation else [*body, nn.ReLU()]
    return [*layers, *([_norm(), nn.ReLU()] if preactivation else []), *_head(num_classes)]


def _fast_cifar10(
    num_classes: int, widths: tuple[int, ...] = (64, 256, 256), whitening: bool = True, channels: int = 3
) -> list[nn.Module]:
    stem = nn.LazyConv2d(8 * channels if whitening else 24, 2)
    if whitening:
        stem.weight = nn.UninitializedParameter(requires_grad=False)
    layers: list[nn.Module] = [stem, nn.GELU()]
    for width in widths:
        norms = [nn.BatchNorm2d(width, eps=1e-12, momentum=0.4) for _ in range(2)]
        for norm in norms:
            norm.weight.requires_grad_(False)
        layers += [_conv(width, 3, bias=False), nn.MaxPool2d(2), norms[0], nn.GELU()]
        layers += [_conv(width, 3, bias=False), norms[1], nn.GELU()]
    return [*layers, nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.LazyLinear(num_classes, bias=False), _Ninth()]


_FUNCTIONS = (
    _baseline, _lenet5, _alexnet8, _vgg16, _inception10, _resnet18, _shallow_res, _minimodel, _resnet50,
    _resnet18_d2l, _fast_cifar10, _resnet, _cifar_resnet, _vgg,
)  # fmt: skip
NETWORKS: dict[str, Callable[..., list[nn.Module]]] = {each.__name__[1:]: each for each in _FUNCTIONS}


def build(name: str, image_shape: tuple[int, int, int], num_classes: int, **arguments: Any) -> nn.Module:
    """Return a network of `NETWORKS` for (height, width, channels), with its weights channels-last."""
    height, width, channels = image_shape
    if name == "fast_cifar10":
        arguments["channels"] = channels
    network = nn.Sequential(*NETWORKS[name](num_classes, **arguments)).eval()
    with torch.no_grad():
        network(torch.zeros(1, channels, height, width))
    return network.train().to(memory_format=torch.channels_last)
