"""The base classes of all networks and blocks: built symbolically, reloaded as they were saved.

Everything about a network stands in its file: `@network` gives it its name, `published` is its size according
to its source, and the types of its arguments are their limits.

A subclassed Keras model knows its shapes only if its layers were called on symbolic tensors; `Block.build`
does that, so `summary()` shows real shapes with an open batch size, also after reloading. Blocks are models,
not layers, because only models are unfolded by `summary(expand_nested=True)`.
"""

import inspect
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple, Self, TypeVar

import keras
import numpy as np
from keras import ops

from models.limits import check_arguments
from models.pretrained.published import Layout, Pretrained, PublishedLayer

# Makes a normalisation layer; networks hand it to their blocks with momentum and epsilon in it.
Norm = Callable[[], keras.layers.Layer]
Drop = Callable[[Any], Any]  # what `stochastic_depth` returns


class Published(NamedTuple):
    """The size of a network as its source has it: what `make models` and the tests compare with.

    PyTorch counts no moving statistics; Keras counts two for each normalised channel, which is the
    difference between `trainable` and `total`.

    Attributes:
        pixels: Height and width of the images, of three channels.
        num_classes: Number of classes.
        total: All weights, moving statistics included.
        trainable: The weights that are trained.
        macs: Multiply-accumulates for one image, see `models.inspect`.
        source: The write-up or paper.
        counted: Where the numbers come from: the source's own print, the sum over the layers it describes, or
            a transcription in its own framework.
        norms: Number of batch normalisations, their momentum and epsilon; None without.
        arguments: The network's arguments, where they are not the defaults.
        name: The network's name; `models.published_networks` fills it in.
    """

    pixels: int
    num_classes: int
    total: int
    trainable: int
    macs: int
    source: str
    counted: str
    norms: tuple[int, float, float] | None = None
    arguments: dict[str, Any] = {}
    name: str = ""

    @property
    def label(self) -> str:
        """The name and the arguments, as in `resnet depth=50`."""
        return " ".join([self.name, *(f"{key}={value}" for key, value in self.arguments.items())])


class Block(keras.Model):
    """A group of layers: derive, make the layers in `__init__`, write `call(inputs)`.

    Keras hands `training` on to every layer that is called inside another one, so blocks need not.
    """

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Make the weights by calling the block on a symbolic batch.

        Args:
            input_shape: (batch, height, width, channels); the batch size is ignored.
        """
        if not self.built:
            self.call(keras.Input(batch_shape=(None, *input_shape[1:])))

    def compute_output_spec(self, *args: Any, **kwargs: Any) -> Any:
        """Return the symbolic output from the layers' own; Keras would trace every block in the backend."""
        return self.call(*args, **kwargs)


class Network(Block):
    """A whole network: images (batch, height, width, channels) in, logits (batch, num_classes) out.

    Derive, make the layers and blocks in `__init__`, and write `call(images, training=None)`. Here `training`
    is handed on by hand: Keras calls the outermost `call` directly on JAX and in exports, and then does not.

    Saved files hold the constructor's arguments and the weights; the constructor makes the layers again.

    Arguments that networks share: `num_classes`, the number of logits; `bn_momentum` and `bn_epsilon`, the
    momentum of the moving statistics and what is added to the variance; `drop_path`, the probability of
    leaving out the last unit's branch in training, less before it, see `stochastic_depth`. Blocks are given
    `norm`, which makes a normalisation layer, and `drop`, what is done to the branch before the sum.

    Attributes:
        smallest_pixels: Smallest height and width the network can take.
        largest_pixels: Largest height and width, None without a limit.
        multiple_pixels: Height and width must be multiples of this.
        published: The network's size as its source has it; of a family, one row for each member.
        adapt_images: How many training images `adapt` wants to see before training; 0 for none.
        pretrained: Published weights that fit it, the first of its arguments' being `imagenet`.
        unseen_by_shapes: Arguments that change what is computed from given weights, but the shape of none;
            beside the epsilons of batch normalisations.
    """

    smallest_pixels = 1
    largest_pixels: int | None = None
    multiple_pixels = 1
    published: Published | tuple[Published, ...] = ()
    adapt_images = 0
    pretrained: tuple[Pretrained, ...] = ()
    unseen_by_shapes: tuple[str, ...] = ()

    @classmethod
    def pixels_from(cls, least: int) -> int:
        """Return the smallest side of images that it can take from `least` pixels on, else the largest."""
        pixels = -(-max(cls.smallest_pixels, least) // cls.multiple_pixels) * cls.multiple_pixels
        return min(pixels, cls.largest_pixels or pixels)

    def published_layers(self, layout: Layout) -> Iterable[PublishedLayer]:
        """Return all layers with weights by their names in published files, each before its normalisation.

        The head comes last.
        """
        return ()

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        """Check the constructor's arguments against their annotations, and keep them for `get_config`."""
        network = super().__new__(cls)
        bound = inspect.signature(cls.__init__).bind(network, *args, **kwargs)
        bound.apply_defaults()
        arguments = {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in bound.arguments.items()
            if name not in ("self", "args", "kwargs")
        }
        check_arguments(cls, arguments)
        # Past Keras' own __setattr__, which would look for layers and weights in the dictionary.
        vars(network)["_arguments"] = arguments
        return network

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Make the weights after a check of the image size.

        Args:
            input_shape: (batch, height, width, channels).

        Raises:
            ValueError: If the network cannot take images of this size.
        """
        if len(input_shape) != 4:
            raise ValueError(
                f"{type(self).__name__} takes (batch, height, width, channels). Received: {input_shape}"
            )
        if not all(self._takes(pixels) for pixels in input_shape[1:3] if pixels is not None):
            rule = f"{type(self).__name__} takes images of at least {self.smallest_pixels} pixels a side"
            if self.largest_pixels is not None:
                rule += f" and at most {self.largest_pixels}"
            if self.multiple_pixels > 1:
                rule += f", both sides multiples of {self.multiple_pixels}"
            raise ValueError(
                f"{rule}. Received: height={input_shape[1]}, width={input_shape[2]}; resize them"
            )
        super().build(input_shape)

    def adapt(self, images: np.ndarray) -> None:
        """Compute what the network derives from normalised training images instead of learning it.

        Args:
            images: (`adapt_images` or fewer, height, width, channels), float32.
        """

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments, name and precision among them."""
        return {**super().get_config(), **self._arguments}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        """Make the network again under the precision it was saved with.

        The layers take their dtype policy from the global one when they are made, so that one is set to the
        saved policy meanwhile. A network trained in bfloat16 then predicts the same bits in a fresh process.
        """
        before = keras.config.dtype_policy()
        keras.config.set_dtype_policy(keras.dtype_policies.get(config.get("dtype", before)))
        try:
            return cls(**config)
        finally:
            keras.config.set_dtype_policy(before)

    def _takes(self, pixels: int) -> bool:
        fits = self.smallest_pixels <= pixels <= (self.largest_pixels or pixels)
        return fits and pixels % self.multiple_pixels == 0


def stochastic_depth(rate: float, unit: int, num_units: int) -> Drop:
    """Return what a residual unit does to its branch before the sum: stochastic depth.

    In training the branch of each image is left out with a probability that rises linearly with depth, and
    divided by 1 minus that probability where it stays; in inference nothing happens. At a rate of 0 there is
    no layer at all. Huang et al. 2016, arXiv:1603.09382, equation 4; the paper draws once for a whole batch,
    and scales in inference instead.

    Args:
        rate: Probability at the last unit.
        unit: The unit, counted from 0 over the whole network.
        num_units: The network's units.
    """
    if not rate:
        return lambda branch: branch
    return DropPath(rate * (unit + 1) / num_units, name="drop_path")


class DropPath(keras.layers.Dropout):
    """Dropout of whole branches: one draw for an image, which all its pixels and channels share.

    It is drawn in float32: TensorFlow's random numbers in bfloat16 are but 128 from 0 to 1.
    """

    def call(self, inputs: Any, training: bool = False) -> Any:
        """Leave out or scale the branch of each image, (batch, height, width, channels)."""
        if not training:
            return inputs
        ones = ops.ones((ops.shape(inputs)[0], 1, 1, 1), "float32")
        return inputs * ops.cast(super().call(ones, training=True), inputs.dtype)


MODELS: dict[str, type[Network]] = {}  # by the names that experiments use
_Class = TypeVar("_Class", bound=type[Network])


def network(name: str) -> Callable[[_Class], _Class]:
    """Decorate a network: experiments find it under this name, `.keras` files find its class.

    Raises:
        ValueError: If another network has the name.
    """

    def register(cls: _Class) -> _Class:
        if name in MODELS and MODELS[name].__module__ != cls.__module__:
            modules = f"{MODELS[name].__module__} and {cls.__module__}"
            raise ValueError(f"Two networks have one name. Received: {name!r} in {modules}")
        MODELS[name] = cls
        return keras.saving.register_keras_serializable("models")(cls)

    return register
