"""One training step layer by layer: how large all values are, and where they stop being finite."""

import contextlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import keras
import numpy as np
from keras import ops

from models.inspect import Call, intercepted, left_as_it_was, named_layers
from models.variables import non_finite_variable

Stage = Literal["images", "forward", "loss", "gradient", "update"]


@dataclass
class LayerCall:
    """One call of a layer. Sizes are largest absolute values, NaN or infinite where a value is."""

    path: str  # the attributes that lead to the layer, such as units.3.conv1
    layer: keras.layers.Layer
    inputs: list[Any]  # in the layer's precision, as the output
    output: Any
    weight_size: float  # before the step
    output_size: float
    gradient_size: float | None = None  # of its weights, or, where it has none, of its output


@dataclass(frozen=True)
class FirstNonFinite:
    """What first was not finite."""

    stage: Stage
    what: str  # the place in words
    calls: Sequence[LayerCall]  # all, in their order
    index: int  # of the call in question


def find_in_step(
    classifier: keras.Model, images: np.ndarray, labels: np.ndarray
) -> tuple[list[LayerCall], FirstNonFinite | None]:
    """Compute one training step without its update, layer by layer, and leave the classifier as it was.

    Gradients are followed on TensorFlow only.

    Args:
        classifier: A compiled ImageClassifier.
        images: The batch (batch, height, width, channels), uint8.
        labels: Its labels (batch,).

    Returns:
        Every call of a layer in their order, and what first was not finite, None where all was.
    """
    calls: list[LayerCall] = []
    layers, tape = [*named_layers(classifier)], None
    paths = {id(layer): path.removeprefix("network.") for path, layer in layers}

    def note(layer: keras.layers.Layer, call: Call, *args: Any, **kwargs: Any) -> Any:
        weight_size = _size(*layer.weights)  # beforehand: the call moves statistics
        output = call(*args, **kwargs)
        inputs = [value for value in args if ops.is_tensor(value)]
        calls.append(LayerCall(paths[id(layer)], layer, inputs, output, weight_size, _size(output)))
        return output

    with left_as_it_was(classifier), intercepted([layer for _, layer in layers], note):
        if keras.backend.backend() == "tensorflow":
            import tensorflow as tf  # absent where JAX trains

            tape = tf.GradientTape()
        with tape or contextlib.nullcontext():
            logits = classifier(images, training=True)
            loss = classifier.compute_loss(images, ops.convert_to_tensor(labels), logits, training=True)
        first = _in_forward(calls, loss)
        if first is None and tape:
            first = _in_backward(calls, tape, loss)
    return calls, first


def find_in_weights(classifier: keras.Model, calls: Sequence[LayerCall]) -> FirstNonFinite | None:
    """Return the first layer whose variables are not finite after the step's update, None if all are."""
    kinds: list[tuple[str, Stage, str]] = [
        ("trainable_weights", "update", "after the update"),
        ("non_trainable_weights", "forward", "which the forward pass updates"),  # moving statistics
    ]
    for weights, stage, when in kinds:
        for index, call in enumerate(calls):
            for variable in getattr(call.layer, weights):
                if not math.isfinite(_size(variable)):
                    return FirstNonFinite(stage, f"{call.path}.{variable.name}, {when}", calls, index)
    name = non_finite_variable(classifier)
    return FirstNonFinite("update", f"{name} of the optimizer", calls, len(calls) - 1) if name else None


def _in_forward(calls: Sequence[LayerCall], loss: Any) -> FirstNonFinite | None:
    for index, call in enumerate(calls):
        name = f"{call.path} ({type(call.layer).__name__})"
        if not math.isfinite(call.weight_size):
            return FirstNonFinite("update", f"a weight of {name}, before the step", calls, index)
        if not math.isfinite(_size(*call.inputs)):
            what = f"what goes into {name}, though all layers before it put out finite values"
            return FirstNonFinite("forward", what, calls, index)
        if not math.isfinite(call.output_size):
            stage: Stage = "images" if call.path.startswith(("augmentation", "normalization")) else "forward"
            return FirstNonFinite(stage, f"the output of {name}", calls, index)
    if not math.isfinite(_size(loss)):
        return FirstNonFinite("loss", "the loss, from finite logits", calls, len(calls) - 1)
    return None


def _in_backward(calls: Sequence[LayerCall], tape: Any, loss: Any) -> FirstNonFinite | None:
    """Fill in the calls' gradients on the way back, up to where they first are not finite; return that."""
    gradients = tape.gradient(
        loss,
        {
            index: {
                "output": [call.output],
                "weights": [variable.value for variable in call.layer.trainable_variables],
                "inputs": [value for value in call.inputs if "float" in ops.dtype(value)],
            }
            for index, call in enumerate(calls)
        },
    )
    for index, call in reversed([*enumerate(calls)]):
        found = gradients[index]["weights"] or gradients[index]["output"]
        if any(gradient is not None for gradient in found):
            call.gradient_size = _size(*found)
        name, last = f"{call.path} ({type(call.layer).__name__})", index == len(calls) - 1
        places = {
            "output": "the gradient of the loss" if last else f"the gradient on its way back to {name}",
            "weights": f"the gradient of the weights of {name}",
            "inputs": f"the gradient that {name} passes back",
        }
        for key, what in places.items():
            if not math.isfinite(_size(*gradients[index][key])):
                return FirstNonFinite("gradient", what, calls, index)
    return None


def _size(*values: Any) -> float:
    """Return the largest absolute value in all of `values`, NaN or infinite where one is; None is 0."""
    sizes = [
        float(np.max(np.abs(ops.convert_to_numpy(ops.cast(value, "float32"))), initial=0.0))
        for value in values
        if value is not None
    ]
    return float(np.max(sizes, initial=0.0))
