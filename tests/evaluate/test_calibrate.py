"""Calibration against brute force, cases worked by hand and SciPy."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax

from headstart.evaluate import calibrate


def drawn(seed: int, n: int, k: int, *, scale: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Logits, and labels drawn from the softmax of logits * scale: the best temperature is near 1 / scale."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(n, k)) * 2
    labels = np.array([rng.choice(k, p=row) for row in softmax(logits * scale, axis=1)])
    return logits, labels


def loss(logits: np.ndarray, labels: np.ndarray, temperature: float) -> float:
    return float(-log_softmax(logits / temperature, axis=1)[np.arange(len(labels)), labels].mean())


def smoothed(logits: np.ndarray, labels: np.ndarray, temperature: float) -> float:
    """The log loss where the label has probability (n + 1) / (n + 2) and the other classes share the rest."""
    n, k = logits.shape
    wanted = np.full((n, k), 1 / (n + 2) / (k - 1))
    wanted[np.arange(n), labels] = (n + 1) / (n + 2)
    return float(-(wanted * log_softmax(logits / temperature, axis=1)).sum(axis=1).mean())


def ece_by_loop(probs: np.ndarray, labels: np.ndarray, bins: int) -> float:
    """The definition, spelled out."""
    total = 0.0
    for i in range(bins):
        inside = [j for j in range(len(labels)) if i / bins < probs[j].max() <= (i + 1) / bins]
        if inside:
            confidence = sum(probs[j].max() for j in inside) / len(inside)
            accuracy = sum(int(np.argmax(probs[j]) == labels[j]) for j in inside) / len(inside)
            total += len(inside) / len(labels) * abs(confidence - accuracy)
    return total


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.integers(20, 200), st.integers(2, 8))
def test_temperature_equals_scipys_minimum(seed: int, n: int, k: int) -> None:
    logits, labels = drawn(seed, n, k)
    found = calibrate.temperature(logits, labels)
    low, high = np.log(calibrate.TEMPERATURE_RANGE)
    expected = minimize_scalar(lambda t: smoothed(logits, labels, np.exp(t)), bounds=(low, high), method="bounded", options={"xatol": 1e-9})
    assert smoothed(logits, labels, found) <= expected.fun + 1e-9


@pytest.mark.parametrize("scale", [0.25, 1.0, 3.0])
def test_temperature_recovers_the_scale_that_made_the_labels(scale: float) -> None:
    logits, labels = drawn(0, 4000, 5, scale=scale)
    assert calibrate.temperature(logits, labels) == pytest.approx(1 / scale, rel=0.12)


def test_weights_count_as_repeated_photos() -> None:
    logits, labels = drawn(3, 60, 4)
    times = np.arange(60) % 3 + 1
    weighted = calibrate.calibrate(logits, labels, times)
    repeated = calibrate.calibrate(logits.repeat(times, axis=0), labels.repeat(times))
    assert weighted.temperature == pytest.approx(repeated.temperature, rel=1e-4)
    assert weighted.log_loss == pytest.approx(loss(logits.repeat(times, axis=0), labels.repeat(times), weighted.temperature), rel=1e-6)


def test_temperature_of_perfectly_separated_data_worked_by_hand() -> None:
    # Four of four right: 5/6 for the label, 1/12 for each of the two others. So exp(5 / t) = (5/6) / (1/12) = 10.
    logits = np.eye(3)[[0, 1, 2, 0]] * 5
    assert calibrate.temperature(logits, [0, 1, 2, 0]) == pytest.approx(5 / np.log(10), rel=1e-5)
    # Three of four right: the top class is to have (3 * 5/6 + 1/12) / 4 = 31/48, each other 17/96. So exp(5 / t) = 62/17.
    assert calibrate.temperature(logits, [0, 1, 2, 1]) == pytest.approx(5 / np.log(62 / 17), rel=1e-5)


def test_temperature_stays_in_range() -> None:
    logits = np.eye(3)[[0, 1, 2, 0]] * 5
    assert calibrate.temperature(logits, [1, 2, 0, 1]) == calibrate.TEMPERATURE_RANGE[1]
    assert calibrate.temperature(logits / 1000, [0, 1, 2, 0]) == calibrate.TEMPERATURE_RANGE[0]


@pytest.mark.parametrize(("n", "k"), [(30, 2), (30, 10), (3, 3)])
def test_few_perfectly_separated_photos_do_not_make_it_sure(n: int, k: int) -> None:
    labels = np.arange(n) % k
    logits = np.eye(k)[labels] * 8 + np.random.default_rng(0).normal(size=(n, k))
    probs = softmax(logits / calibrate.temperature(logits, labels), axis=1)
    assert probs.max(axis=1).mean() == pytest.approx((n + 1) / (n + 2), abs=0.02)
    assert n != 30 or 0.94 < probs.max(axis=1).mean() <= 0.98


def test_many_photos_hardly_notice_the_smoothing() -> None:
    logits, labels = drawn(5, 850, 5)
    plain = minimize_scalar(lambda t: loss(logits, labels, np.exp(t)), bounds=(-2, 2), method="bounded", options={"xatol": 1e-9})
    assert calibrate.temperature(logits, labels) == pytest.approx(np.exp(plain.x), rel=0.02)


def test_temperature_survives_enormous_and_equal_logits() -> None:
    assert calibrate.temperature(np.array([[3e8, -3e8], [1e8, 0.0], [-5e8, 2e8]]), [0, 1, 1]) == calibrate.TEMPERATURE_RANGE[1]
    assert calibrate.temperature(np.ones((4, 3)), [0, 1, 2, 0]) == 1.0


def test_ece_of_a_case_worked_by_hand() -> None:
    # Two photos claim 0.9 (one right), two claim 0.6 (both right): (2 * |0.9 - 0.5| + 2 * |0.6 - 1|) / 4 = 0.4
    probs = np.array([[0.9, 0.1], [0.9, 0.1], [0.6, 0.4], [0.6, 0.4]])
    assert calibrate.ece(probs, [0, 1, 0, 0]) == pytest.approx(0.4)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 80), st.integers(2, 7), st.sampled_from([1, 5, 10, 15]))
def test_ece_equals_its_definition(seed: int, n: int, k: int, bins: int) -> None:
    logits, labels = drawn(seed, n, k)
    # Rounded, so that some confidences fall on the edge of a bin.
    probs = np.round(softmax(logits, axis=1) * 20) / 20
    assert calibrate.ece(probs, labels, bins) == pytest.approx(ece_by_loop(probs, labels, bins), abs=1e-12)


def test_ece_interval_of_calibrated_probabilities_starts_at_zero() -> None:
    logits, labels = drawn(2, 1500, 4)
    probs = softmax(logits, axis=1)
    low, high = calibrate.ece_interval(probs, labels, seed=0)
    assert low == 0.0
    assert calibrate.ece(probs, labels) <= high < 0.06


def test_ece_interval_of_boastful_probabilities_stays_above_zero() -> None:
    logits, labels = drawn(2, 1500, 4)
    probs = softmax(logits * 3, axis=1)
    low, high = calibrate.ece_interval(probs, labels, seed=0)
    assert 0.05 < low < calibrate.ece(probs, labels) < high < 1


def test_reliability_bins_add_up_to_the_ece() -> None:
    logits, labels = drawn(4, 300, 5, scale=0.5)
    probs = softmax(logits, axis=1)
    bins = calibrate.reliability(probs, labels)
    assert sum(each.n for each in bins) == 300
    assert sum(each.n * abs(each.confidence - each.accuracy) for each in bins) / 300 == pytest.approx(calibrate.ece(probs, labels))
    assert all(each.low < each.confidence <= each.high and each.accuracy_ci95[0] <= each.accuracy <= each.accuracy_ci95[1] for each in bins)


@pytest.mark.parametrize(
    ("values", "labels", "expected"),
    [
        (np.ones((2, 3)), [0], r"found \[2, 3\] and \[1\]"),
        (np.ones((0, 3)), [], r"found \[0, 3\] and \[0\]"),
        (np.array([[0.5, 0.5], [np.nan, 1]]), [0, 1], "NaN or infinity in row 1"),
        (np.ones((2, 3)), [0, 3], r"expected labels 0\.\.2, found 0\.\.3"),
    ],
)
def test_arrays_that_do_not_fit_are_refused_with_their_values(values: np.ndarray, labels: list[int], expected: str) -> None:
    for function in (calibrate.temperature, calibrate.ece):
        with pytest.raises(ValueError, match=expected):
            function(values, labels)
