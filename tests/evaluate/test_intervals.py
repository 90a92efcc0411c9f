"""Intervals against statistics known from elsewhere, and against what they promise: to hold the truth 95 times in 100."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headstart.evaluate import intervals


@st.composite
def shares(draw: st.DrawFn) -> tuple[int, int]:
    n = draw(st.integers(1, 5000))
    return draw(st.integers(0, n)), n


def test_wilson_equals_published_values() -> None:
    # Newcombe (1998), "Two-sided confidence intervals for the single proportion", table I, method 3.
    for n_right, n, low, high in ((81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0000, 0.1611), (1, 29, 0.0061, 0.1718)):
        assert intervals.wilson(n_right, n) == pytest.approx((low, high), abs=5e-5)


@given(shares())
def test_wilson_ends_are_the_shares_that_a_score_test_just_accepts(share: tuple[int, int]) -> None:
    n_right, n = share
    estimate = n_right / n
    for end in intervals.wilson(n_right, n):
        if 0 < end < 1:
            assert abs(estimate - end) / math.sqrt(end * (1 - end) / n) == pytest.approx(1.959964, rel=1e-6)


@given(shares())
def test_wilson_holds_its_estimate_and_stays_within_0_and_1(share: tuple[int, int]) -> None:
    n_right, n = share
    low, high = intervals.wilson(n_right, n)
    assert 0 <= low <= n_right / n <= high <= 1
    assert high - low > 0


def test_wilson_of_no_trials_says_nothing() -> None:
    assert intervals.wilson(0, 0) == (0.0, 1.0)


def test_wilson_refuses_more_successes_than_trials() -> None:
    with pytest.raises(ValueError, match="n_right=4, n=3"):
        intervals.wilson(4, 3)


def test_f1_interval_is_wilson_of_the_shared_photos_sent_through_f1() -> None:
    # 8 of 10 recognised, 9 taken for it: 11 photos in either, 8 in both; F1 = 16 / 19.
    low, high = intervals.f1_interval(8, 10, 9)
    share_low, share_high = intervals.wilson(8, 11)
    assert (low, high) == pytest.approx((2 * share_low / (1 + share_low), 2 * share_high / (1 + share_high)))
    assert low < 16 / 19 < high


def test_class_intervals_hold_the_truth_in_about_95_of_100_cases() -> None:
    rng = np.random.default_rng(5)
    both, missed, extra = 0.18, 0.02, 0.015  # probabilities of a photo: of the class and found, missed, wrongly taken for it
    truth = 2 * both / (2 * both + missed + extra)
    hits = 0
    for draw in rng.multinomial(150, [both, missed, extra, 1 - both - missed - extra], size=2000):
        low, high = intervals.f1_interval(draw[0], draw[0] + draw[1], draw[0] + draw[2])
        hits += low <= truth <= high
    assert 0.93 <= hits / 2000 <= 0.98


def test_bootstrap_of_a_mean_agrees_with_its_standard_error() -> None:
    values = np.random.default_rng(0).normal(size=400)
    means = intervals.bootstrap(lambda weights: (weights @ values / 400)[:, None], 400, seed=1, n_resamples=4000)
    low, high = intervals.percentile(means)[0]
    reach = 1.96 * values.std() / 20
    assert (low, high) == pytest.approx((values.mean() - reach, values.mean() + reach), abs=0.01)


def test_bootstrap_draws_every_resample_in_full_whatever_the_block() -> None:
    n = 3000  # several blocks
    sums = intervals.bootstrap(lambda weights: weights.sum(axis=1, keepdims=True), n, seed=0)
    assert sums.shape == (intervals.N_RESAMPLES, 1)
    assert (sums == n).all()


def test_bootstrap_repeats_with_its_seed_and_changes_with_another() -> None:
    def first(weights: intervals.Weights) -> np.ndarray:
        return weights[:, :1]

    one, again, other = (intervals.bootstrap(first, 50, seed=seed) for seed in (3, 3, 4))
    assert (one == again).all()
    assert (one != other).any()


def test_halving_an_interval_takes_four_times_the_photos() -> None:
    low, high = intervals.wilson(450, 500)
    low_more, high_more = intervals.wilson(1800, 500 + intervals.photos_to_halve(500))
    assert (high_more - low_more) / (high - low) == pytest.approx(0.5, abs=0.01)


@given(st.integers(0, 400), st.integers(0, 400))
def test_mcnemar_is_the_exact_binomial_test_of_the_photos_on_which_two_classifiers_differ(first: int, second: int) -> None:
    from scipy.stats import binomtest

    expected = binomtest(first, first + second).pvalue if first + second else 1.0
    assert intervals.mcnemar(first, second) == pytest.approx(expected, rel=1e-9)
    assert intervals.mcnemar(second, first) == intervals.mcnemar(first, second)


def test_mcnemar_of_very_many_photos_is_a_number() -> None:
    assert intervals.mcnemar(0, 100_000) == 0.0
    assert intervals.mcnemar(50_000, 50_000) == 1.0


def balanced(n_right: list[int], n: list[int]) -> intervals.Interval:
    share, counts = np.array(n_right) / n, np.array(n)
    return intervals.wilson_of_means(share, counts, counts * share * (1 - share), intervals.RIGHT_OR_WRONG)


@pytest.mark.parametrize(("n_right", "n"), [(0, 20), (18, 20), (120, 200), (200, 200)])
def test_one_mean_of_rights_and_wrongs_has_nearly_wilsons_interval(n_right: int, n: int) -> None:
    assert balanced([n_right], [n]) == pytest.approx(intervals.wilson(n_right, n), abs=0.25 / n)


def test_means_of_classes_of_one_size_have_nearly_wilsons_interval_of_all_photos() -> None:
    assert balanced([18, 17, 19, 18], [20] * 4) == pytest.approx(intervals.wilson(72, 80), abs=0.015)
    assert balanced([10] * 8, [10] * 8) == pytest.approx(intervals.wilson(80, 80), abs=0.01)


def test_a_small_class_makes_the_mean_of_classes_uncertain() -> None:
    low, high = balanced([995, 3], [1000, 3])
    assert low < 0.8
    assert high > 0.99
    assert balanced([995, 1], [1000, 1])[0] < low


@given(st.lists(st.integers(1, 40).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))), min_size=1, max_size=12))
def test_the_interval_of_a_mean_of_shares_holds_it(shares: list[tuple[int, int]]) -> None:
    low, high = balanced([n_right for n_right, _ in shares], [n for _, n in shares])
    mean = float(np.mean([n_right / n for n_right, n in shares]))
    assert 0 <= low <= mean + 1e-12
    assert mean - 1e-12 <= high <= 1
    assert low < high


@pytest.mark.parametrize("truth", [[0.9, 0.9, 0.9, 0.9], [0.99, 0.95, 0.8, 0.6]])
def test_intervals_of_balanced_accuracy_hold_the_truth_in_about_95_of_100_cases(truth: list[float]) -> None:
    rng, n = np.random.default_rng(0), [60, 30, 15, 8]
    hits = 0
    for draw in rng.binomial(n, truth, size=(2000, 4)):
        low, high = balanced(draw.tolist(), n)
        hits += low <= np.mean(truth) <= high
    assert 0.93 <= hits / 2000 <= 0.99


def test_a_stretched_interval_is_wider_on_both_sides_and_stays_in_range() -> None:
    assert intervals.stretched(0.5, (0.4, 0.7), 1.5) == pytest.approx((0.35, 0.8))
    assert intervals.stretched(0.9, (0.3, 0.97), 2) == (0.0, 1.0)
    assert intervals.stretched(1.2, (1.0, 1.6), 2, most=None) == pytest.approx((0.8, 2.0))
    assert intervals.stretched(0.5, (0.55, 0.7), 2) == pytest.approx((0.5, 0.9))  # a bootstrap's interval may miss its value


def test_pooled_folds_make_an_interval_wider_and_one_head_does_not() -> None:
    right, alone = np.arange(50) % 5 > 0, np.arange(50)
    low, high = intervals.wilson(40, 50)
    assert intervals.held_out_interval(right, alone, 1) == pytest.approx((low, high))
    assert intervals.held_out_interval(right, alone, 5) == pytest.approx((0.8 - 1.5 * (0.8 - low), 0.8 + 1.5 * (high - 0.8)))


@given(st.lists(st.booleans(), min_size=1, max_size=40), st.integers(1, 5))
def test_copies_say_nothing_new(right: list[bool], times: int) -> None:
    """However many are right: all of them, too."""
    of_copies = intervals.held_out_interval(np.repeat(right, times), np.repeat(np.arange(len(right)), times), 5)
    assert of_copies == pytest.approx(intervals.held_out_interval(right, np.arange(len(right)), 5))


def test_groups_whose_photos_are_right_by_chance_cost_little() -> None:
    right = np.random.default_rng(0).random(2000) < 0.8
    assert intervals.together(right, np.arange(2000)) == 1
    assert intervals.together(right, np.arange(2000) // 4) < 1.3
    assert intervals.together(np.repeat(right, 4), np.arange(8000) // 4) == pytest.approx(4)


def test_intervals_of_groups_hold_the_truth_in_about_95_of_100_cases() -> None:
    rng = np.random.default_rng(1)
    groups = np.repeat(np.arange(90), np.arange(90) % 3 + 1)
    held = 0
    for _ in range(300):
        right = np.where(rng.random(len(groups)) < 0.8, rng.random(90)[groups], rng.random(len(groups))) < 0.9  # partly together
        low, high = intervals.held_out_interval(right, groups, 1)
        held += low <= 0.9 <= high
    assert 0.92 < held / 300 <= 0.995
