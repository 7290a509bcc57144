"""What can be taken out of an experiment, a piece at a time. Needs no TensorFlow."""

from collections.abc import Sequence
from typing import Any

from app.config import Experiment
from app.config.arguments import known_names, split_layer, value_at
from app.config.combinations import REFUSED
from app.config.loader import file_content
from app.config.nodes import Mark, node_of
from app.config.space import changed_experiment, checked
from app.errors import UserError

AUGMENTATION = "augmentation"
# What is taken out where nothing is named, as far as an experiment has it. Momentum, say, is no piece: the
# learning rate was chosen for it.
KEYS = (
    "optimizer.weight_decay",
    "optimizer.nesterov",
    "optimizer.clipnorm",
    "optimizer.clipvalue",
    "optimizer.global_clipnorm",
    "optimizer.rate_multipliers",
    "optimizer.layer_decay",
    "optimizer.no_decay",
    "optimizer.learning_rate.warmup_epochs",
    "optimizer.others.weight_decay",
    "optimizer.others.nesterov",
    "optimizer.others.learning_rate.warmup_epochs",
    "training.loss.label_smoothing",
    "training.loss.focal_gamma",
    "training.loss.softmax_before_loss",
    "training.class_weight",
    "training.lookahead",
    "training.ema",
    "dataset.sampler",
)
OFF = {"weight_decay": 0.0, "nesterov": False}  # arguments that some optimizers have by default


def pieces_of(experiment: Experiment) -> list[str]:
    """Return what is taken out of an experiment where nothing is named: layers of augmentation, and keys."""
    content = file_content(experiment)
    layers = dict.fromkeys(f"{AUGMENTATION}.{layer.name}" for layer in experiment.augmentation)
    return [*layers, *(key for key in KEYS if _value(content, key))]


def _value(content: dict[str, Any], piece: str) -> Any:
    """Return the value of a key; of those in OFF the optimizer's own, where the file does not have it."""
    path, _, key = piece.rpartition(".")
    if (value := value_at(content, piece)) is not None or key not in OFF:
        return value
    name = (value_at(content, path) or {}).get("name")
    return known_names("optimizer").get(name or "", {}).get(key, {}).get("default")


def variants_of(experiment: Experiment, pieces: Sequence[str]) -> dict[str, Experiment]:
    """Return the experiment without each piece, strictly checked, by names such as "without training.ema".

    Args:
        experiment: The whole recipe.
        pieces: `augmentation.LAYER`, a dotted key that is set back to its default, or KEY=VALUE.

    Raises:
        UserError: With a line for everything that is wrong.
    """
    found: dict[str, Experiment] = {}
    mistakes = []
    for piece in pieces:
        try:
            name, variant = _variant(experiment, piece)
            same = [known for known, each in found.items() if each.agrees_with(variant)]
            if same:
                raise UserError(f"{piece}: the same experiment as {same[0]}")
            found[name] = variant
        except UserError as error:
            mistakes.append(str(error))
    if mistakes:
        known = ", ".join(pieces_of(experiment)) or "none"
        raise UserError("\n".join([*mistakes, f"WITHOUT: by default the pieces are: {known}"]))
    return found


def _variant(experiment: Experiment, piece: str) -> tuple[str, Experiment]:
    has_value = "=" in piece
    name = f"{'with' if has_value else 'without'} {piece}"
    if has_value:
        changed = changed_experiment(experiment, [piece], "WITHOUT")
    else:
        changed = checked(node_of(_without(file_content(experiment), piece), Mark(name)), experiment)
    if changed.agrees_with(experiment):
        raise UserError(f"{piece}: changes nothing, as that is how it is")
    before, after = experiment.flat(), changed.flat()
    for key in before | after:
        if any(f"{key}.".startswith(f"{part}.") for part in REFUSED) and before.get(key) != after.get(key):
            raise UserError(f"{piece}: {key} is no piece of how the network is trained")
    return name, changed


def _without(content: dict[str, Any], piece: str) -> dict[str, Any]:
    """Return the content of an experiment's file without a piece."""
    path, _, key = piece.rpartition(".")
    if path == AUGMENTATION:
        kept = [layer for layer in content[path] if split_layer(layer)[0] != key]
        if len(kept) < len(content[path]):
            return content | {path: kept}
    section = value_at(content, path)
    if not isinstance(section, dict) or key not in section and not _value(content, piece):
        raise UserError(f"{piece}: no such layer or key is in this experiment")
    if path.startswith("optimizer") and key in OFF:
        section[key] = OFF[key]
    else:
        del section[key]
    return content
