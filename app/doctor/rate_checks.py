"""What the doctor says of the learning rate of weights that were trained before."""

import keras

from app.doctor.data_checks import CheckResult, ok_or_warn
from app.training.setup import Job
from models.inspect import variable_names, weighted_layers

# Rules of thumb, above what authors fine-tune with in batches of 512: SGD with momentum 0.9 and 0.003 in the
# code of "Big Transfer" (Kolesnikov et al. 2020, arXiv:1912.11370), AdamW with 5e-5 in that of ConvNeXt
# (Liu et al. 2022, arXiv:2201.03545).
SGD_LIMIT = 0.2  # of the rate divided by 1 - momentum: 0.02 with momentum 0.9
ADAPTIVE_LIMIT = 1e-3
ADAPTIVE = ("adam", "adamax", "adamw", "lion", "nadam", "rmsprop")


def check_rate(job: Job) -> CheckResult:
    """Find a learning rate that spoils weights that were trained before, all but the head's."""
    subject, config, network = "rate", job.experiment.scaled_optimizer, job.classifier.network
    optimizer = getattr(job.classifier.optimizer, "inner_optimizer", job.classifier.optimizer)
    names, head = variable_names(network), [*weighted_layers(network)][-1]
    variables = optimizer._trainable_variables
    factors = getattr(optimizer, "factors", [1.0] * len(variables))
    body = [
        factor
        for variable, factor in zip(variables, factors, strict=True)
        if not names[id(variable)].startswith(f"{head}.")
    ]
    if not body:
        return CheckResult("ok", subject, "only the head is trained")
    rate = config.learning_rate.peak * max(body)
    measured = f"{config.name} with at most {rate:g} below the head"
    if config.name == "sgd":
        limit = SGD_LIMIT * (1 - config.arguments.get("momentum", 0.0))
    elif config.name in ADAPTIVE:
        limit = ADAPTIVE_LIMIT
    else:
        absorbed = config.name != "muon" or _has_trained_norms(job)
        advice = "muon rescales all kernels in its first step, which only trained normalisations make up for"
        return ok_or_warn(subject, measured, "" if absorbed else advice)
    advice = (
        f"Above about {limit:.2g} little is left of the weights of {job.experiment.model.weights}. Lower "
        "optimizer.learning_rate; the head may keep it by optimizer.rate_multipliers"
    )
    return ok_or_warn(subject, measured, advice if rate > limit * (1 + 1e-6) else "")


def _has_trained_norms(job: Job) -> bool:
    layers = weighted_layers(job.classifier.network).values()
    norms = [each for each in layers if isinstance(each, keras.layers.BatchNormalization)]
    return any(each.trainable for each in norms)
