"""The networks and all else that a saved model holds; importing this package lets `.keras` files load.

Nothing here knows of `app`.
"""

import os

# Before TensorFlow is imported: without AVX-512 it leaves its oneDNN kernels off by itself. As in app.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")

from models import networks  # noqa: F401 - registers them
from models.augmentation import augmentation_layer
from models.classifier import ImageClassifier
from models.normalization import Normalization
from models.registry import build_model, published_networks

__all__ = [
    "ImageClassifier",
    "Normalization",
    "augmentation_layer",
    "build_model",
    "published_networks",
]
