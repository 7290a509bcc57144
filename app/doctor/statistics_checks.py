"""Whether the moving statistics of batch normalisation settle in time, which the doctor works out."""

import keras

from app.config.training import TrainingConfig
from app.doctor.data_checks import CheckResult
from app.training.setup import Job
from models.inspect import named_layers
from models.registry import model_arguments

UNSETTLED_FRACTION = 0.05  # of batch normalisation's initial statistics, for validation to count
LOST_FRACTION = 0.1  # of them at the end of training
LEAST_MOMENTUM = 0.5
NICE_MOMENTA = (0.99, 0.98, 0.95, 0.9, 0.8, 0.7, 0.5)


def check_batch_norm(job: Job) -> CheckResult:
    """Find moving statistics that still hold much of their initial values when they are used.

    With momentum m a fraction m**n of them is left after n steps, of `ema` and `lookahead` more.
    """
    subject, training = "batch norm", job.experiment.training
    layers = [layer for _, layer in named_layers(job.classifier.network)]
    norms = [layer for layer in layers if isinstance(layer, keras.layers.BatchNormalization)]
    trained = [layer for layer in norms if layer.trainable]
    if not trained:
        return CheckResult("ok", subject, "all frozen" if norms else "none in this network")
    momenta, late = [layer.momentum for layer in trained], job.freezing.unfreeze_epoch
    slowest, by_epoch = max(momenta), left_by_epoch(max(momenta), job.steps_per_epoch, training)
    frozen_until = late if late and all(layer in job.freezing.layers for layer in trained) else 1
    by_epoch = by_epoch[: training.num_epochs + 1 - frozen_until]
    at_first, at_last = by_epoch[0], by_epoch[-1]
    first, last = (f"{left:.1%}" if left >= 0.001 else "below 0.1%" for left in (at_first, at_last))
    whose = "weights'" if job.experiment.model.weights else "initial"  # which fit images, if perhaps others
    average = "ema" if training.ema else "lookahead" if training.lookahead else ""
    beside = f" and training.{average}" if average else ""
    since = f" with them trained, in epoch {frozen_until}" if frozen_until > 1 else ""
    measured = (
        f"momentum {slowest:g}{beside}, {job.steps_per_epoch} steps an epoch: {first} of the {whose} "
        f"statistics is left at the first validation{since}, {last} at the end"
    )
    if max(by_epoch) <= UNSETTLED_FRACTION or job.experiment.model.weights:
        if min(momenta) >= LEAST_MOMENTUM:
            return CheckResult("ok", subject, measured)
        measured = f"momentum {min(momenta):g}: the moving statistics are those of the last batch or two"
        advice = "Keras' momentum is the fraction that is kept: PyTorch's 0.1 is 0.9 here"
        return CheckResult("warn", subject, measured, advice)
    remedy = "Use smaller batches or train longer"
    if average and slowest**job.steps_per_epoch <= UNSETTLED_FRACTION:  # the average alone is slow
        other = "raise its warmup_steps" if training.ema else "lower its every_steps"
        remedy = f"Lower training.{average}.decay or {other}"
    elif "bn_momentum" in model_arguments(job.experiment.model.name):
        most = ((m, max(left_by_epoch(m, job.steps_per_epoch, training))) for m in NICE_MOMENTA)
        if fitting := next((m for m, left in most if left <= UNSETTLED_FRACTION), None):
            remedy = f"Set model.bn_momentum: {fitting}"
    if at_last > LOST_FRACTION:
        consequence = "no validation metric of this run could be trusted, nor the saved model"
        return CheckResult("FAIL", subject, measured, f"{remedy}; {consequence}")
    unsettled = [epoch for epoch, left in enumerate(by_epoch, frozen_until) if left > UNSETTLED_FRACTION]
    settled = max(unsettled) + 1
    consequence = f"or mind that validation says little before epoch {settled}"
    return CheckResult("warn", subject, measured, f"{remedy}, {consequence}")


def left_by_epoch(momentum: float, steps: int, training: TrainingConfig) -> list[float]:
    """Return how much of the initial statistics is left in what is validated after each epoch of `steps`.

    The averages of `ema` and `lookahead`, see app/training/averaging.py, hold the statistics, too.
    """
    total, raw, average, found = steps * training.num_epochs, 1.0, 1.0, []
    ema, lookahead = training.ema, training.lookahead
    if not (ema or lookahead):
        return [momentum ** (steps * epoch) for epoch in range(1, training.num_epochs + 1)]
    for step in range(1, total + 1):
        raw *= momentum
        if ema:
            average += (raw - average) * max(
                1 - ema.decay, (ema.warmup_steps - 1) / (step - 1 + ema.warmup_steps)
            )
        elif lookahead and step % lookahead.every_steps == 0:
            raw = average = average + (raw - average) * (
                1 - lookahead.decay * (step / total) ** lookahead.power
            )
        elif step == total:
            raw = average
        if step % steps == 0:
            found.append(average if ema else raw)
    return found
