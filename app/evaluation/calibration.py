"""Probabilities that agree with how often a network is right, and which of them are too small to rely on.

Temperature scaling: the logits are divided by one number before the softmax, so that the predicted classes
stay as they are. Guo et al. 2017, arXiv:1706.04599, section 4.2.
"""

from typing import Any

import numpy as np

from app.evaluation.metrics import (
    expected_calibration_error,
    negative_log_likelihood,
    probabilities,
    reliability,
)

TEMPERATURES = 0.05, 20.0  # the least and the greatest that a fit gives
SURE_PRECISION = 0.95


def calibrate(labels: np.ndarray, logits: np.ndarray) -> dict[str, Any] | None:
    """Fit temperature and threshold on validation images; return the content of a `CalibratedRecord`.

    None where the logits are not all finite.

    Args:
        labels: (images,), integers.
        logits: (images, classes).
    """
    if not np.isfinite(logits).all():
        return None
    temperature, remark = fit_temperature(labels, logits)
    unsure_below = least_sure_probability(labels, probabilities(logits, temperature))
    content = calibrated_metrics(labels, logits, temperature, unsure_below)
    if not content["sure_fraction"]:
        none_is_sure = (
            f"No probability reaches a precision of {100 * SURE_PRECISION:g} % on the validation images, so "
            "that every prediction below a probability of 1 is unsure."
        )
        remark = f"{remark} {none_is_sure}" if remark else none_is_sure
    return content | {"remark": remark}


def fit_temperature(labels: np.ndarray, logits: np.ndarray) -> tuple[float, str | None]:
    """Return the temperature with the least negative log-likelihood, and a remark where it is at a limit.

    The temperature is 1 where a smaller one is always better because (nearly) all images are predicted
    correctly: such images cannot say how certain a network may be. Likewise where no other is better.
    """
    from scipy.optimize import minimize_scalar  # comes with scikit-learn

    relative = np.asarray(logits, np.float64)
    relative = relative - np.take_along_axis(relative, np.asarray(labels)[:, None], -1)  # to the true class
    wrong = (relative > 0).any(-1)

    def loss(log_temperature: float) -> float:
        return negative_log_likelihood(labels, logits, np.exp(log_temperature))

    low, high = np.log(TEMPERATURES)
    best = float(minimize_scalar(loss, bounds=(low, high), method="bounded", options={"xatol": 1e-6}).x)
    all_right = not wrong.any() and relative.min() < 0  # far apart, all small ones are the same
    if best - low < 1e-3 and wrong.mean() > 1 - SURE_PRECISION:
        return TEMPERATURES[0], (
            f"The temperature is the smallest that is allowed, {TEMPERATURES[0]:g}: logits hardly differ, so "
            "that the probabilities of the network itself say little."
        )
    if best - low < 1e-3 or all_right:
        return 1.0, (
            "No temperature fits: the smaller, the better for the validation images, because all of them, or "
            "nearly all, are predicted correctly. Probabilities are those of the network itself."
        )
    if loss(best) >= loss(0.0):
        return 1.0, None
    if high - best < 1e-3:
        return TEMPERATURES[1], (
            f"The temperature is the greatest that is allowed, {TEMPERATURES[1]:g}: on the validation images "
            "the probabilities of the network have little to do with how often it is right."
        )
    return float(np.exp(best)), None


def least_sure_probability(labels: np.ndarray, softmax: np.ndarray) -> float:
    """Return the smallest probability from which on 95 % of the predictions are correct; 1 if there is none.

    Args:
        labels: (images,), integers.
        softmax: (images, classes), probabilities.
    """
    confidence, right = softmax.max(-1), softmax.argmax(-1) == labels
    order = np.argsort(-confidence, kind="stable")
    confidence, right = confidence[order], right[order]
    precision = np.cumsum(right) / np.arange(1, len(right) + 1)
    # Images of the same probability are on the same side of a threshold: the last of them counts.
    last = np.append(confidence[1:] < confidence[:-1], True)
    reached = np.flatnonzero(last & (precision >= SURE_PRECISION))
    return float(confidence[reached[-1]]) if len(reached) else 1.0


def calibrated_metrics(
    labels: np.ndarray, logits: np.ndarray, temperature: float, unsure_below: float
) -> dict[str, Any]:
    """Return what scaled probabilities are like on images, ready for JSON.

    Args:
        labels: (images,), integers.
        logits: (images, classes), finite.
        temperature: What the logits are divided by.
        unsure_below: The probability below which a prediction is called unsure.

    Returns:
        `temperature` and `unsure_below`; `loss` and `expected_calibration_error`, and without the temperature
        `loss_before` and `expected_calibration_error_before`; `sure_fraction` of the images, and of these the
        fraction that is predicted correctly, `sure_precision`, None where there are none.
    """
    content: dict[str, Any] = {"temperature": temperature, "unsure_below": unsure_below}
    for suffix, divisor in (("_before", 1.0), ("", temperature)):
        softmax = probabilities(logits, divisor)
        content[f"loss{suffix}"] = negative_log_likelihood(labels, logits, divisor)
        error = expected_calibration_error(reliability(labels, softmax))
        content[f"expected_calibration_error{suffix}"] = error
    sure = softmax.max(-1) >= unsure_below
    right = softmax.argmax(-1) == labels
    precision = float(right[sure].mean()) if sure.any() else None
    return content | {"sure_fraction": float(sure.mean()), "sure_precision": precision}
