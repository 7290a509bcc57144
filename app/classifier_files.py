"""Saved classifiers: `.keras` files, read without running any code that they may hold."""

import zipfile
from pathlib import Path

import keras

from app.errors import UserError
from app.paths import shown
from models import ImageClassifier
from models.layers import jit_compile


def load_classifier(path: Path) -> ImageClassifier:
    """Load a classifier, not compiled, in Keras' safe mode: it makes registered classes only and no lambdas.

    Raises:
        UserError: The file is missing or damaged, asks for code to be run, or holds another kind of model.
    """
    if not path.is_file():
        raise UserError(f"{shown(path)}: no such file; it holds the trained network. Restore it from a copy")
    if not zipfile.is_zipfile(path):  # Keras would say that there is no file
        raise UserError(
            f"{shown(path)}: damaged: not a whole .keras file. Restore it from a copy, or train the run anew"
        )
    try:
        classifier = keras.saving.load_model(path, compile=False, safe_mode=True)
    except Exception as error:  # Keras, zipfile and h5py raise whatever a bad file makes them trip over
        cause = str(error).rpartition("Exception encountered: ")[2].strip()
        reason = cause.partition("\n")[0].partition(". ")[0] or type(error).__name__
        raise UserError(f"{shown(path)}: no classifier that can be loaded safely: {reason}") from error
    if not isinstance(classifier, ImageClassifier):
        raise UserError(f"{shown(path)}: holds a {type(classifier).__name__}, no ImageClassifier")
    if jit_compile() is False:  # what is not compiled would ask "auto"
        classifier.jit_compile = False
    return classifier
