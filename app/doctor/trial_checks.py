"""What the doctor learns by computing: the first loss, gradients, whether two batches can be learnt.

Everything happens in memory, with networks that nobody keeps.
"""

import gc
import math
import time
from typing import Any

import keras
import numpy as np
from keras import ops

from app.data.order import epoch_order
from app.doctor.data_checks import CheckResult, ok_or_warn
from app.training.setup import Job
from models import ImageClassifier, build_model
from models.inspect import count_macs, named_layers, variable_names
from models.losses import SparseCrossentropy

GRADIENT_SCALE = {"float16": 1024.0}  # smaller gradients than float16 can hold are not zero
LOUD = 4.0  # the first loss against that of even odds; deep residual networks come to 3
LEARNT = 0.8  # fraction of the way from the first loss down to the lowest possible one
FALLING = 0.1  # of that way, where time ran out
EAGER_STEPS = 20


def trial_batch(job: Job) -> tuple[np.ndarray, np.ndarray]:
    """Return the first images of the first epoch: 64, or fewer where a network takes long over them."""
    split, experiment = job.dataset.train, job.experiment
    order = epoch_order(experiment.seed, 0, split.labels, experiment.dataset.sampler)
    return split.take(order[: _affordable(job, 6e10, 8, 64)])


def _affordable(job: Job, macs: float, least: int, most: int) -> int:
    """Return the number of images that the network processes with `macs` multiply-accumulates."""
    layers = [layer for _, layer in named_layers(job.classifier.network) if layer.built]
    return int(np.clip(macs // max(sum(map(count_macs, layers)), 1), least, most))


def plain_loss(job: Job) -> SparseCrossentropy:
    """Return the experiment's loss without label smoothing, class weights and penalties."""
    return SparseCrossentropy(softmax_before_loss=job.experiment.training.loss.softmax_before_loss)


def first_step(job: Job, images: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, float, list[Any]]:
    """Return logits, plain loss and its gradients, one a trainable variable, without changing a weight."""
    scale = GRADIENT_SCALE.get(job.experiment.training.precision, 1.0)
    while True:
        logits, value, gradients = _scaled_step(job, images, labels, scale)
        if scale == 1.0 or "not finite" not in _gradient_faults(gradients).values():
            return logits, value, gradients
        scale /= 32.0  # as training does, by and by


def _scaled_step(
    job: Job, images: np.ndarray, labels: np.ndarray, scale: float
) -> tuple[np.ndarray, float, list[Any]]:
    classifier, loss = job.classifier, plain_loss(job)
    weights = [variable.value for variable in classifier.trainable_variables]
    if keras.backend.backend() == "jax":
        import jax  # only where it is the backend

        others = [variable.value for variable in classifier.non_trainable_variables]

        def scaled_loss(weights):
            logits, _ = classifier.stateless_call(weights, others, images, training=True)
            return loss(labels, logits) * scale, logits

        (value, logits), gradients = jax.jit(jax.value_and_grad(scaled_loss, has_aux=True))(weights)
    else:
        import tensorflow as tf  # absent where JAX trains

        with tf.GradientTape() as tape:
            logits = classifier(images, training=True)
            value = loss(labels, logits) * scale
        gradients = tape.gradient(value, weights)
    return ops.convert_to_numpy(logits), float(value) / scale, gradients


def check_first_loss(job: Job, loss: float) -> CheckResult:
    """Compare the loss before training with that of a network that finds all classes equally likely."""
    num_classes = len(job.dataset.class_names)
    expected = math.log(num_classes)  # also with softmax before the loss: equal in, equal out
    measured = f"{loss:.3g} before training; ln({num_classes}) = {expected:.3g} expected"
    if not math.isfinite(loss):
        advice = "Check the model and normalization, or set training.precision: float32"
        return CheckResult("FAIL", "first loss", measured, advice)
    if source := job.experiment.model.weights:
        return CheckResult("ok", "first loss", f"{loss:.3g} with the weights of {source}")
    advice = "Check the initial values of the network's last layer, and normalization"
    usual = expected / 2 <= loss <= LOUD * expected
    return ok_or_warn("first loss", measured, "" if usual else advice)


def check_logits(job: Job, logits: np.ndarray) -> CheckResult:
    """Find a network that ends in softmax, although the loss takes logits."""
    if np.all((logits >= 0) & (logits <= 1)) and np.allclose(logits.sum(axis=-1), 1.0, atol=1e-2):
        return CheckResult(
            "FAIL",
            "logits",
            "the network's outputs are probabilities (none negative, their sum is 1), but the loss applies "
            "softmax itself",
            "Let the network end without softmax; to train on softmax twice on purpose, set "
            "training.loss.softmax_before_loss: true instead",
        )
    measured = f"from {logits.min():.3g} to {logits.max():.3g}"
    if job.experiment.training.loss.softmax_before_loss:
        measured += "; softmax before the loss, as asked for"
    return CheckResult("ok", "logits", measured)


def check_gradients(job: Job, gradients: list[Any], images: np.ndarray, labels: np.ndarray) -> CheckResult:
    """Find trainable variables that no gradient reaches.

    Some are zero by design before the first step (behind a scale that starts at zero), so those get a
    second chance after one.
    """
    variables, network = job.classifier.trainable_variables, job.classifier.network
    names, faults = variable_names(network), _gradient_faults(gradients)
    if "zero" in faults.values():
        sound = [i for i in range(len(variables)) if faults.get(i) in (None, "zero")]
        pairs = [(gradients[i], variables[i]) for i in sound]
        optimizer = keras.optimizers.Adam(1e-3)
        optimizer.build([v for _, v in pairs])
        optimizer.apply([g for g, _ in pairs])
        later = _gradient_faults(first_step(job, images, labels)[2])
        faults = {i: fault for i, fault in faults.items() if fault != "zero" or later.get(i) == "zero"}
    unreached = [f"{names.get(id(variables[i]), variables[i].path)} ({fault})" for i, fault in faults.items()]
    unreached += [f"{path} (never called)" for path, layer in named_layers(network) if not layer.built]
    if not unreached:
        return CheckResult("ok", "gradients", f"finite and not zero for all {len(variables)} variables")
    more = f" and {len(unreached) - 5} more" if len(unreached) > 5 else ""
    advice, infinite = [], list(faults.values()).count("not finite")
    if infinite:
        look = "look for a root, a logarithm or a division by almost nothing"
        is_full = job.experiment.training.precision == "float32"
        advice.append(look.capitalize() if is_full else f"Set training.precision: float32; or {look}")
    if len(unreached) > infinite:
        advice.append(
            "Is the layer used in call? Does what follows depend on it, or is all of it cut to zero?"
        )
    return CheckResult(
        "FAIL",
        "gradients",
        f"none for {', '.join(unreached[:5])}{more}, of {len(variables)} variables",
        ". ".join(advice),
    )


def _gradient_faults(gradients: list[Any]) -> dict[int, str]:
    """Return what is wrong with a gradient, by its position."""
    faults = {}
    for i, gradient in enumerate(gradients):
        values = None if gradient is None else ops.convert_to_numpy(ops.cast(gradient, "float32"))
        if values is None:
            faults[i] = "not connected to the loss"
        elif not np.isfinite(values).all():
            faults[i] = "not finite"
        elif not values.any():
            faults[i] = "zero"
    return faults


def check_overfitting(
    job: Job, images: np.ndarray, labels: np.ndarray, budget_seconds: float = 20.0, most_steps: int = 1200
) -> CheckResult:
    """Train a copy of the network on two batches until it knows them, or steps or time run out.

    The copy has neither dropout, nor penalties, nor augmentation, and Adam as optimizer: what it cannot
    learn so, the experiment will not learn either.
    """
    loss, half = plain_loss(job), min(_affordable(job, 4e9, 4, 16), len(images) // 2)
    batches = [(images[:half], labels[:half]), (images[half : 2 * half], labels[half : 2 * half])]
    copy = _copy_for_trial(job)
    # Deep networks need small first steps, and few; LeNet5's sigmoids need large ones, and many.
    rate = keras.optimizers.schedules.PolynomialDecay(3e-5, decay_steps=66, end_learning_rate=2e-3)
    # Most networks are done before TensorFlow would have traced their step.
    copy.compile(keras.optimizers.Adam(rate), loss, run_eagerly=keras.backend.backend() == "tensorflow")
    classes = len(job.dataset.class_names)
    # Of a network that is right and sure; above 0 with softmax before the loss.
    lowest = float(loss(np.arange(classes), 50.0 * np.eye(classes, dtype=np.float32)))
    losses: list[float] = []
    started, learnt = time.monotonic(), 0.0
    while len(losses) < most_steps:
        if len(losses) == EAGER_STEPS and copy.run_eagerly:
            copy.compile(copy.optimizer, loss, jit_compile=False)
        losses += [float(copy.train_on_batch(*batch)) for batch in batches]
        learnt = (losses[0] - float(np.mean(losses[-2:]))) / max(losses[0] - lowest, 1e-9)
        if learnt >= LEARNT or time.monotonic() - started > budget_seconds:
            break
    del copy
    gc.collect()
    measured = (
        f"loss from {losses[0]:.3g} to {np.mean(losses[-2:]):.3g} in {len(losses)} steps "
        f"on the same two batches of {half} images"
    )
    if learnt >= LEARNT:
        return CheckResult("ok", "overfitting", measured)
    if len(losses) < most_steps:
        advice = "This machine is too slow to tell whether it learns: watch the first epochs"
        measured += f", all that {budget_seconds:.0f} s allow"
        return ok_or_warn("overfitting", measured, "" if learnt >= FALLING else advice)
    advice = (
        f"A network that does not learn {2 * half} images will not learn {len(job.dataset.train):,}: look at "
        "its layers, initial values and size, and whether the labels fit the images"
    )
    return CheckResult("FAIL", "overfitting", measured, advice)


def _copy_for_trial(job: Job) -> ImageClassifier:
    """Return the experiment's classifier again, with the same weights and nothing that hinders learning."""
    dataset, model = job.dataset, job.experiment.model
    network = build_model(
        model.name, input_shape=dataset.image_shape, num_classes=len(dataset.class_names), **model.arguments
    )
    for variable, source in zip(network.weights, job.classifier.network.weights, strict=True):
        variable.assign(np.array(source))  # a copy: on JAX a step gives its arrays away
        variable.regularizer = None
    for layer in [layer for _, layer in named_layers(network) if hasattr(layer, "rate")]:
        layer.rate = 0.0  # dropout of every kind
    copy = ImageClassifier(network, dataset.class_names, job.classifier.normalization)
    copy.build((None, *dataset.image_shape))
    return copy
