"""Metrics of logits on labelled images. NumPy and scikit-learn; no network here."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from app.paths import experiments_dir
from app.records import DatasetRecord, MetricsRecord
from app.wording import counted

CALIBRATION_BINS = 15
SIGNIFICANCE = 0.05  # p-value below which a difference is called significant


def probabilities(logits: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    """Return the softmax of logits (images, classes) divided by a temperature, in float64."""
    shifted = np.asarray(logits, np.float64) - np.max(logits, axis=-1, keepdims=True)
    powers = np.exp(shifted / temperature)
    return powers / powers.sum(axis=-1, keepdims=True)


def negative_log_likelihood(labels: np.ndarray, logits: np.ndarray, temperature: float = 1.0) -> float:
    """Return its mean over images, in nats; `labels` (images,) of `logits` (images, classes)."""
    relative = (np.asarray(logits, np.float64) - np.max(logits, axis=-1, keepdims=True)) / temperature
    true_class = np.take_along_axis(relative, np.asarray(labels)[:, None], -1)[:, 0]
    return float(np.mean(np.log(np.exp(relative).sum(-1)) - true_class))


def classification_metrics(
    labels: np.ndarray, logits: np.ndarray, class_names: Sequence[str]
) -> dict[str, Any]:
    """Return all metrics of a network on a split, ready for JSON.

    Args:
        labels: (images,), integers.
        logits: (images, classes), finite.
        class_names: One a class.

    Returns:
        `images`; `loss`, the mean negative log-likelihood in nats; `accuracy`; `top5_accuracy`, None for
        five classes or fewer; `macro_f1`, the mean over the classes that are labels or are predicted;
        `expected_calibration_error` and the `reliability` it comes from;
        `classes`, each with `name`, `images`, `precision`, `recall`, `f1`; and `confusion`, the cells of the
        confusion matrix that are not 0, as lists of `true_class`, `predicted_class` and `images`. A fraction
        of nothing is 0.
    """
    from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

    classes = np.arange(len(class_names))
    softmax = probabilities(logits)
    predicted = logits.argmax(-1)
    precision, recall, f1, counts = precision_recall_fscore_support(
        labels, predicted, labels=classes, zero_division=0.0
    )
    bins = reliability(labels, softmax)
    matrix = confusion_matrix(labels, predicted, labels=classes)
    cells = np.nonzero(matrix)  # of 3,000 classes hardly any: all of them would take 81 MB as JSON
    # Of equal logits those of the first classes, as in argmax.
    top5 = (np.argsort(-logits, axis=-1, kind="stable")[:, :5].T == labels).any(0)
    return {
        "images": len(labels),
        "loss": negative_log_likelihood(labels, logits),
        "accuracy": float(np.mean(predicted == labels)),
        "top5_accuracy": float(np.mean(top5)) if len(classes) > 5 else None,
        "macro_f1": float(f1[(counts > 0) | np.isin(classes, predicted)].mean()),
        "expected_calibration_error": expected_calibration_error(bins),
        "classes": [
            {"name": name, "images": int(count), "precision": float(p), "recall": float(r), "f1": float(f)}
            for name, count, p, r, f in zip(class_names, counts, precision, recall, f1, strict=True)
        ],
        "reliability": bins,
        "confusion": {
            "true_class": cells[0].tolist(),
            "predicted_class": cells[1].tolist(),
            "images": matrix[cells].tolist(),
        },
    }


def p_words(p_value: float) -> str:
    """Return a p-value in words; one that underflows is no zero."""
    return f"p = {p_value:.2g}" if p_value >= 1e-300 else "p < 1e-300"


def reliability(labels: np.ndarray, softmax: np.ndarray) -> list[dict[str, float]]:
    """Return how often a network is right where it says so with a probability of 0 to 1/15, and so on.

    Args:
        labels: (images,), integers.
        softmax: (images, classes), probabilities.

    Returns:
        For each of 15 bins of equal width `low`, `high`, `images`, and the mean `confidence` and the
        `accuracy` in it, both 0 where it is empty. Guo et al. 2017, arXiv:1706.04599, section 2.
    """
    confidence, right = softmax.max(-1), softmax.argmax(-1) == labels
    # A probability on a border belongs to the bin below it.
    bins = np.clip(np.ceil(confidence * CALIBRATION_BINS).astype(int) - 1, 0, CALIBRATION_BINS - 1)
    found = []
    for number in range(CALIBRATION_BINS):
        chosen = bins == number
        count = int(chosen.sum())
        found.append(
            {
                "low": number / CALIBRATION_BINS,
                "high": (number + 1) / CALIBRATION_BINS,
                "images": count,
                "confidence": float(confidence[chosen].mean()) if count else 0.0,
                "accuracy": float(right[chosen].mean()) if count else 0.0,
            }
        )
    return found


def expected_calibration_error(bins: Sequence[dict[str, float]]) -> float:
    """Return the mean distance of confidence and accuracy over all images. Guo et al. 2017, equation 3."""
    total = sum(each["images"] for each in bins)
    return sum(each["images"] * abs(each["confidence"] - each["accuracy"]) for each in bins) / total


def mcnemar(right_a: np.ndarray, right_b: np.ndarray) -> dict[str, Any]:
    """Return whether two networks differ significantly on the same images.

    The exact test: of the images that only one of them gets right, each is a fair coin if they are equally
    good. McNemar 1947, doi:10.1007/BF02295996.

    Args:
        right_a: (images,), bool: what the first gets right.
        right_b: The same of the second, in the same order.

    Returns:
        `only_first` and `only_second`, the images that only one gets right, and the two-sided `p_value`.
    """
    from scipy.special import bdtr  # the binomial distribution function; SciPy comes with scikit-learn

    first, second = int(np.sum(right_a & ~right_b)), int(np.sum(right_b & ~right_a))
    p_value = min(1.0, 2.0 * float(bdtr(min(first, second), first + second, 0.5)))
    return {"only_first": first, "only_second": second, "p_value": p_value}


def chance_remark(experiment: str, metrics: MetricsRecord, dataset: DatasetRecord) -> str | None:
    """Return a sentence where the headline is within two standard errors of guessing, 1 / classes."""
    chance = 1 / len(dataset.class_names)
    error = math.sqrt(chance * (1 - chance) / dataset.num_images.val)
    if metrics.headline.val_accuracy > chance + 2 * error:
        return None
    guessing = f"guessing among {len(dataset.class_names)} classes"
    finding = f"The accuracy is at chance level: {guessing} is right for {100 * chance:.1f} %. Train longer"
    if metrics.headline.val_accuracy > chance:
        few = (
            f"{counted(dataset.num_images.val, 'validation image')} cannot tell this accuracy from {guessing}"
        )
        more = "Train longer" if metrics.on_test else "Hold out more, train longer"
        finding = f"{few}, which is right for {100 * chance:.1f} %. {more}"
    is_file = (experiments_dir() / f"{experiment}.yaml").is_file()  # not where one of a set's runs is meant
    command = f" with the same SET= and DATA_DIR=: make doctor EXP={experiment}" if is_file else ""
    return f"{finding}, lower the learning rate, or run the doctor{command}"
