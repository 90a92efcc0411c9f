"""Two classifiers on the same photos: verdicts, intervals and how many photos would tell."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as reference

from headstart.evaluate import comparison
from headstart.evaluate.comparison import Answers, compare
from headstart.evaluate.intervals import mcnemar

CLASSES = ["a", "b", "c"]


def answers(labels: np.ndarray, right: np.ndarray, *, sure: float = 0.8) -> Answers:
    """Answers with probability `sure`: the label where `right`, else the next class."""
    predicted = np.where(right, labels, (labels + 1) % 3)
    probs = np.full((len(labels), 3), (1 - sure) / 2)
    probs[np.arange(len(labels)), predicted] = sure
    return Answers(predicted, probs)


def pair(both: int, only_first: int, only_second: int, neither: int) -> tuple[Answers, Answers, np.ndarray]:
    first = np.repeat([True, True, False, False], [both, only_first, only_second, neither])
    second = np.repeat([True, False, True, False], [both, only_first, only_second, neither])
    labels = np.random.default_rng(0).integers(0, 3, len(first))
    return answers(labels, first), answers(labels, second), labels


def test_the_counts_the_p_value_and_the_differences_are_those_of_the_pairs() -> None:
    first, second, labels = pair(150, 6, 24, 20)
    found = compare(first, second, labels, CLASSES)
    assert (found.n, found.both_right, found.only_first, found.only_second) == (200, 150, 6, 24)
    assert found.p == mcnemar(6, 24)
    assert found.verdict == "better"
    assert found.accuracy.value == pytest.approx(18 / 200)
    f1 = [reference.f1_score(labels, one.predicted, average="macro") for one in (first, second)]
    assert found.f1_macro.value == pytest.approx(f1[1] - f1[0])
    losses = [reference.log_loss(labels, one.probs) for one in (first, second)]
    assert found.log_loss.value == pytest.approx(losses[1] - losses[0])
    for difference in (found.accuracy, found.f1_macro, found.log_loss):
        assert difference.ci95[0] < difference.value < difference.ci95[1]
        assert difference.ci95[0] * difference.ci95[1] > 0  # clear, whichever way it is looked at


def test_the_other_way_round_everything_is_mirrored() -> None:
    first, second, labels = pair(50, 12, 5, 10)
    one, other = compare(first, second, labels, CLASSES), compare(second, first, labels, CLASSES)
    assert (one.p, one.photos_to_tell) == (other.p, other.photos_to_tell)
    for name in ("accuracy", "f1_macro", "log_loss"):
        a, b = getattr(one, name), getattr(other, name)
        assert a.value == pytest.approx(-b.value)
        assert a.ci95 == pytest.approx((-b.ci95[1], -b.ci95[0]))


def test_few_differing_photos_cannot_tell_and_equal_answers_differ_in_nothing() -> None:
    found = compare(*pair(80, 3, 6, 11), CLASSES)
    assert found.verdict == "cannot tell"
    assert found.accuracy.ci95[0] < 0 < found.accuracy.ci95[1]
    assert found.photos_to_tell > 100
    first, _, labels = pair(80, 3, 6, 11)
    same = compare(first, first, labels, CLASSES)
    assert (same.p, same.verdict, same.photos_to_tell, same.per_class) == (1.0, "cannot tell", None, ())
    assert same.log_loss == comparison.Difference(0.0, (0.0, 0.0))
    # Resamples cannot differ either, yet other photos might.
    assert same.f1_macro.ci95 == same.accuracy.ci95
    assert same.accuracy.ci95[0] < -0.02
    assert same.accuracy.ci95[1] > 0.02


def test_worse_is_said_of_the_second_and_classes_that_changed_are_named() -> None:
    labels = np.repeat([0, 1, 2], 60)
    right = np.ones(180, bool)
    less = right.copy()
    less[60:90] = False
    found = compare(answers(labels, right), answers(labels, less), labels, CLASSES)
    assert found.verdict == "worse"
    assert [change.label for change in found.per_class] == ["b"]
    change = found.per_class[0]
    assert (change.n, change.first, change.second) == (60, 1.0, 0.5)
    assert change.p == pytest.approx(3 * mcnemar(30, 0))
    assert change.difference.ci95[1] < -0.3


def most_likely_share(only_first: int, only_second: int, n: int, difference: float) -> float:
    """The share of `only_first` that is most likely given the difference, by looking at very many."""
    shares = np.linspace(max(0.0, -difference), (1 - difference) / 2, 200_001)
    with np.errstate(divide="ignore", invalid="ignore"):
        rest = n - only_first - only_second
        terms = (only_first, shares), (only_second, shares + difference), (rest, 1 - 2 * shares - difference)
        likelihood = sum(np.where(count > 0, count * np.log(share), 0.0) for count, share in terms)
    return float(shares[np.nanargmax(likelihood)])


@pytest.mark.parametrize(("only_first", "only_second", "n"), [(2, 12, 50), (9, 7, 100), (1, 0, 44), (30, 90, 1000)])
def test_tangos_ends_are_the_differences_that_a_score_test_just_accepts(only_first: int, only_second: int, n: int) -> None:
    for end in comparison.tango(only_first, only_second, n):
        share = most_likely_share(only_first, only_second, n, end)
        deviation = math.sqrt(n * (2 * share + end - end**2))
        assert abs(only_second - only_first - n * end) / deviation == pytest.approx(1.959964, abs=2e-3)


@given(st.integers(0, 60), st.integers(0, 60), st.integers(0, 300))
def test_tangos_interval_holds_its_estimate_and_agrees_with_the_test_of_no_difference(first: int, second: int, rest: int) -> None:
    n = max(1, first + second + rest)
    low, high = comparison.tango(first, second, n)
    assert -1 <= low <= (second - first) / n <= high <= 1
    assert low < high
    if first + second:
        assert (low > 0 or high < 0) == (abs(second - first) / math.sqrt(first + second) > 1.959963984540054)
    if mcnemar(first, second) < comparison.ERROR:  # the exact test asks for more
        assert low > 0 or high < 0


def test_tangos_interval_holds_the_truth_in_about_95_of_100_cases() -> None:
    rng, hits = np.random.default_rng(0), 0
    for only_first, only_second, _ in rng.multinomial(100, [0.02, 0.05, 0.93], size=1000):
        low, high = comparison.tango(int(only_first), int(only_second), 100)
        hits += low <= 0.03 <= high
    assert 0.93 <= hits / 1000 <= 0.98


def test_as_many_photos_as_were_said_tell_four_times_in_five() -> None:
    n = comparison.photos_to_tell(4, 10, 100)
    rng, told = np.random.default_rng(0), 0
    for only_first, only_second, _ in rng.multinomial(n, [0.04, 0.10, 0.86], size=1000):
        told += mcnemar(int(only_first), int(only_second)) < comparison.ERROR
    assert 0.74 <= told / 1000 <= 0.84  # the exact test finds a little less than the formula's
    assert comparison.photos_to_tell(40, 100, 1000) == n  # as the shares are the same
    # Where none leads, one point of accuracy is asked for, with the photos on which the two differ.
    assert comparison.photos_to_tell(5, 5, 100) == comparison.photos_to_tell(45, 55, 1000)


@settings(max_examples=50)
@given(st.lists(st.floats(0, 1), max_size=8))
def test_holms_correction_equals_going_down_the_list(p_values: list[float]) -> None:
    adjusted = comparison.holm(p_values)
    for error in (0.01, 0.05, 0.3):
        left, rejected = sorted(range(len(p_values)), key=lambda i: p_values[i]), set()
        while left and p_values[left[0]] * len(left) < error:
            rejected.add(left.pop(0))
        assert {i for i, p in enumerate(adjusted) if p < error} == rejected
