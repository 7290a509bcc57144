"""Which image layers an experiment may name under `augmentation`, and the function that makes one.

Our own (augmentation_layers.py, affine_layers.py, color_layers.py, tone_layers.py) come first, then those of
Keras that draw for each image, keep the shape, do what their documentation says, and can be compiled on every
backend. The others are refused, each with its reason.
"""

import re
from typing import Any

import keras

from models.augmentation.affine_layers import RandomAffine, RandomRotation, RandomTranslation
from models.augmentation.color_layers import (
    RandomColorDegeneration,
    RandomColorJitter,
    RandomContrast,
    RandomSaturation,
)
from models.augmentation.pixel_layers import RandomCrop, RandomFlip
from models.augmentation.tone_layers import RandomPosterization, RandomSharpness, Solarization

OUR_LAYERS: dict[str, type[keras.layers.Layer]] = {
    "random_affine": RandomAffine,
    "random_color_degeneration": RandomColorDegeneration,
    "random_color_jitter": RandomColorJitter,
    "random_contrast": RandomContrast,
    "random_crop": RandomCrop,
    "random_flip": RandomFlip,
    "random_posterization": RandomPosterization,
    "random_rotation": RandomRotation,
    "random_saturation": RandomSaturation,
    "random_sharpness": RandomSharpness,
    "random_translation": RandomTranslation,
    "solarization": Solarization,
}
_KERAS_LAYERS = (
    "RandomBrightness",
    "RandomErasing",
    "RandomGrayscale",
    "RandomHue",
    "RandomInvert",
)
# Done while batches are made, where an image's place in the dataset is known: see app/data/pipeline.py.
ALTERNATING_FLIP = "alternating_flip"
_NOT_COMPILED = "it cannot be compiled and would switch compilation off for the whole model"
_LABELS = "it mixes images of a batch and needs their labels mixed too, which this trainer does not do"
_NO_DRAW = "it draws nothing: every training image would change in a way that evaluation never sees"
REFUSED: dict[str, str] = {
    "aug_mix": _NOT_COMPILED,
    "auto_contrast": _NO_DRAW,
    "center_crop": "it changes the images' size; use dataset.image_size with resize: crop",
    "contrast_limited_adaptive_histogram_equalization": _NO_DRAW,
    "cut_mix": _LABELS,
    "equalization": _NO_DRAW,
    "max_num_bounding_boxes": "it works on bounding boxes, and images here have labels only",
    "mix_up": _LABELS,
    "rand_augment": _NOT_COMPILED,
    "random_elastic_transform": _NOT_COMPILED,
    "random_gaussian_blur": "it draws the strength once a batch, not for each image",
    "random_perspective": _NOT_COMPILED,
    "random_shear": _NOT_COMPILED + "; random_affine turns and shifts",
    "random_zoom": _NOT_COMPILED + "; random_affine turns and shifts",
    "resizing": "it changes the images' size; use dataset.image_size",
}


def keras_layers() -> dict[str, type[keras.layers.Layer]]:
    """Return Keras' own image layers that may be named, by their snake_case names."""
    return {_snake_case(name): getattr(keras.layers, name) for name in _KERAS_LAYERS}


def augmentation_layer(name: str, **arguments: Any) -> keras.layers.Layer:
    """Make the layer that an experiment names.

    Args:
        name: A key of `OUR_LAYERS`, else of `keras_layers()`.
        **arguments: The layer's own arguments. Keras' layers compute in float32 whatever the policy.

    Returns:
        The layer, to be called with `training=True`.

    Raises:
        ValueError: The layer is refused, unknown, or does not take these arguments.
    """
    if name in REFUSED:
        raise ValueError(f"augmentation layer cannot be used: {REFUSED[name]}. Received: {name!r}")
    layers = {**keras_layers(), **OUR_LAYERS}
    if name not in layers:
        raise ValueError(f"augmentation must be one of {', '.join(sorted(layers))}. Received: {name!r}")
    try:
        return layers[name](**{"dtype": "float32", **arguments})
    except (TypeError, ValueError) as error:
        raise ValueError(f"augmentation layer {name!r}: {error}. Received: {arguments!r}") from error


def _snake_case(name: str) -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower()
