"""What is said of seeds: which pieces stand out, which cannot be told from the recipe, which failed."""

import math

import pytest

from app.ablation.results import results_of, sentences, table

ACCURACIES = {
    "whole recipe": [0.900, 0.902, 0.898],
    "without a": [0.850, 0.851, 0.852],
    "without b": [0.899, 0.903, 0.901],
    "without c": [0.890, math.nan, math.nan],
    "without d": [math.nan, math.nan, math.nan],
}


def test_sentences_sort_the_pieces_by_what_is_known():
    stand_out, same, unknown, how = sentences(results_of(ACCURACIES))
    assert stand_out == "Stand out of the noise: without a (-4.90 points)."
    assert same == "Cannot be told from the whole recipe: without b (+0.10 points)."
    assert "without c" in unknown and "without d" in unknown and "points" not in unknown
    assert "Holm's correction for 2 comparisons" in how


def test_a_variant_of_which_runs_failed_says_so_beside_its_mean():
    seeds = {
        "whole recipe": [0.900, 0.902, 0.898, 0.9, 0.901],
        "without a": [0.95, 0.951, math.nan, math.nan, 0.95],
    }
    (stand_out, _) = sentences(results_of(seeds))
    assert "without a (+5.01 points; 2 of 5 seeds failed, which the mean leaves out)" in stand_out


def test_table_has_the_spread_and_counts_what_failed():
    lines = table(results_of(ACCURACIES))
    assert lines[1].split() == ["whole", "recipe", "90.00", "%", "0.20", "3"]
    words = lines[2].split()
    assert words[:6] == ["without", "a", "85.10", "%", "0.10", "-4.90"] and words[7] == "to"
    assert float(words[6]) < -4.9 < float(words[8]) < 0  # the interval of what stands out leaves zero out
    assert lines[4].split() == ["without", "c", "89.00", "%", "-1.00", "1,", "2", "failed"]
    assert lines[5].split() == ["without", "d", "0,", "3", "failed"]


def test_a_large_difference_between_noisy_recipes_does_not_stand_out():
    (_, noisy) = results_of({"whole recipe": [0.80, 0.90], "without a": [0.70, 0.84]})
    assert noisy.difference.mean == pytest.approx(-0.08) and not noisy.difference.significant
