"""Whether the difference between two runs is significant, in sentences.

McNemar's test compares two trained networks on the same images, Welch's at two recipes by several seeds.
"""

import itertools
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from app.errors import UserError
from app.evaluation.metrics import SIGNIFICANCE, mcnemar, p_words
from app.evaluation.significance import holm, welch
from app.paths import shown
from app.reading import read_predictions
from app.reports.compare_groups import Group, Trial, chose_settings
from app.runs import detour

MOST_WITH_ALL_PAIRS = 5  # more groups than this are compared with the best one alone
LEAST_SEEDS = 3  # for a word on recipes


def _images(group: Group) -> str:
    """Return what the same validation images in the same order have in common; unknown ones nothing."""
    return group.first.dataset.validation_fingerprint or group.name


def all_on_same_images(groups: Sequence[Group]) -> bool:
    """Return whether all groups were validated on the same images."""
    return len(set(map(_images, groups))) == 1


@dataclass(frozen=True)
class _Judged:
    """What the network of a group's first run says of the images that it was validated on."""

    group: Group
    name: str
    labels: np.ndarray
    right: np.ndarray  # (images,), bool


def chance_sentences(groups: Sequence[Group]) -> tuple[list[str], list[str]]:
    """Compare each two groups, or with more than five each with the best one.

    Returns:
        What was found, and how it is to be read; each a list of sentences. Runs without predictions, and
        those that saw other images, are named instead of compared.
    """
    by_images: dict[tuple[str, bytes], list[_Judged]] = {}
    left_out = []
    for group in groups if len(groups) > 1 else ():
        several = len(group.trials) > 1
        name = f"{group.name} (seed {group.first.experiment.seed})" if several else group.name
        try:
            labels, right = _judge(group.first)
        except UserError as error:
            left_out.append(f"{name} is not compared: {error}.")
            continue
        key = _images(group), labels.astype(np.int64).tobytes()
        by_images.setdefault(key, []).append(_Judged(group, name, labels, right))
    kinds = by_images.values()
    # All pairs are counted, the better of each first: which is the best shows in the same images.
    pairs: list[tuple[_Judged, _Judged]] = []
    recipes: list[tuple[Group, Group]] = []
    best: list[_Judged | Group] = []
    for kind in kinds:
        ranked = sorted(kind, key=lambda each: -each.right.mean())
        seeded = [each.group for each in kind if len(each.group.accuracies) >= LEAST_SEEDS]
        seeded.sort(key=lambda each: -statistics.mean(each.accuracies))
        pairs += itertools.combinations(ranked, 2)
        recipes += itertools.combinations(seeded, 2)
        best += [*ranked[:1], *seeded[:1]]

    def said(pair: tuple[Any, Any]) -> bool:
        return len(groups) <= MOST_WITH_ALL_PAIRS or any(pair[0] is each for each in best)

    found = [text for pair, text in zip(pairs, _mcnemar_sentences(pairs), strict=True) if said(pair)]
    found += left_out
    if len(kinds) > 1:
        sides = "; ".join(", ".join(each.name for each in kind) for kind in kinds)
        found.append(f"Not compared, for their validation images are not known to be the same: {sides}.")
    found += [text for pair, text in zip(recipes, _welch_sentences(recipes), strict=True) if said(pair)]
    return found, _remarks(groups, pairs, len(recipes))


def _judge(trial: Trial) -> tuple[np.ndarray, np.ndarray]:
    """Return the labels, and what a run gets right.

    Raises:
        UserError: That is unknown; the message says why.
    """
    if trial.metrics is None:
        raise UserError("its run is not finished")
    path, images = trial.run.predictions, trial.dataset.num_images.val
    labels, logits = read_predictions(path, trial.metrics.checkpoint, len(trial.dataset.class_names))
    if len(labels) != images:
        raise UserError(f"{shown(path)} has {len(labels):,} images, and {images:,} validated it")
    return labels, logits.argmax(-1) == labels


def _mcnemar_sentences(pairs: Sequence[tuple[_Judged, _Judged]]) -> list[str]:
    """Return what McNemar's test says of pairs of networks."""
    results = [mcnemar(one.right, other.right) for one, other in pairs]
    verdicts = _verdicts([result["p_value"] for result in results])
    return [
        f"{one.name} gets {result['only_first']:,} of {len(one.labels):,} images right that {other.name} "
        f"gets wrong, {result['only_second']:,} the other way round: "
        f"{'equal accuracy' if result['only_first'] == result['only_second'] else verdict} "
        f"(McNemar, exact, {p_words(result['p_value'])})."
        for (one, other), result, verdict in zip(pairs, results, verdicts, strict=True)
    ]


def _welch_sentences(pairs: Sequence[tuple[Group, Group]]) -> list[str]:
    """Return what Welch's t-test says of pairs of recipes, each with several seeds."""
    p_values = [welch(one.accuracies, other.accuracies).p_value for one, other in pairs]
    found = []
    for both, p_value, verdict in zip(pairs, p_values, _verdicts(p_values), strict=True):
        words = [f"{each.label}: {100 * statistics.mean(each.accuracies):.2f} % on average" for each in both]
        verdict_text = "no test, for the seeds of each end equal"
        if not math.isnan(p_value):
            verdict_text = f"{verdict} (Welch's t-test over seeds, {p_words(p_value)})"
        found.append(f"{'; '.join(words)}: {verdict_text}.")
    return found


def _verdicts(p_values: Sequence[float]) -> list[str]:
    """Return whether each difference is significant, by Holm's rule, in words."""
    percent = f"{100 * SIGNIFICANCE:g} %"
    return [f"{'' if found else 'not '}significant at {percent}" for found in holm(p_values)]


def _remarks(
    groups: Sequence[Group], pairs: Sequence[tuple[_Judged, _Judged]], num_recipes: int
) -> list[str]:
    """Return how the sentences are to be read."""
    remarks = []
    for group in groups:
        if why := detour(group.first.run, group.first.experiment):
            remarks.append(f"Of {group.label}: {why}.")
        if chose_settings(group.first):
            remarks.append(f"{group.label} is a trial of a sweep, whose best were chosen by these images.")
    if not pairs:
        return remarks
    compared = {each.name: each.group for pair in pairs for each in pair}.values()
    on_test = [group.on_test for group in compared]
    if any(on_test):
        remarks.append(f"The images {'' if all(on_test) else 'of some '}are the test split.")
    if len(pairs) > 1:
        likewise = f"; of {num_recipes} pairs of recipes likewise" if num_recipes > 1 else ""
        remarks.append(
            f"Of {len(pairs)} pairs of networks the smallest p has to lie below {SIGNIFICANCE:g} / "
            f"{len(pairs)}, the next below {SIGNIFICANCE:g} / {len(pairs) - 1}, and so on (Holm's rule)"
            f"{likewise}."
        )
    if len(groups) > MOST_WITH_ALL_PAIRS:
        remarks.append("Only pairs with the best one are named; all count, for the same images chose it.")
    words = "McNemar's test speaks of these two trained networks, not of their recipes"
    if any(len(group.trials) > 1 for group in compared):
        words += "; of several seeds it takes the first"
    if not num_recipes:
        words += (
            f"; {LEAST_SEEDS} seeds or more of each (make train SEEDS={LEAST_SEEDS}) would speak of those"
        )
    return [*remarks, f"{words}."]
