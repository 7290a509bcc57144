"""What seeds say of a recipe and of its variants, as a table and in sentences."""

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from app.evaluation.metrics import SIGNIFICANCE
from app.evaluation.significance import Difference, welch_from_first
from app.reports.cells import percent
from app.wording import aligned, counted


class Result(NamedTuple):
    """A variant, and what its seeds came to."""

    name: str
    accuracies: Sequence[float]  # NaN where the loss was no longer finite
    difference: Difference  # from the whole recipe

    @property
    def finished(self) -> list[float]:
        """The accuracies of the runs that finished."""
        return [each for each in self.accuracies if not math.isnan(each)]

    @property
    def mean(self) -> float:
        """Their mean; NaN where there is none."""
        return statistics.mean(self.finished) if self.finished else math.nan

    @property
    def std(self) -> float:
        """Their standard deviation; NaN of fewer than two."""
        return statistics.stdev(self.finished) if len(self.finished) > 1 else math.nan


def results_of(accuracies: Mapping[str, Sequence[float]]) -> list[Result]:
    """Compare variants with the first of them, the whole recipe.

    Args:
        accuracies: Of each variant, one for each seed; NaN where a run failed.
    """
    finished = [[each for each in values if not math.isnan(each)] for values in accuracies.values()]
    none = Difference(math.nan, math.nan, math.nan, math.nan)
    differences = [none, *welch_from_first(finished)]
    pairs = zip(accuracies.items(), differences, strict=True)
    return [Result(name, values, difference) for (name, values), difference in pairs]


def table(results: Sequence[Result]) -> list[str]:
    """Return the lines of a table in plain text; differences are in percentage points."""
    rows = [["", "mean", "std", "difference", "95 % interval", "p", "seeds"]]
    for each in results:
        found, failed = each.difference, len(each.accuracies) - len(each.finished)
        interval = f"{_points(found.low)} to {_points(found.high)}" if math.isfinite(found.low) else ""
        rows.append(
            [
                each.name,
                percent(each.mean) if each.finished else "",
                f"{100 * each.std:.2f}" if len(each.finished) > 1 else "",
                _points(found.mean) if math.isfinite(found.mean) else "",
                interval,
                f"{found.p_value:.2g}" if math.isfinite(found.p_value) else "",
                f"{len(each.finished)}{f', {failed} failed' if failed else ''}",
            ]
        )
    return aligned(rows, right=range(1, 7))


def sentences(results: Sequence[Result]) -> list[str]:
    """Return which pieces stand out of the noise, in sentences."""
    variants = results[1:]
    groups = {
        "Stand out of the noise": [each for each in variants if each.difference.significant],
        "Cannot be told from the whole recipe": [
            each for each in variants if not each.difference.significant and _tested(each)
        ],
        "Not tested, as too few seeds finished or all end equal": [
            each for each in variants if not _tested(each)
        ],
    }
    found = []
    for heading, members in groups.items():
        words = [_named(each) for each in sorted(members, key=lambda each: each.difference.mean)]
        found += [f"{heading}: {', '.join(words)}."] if words else []
    number = sum(map(_tested, variants))
    if number:
        found.append(
            f"Welch's t-test over seeds at {100 * SIGNIFICANCE:g} %, with Holm's correction for "
            f"{counted(number, 'comparison')}; each interval is for itself. More SEEDS make both sharper."
        )
    return found


def _named(result: Result) -> str:
    """Return a variant's name, its difference where that was tested, and how many of its runs failed."""
    words = [f"{_points(result.difference.mean)} points"] if _tested(result) else []
    if failed := len(result.accuracies) - len(result.finished):
        words.append(f"{failed} of {len(result.accuracies)} seeds failed, which the mean leaves out")
    return result.name + (f" ({'; '.join(words)})" if words else "")


def _tested(result: Result) -> bool:
    return not math.isnan(result.difference.p_value)


def _points(fraction: float) -> str:
    return f"{100 * fraction:+.2f}"
