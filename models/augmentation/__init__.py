"""Which image layers an experiment may name under `augmentation`, and the function that makes one.

They are our own, which `@augmentation` registers from the files of this package, and those of Keras that draw
for each image, keep the shape, do what their documentation says, and can be compiled on every backend. The
others are refused, each with its reason.
"""

import importlib
import pkgutil
import re
from typing import Any, TypeVar

import keras

_Class = TypeVar("_Class", bound=type[keras.layers.Layer])
_KERAS_LAYERS = ("RandomBrightness", "RandomGrayscale", "RandomInvert")
_NOT_COMPILED = "it cannot be compiled and would switch compilation off for the whole model"
_LABELS = "it mixes images, but not the labels that belong to them here; use "
_NO_DRAW = "it draws nothing: every training image would change in a way that evaluation never sees"
REFUSED: dict[str, str] = {
    "aug_mix": _NOT_COMPILED,
    "auto_contrast": _NO_DRAW,
    "center_crop": "it changes the images' size; use dataset.image_size with resize: crop",
    "contrast_limited_adaptive_histogram_equalization": _NO_DRAW,
    "cut_mix": _LABELS + "cutmix",
    "equalization": _NO_DRAW,
    "max_num_bounding_boxes": "it works on bounding boxes, and images here have labels only",
    "mix_up": _LABELS + "mixup",
    "random_elastic_transform": _NOT_COMPILED,
    "random_gaussian_blur": "it draws the strength once a batch, not for each image",
    "resizing": "it changes the images' size; use dataset.image_size",
}


def _snake_case(name: str) -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower()


LAYERS: dict[str, type[keras.layers.Layer]] = {  # by the names that experiments use
    _snake_case(name): getattr(keras.layers, name) for name in _KERAS_LAYERS
}


def augmentation(cls: _Class) -> _Class:
    """Decorate a layer: experiments find it under its snake_case name, `.keras` files find its class."""
    LAYERS[_snake_case(cls.__name__)] = cls
    return keras.saving.register_keras_serializable("models")(cls)


def augmentation_layer(name: str, **arguments: Any) -> keras.layers.Layer:
    """Make the layer that an experiment names.

    Args:
        name: A key of `LAYERS`.
        **arguments: The layer's own arguments. Keras' layers compute in float32 whatever the policy.

    Returns:
        The layer, to be called with `training=True`.

    Raises:
        ValueError: The layer is refused, unknown, or does not take these arguments.
    """
    if name in REFUSED:
        raise ValueError(f"augmentation layer cannot be used: {REFUSED[name]}. Received: {name!r}")
    if name not in LAYERS:
        raise ValueError(f"augmentation must be one of {', '.join(sorted(LAYERS))}. Received: {name!r}")
    try:
        return LAYERS[name](**{"dtype": "float32", **arguments})
    except (TypeError, ValueError) as error:
        raise ValueError(f"augmentation layer {name!r}: {error}. Received: {arguments!r}") from error


for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")
