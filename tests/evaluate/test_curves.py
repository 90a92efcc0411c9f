"""ROC and precision-recall: against scikit-learn, with ties and absent classes; and intervals against what they promise."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as reference

from headstart.evaluate import curves


def case(seed: int, n: int, k: int, decimals: int | None) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities and labels; few decimals make many ties."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, k, size=n)
    scores = np.exp(rng.normal(size=(n, k)) * 2)
    scores[np.arange(n), labels] *= rng.uniform(1, 20)
    probs = scores / scores.sum(axis=1, keepdims=True)
    return (probs if decimals is None else probs.round(decimals)), labels


cases = st.builds(case, st.integers(0, 2**32 - 1), st.integers(1, 60), st.integers(1, 6), st.sampled_from([None, 1, 2]))


@settings(max_examples=60)
@given(cases)
def test_areas_equal_scikit_learn_and_are_absent_where_it_has_none(given_case: tuple[np.ndarray, np.ndarray]) -> None:
    probs, labels = given_case
    found = curves.areas(probs, labels)
    rocs, precisions = [], []
    for c in range(probs.shape[1]):
        own = labels == c
        if own.any():
            precisions.append(reference.average_precision_score(own, probs[:, c]))
            assert found.average_precision[c].value == pytest.approx(precisions[-1])
        else:
            assert found.average_precision[c] is None
        if own.any() and not own.all():
            rocs.append(reference.roc_auc_score(own, probs[:, c]))
            assert found.roc_auc[c].value == pytest.approx(rocs[-1])
        else:
            assert found.roc_auc[c] is None
    assert found.average_precision_macro.value == pytest.approx(np.mean(precisions))
    if rocs:
        assert found.roc_auc_macro.value == pytest.approx(np.mean(rocs))
    else:
        assert found.roc_auc_macro is None
    for area in [*found.roc_auc, *found.average_precision, found.roc_auc_macro, found.average_precision_macro]:
        assert area is None or 0 <= area.ci95[0] <= area.value <= area.ci95[1] <= 1


@settings(max_examples=60)
@given(cases)
def test_curves_equal_scikit_learn(given_case: tuple[np.ndarray, np.ndarray]) -> None:
    probs, labels = given_case
    for c in range(probs.shape[1]):
        own = labels == c
        if not own.any():
            assert curves.roc(probs, labels, c) is None
            assert curves.precision_recall(probs, labels, c) is None
            continue
        precision, recall, _ = reference.precision_recall_curve(own, probs[:, c])
        curve = curves.precision_recall(probs, labels, c)
        assert (curve.x.tolist(), curve.y.tolist()) == (pytest.approx(recall[::-1].tolist()), pytest.approx(precision[::-1].tolist()))
        if own.all():
            assert curves.roc(probs, labels, c) is None
            continue
        x, y, _ = reference.roc_curve(own, probs[:, c], drop_intermediate=False)
        curve = curves.roc(probs, labels, c)
        assert (curve.x.tolist(), curve.y.tolist()) == (pytest.approx(x.tolist()), pytest.approx(y.tolist()))


def influence_by_removal(area, own: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """How an area moves with the weight of each photo, by central differences of scikit-learn's weighted value."""
    moved = []
    for i in range(len(own)):
        ends = []
        for step in (1e-4, -1e-4):
            weights = np.ones(len(own))
            weights[i] += step
            ends.append(area(own, scores, sample_weight=weights))
        moved.append((ends[0] - ends[1]) / 2e-4)
    return np.array(moved)


@pytest.mark.parametrize("decimals", [None, 1])
def test_a_photos_influence_is_the_derivative_by_its_weight(decimals: int | None) -> None:
    probs, labels = case(4, 40, 3, decimals)
    own = labels == 1
    ranked = curves._rank(probs[:, 1], own)
    for measured, area in (
        (curves._roc_area(ranked), reference.roc_auc_score),
        (curves._average_precision(ranked), reference.average_precision_score),
    ):
        assert measured.influence == pytest.approx(influence_by_removal(area, own, probs[:, 1]), abs=1e-6)


def test_a_perfect_ranking_claims_no_certainty_and_more_photos_claim_more() -> None:
    ends = []
    for n in (3, 30, 300):
        found = curves.areas(np.eye(3)[np.arange(n) % 3], np.arange(n) % 3)
        assert found.roc_auc[0].value == found.average_precision[0].value == found.roc_auc_macro.value == 1.0
        ends.append([found.roc_auc[0].ci95[0], found.average_precision[0].ci95[0], found.roc_auc_macro.ci95[0]])
        assert found.roc_auc[0].ci95[1] == 1.0
    assert np.all(np.diff(ends, axis=0) > 0)
    assert max(ends[-1]) < 1
    assert ends[0][0] < 0.5  # one photo of the class


def test_intervals_hold_the_truth_about_95_times_in_100() -> None:
    # Scores normal, 2 apart for the class: the true area is Phi(2 / sqrt(2)).
    truth, rng = 0.921350, np.random.default_rng(2)
    hits = 0
    for _ in range(400):
        own = np.arange(120) < 20
        scores = rng.normal(size=120) + 2 * own
        area = curves.areas(np.stack([-scores, scores], axis=1), own.astype(int)).roc_auc[1]
        hits += area.ci95[0] <= truth <= area.ci95[1]
    assert 0.93 <= hits / 400 <= 0.99


def distance(x: float, y: float, line: curves.Curve) -> float:
    """From a point to the nearest place of a line of segments."""
    starts, ends = np.stack([line.x, line.y], 1)[:-1], np.stack([line.x, line.y], 1)[1:]
    along = ends - starts
    share = np.clip((((x, y) - starts) * along).sum(1) / (along**2).sum(1), 0, 1)
    return float(np.hypot(*(starts + share[:, None] * along - (x, y)).T).min())


def test_thinning_keeps_the_ends_and_the_shape_with_few_points() -> None:
    probs, labels = case(0, 20_000, 2, None)
    for curve in (curves.roc(probs, labels, 1), curves.precision_recall(probs, labels, 1)):
        thinned = curves.thin(curve)
        assert len(curve.x) > 10_000
        assert len(thinned.x) <= 200
        assert (thinned.x[0], thinned.y[0], thinned.x[-1], thinned.y[-1]) == (curve.x[0], curve.y[0], curve.x[-1], curve.y[-1])
        assert np.all(np.diff(thinned.x) >= 0)
        assert max(distance(x, y, thinned) for x, y in zip(curve.x[::40], curve.y[::40], strict=True)) < 0.003


def test_thinning_leaves_out_points_on_the_line_and_keeps_short_curves() -> None:
    straight = curves.Curve(np.linspace(0, 1, 50), np.linspace(0, 1, 50))
    assert curves.thin(straight).x.tolist() == [0, 1]
    corner = curves.Curve(np.array([0.0, 0.0, 1.0]), np.array([0.0, 1.0, 1.0]))
    assert curves.thin(corner).y.tolist() == [0, 1, 1]
    assert len(curves.thin(curves.Curve(np.array([0.5]), np.array([0.5]))).x) == 1


def test_memory_does_not_grow_with_photos_times_classes() -> None:
    probs, labels = case(0, 5_000, 50, None)
    tracemalloc.start()
    curves.areas(probs, labels)
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak_bytes < 2e6  # the probabilities themselves are 2 MB
