"""Gradient norms by depth, and the size of each residual unit's branch and shortcut.

Both look at one batch as a training step would, with the batch's own statistics in every normalisation and
without augmentation, and leave the classifier as it was.
"""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from app.errors import UserError
from app.inference.gradcam import noted
from models import ImageClassifier
from models.inspect import left_as_it_was, named_layers
from models.networks.cifar_resnet import CifarUnit
from models.networks.minimodel import MiniModelUnit


def gradient_norms(classifier: ImageClassifier, images: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return the norm of the loss gradient for each convolution's kernel.

    Args:
        classifier: Trained or not, compiled or not.
        images: The batch (batch, height, width, channels), uint8.
        labels: Its labels (batch,).

    Returns:
        The L2 norm of the cross-entropy's gradient by each convolution's kernel, the first layer first.
    """
    import tensorflow as tf  # absent where JAX trains

    convolutions = [
        layer for _, layer in named_layers(classifier.network) if isinstance(layer, keras.layers.Conv2D)
    ]
    with left_as_it_was(classifier), tf.GradientTape() as tape:
        logits, truth = _training_logits(classifier, images), ops.convert_to_tensor(labels)
        loss = ops.mean(keras.losses.sparse_categorical_crossentropy(truth, logits, from_logits=True))
    gradients = tape.gradient(loss, [layer.kernel.value for layer in convolutions])
    return np.array([np.linalg.norm(ops.convert_to_numpy(ops.cast(g, "float32"))) for g in gradients])


def residual_sizes(classifier: ImageClassifier, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return how large the branch and the shortcut of each residual unit are.

    In a pre-activation unit, whose sum nothing follows, the branch is what its last convolution puts out,
    and `drop_path` leaves of it, and the shortcut is the rest of the sum. He et al. 2016, arXiv:1603.05027,
    equation 2 with h(x) = x.

    Args:
        classifier: With a network of pre-activation units: minimodel, or cifar_resnet with `preactivation`.
        images: The batch (batch, height, width, channels), uint8.

    Returns:
        The root mean squares of the branches and of the shortcuts, the first unit first.

    Raises:
        UserError: The network has no such units.
    """
    units = getattr(classifier.network, "units", [])
    if not units or not all(map(_is_preactivated, units)):
        raise UserError(
            f"residual_sizes: {type(classifier.network).__name__} here is not made of pre-activation "
            "units; minimodel is, and cifar_resnet with preactivation: true"
        )
    last_layers = [unit.drop if isinstance(unit.drop, keras.layers.Layer) else unit.conv2 for unit in units]
    with left_as_it_was(classifier), noted(last_layers) as ends, noted(units) as sums:
        _training_logits(classifier, images)
    branches, totals = (
        [ops.convert_to_numpy(ops.cast(value, "float32")) for _, is_taken, value in calls if not is_taken]
        for calls in (ends, sums)
    )
    shortcuts = [total - branch for total, branch in zip(totals, branches, strict=True)]
    return _root_mean_squares(branches), _root_mean_squares(shortcuts)


def _is_preactivated(unit: keras.layers.Layer) -> bool:
    if isinstance(unit, CifarUnit):
        return unit.preactivation and unit.shortcut
    return isinstance(unit, MiniModelUnit)


def _training_logits(classifier: ImageClassifier, images: np.ndarray) -> Any:
    pixels = classifier.normalization(ops.cast(images, "float32"))
    return ops.cast(classifier.network(pixels, training=True), "float32")


def _root_mean_squares(tensors: Sequence[Any]) -> np.ndarray:
    return np.array([np.sqrt(np.mean(np.square(tensor, dtype=np.float64))) for tensor in tensors])
