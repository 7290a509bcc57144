"""Pixel normalisation as the first layer of a saved model: raw pixels in, the network's input out."""

from typing import Any

import keras
import numpy as np
from keras import ops
from numpy.typing import ArrayLike


@keras.saving.register_keras_serializable("models")
class Normalization(keras.layers.Layer):
    """Compute `(images / 255 - mean) / deviation` in float32, then cast to the compute dtype.

    The constants are arguments, not weights: they lie in the saved file's configuration, and loading
    another network's weights cannot change them.

    Args:
        mean: Subtracted; one number, one a channel, or (height, width, channels), for pixels in [0, 1].
        deviation: Divided by; positive, shaped likewise.

    Raises:
        ValueError: A constant is not finite, or a deviation is not positive.
    """

    def __init__(self, mean: ArrayLike = 0.0, deviation: ArrayLike = 1.0, **kwargs: Any):
        """Check and keep the constants."""
        super().__init__(autocast=False, **kwargs)
        self.mean = np.asarray(mean, "float32")
        self.deviation = np.asarray(deviation, "float32")
        if not np.isfinite(self.mean).all():
            raise ValueError(f"mean must be finite. Received: {mean!r}")
        if not (np.isfinite(self.deviation) & (self.deviation > 0)).all():
            raise ValueError(f"deviation must be positive and finite. Received: {deviation!r}")

    def call(self, images):
        """Normalise `images` (batch, height, width, channels), uint8 or float in [0, 255]."""
        pixels = ops.cast(images, "float32") / 255.0
        return ops.cast((pixels - self.mean) / self.deviation, self.compute_dtype)

    def compute_output_shape(self, input_shape):
        """Return the shape unchanged."""
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments, the constants as nested lists."""
        constants = {"mean": self.mean.tolist(), "deviation": self.deviation.tolist()}
        return {**super().get_config(), **constants}
