"""Reads the arrays of Keras' weight files by the names of their layers."""

from pathlib import Path
from typing import Any

import h5py
import numpy as np

from models.pretrained.published import KERAS_NORM

_KERNEL = ("kernel", "bias")


def read_keras_file(path: Path) -> dict[str, np.ndarray]:
    """Return the arrays of a `.h5` or `.weights.h5` file by `layer/variable`.

    Args:
        path: A file of Keras 2 (`keras.applications`), or of Keras 3's `model.save_weights`.

    Raises:
        ValueError: The file is no HDF5 file, is cut off, or holds no arrays.
    """
    arrays: dict[str, np.ndarray] = {}

    def keep(name: str, node: Any) -> None:
        if isinstance(node, h5py.Dataset) and node.dtype.kind == "f":
            layer, variable = name.split("/")[-2:]
            if layer == "vars":  # Keras 3 numbers a layer's variables and notes its name beside them
                names = KERAS_NORM if len(node.parent) == len(KERAS_NORM) else _KERNEL
                layer, variable = str(node.parent.attrs.get("name")), names[int(variable)]
            arrays[f"{layer}/{variable.removesuffix(':0')}"] = node[()]

    try:
        with h5py.File(path, "r") as file:
            file.visititems(keep)
    except (OSError, RuntimeError, KeyError, IndexError) as error:
        raise ValueError(f"cannot be read as an HDF5 file: {error}") from error
    if not arrays:
        raise ValueError("holds no arrays")
    return arrays
