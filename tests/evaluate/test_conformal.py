import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headstart.evaluate.conformal import Conformal, fit, measure, members, rank_of
from headstart.evaluate.intervals import wilson


def drawn(n: int, k: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities that mean what they say, and labels drawn from them."""
    rng = np.random.default_rng(seed)
    probs = rng.dirichlet(np.full(k, 0.4), n)
    return probs, (rng.random((n, 1)) > probs.cumsum(1)).sum(1).clip(max=k - 1)


def test_the_threshold_of_a_hand_worked_case() -> None:
    """Ten photos: eight are right, the right label of the others has 0.3 and 0.2. The tenth largest of 10 (ceil(11 * 0.9)) is 0.2."""
    probs = np.tile([0.7, 0.2, 0.1], (10, 1))
    probs[8], probs[9] = [0.6, 0.3, 0.1], [0.5, 0.2, 0.3]
    labels = np.array([0] * 8 + [1, 1])
    assert fit(probs, labels) == Conformal(0.9, 0.2, 10)
    assert fit(probs, labels, 0.8) == Conformal(0.8, 0.3, 10)  # ceil(11 * 0.8) = 9th
    assert fit(probs, labels, 0.7) == Conformal(0.7, 1.0, 10)  # 8th: the answer alone is right often enough


@pytest.mark.parametrize("n", [0, 1, 8])
def test_too_few_photos_fix_nothing_and_say_how_many_would(n: int) -> None:
    found = fit(np.full((n, 2), 0.5), np.zeros(n, int))
    assert (found.threshold, found.n, found.to_json()) == (None, n, None)
    assert found.reason == f"{n} photos that did not train the model are too few for sets that are right 90% of the time: 9 are the least"
    assert measure(found, np.full((3, 2), 0.5), [0, 1, 0], ["a", "b"]) == {"reason": found.reason}


def test_nine_photos_are_enough_for_90_percent() -> None:
    found = fit(*drawn(9, 3, 0))
    assert found.threshold is not None
    assert found.to_json() == {"coverage": 0.9, "threshold": found.threshold}


def test_a_rank_is_not_pushed_up_by_rounding() -> None:
    assert [rank_of(9, 0.9), rank_of(19, 0.95), rank_of(99, 0.9), rank_of(10, 0.9)] == [9, 19, 90, 10]


@pytest.mark.parametrize("coverage", [0.8, 0.9, 0.95])
def test_sets_of_new_photos_hold_the_right_label_as_often_as_asked(coverage: float) -> None:
    """Mean over 200 draws: between the coverage and coverage + 1 / (n + 1), give or take three standard errors."""
    n, shares = 49, []
    for seed in range(200):
        probs, labels = drawn(n + 500, 4, seed)
        found = fit(probs[:n], labels[:n], coverage)
        assert found.threshold is not None
        shares.append(members(probs[n:], found.threshold)[np.arange(500), labels[n:]].mean())
    error = 3 * np.std(shares) / 200**0.5
    assert coverage - error < np.mean(shares) < coverage + 1 / (n + 1) + error


@given(n=st.integers(9, 40), k=st.integers(2, 6), seed=st.integers(0, 10_000), coverage=st.floats(0.1, 0.9))
@settings(max_examples=60, deadline=None)
def test_sets_are_never_empty_grow_with_coverage_and_hold_the_answer(n: int, k: int, seed: int, coverage: float) -> None:
    probs, labels = drawn(n, k, seed)
    threshold, larger = fit(probs, labels, coverage).threshold, fit(probs, labels, 0.9).threshold
    assert threshold is not None
    assert larger is not None
    inside = members(probs, threshold)
    assert inside[np.arange(n), probs.argmax(1)].all()
    assert (members(probs, larger) | ~inside).all()
    assert inside[np.arange(n), labels].mean() >= coverage  # on the photos that fixed it


def test_classes_of_equal_probability_leave_one_answer_in_an_empty_set() -> None:
    np.testing.assert_array_equal(members(np.array([[0.5, 0.5], [0.2, 0.8]]), 0.9), [[True, False], [False, True]])
    assert members(np.zeros((0, 3)), 0.5).shape == (0, 3)


def test_what_is_measured_in_a_hand_worked_case() -> None:
    probs = np.array([[0.8, 0.15, 0.05], [0.5, 0.4, 0.1], [0.4, 0.35, 0.25], [0.1, 0.2, 0.7]])
    found = measure(Conformal(0.9, 0.3, 100), probs, [0, 1, 2, 0], ["a", "b", "c"])
    assert (found["n"], found["coverage"], found["coverage_ci95"]) == (4, 0.5, list(wilson(2, 4)))
    assert (found["mean_size"], found["alone"]) == (1.5, 0.5)
    assert found["mean_size_ci95"][0] <= 1.5 <= found["mean_size_ci95"][1]
    assert found["per_class"]["a"] == {"n": 2, "coverage": 0.5, "coverage_ci95": list(wilson(1, 2)), "mean_size": 1.0}
    assert found["per_class"]["b"]["coverage"] == 1.0
    assert found["per_class"]["c"] == {"n": 1, "coverage": 0.0, "coverage_ci95": list(wilson(0, 1)), "mean_size": 2.0}


def test_a_class_without_photos_has_no_coverage() -> None:
    found = measure(Conformal(0.9, 0.3, 100), [[0.8, 0.2]], [0], ["a", "b"])
    assert found["per_class"]["b"] == {"n": 0, "coverage": None, "coverage_ci95": None, "mean_size": None}
    assert measure(Conformal(0.9, 0.3, 100), np.zeros((0, 2)), [], ["a", "b"]) == {"reason": "no photo to test on"}


def test_values_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="a coverage over 0 and under 1, found 1"):
        fit([[0.5, 0.5]], [0], 1)
    with pytest.raises(ValueError, match=r"expected labels 0\.\.1, found 2\.\.2"):
        fit([[0.5, 0.5]], [2])
    with pytest.raises(ValueError, match=r"expected probs \[n, 3\] for 3 classes, found \[1, 2\]"):
        measure(Conformal(0.9, 0.3, 9), [[0.5, 0.5]], [0], ["a", "b", "c"])
