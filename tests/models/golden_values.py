"""Weights and images for the comparison with PyTorch, drawn the same way on both sides (NumPy only).

Order of the draws: layer by layer as the network's constructor makes them (stem, blocks, head; in a block the
convolutions with their normalisations, then the shortcut). A convolution draws its kernel as (output, input,
height, width), then its bias if it has one; a normalisation gamma, beta, moving mean, moving variance; a
dense layer its kernel as (output, input), inputs flattened as (channels, height, width), then its bias.
"""

import numpy as np


class Values:
    """A stream of weights; `RandomState` is frozen, so any NumPy draws the same."""

    def __init__(self, seed: int) -> None:
        self._random = np.random.RandomState(seed)

    def kernel(self, *shape: int) -> np.ndarray:
        fan_in = np.prod(shape[1:])
        return (self._random.standard_normal(shape) * np.sqrt(2 / fan_in)).astype("float32")

    def bias(self, size: int) -> np.ndarray:
        return (self._random.standard_normal(size) * 0.1).astype("float32")

    def normalization(self, size: int) -> list[np.ndarray]:
        """Returns gamma, beta, moving mean, moving variance."""
        gamma, variance = self._random.uniform(0.3, 0.9, (2, size))
        beta, mean = self._random.standard_normal((2, size)) * 0.1
        return [array.astype("float32") for array in (gamma, beta, mean, variance)]


def images(pixels: int, number: int = 4) -> np.ndarray:
    """Returns images (number, pixels, pixels, 3): each its own waves plus noise, so that logits differ."""
    random = np.random.RandomState(pixels)
    rows, columns = np.mgrid[0:pixels, 0:pixels] / pixels
    waves = [
        [np.sin(2 * np.pi * (a * rows + b * columns) + c) for a, b, c in random.uniform(0.5, 8.0, (3, 3))]
        for _ in range(number)
    ]
    smooth = np.moveaxis(np.array(waves), 1, -1)
    return (smooth + 0.3 * random.standard_normal(smooth.shape)).astype("float32")


def random_state(shapes: dict[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    """Returns arrays of a PyTorch state by name, of sizes that keep activations within reason."""
    values = Values(0)
    state = {}
    for name, shape in shapes.items():
        if name.endswith("num_batches_tracked"):
            state[name] = np.array(1, "int64")
        elif len(shape) > 1:
            state[name] = values.kernel(*shape)
        else:
            state[name] = values.bias(*shape)
            if name.endswith("running_var"):
                state[name] = np.abs(state[name]) + np.float32(0.3)
            if name.endswith("weight"):  # gamma
                state[name] = state[name] + np.float32(0.5)
    return state
