"""Checks that the settings of an experiment fit together."""

import itertools
from collections.abc import Iterator
from typing import Any

from app.config.arguments import Finding, catalogue, split_layer, value_at
from app.config.schedules import SCHEDULE_PATHS
from app.config.schema import MIXING, leaves
from app.config.sweep import MAX_COMBINATIONS, Range, SweepConfig
from app.config.training import AUTO_EPOCHS
from app.wording import received

_OTHER_IMAGES = "changes the validation images, so that trials could not be compared"
_NOT_LEARNED = "does not change what is learned"
REFUSED = {
    "seed": "is no setting, and the best of several seeds is luck; the best settings are trained with other "
    "seeds at the end, see sweep.finalists",
    **dict.fromkeys(
        (f"dataset.{key}" for key in ("name", "data_dir", "validation", "fold", "split_seed")), _OTHER_IMAGES
    ),
    **dict.fromkeys((f"dataset.{key}" for key in ("exclude", "relabel", "on_bad_image")), _OTHER_IMAGES),
    "training.monitor": "decides which epoch counts, not what is learned",
    **dict.fromkeys(
        ("training.checkpoint_every_minutes", "training.devices", "training.determinism"), _NOT_LEARNED
    ),
    "evaluation": "belongs to the finished network; the objective does not depend on it",
    "reference": "is never used in training",
    "sweep": "cannot be searched",
}
EPOCHS = (
    "cannot be searched with a pruner, which compares trials at the same epoch, where those of fewer epochs "
    "are further in their schedule; set sweep.pruner: none"
)
AUTO_SHARE = (
    "decides the number of epochs, which is auto, and a pruner compares trials at the same epoch; give "
    "training.epochs as a number, or set sweep.pruner: none"
)
OBJECTIVE = "changes the validation loss itself, which is the objective; set sweep.objective: val_accuracy"


def mixing_findings(plain: dict[str, Any]) -> Iterator[Finding]:
    """Check that layers that mix images come last, each once, and that no image is to be mixed twice."""
    items = plain.get("augmentation")
    items = items if isinstance(items, tuple) else ()
    names = [split_layer(item)[0] for item in items]
    total = 0.0
    for index, (name, item) in enumerate(zip(names, items, strict=True)):
        if name not in MIXING:
            continue
        path: tuple[str | int, ...] = ("augmentation", index, *([name] if isinstance(item, dict) else []))
        probability = (split_layer(item)[1] or {}).get("probability", 1.0)
        total += probability if isinstance(probability, int | float) and 0 < probability <= 1 else 0.0
        if name in names[:index]:
            yield Finding(path, f"{name} may be given once", at_key=True)
        elif not set(names[index:]) <= set(MIXING):
            yield Finding(
                path, f"{name} must come last: it mixes what the other layers have made", at_key=True
            )
        elif total > 1:
            message = (
                f"an image is mixed once, so the probabilities of {' and '.join(MIXING)} must add up to at "
                f"most 1; got {total:g}; give each a probability, such as 0.5"
            )
            yield Finding(path, message, at_key=True)


def optimizer_findings(plain: dict[str, Any]) -> Iterator[Finding]:
    """Check what only some optimizers take: `others` is muon's, `decoupled: false` is sgd's."""
    content = plain.get("optimizer")
    if not isinstance(content, dict) or not isinstance(content.get("name"), str):
        return
    name, others, path = content["name"], content.get("others"), ("optimizer", "others")
    if name == "muon" and others is None:
        rule = "muon needs the key 'others': the optimizer of biases, normalisations and the head, such as"
        yield Finding(path[:1], f"{rule} {{name: sgd, learning_rate: 0.1, momentum: 0.9}}")
    if name == "muon" and "weight_decay" in content:
        message = "belongs to others: muon keeps the norm of kernels by itself"
        yield Finding(("optimizer", "weight_decay"), message, at_key=True)
    known = catalogue()["optimizers"]  # nothing follows from a misspelt name
    if name != "muon" and name in known and others is not None:
        yield Finding(path, f"belongs to muon; {name} trains all variables; leave it out", at_key=True)
    for place, part in ((path[:1], content), (path, others)):
        if not isinstance(part, dict) or not isinstance(name := part.get("name"), str):
            continue
        if name in known and name != "sgd" and part.get("decoupled") is False:
            message = f"false makes sgd PyTorch's; {name} knows true alone"
            yield Finding((*place, "decoupled"), message)


def schedule_findings(plain: dict[str, Any]) -> Iterator[Finding]:
    """Check that a schedule's milestones, and the epoch of an unfreezing, lie inside the training."""
    epochs, unfreeze = value_at(plain, "training.epochs"), value_at(plain, "model.unfreeze_epoch")
    length = f"training.epochs, which is {epochs}"
    if epochs == "auto":
        epochs = AUTO_EPOCHS[0]
        length = f"training.epochs, which may be {epochs} with auto"
    if type(epochs) is not int:
        return
    if type(unfreeze) is int and unfreeze > epochs > 0:
        yield Finding(("model", "unfreeze_epoch"), f"must be at most {length}; got {unfreeze}")
    for path in SCHEDULE_PATHS:
        schedule = value_at(plain, ".".join(path))
        if not isinstance(schedule, dict):
            continue
        span = schedule.get("span_epochs")
        limit, end = (f"span_epochs, which is {span}", span) if type(span) is int else (length, epochs)
        boundaries = schedule.get("boundaries_epochs")
        if isinstance(boundaries, tuple) and boundaries and type(boundaries[-1]) is int:
            if boundaries[-1] >= epochs > 0 and value_at(plain, "training.epochs") != "auto":
                message = f"the last must be below {length}; got {received(boundaries)}"
                yield Finding((*path, "boundaries_epochs"), message)
        for key in ("warmup_epochs", "peak_epoch"):
            value = schedule.get(key)
            if isinstance(value, int | float) and type(value) is not bool and value >= end > 0:
                yield Finding((*path, key), f"must be below {limit}; got {value}")


def _size_findings(plain: dict[str, Any]) -> Iterator[Finding]:
    """Check that the network can take images of the given size."""
    size, name = value_at(plain, "dataset.image_size"), value_at(plain, "model.name")
    limits = catalogue()["image_sides"].get(name) if isinstance(name, str) else None
    sides = [side for side in size if type(side) is int and side > 0] if isinstance(size, tuple) else []
    if limits is None or len(sides) < 2:
        return
    least, most, step = limits
    if not all(least <= side <= (most or side) and side % step == 0 for side in sides):
        rule = f"must have sides of at least {least}" + (f" and at most {most}" if most else "") + " pixels"
        rule += f", multiples of {step}," if step > 1 else ""
        yield Finding(("dataset", "image_size"), f"{rule} for {name}; got {received(sides)}")


def conflict_findings(plain: dict[str, Any]) -> Iterator[Finding]:
    """Check keys that need another one, or rule it out."""
    yield from _size_findings(plain)
    if plain.get("normalization") == "pretrained" and value_at(plain, "model.weights") is None:
        yield Finding(("normalization",), "pretrained goes with model.weights (imagenet, a file or a run)")
    if value_at(plain, "model.unfreeze_epoch") is not None and not value_at(plain, "model.freeze"):
        message = "belongs to model.freeze, which says what is frozen until then; leave it out"
        yield Finding(("model", "unfreeze_epoch"), message, at_key=True)
    lookahead = value_at(plain, "training.lookahead")
    if value_at(plain, "training.ema") and lookahead:
        message = (
            "cannot be combined with training.lookahead, which replaces the weights by their average, while "
            "ema keeps one beside them; leave one of them out"
        )
        yield Finding(("training", "ema"), message, at_key=True)
    if lookahead and value_at(plain, "training.early_stopping"):
        message = (
            "cannot be combined with training.early_stopping: the weights become the average at the last of "
            "all epochs' steps, which a run that stops early does not reach; leave one of them out"
        )
        yield Finding(("training", "lookahead"), message, at_key=True)


def search_findings(sweep: SweepConfig, epochs: int | str) -> Iterator[Finding]:
    """Check which keys are searched in a training of so many epochs, and whether the sampler can."""
    refused = dict(REFUSED)
    if sweep.pruner != "none":
        refused["training.epochs"] = EPOCHS
        if epochs == "auto":
            refused["dataset.train_share"] = AUTO_SHARE
    if sweep.objective == "val_loss":
        refused["training.loss.softmax_before_loss"] = refused["model.head_l2"] = OBJECTIVE
    reached = {
        key: sorted({leaf for value in setting.checked for leaf, _ in leaves({key: value})})
        for key, setting in sweep.space.items()
    }
    for key, setting in sweep.space.items():
        path = ("sweep", "space", key)
        for leaf, (part, reason) in itertools.product(reached[key], refused.items()):
            if _within(leaf, part):
                yield Finding(path, reason if leaf == key else f"{leaf} {reason}", at_key=True)
        for outer in sweep.space:
            both = [leaf for leaf in reached[outer] if _within(leaf, key) or _within(key, leaf)]
            if both and key != outer and _within(key, outer):
                yield Finding(path, f"is decided by {outer}, too; search one of the two", at_key=True)
        if sweep.sampler == "grid" and isinstance(setting, Range) and (setting.log or not setting.integer):
            yield Finding(
                path, f"a grid takes a list of values, or int(low, high); got {received(str(setting))}"
            )
    number = sweep.num_combinations
    if sweep.sampler == "grid" and number and number > MAX_COMBINATIONS:
        most = f"a grid has at most {MAX_COMBINATIONS:,} combinations, and this one has {number:,}"
        message = f"{most}; take random or tpe"
        yield Finding(("sweep", "sampler"), message)
    elif sweep.sampler == "grid" and number and number > sweep.trials:
        message = f"must be {number}, the combinations of the grid, or more; got {sweep.trials}"
        yield Finding(("sweep", "trials"), message)


def _within(key: str, section: str) -> bool:
    return key == section or key.startswith(f"{section}.")
