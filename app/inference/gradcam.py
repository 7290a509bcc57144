"""Grad-CAM: the regions of an image that support the predicted class.

Selvaraju et al. 2017, arXiv:1610.02391, section 3.
"""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import ops

from app.errors import UserError
from app.inference.load import batches_of, finite_logits
from models import ImageClassifier
from models.inspect import Call, intercepted

BATCH_SIZE = 8  # the maps of a large network are large
Calls = list[tuple[keras.layers.Layer, bool, Any]]  # a layer, and what it takes in (True) or puts out (False)


@dataclass(frozen=True)
class Attention:
    """The logits of images, and the regions that support the predicted class."""

    logits: np.ndarray  # (images, classes)
    heat: np.ndarray  # (images, rows, columns), 0 or more: how much each place supports the predicted class
    maps: str  # what they are, as in `maps of conv5`: of a layer or block, or that one takes in


def first_kernel(classifier: ImageClassifier, image: np.ndarray) -> np.ndarray | None:
    """Return the kernel (height, width, inputs, outputs) of the first convolution that an image meets."""
    for layer, *_ in _all_calls(classifier, image):
        kernel = getattr(layer, "kernel", None)
        if kernel is not None and len(kernel.shape) == 4:
            return _float32(kernel)
    return None


def grad_cam(classifier: ImageClassifier, images: np.ndarray, run_name: str) -> Attention:
    """Compute Grad-CAM for the predicted classes.

    The maps are the last that have more than one place and that a layer or block puts out or takes in: of a
    residual block thus the sum and not one of its branches, before a pooling layer what an activation, which
    is no layer, has made of a normalisation. Each map's weight is the mean over its places of the logit's
    gradient (equation 1); the heat is the weighted sum of the maps where it is above 0 (equation 2).

    Args:
        classifier: In any precision; the sums are in float32.
        images: (images, height, width, channels), uint8.
        run_name: For messages.

    Raises:
        UserError: No layer of the network puts out maps, or the outputs are not finite.
    """
    import tensorflow as tf  # absent where JAX trains

    calls = [call for call in _all_calls(classifier, images[0]) if _has_places(call[2])]
    if all(is_taken for _, is_taken, _ in calls):
        raise UserError(
            f"explain: {type(classifier.network).__name__} has no layer that puts out maps of more than one "
            "place, which Grad-CAM needs; it is for convolutional networks"
        )
    layer, takes, last = calls[-1]
    makers = [each for each, is_taken, value in calls if value is last and not is_taken]
    if makers:  # what a pooling layer takes in is a layer's output nearly always
        layer, takes = makers[-1], False
    logits, heat = [], []
    for batch in batches_of(images, BATCH_SIZE):
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            with noted([layer], tape, takes) as heard:
                answers = classifier(batch, training=False)
            predicted = tf.one_hot(tf.argmax(answers, axis=-1), answers.shape[-1], dtype=answers.dtype)
            # No image influences another, so the gradient of the sum holds that of each image's own logit.
            score = tf.reduce_sum(answers * predicted)
        output = next(value for _, is_taken, value in reversed(heard) if is_taken == takes)
        gradient = tape.gradient(score, output, unconnected_gradients="zero")
        weights = np.mean(_float32(gradient), axis=(1, 2), keepdims=True)
        heat.append(np.maximum(np.sum(weights * _float32(output), axis=-1), 0.0))
        logits.append(_float32(answers))
    all_heat = finite_logits(np.concatenate(heat), run_name)
    words = f"maps that {layer.name} takes in" if takes else f"maps of {layer.name}"
    return Attention(finite_logits(np.concatenate(logits), run_name), all_heat, words)


def _has_places(value: Any) -> bool:
    return len(getattr(value, "shape", ())) == 4 and value.shape[1] * value.shape[2] > 1


def _float32(tensor: Any) -> np.ndarray:
    return ops.convert_to_numpy(ops.cast(tensor, "float32"))


def _all_calls(classifier: ImageClassifier, image: np.ndarray) -> Calls:
    """Return every layer and block with what it takes in and puts out for an image."""
    with noted(classifier.network._flatten_layers(include_self=False)) as calls:
        classifier(image[np.newaxis], training=False)
    return calls


@contextlib.contextmanager
def noted(layers: list[keras.layers.Layer], tape: Any = None, takes: bool = False) -> Iterator[Calls]:
    """Note what layers take in and put out while the block runs, call by call.

    A tape, if given, watches what they put out, with `takes` what they take in.
    """
    calls: Calls = []

    def note(layer: keras.layers.Layer, is_taken: bool, value: Any) -> Any:
        if tape is not None and is_taken == takes:
            tape.watch(value)
        calls.append((layer, is_taken, value))
        return value

    def handle(layer: keras.layers.Layer, call: Call, *args: Any, **kwargs: Any) -> Any:
        for value in args[:1]:
            note(layer, True, value)
        return note(layer, False, call(*args, **kwargs))

    with intercepted(layers, handle):
        yield calls
