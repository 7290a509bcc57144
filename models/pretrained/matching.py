"""Puts published arrays into a network's variables, each array into its variable and none left over."""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import keras
import numpy as np

from models.pretrained.published import KERAS_NORM, Layout, PublishedLayer
from models.variables import assign

_TORCH_NORM = ("weight", "bias", "running_mean", "running_var")
_NOT_NEEDED = "num_batches_tracked"  # PyTorch's count of batches, by which nothing is computed


class Match(NamedTuple):
    """What became of the arrays: variables with their values, and the paths of those that stay new."""

    values: list[tuple[keras.Variable, np.ndarray]]
    new: list[str]

    def assign(self) -> None:
        """Put the values into the variables."""
        for variable, value in self.values:
            assign(variable, value)


def match(
    layers: Iterable[PublishedLayer],
    arrays: Mapping[str, np.ndarray],
    layout: Layout,
    *,
    blue_first: bool = False,
) -> Match:
    """Find the value of every variable of a network.

    Convolutions that have a bias in the file and none here pass it on to the normalisation behind them: its
    moving mean becomes smaller by the bias, which gives the same outputs.

    Args:
        layers: The network's layers with weights in the order of computation, the head last.
        arrays: Arrays by name.
        layout: Whose names and axes the arrays have.
        blue_first: Whether the file's network takes the channels of images in reverse order.

    Returns:
        The values; the head keeps its own where the file has another number of classes, or no head.

    Raises:
        ValueError: Arrays without a variable or not finite, variables without an array, or shapes that
            differ; lists them.
    """
    layers = list(layers)
    unused = {name for name in arrays if not name.endswith(_NOT_NEEDED)}
    values: list[tuple[keras.Variable, np.ndarray]] = []
    wrong: list[str] = []
    new: list[str] = []
    bias: np.ndarray | float = 0.0
    for name, layer, channels in layers:
        is_norm = isinstance(layer, keras.layers.BatchNormalization)
        for variable, key in _keys(layer, layout):
            full = f"{name}{'.' if layout == 'torch' else '/'}{key}"
            is_head, prefix = layer is layers[-1].layer, full.removesuffix(key)
            if full not in arrays and is_head and not any(each.startswith(prefix) for each in arrays):
                new.append(variable.path)
                continue
            if full not in arrays:
                wrong.append(f"{variable.path} finds no array {full}")
                continue
            unused.discard(full)
            value = np.asarray(arrays[full], "float32")
            if not np.isfinite(value).all():
                wrong.append(f"{full} holds nan or infinity")
                continue
            if layout == "torch":
                value = _from_torch(value, layer, channels)
            if blue_first and layer is layers[0].layer and key != "bias":
                value = value[:, :, ::-1]
            if is_norm and key in ("running_mean", "moving_mean"):
                value = value - bias
            if value.shape == tuple(variable.shape):
                values.append((variable, value))
            elif is_head and value.shape[:-1] == tuple(variable.shape[:-1]):
                new.append(variable.path)
            else:
                wrong.append(f"{variable.path} has shape {tuple(variable.shape)}, {full} {value.shape}")
        full = f"{name}.bias" if layout == "torch" else f"{name}/bias"
        is_biased = not is_norm and full in unused
        bias = np.asarray(arrays[full], "float32") if is_biased else 0.0
        if is_biased:
            unused.discard(full)
    if not wrong and 0 < len(new) < len(layers[-1].layer.weights):
        wrong.append(f"{layers[-1].name} has another number of classes in one array than in the other")
    wrong += [f"array {name} of shape {arrays[name].shape} finds no variable" for name in sorted(unused)]
    if wrong:
        more = f"; and {len(wrong) - 5} more" if len(wrong) > 5 else ""
        raise ValueError(
            f"is not of this network with these arguments and this image size: {'; '.join(wrong[:5])}{more}"
        )
    return Match(values, new)


def _keys(layer: Any, layout: Layout) -> list[tuple[keras.Variable, str]]:
    """Return a layer's variables, each with the last part of its array's name."""
    if isinstance(layer, keras.layers.BatchNormalization):
        names = _TORCH_NORM if layout == "torch" else KERAS_NORM
        return list(
            zip((layer.gamma, layer.beta, layer.moving_mean, layer.moving_variance), names, strict=True)
        )
    kernel = "weight" if layout == "torch" else layer.kernel.name
    keys = [(layer.kernel, kernel)]
    return [*keys, (layer.bias, "bias")] if layer.use_bias else keys


def _from_torch(value: np.ndarray, layer: Any, channels: int) -> np.ndarray:
    """Turn a PyTorch array from (outputs, inputs, height, width) to (height, width, inputs, outputs)."""
    if isinstance(layer, keras.layers.DepthwiseConv2D) and value.ndim == 4:
        return value.transpose(2, 3, 0, 1)
    if value.ndim == 4:
        return value.transpose(2, 3, 1, 0)
    if value.ndim == 2 and channels:
        side = round((value.shape[1] / channels) ** 0.5)
        if side * side * channels != value.shape[1]:
            raise ValueError("its first dense layer reads a map that is no square: not known here")
        return value.reshape(-1, channels, side, side).transpose(2, 3, 1, 0).reshape(value.shape[::-1])
    return value.T if value.ndim == 2 else value
