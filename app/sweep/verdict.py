"""What the finalists of a sweep say, as a table and in sentences: noise, and what the choice cost."""

import math
import statistics
from collections.abc import Sequence

from app.config.sweep import SweepConfig
from app.evaluation.significance import Difference, welch_from_first
from app.reports.cells import percent
from app.sweep.finalists import FinalistsRecord
from app.sweep.trials import Trial
from app.sweep.values import difference_text, in_percent, setting_text, value_text
from app.wording import counted


def finalist_table(
    record: FinalistsRecord, trials: Sequence[Trial], sweep: SweepConfig
) -> tuple[list[str], list[list[str]], list[int]]:
    """Return headings, a row of texts for each finalist, and which columns (from 0) are flush right."""
    settings = {trial.number: trial.settings for trial in trials}
    numbers = ["trial", "in the sweep", "other seeds", "seeds", "standard deviation", "from the best", "p"]
    rows = []
    for each, test in zip(record.finalists, [None, *_tests(record)], strict=True):
        gap = difference_text(each.mean - record.finalists[0].mean, sweep, signed=True) if test else ""
        rows.append(
            [
                str(each.trial),
                value_text(each.value, sweep),
                value_text(each.mean, sweep),
                f"{len(each.values)}{f', {len(each.failures)} failed' if each.failures else ''}",
                difference_text(each.std, sweep),
                gap,
                f"{test.p_value:.2g}" if test and not math.isnan(test.p_value) else "",
                *(setting_text(settings[each.trial][key], searched) for key, searched in sweep.space.items()),
            ]
        )
    return [*numbers, *sweep.space], rows, list(range(len(numbers)))


def finalist_sentences(record: FinalistsRecord, sweep: SweepConfig) -> list[str]:
    """Return which finalists differ from the best beyond noise, and what to expect of unseen images."""
    failures = [
        f"Trial {each.trial} did not finish with every seed ({'; '.join(each.failures)})."
        for each in record.finalists
        if each.failures
    ]
    return [*failures, _noise(record, sweep), *_flattery(record, sweep), *_unseen(record, sweep)]


def _tests(record: FinalistsRecord) -> list[Difference]:
    """Return how the finalists differ from the first, which these values chose."""
    return welch_from_first([each.values for each in record.finalists], chosen=True)


def _noise(record: FinalistsRecord, sweep: SweepConfig) -> str:
    """Return which finalists differ from the best one, in sentences."""
    best, *others = record.finalists
    if not best.values:
        return "No finalist finished with another seed: nothing is known of the noise."
    if not others:
        return f"Trial {best.trial} is the only finalist: there is nothing to compare it with."
    sentences = [
        f"Trial {best.trial} is chosen by its other seeds: {value_text(best.mean, sweep)} on average."
    ]
    if sweep.seeds == 1:
        return f"{sentences[0]} With one seed each no test is possible, so it may be chance (sweep.seeds)."
    names = (
        "Different from it beyond noise",
        "Not distinguishable from it",
        "Not tested, for too few seeds finished or all end equal",
    )
    groups: dict[str, list[str]] = {name: [] for name in names}
    for each, test in zip(others, _tests(record), strict=True):
        known = not math.isnan(test.p_value)
        name = names[0 if test.significant else 1 if known else 2]
        groups[name].append(f"trial {each.trial}" + (f" (p = {test.p_value:.2g})" if known else ""))
    sentences += [f"{name}: {', '.join(listed)}." for name, listed in groups.items() if listed]
    return " ".join([*sentences, "(Welch's t-test, Holm's correction, 5 %.)"])


def _flattery(record: FinalistsRecord, sweep: SweepConfig) -> list[str]:
    """Return by how much the best value of the sweep was too good, in a sentence."""
    sign = 1 if sweep.direction == "maximize" else -1
    first = max(record.finalists, key=lambda each: (sign * each.value, -each.trial))  # as `ranked`
    if not first.values:
        return []
    gain = sign * (first.value - first.mean)
    seeds = counted(len(first.values), "other seed")
    effect = f"flattered it by {difference_text(gain, sweep)}" if gain > 0 else "did not flatter it"
    return [
        f"Trial {first.trial} was chosen as the best of {record.finished} at "
        f"{value_text(first.value, sweep)}; with {seeds} it comes to {value_text(first.mean, sweep)} on "
        f"average: the choice {effect}."
    ]


def _unseen(record: FinalistsRecord, sweep: SweepConfig) -> list[str]:
    """Return what the test split says, in sentences."""
    best = record.finalists[0]
    if not record.test:
        return [f"The test split was not evaluated: {record.no_test}."]
    several = f" on average of {len(record.test)} seeds" if len(record.test) > 1 else ""
    accuracy = statistics.mean(record.test)
    times = "once" if record.evaluations == 1 else f"{record.evaluations} times"
    words = f"Test split, evaluated {times} for trial {best.trial}: accuracy {percent(accuracy)}{several}"
    if in_percent(sweep):
        lower = "below" if accuracy < best.value else "above"
        words += f", {difference_text(abs(best.value - accuracy), sweep)} {lower} the value in the sweep"
    found = [f"{words}."]
    if len(record.tested) > 1:
        names = ", ".join(map(str, record.tested))
        found.append(
            f"The test split was evaluated for {len(record.tested)} of the sweep's trials ({names}); a "
            "choice among these by their test accuracy would be optimistic."
        )
    return found
