"""The datasets by name, one file a source. Importing this package registers them all."""

import importlib
import pkgutil
from collections.abc import Callable

from app.config.dataset import DatasetConfig
from app.data.dataset import Source

Loader = Callable[[DatasetConfig], Source]
LOADERS: dict[str, Loader] = {}


def dataset(name: str) -> Callable[[Loader], Loader]:
    """Register a loader, which takes an experiment's `dataset:` section, under the name that they use."""

    def register(loader: Loader) -> Loader:
        LOADERS[name] = loader
        return loader

    return register


for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")
