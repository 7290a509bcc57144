"""The networks and all else that a saved model holds; importing this package lets `.keras` files load.

Nothing here knows of `app`.
"""

import importlib
import os
import pkgutil

# Before TensorFlow is imported: without AVX-512 it leaves its oneDNN kernels off by itself. As in app.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")

from models.augmentation import augmentation_layer
from models.classifier import ImageClassifier
from models.normalization import Normalization
from models.registry import build_model, list_models, published_networks

__all__ = [
    "ImageClassifier",
    "Normalization",
    "augmentation_layer",
    "build_model",
    "list_models",
    "published_networks",
]

# The order of tables: the ten networks of the sources, the quickest to 90 % on a CPU, the families of the
# papers. Networks in files that are not named here follow.
_ORDER = (
    "baseline", "lenet", "alexnet", "vgg16", "inception", "resnet18", "shallow_res", "minimodel", "resnet50",
    "resnet18_d2l", "fast_cifar", "resnet", "vgg", "cifar_resnet",
)  # fmt: skip
for _module in (*_ORDER, *(module.name for module in pkgutil.iter_modules(__path__))):
    importlib.import_module(f"{__name__}.{_module}")
