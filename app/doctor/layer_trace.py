"""One training step layer by layer: how large all values are, and where they stop being finite."""

import contextlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import keras
import numpy as np
from keras import ops

from models.inspect import Call, intercepted, left_as_it_was, named_layers
from models.variables import non_finite_variable

Stage = Literal["images", "forward", "loss", "gradient", "update"]


@dataclass
class Passage:
    """One call of a layer. Sizes are largest absolute values, NaN or infinite where a value is.

    Attributes:
        path: The attributes that lead to the layer, such as units[3].conv1.
        layer: The layer.
        inputs: What went in, in the layer's precision.
        output: What came out.
        weight_size: Of the layer's weights before the step.
        output_size: Of what came out.
        gradient_size: Of the gradients of its weights, or, where it has none, of its output; None where
            none came.
    """

    path: str
    layer: keras.layers.Layer
    inputs: list[Any]
    output: Any
    weight_size: float
    output_size: float
    gradient_size: float | None = None


@dataclass(frozen=True)
class Culprit:
    """What first was not finite.

    Attributes:
        stage: Where in the step.
        what: The same in words.
        passages: All calls of layers in their order.
        index: The call in question.
    """

    stage: Stage
    what: str
    passages: Sequence[Passage]
    index: int


def find_in_step(
    classifier: keras.Model, images: np.ndarray, labels: np.ndarray
) -> tuple[list[Passage], Culprit | None]:
    """Compute one training step without its update, layer by layer, and leave the classifier as it was.

    Gradients are followed on TensorFlow only.

    Args:
        classifier: A compiled ImageClassifier.
        images: The batch (batch, height, width, channels), uint8.
        labels: Its labels (batch,).

    Returns:
        Every call of a layer in their order, and what first was not finite, None where all was.
    """
    with left_as_it_was(classifier), _watched(classifier) as passages:
        if keras.backend.backend() == "tensorflow":
            import tensorflow as tf  # absent where JAX trains

            with tf.GradientTape() as tape:
                loss = _loss(classifier, images, labels)
            culprit = _in_forward(passages, loss)
            if culprit is None:
                culprit = _in_backward(passages, tape, loss)
        else:
            culprit = _in_forward(passages, _loss(classifier, images, labels))
    return passages, culprit


def find_in_weights(classifier: keras.Model, passages: Sequence[Passage]) -> Culprit | None:
    """Return the first layer whose variables are not finite after the step's update, None if all are."""
    kinds: list[tuple[str, Stage, str]] = [
        ("trainable_weights", "update", "after the update"),
        ("non_trainable_weights", "forward", "which the forward pass updates"),  # moving statistics
    ]
    for weights, stage, when in kinds:
        for index, passage in enumerate(passages):
            for variable in getattr(passage.layer, weights):
                if not math.isfinite(_size(variable)):
                    return Culprit(stage, f"{passage.path}.{variable.name}, {when}", passages, index)
    name = non_finite_variable(classifier)
    return Culprit("update", f"{name} of the optimizer", passages, len(passages) - 1) if name else None


def _loss(classifier: keras.Model, images: np.ndarray, labels: np.ndarray) -> Any:
    logits = classifier(images, training=True)
    return classifier.compute_loss(images, ops.convert_to_tensor(labels), logits, training=True)


@contextlib.contextmanager
def _watched(classifier: keras.Model) -> Iterator[list[Passage]]:
    """Note every call of a layer while the block runs."""
    passages: list[Passage] = []
    layers = {id(layer): (path, layer) for path, layer in named_layers(classifier)}

    def note(layer: keras.layers.Layer, call: Call, *args: Any, **kwargs: Any) -> Any:
        weight_size = _size(*layer.weights)  # beforehand: the call moves statistics
        output = call(*args, **kwargs)
        inputs = [value for value in args if ops.is_tensor(value)]
        name = layers[id(layer)][0].removeprefix("network.")
        passages.append(Passage(name, layer, inputs, output, weight_size, _size(output)))
        return output

    with intercepted([layer for _, layer in layers.values()], note):
        yield passages


def _in_forward(passages: Sequence[Passage], loss: Any) -> Culprit | None:
    for index, passage in enumerate(passages):
        name = f"{passage.path} ({type(passage.layer).__name__})"
        if not math.isfinite(passage.weight_size):
            return Culprit("update", f"a weight of {name}, before the step", passages, index)
        if not math.isfinite(_size(*passage.inputs)):
            what = f"what goes into {name}, though all layers before it put out finite values"
            return Culprit("forward", what, passages, index)
        if not math.isfinite(passage.output_size):
            stage: Stage = (
                "images" if passage.path.startswith(("augmentation", "normalization")) else "forward"
            )
            return Culprit(stage, f"the output of {name}", passages, index)
    if not math.isfinite(_size(loss)):
        return Culprit("loss", "the loss, from finite logits", passages, len(passages) - 1)
    return None


def _in_backward(passages: Sequence[Passage], tape: Any, loss: Any) -> Culprit | None:
    """Fill in the passages' gradients; return where they first are not finite on the way back."""
    gradients = tape.gradient(
        loss,
        {
            index: {
                "output": [passage.output],
                "weights": [variable.value for variable in passage.layer.trainable_variables],
                "inputs": [value for value in passage.inputs if "float" in ops.dtype(value)],
            }
            for index, passage in enumerate(passages)
        },
    )
    for index, passage in enumerate(passages):
        found = gradients[index]["weights"] or gradients[index]["output"]
        if any(gradient is not None for gradient in found):
            passage.gradient_size = _size(*found)
    for index in reversed(range(len(passages))):
        name = f"{passages[index].path} ({type(passages[index].layer).__name__})"
        last = index == len(passages) - 1
        places = {
            "output": "the gradient of the loss" if last else f"the gradient on its way back to {name}",
            "weights": f"the gradient of the weights of {name}",
            "inputs": f"the gradient that {name} passes back",
        }
        for key, what in places.items():
            if not math.isfinite(_size(*gradients[index][key])):
                return Culprit("gradient", what, passages, index)
    return None


def _size(*values: Any) -> float:
    """Return the largest absolute value in all of `values`, NaN or infinite where one is; None is 0."""
    sizes = [
        float(np.max(np.abs(ops.convert_to_numpy(ops.cast(value, "float32"))), initial=0.0))
        for value in values
        if value is not None
    ]
    return float(np.max(sizes, initial=0.0))
