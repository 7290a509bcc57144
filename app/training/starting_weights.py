"""Training that starts from the weights of another run."""

import keras

from app.classifier_files import load_classifier
from app.errors import UserError
from app.runs import Run
from models.variables import assign


def start_from(run: Run, network: keras.Model, class_names: tuple[str, ...]) -> str:
    """Copy the best weights of another run into `network`; the head stays new where the classes differ.

    Returns:
        One line on what was taken and what is new.
    """
    trained = load_classifier(run.best_model)
    theirs, ours = trained.network.weights, network.weights
    if type(trained.network) is not type(network) or len(theirs) != len(ours):
        raise UserError(
            f"model.weights: {run.name} holds a {type(trained.network).__name__} with {len(theirs)} weights, "
            f"the experiment makes a {type(network).__name__} with {len(ours)}; both must be the same network"
        )
    head = network.trainable_weights[-2:] if tuple(trained.class_names) != class_names else []
    new = [variable.path for variable in head]
    for source, variable in zip(theirs, ours, strict=True):
        if variable.path in new:
            continue
        if source.shape != variable.shape:
            raise UserError(
                f"model.weights: {variable.path} has shape {tuple(source.shape)} in {run.name}, "
                f"{tuple(variable.shape)} here; use the same model arguments and image size"
            )
        assign(variable, source.numpy())
    start = f"starts from the weights of {run.name}"
    if not new:
        return f"{start}: all {len(ours)} variables"
    before, now = len(trained.class_names), len(class_names)
    reason = f"{now} classes instead of {before}" if now != before else "other classes"
    return f"{start}: {len(ours) - len(new)} of {len(ours)} variables; new: {', '.join(new)} ({reason})"
