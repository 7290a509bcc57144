"""What is said of finalists: noise, the winner's curse, the test split; which trial is best."""

import pytest

from app.sweep.finalists import FinalistRecord, FinalistsRecord
from app.sweep.values import choice_labels, ranked
from app.sweep.verdict import finalist_sentences, finalist_table
from tests.sweep.made_up import Choice, finished, sweep_of


def finalist(trial, value, values, failures=()):
    runs = [f"tiny.sweep/{trial}-{number}" for number in range(len(values))]
    return FinalistRecord(trial=trial, value=value, values=values, runs=runs, failures=list(failures))


def record(*finalists, test=(0.6, 0.62), no_test=None, tested=(0,)):
    return FinalistsRecord(
        finished=30, finalists=list(finalists), test=list(test), no_test=no_test, tested=list(tested)
    )


BEST = finalist(0, 0.631, [0.62, 0.622, 0.624])


def test_differences_beyond_noise_are_told_from_the_others():
    alike = finalist(1, 0.630, [0.619, 0.625, 0.616])
    worse = finalist(2, 0.629, [0.50, 0.501, 0.502])
    noise, flattery, unseen = finalist_sentences(record(BEST, alike, worse), sweep_of())
    assert "Trial 0 is chosen by its other seeds: 62.20 % on average." in noise
    beyond, within = (
        noise.index("Different from it beyond noise: trial 2"),
        noise.index("Not distinguishable from it: trial 1"),
    )
    assert beyond < within
    assert "best of 30 at 63.10 %; with 3 other seeds it comes to 62.20 %" in flattery
    assert flattery.endswith("flattered it by 0.90 points.")
    assert "evaluated once for trial 0: accuracy 61.00 % on average of 2 seeds, 2.10 points below" in unseen


def test_further_evaluations_on_the_test_split_are_counted():
    again = record(BEST).model_copy(update={"evaluations": 3})
    assert "evaluated 3 times for trial 0" in finalist_sentences(again, sweep_of())[-1]


def test_of_equal_trials_the_one_that_was_proposed_first_was_the_best():
    first, second = finalist(4, 0.403, [0.39, 0.392]), finalist(9, 0.403, [0.4, 0.402])
    flattery = finalist_sentences(record(second, first), sweep_of())[1]
    assert "Trial 4 was chosen as the best of 30 at 40.30 %" in flattery
    assert flattery.endswith("flattered it by 1.20 points.")


def test_holm_is_stricter_with_more_comparisons():
    # p = 0.03 for each: significant alone, not among four.
    close = [finalist(number, 0.62, [0.610, 0.617, 0.614]) for number in range(1, 5)]
    alone, among = (finalist_sentences(record(BEST, *others), sweep_of())[0] for others in (close[:1], close))
    assert "Different from it beyond noise: trial 1" in alone
    assert "Different" not in among


def test_the_best_of_the_sweep_is_named_though_another_was_chosen():
    lucky = finalist(7, 0.66, [0.60, 0.61, 0.59])
    sentences = finalist_sentences(record(BEST, lucky), sweep_of())
    assert "Trial 7 was chosen as the best of 30 at 66.00 %" in sentences[1]
    assert sentences[1].endswith("flattered it by 6.00 points.")


def test_a_small_loss_is_flattered_downwards():
    best = finalist(0, 1.0, [1.1, 1.1, 1.13])
    loss = sweep_of(objective="val_loss")
    sentences = finalist_sentences(record(best, finalist(1, 1.05, [1.2, 1.4, 1.3])), loss)
    assert sentences[1].endswith("flattered it by 0.1100.")
    head, rows, numbers = finalist_table(record(best), finished(1.0), loss)
    assert len(rows[0]) == len(head) and rows[0][1] == "1.0000"


@pytest.mark.parametrize(
    ("found", "options", "words"),
    [
        (record(BEST), {}, "only finalist"),
        (record(finalist(0, 0.63, [0.62]), finalist(1, 0.6, [0.61])), {"seeds": 1}, "no test is possible"),
        (record(BEST, finalist(1, 0.6, [], ["seed 4: the loss is nan"])), {}, "seed 4: the loss is nan"),
        (record(BEST, finalist(1, 0.6, [0.6], ["seed 4: nan"])), {}, "all end equal: trial 1"),
        (record(BEST, finalist(1, 0.6, [0.6] * 3)), {}, "trial 1"),
        (record(finalist(0, 0.6, [0.62] * 3), finalist(1, 0.6, [0.62] * 3)), {}, "did not flatter it"),
        (record(BEST, test=(), no_test="the data have no test split"), {}, "the data have no test split"),
        (record(BEST, tested=(0, 4)), {}, "2 of the sweep's trials (0, 4)"),
        (record(finalist(0, 0.6, [], ["seed 4: nan"]), test=(), no_test="none"), {}, "seed 4: nan"),
    ],
)  # fmt: skip
def test_what_cannot_be_compared_is_said(found, options, words):
    sweep = sweep_of(**options)
    assert words in " ".join(finalist_sentences(found, sweep))
    numbers = [each.trial for each in found.finalists]
    head, rows, _ = finalist_table(found, finished(*[0.5] * 8), sweep)
    assert [row[0] for row in rows] == list(map(str, numbers)) and {len(row) for row in rows} == {len(head)}
    assert "nan" not in "".join(cell for row in rows for cell in row)


def test_only_finished_trials_are_ranked_and_the_first_of_equals_leads():
    trials = finished(0.5, 0.7, 0.7, 0.6)
    trials += [trials[1]._replace(number=4, state="pruned", value=None, values=(0.9,))]
    assert [trial.number for trial in ranked(trials, sweep_of())] == [1, 2, 3, 0]
    assert [trial.number for trial in ranked(trials, sweep_of(objective="val_loss"))] == [0, 3, 1, 2]


def test_lists_are_labelled_by_names_where_these_tell_them_apart():
    apart = Choice(values=([], ["random_flip"], ["random_flip", {"random_crop": {"padding_pixels": 4}}]))
    assert list(choice_labels(apart).values()) == ["none", "random_flip", "random_flip, random_crop"]
    alike = Choice(
        values=([{"random_crop": {"padding_pixels": 2}}], [{"random_crop": {"padding_pixels": 4}}])
    )
    assert list(choice_labels(alike).values()) == [
        "[{random_crop: {padding_pixels: 2}}]",
        "[{random_crop: {padding_pixels: 4}}]",
    ]
