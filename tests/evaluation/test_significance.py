"""Welch's t-test and Holm's rule, on numbers whose answers are known."""

import math
import statistics

import numpy as np
import pytest
from scipy.stats import t as student_t

from app.evaluation.significance import holm, welch, welch_from_first


def test_welch_finds_the_difference_with_its_interval():
    """By hand: variances 1 and 4, so the error of the difference is sqrt(1 / 3 + 4 / 3)."""
    quantile = student_t.ppf(
        0.975, (25 / 9) / (1 / 18 + 8 / 9)
    )  # degrees of freedom by Welch and Satterthwaite
    found = welch([5.0, 7.0, 9.0], [1.0, 2.0, 3.0])
    assert found.mean == pytest.approx(5.0)
    assert found.low == pytest.approx(5 - quantile * math.sqrt(5 / 3))
    assert (found.low + found.high) / 2 == pytest.approx(found.mean)
    assert found.low > 0 and found.p_value < 0.05  # the interval of 95 % and the test at 5 % agree
    other = welch([1.0, 2.0, 3.0], [5.0, 7.0, 9.0])
    assert (other.mean, other.low) == (pytest.approx(-5.0), pytest.approx(-found.high))


def test_false_alarms_are_one_in_twenty_and_intervals_hold_the_truth():
    rng = np.random.default_rng(0)
    found = [welch(list(rng.normal(0, 3, 4)), list(rng.normal(0, 1, 3))) for _ in range(600)]
    alarms = np.mean([each.p_value < 0.05 for each in found])
    assert 0.02 < alarms < 0.08
    assert np.mean([each.low <= 0 <= each.high for each in found]) == pytest.approx(1 - alarms)


@pytest.mark.parametrize(
    ("values", "first"), [([1.0], [1.0, 2.0]), ([], [1.0, 2.0]), ([1.0, 1.0], [2.0, 2.0]), ([1.0], [2.0])]
)
def test_where_nothing_can_be_said_of_chance_nothing_is_significant(values, first):
    found = welch(values, first)
    assert math.isnan(found.p_value) and math.isnan(found.low) and not found.significant
    assert math.isnan(found.mean) == (not values)
    assert not welch_from_first([first, values])[0].significant


def test_holm_is_stricter_the_more_is_compared():
    assert holm([0.04]) == [True]
    assert holm([0.04, 0.9]) == [False, False]  # the smallest has to lie below 0.05 / 2
    assert holm([0.04, 0.016, 0.024]) == [True] * 3  # just below 0.05 / 1, / 3 and / 2
    assert holm([0.017, 0.018, 0.019]) == [False] * 3
    assert holm([0.03, 0.001, math.nan, 0.02]) == [True, True, False, True]  # 0.001, 0.02, 0.03: /3, /2, /1
    assert holm([0.001, 0.03, 0.028]) == [True, False, False]  # it stops at the first that is not
    assert holm([]) == []


def test_equal_recipes_are_rarely_told_apart_though_the_best_is_chosen_by_the_same_values():
    random, alarms = np.random.default_rng(0), 0
    for draw in random.normal(size=(200, 8, 5)):
        ranked = sorted(draw.tolist(), key=statistics.mean, reverse=True)
        alarms += any(each.significant for each in welch_from_first(ranked, chosen=True))
    assert alarms / 200 < 0.07


def test_groups_are_compared_with_the_first():
    same, worse = [0.90, 0.91, 0.92], [0.80, 0.81, 0.82]
    unlike = welch_from_first([same, worse, same[::-1]])
    assert [each.significant for each in unlike] == [True, False]
    assert unlike[0].mean == pytest.approx(-0.1) and unlike[1].mean == pytest.approx(0.0)
