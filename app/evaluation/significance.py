"""Whether recipes differ by more than their seeds do: Welch's t-test, and Holm's rule for several at once."""

import itertools
import math
import statistics
import warnings
from collections.abc import Sequence
from typing import NamedTuple

from app.evaluation.metrics import SIGNIFICANCE


class Difference(NamedTuple):
    """What seeds say of the difference between two recipes; NaN where they are too few, or end equal."""

    mean: float
    low: float  # of the 95 % interval
    high: float
    p_value: float
    significant: bool = False  # by Holm's rule


def welch(values: Sequence[float], first: Sequence[float]) -> Difference:
    """Return how one number for each seed differs from those of the first recipe, by Welch's t-test."""
    mean = statistics.mean(values) - statistics.mean(first) if values and first else math.nan
    if min(len(values), len(first)) < 2 or len(set(values)) == len(set(first)) == 1:
        return Difference(mean, math.nan, math.nan, math.nan)
    from scipy.stats import ttest_ind  # comes with scikit-learn

    with warnings.catch_warnings(action="ignore"):  # of seeds that end nearly equal
        result = ttest_ind(values, first, equal_var=False)
        interval = result.confidence_interval(1 - SIGNIFICANCE)
    return Difference(mean, float(interval.low), float(interval.high), float(result.pvalue))


def welch_from_first(groups: Sequence[Sequence[float]], *, chosen: bool = False) -> list[Difference]:
    """Return how each recipe but the first differs from that one.

    Args:
        groups: The values of each recipe.
        chosen: Whether the first is first because it has the best of these values: choosing it looked at all
            pairs, and all are counted.
    """
    pairs = [(groups[0], values) for values in groups[1:]]
    pairs += itertools.combinations(groups[1:], 2) if chosen else ()
    found = [welch(other, one) for one, other in pairs]
    verdicts = holm([each.p_value for each in found])
    tested = list(zip(found, verdicts, strict=True))[: len(groups) - 1]
    return [each._replace(significant=verdict) for each, verdict in tested]


def holm(p_values: Sequence[float]) -> list[bool]:
    """Return whether each difference is significant, by the step-down rule of Holm 1979; never for NaN.

    Chance alone would name even one of them in at most one of twenty such comparisons, however many there
    are. Scandinavian Journal of Statistics 6, pages 65 to 70.
    """
    verdicts = [False] * len(p_values)
    known = [number for number, p_value in enumerate(p_values) if not math.isnan(p_value)]
    ranked = sorted(known, key=lambda number: p_values[number])
    for rank, number in enumerate(ranked):
        if p_values[number] >= SIGNIFICANCE / (len(ranked) - rank):
            break
        verdicts[number] = True
    return verdicts
