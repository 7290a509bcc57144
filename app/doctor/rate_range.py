"""What the losses of a learning-rate range test suggest. NumPy only."""

from typing import NamedTuple

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

SMOOTHED_DECADES = 0.12  # standard deviation of the weights, which see both sides: no delay, as of an average
LEAST_FALL = 0.02  # of the first loss
PART = 0.1  # of the whole fall: lost again, the loss counts as rising; before, it does not count as falling


class RateRange(NamedTuple):
    """Learning rates that a range test names."""

    steepest: float  # where the smoothed loss falls fastest
    lowest: float  # where it is lowest
    end: float  # where it rises again, or the last one
    rises: bool

    @property
    def peak(self) -> float:
        """A tenth of the end, which is no more than a guess on the safe side."""
        return min(self.end / 10, self.lowest)

    @property
    def span(self) -> tuple[float, float]:
        """The lowest and the highest rate worth a try."""
        return min(self.steepest, self.peak), self.lowest


def smoothed(rates: np.ndarray, losses: np.ndarray) -> np.ndarray:
    """Return losses averaged over neighbouring rates, with the weights of a normal density on a log axis.

    A median of five steps comes first, so that a single spike has no weight, and losses count as at most
    twice the first ones.
    """
    medians = np.median(sliding_window_view(np.pad(losses, 2, mode="edge"), 5), axis=1)
    distances = np.subtract.outer(np.log10(rates), np.log10(rates)) / SMOOTHED_DECADES
    weights = np.exp(-0.5 * distances**2)
    return (weights @ np.minimum(medians, 2 * _first(rates, losses))) / weights.sum(axis=1)


def _first(rates: np.ndarray, losses: np.ndarray) -> float:
    """Return the loss before the rates matter: the median of the first decade."""
    return float(np.median(losses[rates <= 10 * rates[0]]))


def rate_range(rates: np.ndarray, losses: np.ndarray) -> RateRange | None:
    """Return the range that a test suggests, None where the loss never falls beyond its noise.

    Args:
        rates: Rising, (steps,).
        losses: At each rate, (steps,); infinite where training has diverged.
    """
    first, curve = _first(rates, losses), smoothed(rates, losses)
    early = rates <= 10 * rates[0]
    noise = float(np.std(losses[early] - curve[early]))
    fall = first - curve.min()
    if early[curve.argmin()] or fall < max(LEAST_FALL * first, noise):
        return None
    before = np.minimum.accumulate(curve)
    risen = np.flatnonzero((before < first - fall / 2) & (curve > before + PART * fall))
    end = risen[0] if len(risen) else len(rates) - 1
    lowest = curve[: end + 1].argmin()
    slopes = np.gradient(curve, np.log10(rates))
    slopes[curve > first - PART * fall] = 0.0
    return RateRange(
        steepest=float(rates[slopes[: lowest + 1].argmin()]),
        lowest=float(rates[lowest]),
        end=float(rates[end]),
        rises=len(risen) > 0,
    )
