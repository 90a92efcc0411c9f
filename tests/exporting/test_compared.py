import numpy as np
import pytest

from headstart.evaluate.comparison import tango
from headstart.exporting.compared import Bar, Way, compare

FP32, INT8 = Bar(int8=False), Bar(int8=True, max_drop=0.5)


def logits(probs: list[float]) -> np.ndarray:
    """Of two classes, [n, 2], from the probability of the first."""
    first = np.array(probs)
    return np.log(np.stack([first, 1 - first], axis=1)).astype(np.float32)


def judged(before: list[float], after: list[float], *, precision: str = "fp32", bar: Bar = FP32, labels: np.ndarray | None = None) -> Way:
    names = {"engine": "e 1", "provider": "e", "precision": precision}
    return compare(logits(before), logits(after), labels, **names, temperature=1.0, bar=bar)


@pytest.mark.parametrize(("off", "passed"), [(0.0009, True), (0.0011, False)])
def test_fp32_passes_up_to_a_thousandth_of_probability(off: float, passed: bool) -> None:
    way = judged([0.7, 0.2], [0.7, 0.2 + off])
    assert way.passed == passed
    assert way.largest_difference == pytest.approx(off, abs=1e-5)
    assert way.agreement == 1.0


@pytest.mark.parametrize(("before", "passed"), [(0.504, True), (0.506, False)])
def test_bf16_may_change_an_answer_only_within_the_margin(before: float, passed: bool) -> None:
    way = judged([before, 0.9], [0.49, 0.6], precision="bf16")
    assert way.passed == passed
    assert (way.n_differ, way.largest_margin) == (1, pytest.approx(2 * before - 1, abs=1e-5))


def test_int8_is_judged_by_the_paired_interval_of_its_drop() -> None:
    labels = np.zeros(400, np.int64)
    for lost, passed in ((3, True), (12, False)):
        after = [0.2] * lost + [0.9] * (400 - lost)
        way = judged([0.9] * 400, after, bar=INT8, labels=labels)
        low, high = tango(0, lost, 400)
        assert (way.drop, way.drop_ci95) == (lost / 400, (low, high))
        assert way.passed == passed == (100 * low <= 0.5)
        assert way.accuracy == 1 - lost / 400
    assert judged([0.9] * 400, [0.2] * 12 + [0.9] * 388, bar=Bar(True, 5.0), labels=labels).passed


@pytest.mark.parametrize(("precision", "bar"), [("fp32", FP32), ("bf16", FP32), ("fp32", INT8)])
def test_an_answer_that_is_no_number_never_passes(precision: str, bar: Bar) -> None:
    found = logits([0.9, 0.8])
    found[1] = np.nan
    labels = np.zeros(2, np.int64)
    way = compare(logits([0.9, 0.8]), found, labels, engine="e 1", provider="e", precision=precision, temperature=1.0, bar=bar)
    assert not way.passed
