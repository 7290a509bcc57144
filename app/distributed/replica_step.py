"""The training and test step of one replica on TensorFlow: its shard of the batch, then the sum over all."""

from typing import Any

from models import ImageClassifier


def train_step(classifier: ImageClassifier, images: Any, labels: Any, weights: Any, size: Any) -> Any:
    """Train on a replica's shard of a batch; see `app.data.pipeline.Shard` for weights and size.

    Gradients are summed before the optimizer gets them, so that clipping acts on those of the whole batch,
    and together with the logs.

    Returns:
        Loss and accuracy so far in the epoch, the mean over all replicas, equal on each.
    """
    import tensorflow as tf

    optimizer = classifier.optimizer
    with tf.GradientTape() as tape:
        logits = classifier(images, training=True)
        # Divided by the number of replicas, so that the sum over them is the mean.
        loss = classifier.compute_loss(images, labels, logits, weights, training=True)
        scaled = optimizer.scale_loss(loss)
    logs = _record(classifier, labels, logits, weights, size, loss)
    context = tf.distribute.get_replica_context()
    gradients = tape.gradient(scaled, classifier.trainable_weights)
    known = [gradient for gradient in gradients if gradient is not None]
    *sums, log_sums = context.all_reduce(
        "SUM", [*known, tf.stack(list(logs.values())) / context.num_replicas_in_sync]
    )
    summed = iter(sums)
    gradients = [None if gradient is None else next(summed) for gradient in gradients]
    optimizer.apply(gradients, classifier.trainable_weights)
    return dict(zip(logs, tf.unstack(log_sums, len(logs)), strict=True))


def apply_accumulated(optimizer: Any, gradients: Any, variables: Any) -> None:
    """Apply gradients on a replica as Keras' optimizers do with `gradient_accumulation_steps`.

    Keras branches on each replica on whether this step updates the weights; TensorFlow allows no update in
    such a branch. Here one branch is taken for all replicas.
    """
    import tensorflow as tf

    def in_replica(gradients: Any, update: bool) -> None:
        accumulators = [optimizer._accumulated_gradients[optimizer._get_variable_index(v)] for v in variables]
        sums = [gradient + sum_ for gradient, sum_ in zip(gradients, accumulators, strict=True)]
        if update:
            means = [each / optimizer.gradient_accumulation_steps for each in sums]
            means = optimizer._clip_gradients(means)
            optimizer._apply_weight_decay(variables)
            optimizer._backend_update_step(means, variables, optimizer.learning_rate)
            sums = [tf.zeros_like(each) for each in sums]
        for accumulator, value in zip(accumulators, sums, strict=True):
            accumulator.assign(value)

    def for_all(strategy: Any, gradients: Any) -> None:
        due = (optimizer._iterations + 1) % optimizer.gradient_accumulation_steps == 0
        each = strategy.extended.call_for_each_replica
        tf.cond(
            due, lambda: each(in_replica, (gradients, True)), lambda: each(in_replica, (gradients, False))
        )

    tf.distribute.get_replica_context().merge_call(for_all, args=(gradients,))


def test_step(classifier: ImageClassifier, images: Any, labels: Any, weights: Any, size: Any) -> Any:
    """Evaluate a replica's shard of a batch; return this replica's loss and metrics so far."""
    logits = classifier(images, training=False)
    loss = classifier.compute_loss(images, labels, logits, weights, training=False)
    return _record(classifier, labels, logits, weights, size, loss)


def _record(
    classifier: ImageClassifier, labels: Any, logits: Any, weights: Any, size: Any, loss: Any
) -> dict[str, Any]:
    """Update the metrics with a replica's shard of a batch; return this replica's loss and metrics so far."""
    import tensorflow as tf

    classifier._loss_tracker.update_state(loss * tf.distribute.get_strategy().num_replicas_in_sync, size)
    num_real = tf.math.count_nonzero(weights)
    return classifier.compute_metrics(None, labels[:num_real], logits[:num_real], None)
