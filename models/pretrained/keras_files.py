"""Reads the arrays of Keras' weight files by the names of their layers."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from models.pretrained.published import KERAS_NORM

_KERNEL = ("kernel", "bias")
_HEADS = {"probs": "predictions", "fc1000": "predictions"}  # of older versions of keras.applications


def read_keras_file(path: Path) -> dict[str, np.ndarray]:
    """Return the arrays of a `.h5` or `.weights.h5` file by `layer/variable`.

    Args:
        path: A file of Keras 2 (`keras.applications`), or of Keras 3's `model.save_weights`.

    Raises:
        ValueError: The file is no HDF5 file, is cut off, or holds no arrays.
    """
    arrays: dict[str, np.ndarray] = {}

    def keep(layer: str, values: Sequence[np.ndarray]) -> None:
        names = KERAS_NORM if len(values) == len(KERAS_NORM) else _KERNEL
        for variable, value in zip(names, values, strict=False):
            if value.dtype.kind == "f":  # not the state of a random generator
                arrays[f"{_HEADS.get(layer, layer)}/{variable}"] = value

    def keep_numbered(name: str, node: Any) -> None:
        is_layer = "optimizer" not in name.split("/")  # of a compiled model
        if is_layer and isinstance(node, h5py.Group) and "vars" in node and len(node["vars"]):
            numbered = node["vars"]
            keep(str(numbered.attrs.get("name")), [numbered[key][()] for key in sorted(numbered, key=int)])

    try:
        with h5py.File(path, "r") as file:
            layers = file.get("model_weights", file)
            if "layer_names" in layers.attrs:  # Keras 2, whose arrays had several names over the years
                for layer in map(_text, layers.attrs["layer_names"]):
                    group = layers[layer]
                    keep(layer, [group[_text(name)][()] for name in group.attrs["weight_names"]])
            else:  # Keras 3 numbers a layer's variables and notes its name beside them
                file.visititems(keep_numbered)
    except (OSError, RuntimeError, KeyError, IndexError) as error:
        raise ValueError(f"cannot be read as an HDF5 file: {error}") from error
    if not arrays:
        raise ValueError("holds no arrays")
    return arrays


def _text(name: str | bytes) -> str:
    return name.decode() if isinstance(name, bytes) else name
