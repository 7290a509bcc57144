"""The outer model: what is compiled, fitted and saved. Raw images in, logits out, whatever the experiment."""

import threading
from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from models.augmentation.mixing import augment
from models.augmentation.warp import composed
from models.losses import SparseCrossentropy


@keras.saving.register_keras_serializable("models")
class ImageClassifier(keras.Model):
    """Augment (in training only), normalise, and pass through the network.

    A saved file holds the network, the constants and the class names; it is for inference, without
    loss, metrics or the optimizer's state.

    Args:
        network: A built model, normalised images to logits.
        class_names: One name for each logit, in order.
        normalization: Layer from raw pixels to the network's input.
        augmentation: Layers from images to images, applied in this order when training; neighbours that
            move pixels are composed, see `composed`. Those that mix images come last.

    Call arguments:
        images: (batch, height, width, channels), uint8, or float in [0, 255].

    Returns:
        Logits (batch, num_classes), float32.
    """

    def __init__(
        self,
        network: keras.Model,
        class_names: Sequence[str],
        normalization: keras.layers.Layer,
        augmentation: Sequence[keras.layers.Layer] = (),
        **kwargs: Any,
    ):
        super().__init__(autocast=False, **kwargs)
        self.network = network
        self.class_names = tuple(class_names)
        self.normalization = normalization
        self.augmentation = composed(augmentation)
        self._handed = threading.local()  # replicas are threads, and each has a mix of its own

    def build(self, input_shape):
        """Give every part its weights and shapes, for images of `input_shape` with the batch first."""
        if self.built:
            return
        # A symbolic call gives every layer its shape; as if training, so that augmentation has one too.
        self.call(keras.Input(batch_shape=input_shape, dtype="uint8"), training=True)
        self.built = True

    def call(self, images, training=False):
        """Return the logits of `images`."""
        pixels = ops.cast(images, "float32")
        if training and self.augmentation:
            pixels, self._handed.mix = augment(self.augmentation, pixels)
        pixels = self.normalization(pixels)
        logits = self.network(pixels, training=training)
        return ops.cast(logits, "float32")

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        """Compute the compiled loss, which needs to know whether this is training, and what `call` mixed.

        Losses do not know: label smoothing and class weights belong to training only. Each of the train
        and test steps is traced with its own value. Metrics are not handed the mix: they compare with each
        image's own label, the heavier of its two.
        """
        mix = self._handed.__dict__.pop("mix", None)
        if isinstance(self.loss, SparseCrossentropy):
            self.loss.training = training
            self.loss.mix = mix if training else None
        return super().compute_loss(x, y, y_pred, sample_weight, training=training)

    def save(self, filepath, overwrite=True, **kwargs):
        """Save for inference. The optimizer's state, up to twice the weights, stays out of the file."""
        optimizer, self.optimizer = getattr(self, "optimizer", None), None
        try:
            super().save(filepath, overwrite=overwrite, **kwargs)
        finally:
            self.optimizer = optimizer

    def get_compile_config(self) -> None:
        """Keep loss, optimizer and metrics out of saved files."""

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments, the parts serialised."""
        serialize = keras.saving.serialize_keras_object
        return {
            **super().get_config(),
            "network": serialize(self.network),
            "class_names": list(self.class_names),
            "normalization": serialize(self.normalization),
            "augmentation": [serialize(layer) for layer in self.augmentation],
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "ImageClassifier":
        """Make the model that `get_config` described; its weights are new."""
        deserialize = keras.saving.deserialize_keras_object
        config = dict(config)
        for name in ("network", "normalization"):
            config[name] = deserialize(config[name])
        config["augmentation"] = [deserialize(layer) for layer in config["augmentation"]]
        return cls(**config)
