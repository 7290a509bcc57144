"""The datasets by name, one file a source. Importing this package registers them all."""

import importlib
import pkgutil
from collections.abc import Callable
from pathlib import Path

from app.config.dataset import DatasetConfig
from app.data.dataset import Source

Loader = Callable[[DatasetConfig, Path], Source]
LOADERS: dict[str, Loader] = {}


def dataset(name: str) -> Callable[[Loader], Loader]:
    """Register a loader under the name that experiments use.

    A loader takes an experiment's `dataset:` section and the data root, in which `<name>/` is looked for.
    """

    def register(loader: Loader) -> Loader:
        LOADERS[name] = loader
        return loader

    return register


for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")
