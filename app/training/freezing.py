"""Layers that keep their weights: for the whole training, or in its first epochs."""

import difflib
import itertools
from collections.abc import Iterable

import keras

from app.config.schema import ModelConfig
from app.errors import UserError
from models.inspect import enclosing, matches, weighted_layers


class Freezing:
    """The layers that `model.freeze` names, and the epochs in which they keep their weights.

    Frozen batch normalisation computes as in inference, so that its moving statistics stay too.

    Args:
        config: The experiment's network.
        network: Built; nothing is frozen yet.

    Attributes:
        layers: What is named, in the order of computation.
        below: Of these, what lies below everything else, so that no gradient passes it.
        frozen: The trainable variables of the layers.
        held: Whether they keep their weights at present.

    Raises:
        UserError: A pattern fits no layer, or nothing would be left to train.
    """

    def __init__(self, config: ModelConfig, network: keras.Model):
        self.unfreeze_epoch = config.unfreeze_epoch
        known = weighted_layers(network)
        patterns = list(known)[:-1] if config.freeze == "backbone" else config.freeze
        for pattern in patterns:
            if not any(matches(name, pattern) for name in known):
                raise UserError(
                    f"model.freeze: {pattern!r} fits no layer of {config.name}; {_nearest(pattern, known)}"
                )
        frozen = [name for name in known if any(matches(name, pattern) for pattern in patterns)]
        self.layers = [known[name] for name in frozen]
        self.below = [known[name] for name in itertools.takewhile(frozen.__contains__, known)]
        self.frozen = [variable for layer in self.layers for variable in layer.trainable_variables]
        self.num_trained = len(network.trainable_variables) - len(self.frozen)
        if not self.num_trained:
            raise UserError(
                f"model.freeze: received {list(patterns)}, which leaves nothing to train; 'backbone' freezes "
                "all but the head"
            )
        self.held = False

    def hold(self, epoch: int) -> bool:
        """Freeze the layers, or unfreeze them, as an epoch, counted from 0, has them.

        Returns:
            Whether that changed anything. A training step that was compiled before is then another one.
        """
        frozen = bool(self.layers) and (self.unfreeze_epoch is None or epoch + 1 < self.unfreeze_epoch)
        if frozen == self.held:
            return False
        for layer in self.layers:
            layer.trainable = not frozen
        self.held = frozen
        return True

    def until(self, epochs: int) -> int:
        """Return up to which of `epochs`, the last one excluded, the same is frozen as now."""
        return min(self.unfreeze_epoch - 1, epochs) if self.unfreeze_epoch and self.held else epochs

    def describe(self) -> str:
        """Return how many variables are frozen, as the end of a list; empty where nothing is."""
        if not self.layers:
            return ""
        until = f" before epoch {self.unfreeze_epoch}" if self.unfreeze_epoch else ""
        return f", {len(self.frozen)} variables frozen{until}, {self.num_trained} trained"


def _nearest(pattern: str, known: Iterable[str]) -> str:
    names = sorted({part for name in known for part in enclosing(name)})
    return f"the nearest names are {', '.join(difflib.get_close_matches(pattern, names, 3, 0.0))}"
