import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headstart.evaluate.intervals import wilson
from headstart.evaluate.novelty import Novelty, energy, fit, measure, threshold


def test_energy_of_a_hand_worked_case() -> None:
    logits = [[0.0, 0.0], [math.log(3), 0.0]]
    np.testing.assert_allclose(energy(logits), [-math.log(2), -math.log(4)])
    np.testing.assert_allclose(energy(logits, 2.0), [-2 * math.log(2), -2 * math.log(math.sqrt(3) + 1)])


def test_energy_stands_huge_logits_and_falls_as_any_logit_rises() -> None:
    np.testing.assert_allclose(energy(np.array([[1e30, 0], [-1e4, -1e4]], np.float32)), [-1e30, 1e4 - math.log(2)], rtol=1e-6)
    logits = np.random.default_rng(0).normal(size=(50, 4))
    for c in range(4):
        assert (energy(logits + np.eye(4)[c]) < energy(logits)).all()


def test_the_threshold_is_a_score_of_the_known_photos() -> None:
    assert threshold(np.arange(99.0)) == 94.0  # the ceil(100 * 0.95)-th of 99, counted from 1
    assert threshold(np.arange(19.0)) == 18.0
    assert threshold(np.arange(18.0)) is None
    assert threshold(np.arange(9.0), 0.1) == 8.0
    with pytest.raises(ValueError, match="false alarms over 0 and under 1, found 0"):
        threshold([1.0], 0)


@given(n=st.integers(19, 200), seed=st.integers(0, 10_000))
@settings(max_examples=50, deadline=None)
def test_no_more_of_the_photos_that_fixed_it_are_called_than_allowed(n: int, seed: int) -> None:
    scores = np.random.default_rng(seed).normal(size=n)
    found = threshold(scores)
    assert (scores > found).mean() <= 0.05
    assert threshold(np.random.default_rng(0).permutation(scores)) == found


def test_new_photos_are_called_as_often_as_allowed() -> None:
    rng = np.random.default_rng(0)
    shares = []
    for _ in range(300):
        novelty = fit(rng.normal(size=(79, 3)))
        assert novelty.threshold is not None
        shares.append((energy(rng.normal(size=(400, 3))) > novelty.threshold).mean())
    assert abs(np.mean(shares) - 0.05) < 3 * np.std(shares) / 300**0.5  # 79 + 1 is a multiple of 20: exact


@pytest.mark.parametrize("n", [0, 1, 18])
def test_too_few_photos_fix_nothing_and_say_how_many_would(n: int) -> None:
    found = fit(np.zeros((n, 3)))
    assert (found.threshold, found.n, found.to_json()) == (None, n, None)
    assert found.reason == f"{n} photos that did not train the model are too few to allow 5% false alarms: 19 are the least"
    assert measure(found, [None, None]) == {"reason": found.reason}


def test_what_the_bundle_keeps_and_what_is_measured() -> None:
    novelty = Novelty(0.05, -3.5, 100)
    assert novelty.to_json(0.4) == {"score": "energy", "threshold": -3.5, "false_alarms": 0.05, "detection": 0.4}
    assert measure(novelty, [True, True, False, True]) == {"n": 4, "false_alarms": 0.25, "false_alarms_ci95": list(wilson(1, 4))}
    assert measure(novelty, []) == {"reason": "no photo to test on"}
