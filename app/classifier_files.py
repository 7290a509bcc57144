"""Saved classifiers: `.keras` files, read without running any code that they may hold."""

import zipfile
from pathlib import Path

import keras

from app.errors import UserError
from app.paths import shown
from app.runs import Run
from models import ImageClassifier
from models.variables import assign


def load_classifier(path: Path) -> ImageClassifier:
    """Load a classifier in Keras' safe mode, which makes registered classes only and no lambdas.

    Args:
        path: A `.keras` file.

    Returns:
        The classifier, not compiled.

    Raises:
        UserError: The file is missing or damaged, asks for code to be run, or holds another kind of model.
    """
    if not path.is_file():
        raise UserError(f"{shown(path)}: no such file; it holds the trained network. Restore it from a copy")
    if not zipfile.is_zipfile(path):  # Keras would say that there is no file
        raise UserError(f"{shown(path)}: damaged: not a whole .keras file")
    try:
        classifier = keras.saving.load_model(path, compile=False, safe_mode=True)
    except Exception as error:  # Keras, zipfile and h5py raise whatever a bad file makes them trip over
        cause = str(error).rpartition("Exception encountered: ")[2].strip()
        reason = cause.partition("\n")[0].partition(". ")[0] or type(error).__name__
        raise UserError(f"{shown(path)}: no classifier that can be loaded safely: {reason}") from error
    if not isinstance(classifier, ImageClassifier):
        raise UserError(f"{shown(path)}: holds a {type(classifier).__name__}, no ImageClassifier")
    return classifier


def start_from(run: Run, network: keras.Model, class_names: tuple[str, ...]) -> str:
    """Copy the best weights of another run into `network`; the head stays new where the classes differ.

    Returns:
        What was taken and what is new, in a line.

    Raises:
        UserError: The run holds another network.
    """
    trained = load_classifier(run.best_model)
    theirs, ours = trained.network.weights, network.weights
    if type(trained.network) is not type(network) or len(theirs) != len(ours):
        raise UserError(
            f"model.weights: {run.name} holds a {type(trained.network).__name__} with {len(theirs)} weights, "
            f"the experiment makes a {type(network).__name__} with {len(ours)}; both must be the same network"
        )
    head = network.trainable_weights[-2:] if tuple(trained.class_names) != class_names else []
    new = {variable.path for variable in head}
    for source, variable in zip(theirs, ours, strict=True):
        if variable.path in new:
            continue
        if source.shape != variable.shape:
            raise UserError(
                f"model.weights: {variable.path} has shape {tuple(source.shape)} in {run.name}, "
                f"{tuple(variable.shape)} here; use the same model arguments and image size"
            )
        assign(variable, source.numpy())
    if not new:
        return f"starts from the weights of {run.name}: all {len(ours)} variables"
    names = ", ".join(variable.path.partition("/")[2] for variable in head)
    return (
        f"starts from the weights of {run.name}: {len(ours) - len(new)} of {len(ours)} variables; new, "
        f"because the classes differ: {names}"
    )
