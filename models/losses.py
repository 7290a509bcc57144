"""The training loss."""

from collections.abc import Sequence

import keras
from keras import ops

from models.augmentation.mixing import Mix


class SparseCrossentropy(keras.losses.Loss):
    """Cross-entropy of integer labels (batch,) or (batch, 1) and logits (batch, num_classes).

    Label smoothing, the focal factor and class weights act only while `training` is true; ImageClassifier
    sets it, so that they do not change what the validation loss is. It sets `mix`, too, where
    images are mixed.

    Args:
        label_smoothing: Fraction of the target that goes evenly to all classes.
        softmax_before_loss: Whether to apply softmax to the logits first, as a source does that ends its
            network in softmax and trains on a loss that expects logits. Keras' own losses would see
            through such a softmax and use the logits.
        class_weight: One factor for each class, applied to its examples; None for equal ones.
        focal_gamma: Exponent of the factor (1 - p) ** focal_gamma on each class's term, p its softmax
            probability, which takes weight from examples that are right already. Lin et al. 2017,
            arXiv:1708.02002, section 3, for the softmax; 0 for plain cross-entropy.
    """

    def __init__(
        self,
        label_smoothing: float = 0.0,
        softmax_before_loss: bool = False,
        class_weight: Sequence[float] | None = None,
        focal_gamma: float = 0.0,
    ):
        super().__init__(name="sparse_crossentropy", dtype="float32")
        self.label_smoothing = label_smoothing
        self.softmax_before_loss = softmax_before_loss
        self.class_weight = class_weight
        self.focal_gamma = focal_gamma
        self.training = False
        self.mix: Mix | None = None

    def call(self, y_true, y_pred):
        """Return one loss for each example, float32; of mixed images the weighted mean over both labels."""
        labels = ops.cast(ops.reshape(y_true, (-1,)), "int32")
        losses = self._losses(labels, y_pred)
        if self.mix is None:
            return losses
        partner, weight = self.mix
        return weight * losses + (1.0 - weight) * self._losses(ops.take(labels, partner), y_pred)

    def _losses(self, labels, y_pred):
        logits = ops.softmax(y_pred) if self.softmax_before_loss else y_pred
        targets = ops.one_hot(labels, logits.shape[-1], dtype="float32")
        if self.training and self.label_smoothing:
            targets = targets * (1.0 - self.label_smoothing) + self.label_smoothing / logits.shape[-1]
        log_probabilities = ops.log_softmax(logits)
        terms = targets * log_probabilities
        if self.training and self.focal_gamma:
            # Not of 0, where a power below 1 has an infinite slope.
            terms = terms * ops.maximum(-ops.expm1(log_probabilities), 1e-7) ** self.focal_gamma
        losses = -ops.sum(terms, axis=-1)
        if self.training and self.class_weight is not None:
            losses = losses * ops.take(ops.convert_to_tensor(self.class_weight, "float32"), labels)
        return losses
