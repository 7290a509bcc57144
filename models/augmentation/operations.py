"""The operations from which augmentation policies draw, another one for each image of a batch.

All images go through the same computation, and each keeps the result of its own operation: no branch depends
on what was drawn, so that XLA can compile it.
"""

import math

from keras import ops

from models.augmentation.color_layers import LUMINANCE
from models.augmentation.tone_layers import blurring
from models.augmentation.warp import matrices

GEOMETRIC = ("shear_x", "shear_y", "translate_x", "translate_y", "rotate")
BLENDED = ("brightness", "color", "contrast", "sharpness")
OPERATIONS = ("identity", *GEOMETRIC, *BLENDED, "posterize", "solarize", "auto_contrast", "equalize")
SIGNED = (*GEOMETRIC, *BLENDED)  # of either sign


def geometric_matrix(operation, strength, height: int, width: int):
    """Return the maps from places of the result to the image's, see `Warp`; others are the identity.

    Args:
        operation: Indices into `OPERATIONS`, (batch,).
        strength: Of a shear the shift in parts of the distance from the upper left corner, of a translation
            the pixels right or down, of a rotation the degrees against the clock, (batch,).
        height: Of the images.
        width: Of the images.
    """
    shear_x, shear_y, right, down, degrees = (
        ops.where(operation == OPERATIONS.index(name), strength, 0.0) for name in GEOMETRIC
    )
    cosine, sine = ops.cos(degrees * (math.pi / 180)), ops.sin(degrees * (math.pi / 180))
    return matrices(
        ops.shape(operation)[0],
        (cosine, sine + shear_y, shear_y * (width / 2) - down),
        (shear_x - sine, cosine, shear_x * (height / 2) - right),
        (0, 0, 1),
    )


def recoloured(pixels, operation, strength):
    """Apply to each image its operation, if that changes colours.

    Args:
        pixels: (batch, height, width, channels), float32 from 0 to 255; so is the result.
        operation: Indices into `OPERATIONS`, (batch,).
        strength: Of the blended operations how far the image moves away from black (brightness), its gray
            version (color), its mean gray (contrast) or its blurred version (sharpness), -1 reaching them;
            of posterize the number of bits that stay; of solarize the level from which on pixels are turned
            into their negative, (batch,).
    """
    operation, strength = (numbers[:, None, None, None] for numbers in (operation, strength))
    step = 2.0 ** (8.0 - ops.round(ops.clip(strength, 1.0, 8.0)))  # other operations' strengths are no bits
    results = {
        **{name: pixels + strength * away for name, away in _blend_directions(pixels).items()},
        "posterize": ops.floor(pixels / step) * step,
        "solarize": ops.where(pixels < strength, pixels, 255.0 - pixels),
        "auto_contrast": _stretched(pixels),
        "equalize": _equalized(pixels),
    }
    chosen = pixels
    for name, result in results.items():
        chosen = ops.where(operation == OPERATIONS.index(name), result, chosen)
    return ops.clip(chosen, 0.0, 255.0)


def _blend_directions(pixels):
    """Return the distance of pixels from what each of the blended operations starts from."""
    is_coloured = pixels.shape[-1] == 3
    gray = (
        ops.sum(pixels * ops.array(LUMINANCE, "float32"), axis=-1, keepdims=True) if is_coloured else pixels
    )
    return {
        "brightness": pixels,
        "color": pixels - gray,
        "contrast": pixels - ops.mean(gray, axis=(1, 2), keepdims=True),
        "sharpness": -blurring(pixels) if min(pixels.shape[1:3]) >= 3 else ops.zeros_like(pixels),
    }


def _stretched(pixels):
    """Scale each channel to the range from 0 to 255; one of a single level stays."""
    low, high = ops.min(pixels, axis=(1, 2), keepdims=True), ops.max(pixels, axis=(1, 2), keepdims=True)
    scale = 255.0 / ops.maximum(high - low, 1e-3)
    return ops.where(high > low, (pixels - low) * scale, pixels)


def _equalized(pixels):
    """Give each channel a flat histogram, by the whole-number formula of PIL's ImageOps.equalize.

    A channel stays where fewer than 255 of its pixels are below its highest level.
    """
    batch, height, width, channels = ops.shape(pixels)
    first = ops.arange(batch * channels, dtype="int32") * 256
    levels = ops.cast(ops.round(ops.clip(pixels, 0.0, 255.0)), "int32")
    places = levels + ops.reshape(first, (-1, 1, 1, channels))
    flat = ops.reshape(places, (-1,))
    counts = ops.segment_sum(ops.ones_like(flat), flat, num_segments=batch * channels * 256)
    counts = ops.reshape(counts, (-1, 256))
    up_to = ops.cumsum(counts, axis=-1)
    highest = ops.sum(ops.where(up_to == height * width, counts, 0), axis=-1, keepdims=True)
    step = (height * width - highest) // 255
    lookup = (step // 2 + up_to - counts) // ops.maximum(step, 1)
    lookup = ops.where(step > 0, ops.minimum(lookup, 255), ops.arange(256, dtype="int32"))
    return ops.cast(ops.take(ops.reshape(lookup, (-1,)), places), "float32")
