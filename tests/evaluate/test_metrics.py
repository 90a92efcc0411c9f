"""Every metric against scikit-learn, on generated cases, and against a case small enough to work by hand."""

import json
import time
import tracemalloc
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as reference

from headstart.evaluate import metrics
from headstart.evaluate.intervals import wilson

FIELDS = {
    *("n", "accuracy", "accuracy_ci95", "top5", "precision_macro", "recall_macro", "f1_macro", "f1_weighted", "ece"),
    *("log_loss", "baseline_majority", "per_class", "confusion", "ci95"),
    *("balanced_accuracy", "precision_weighted", "recall_weighted", "roc_auc_macro", "average_precision_macro"),
}
PER_CLASS = ("precision", "recall", "f1", "roc_auc", "average_precision")


def case(seed: int, n: int, k: int, *, every_class: bool = False) -> tuple[np.ndarray, np.ndarray, list[str]]:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, k, size=n)
    if every_class:
        labels[:k] = np.arange(k)
    scores = np.exp(rng.normal(size=(n, k)) * rng.uniform(0.1, 3))
    scores[np.arange(n), labels] *= rng.uniform(1, 20)
    return scores / scores.sum(axis=1, keepdims=True), labels, [f"class {i}" for i in range(k)]


cases = st.builds(case, st.integers(0, 2**32 - 1), st.integers(1, 80), st.integers(2, 9))
full_cases = st.builds(case, st.integers(0, 2**32 - 1), st.integers(12, 120), st.integers(2, 12), every_class=st.just(True))


@settings(max_examples=30, deadline=None)
@given(full_cases)
def test_scores_equal_scikit_learn_where_every_class_has_photos(given_case: tuple[np.ndarray, np.ndarray, list[str]]) -> None:
    probs, labels, classes = given_case
    found = metrics.evaluate(probs, labels, classes)
    predicted, all_labels = probs.argmax(axis=1), np.arange(len(classes))
    precision, recall, f1, n = reference.precision_recall_fscore_support(labels, predicted, labels=all_labels, zero_division=0)
    assert [found["per_class"][name]["precision"] for name in classes] == pytest.approx(list(precision))
    assert [found["per_class"][name]["recall"] for name in classes] == pytest.approx(list(recall))
    assert [found["per_class"][name]["f1"] for name in classes] == pytest.approx(list(f1))
    assert [found["per_class"][name]["n"] for name in classes] == list(n)
    assert found["accuracy"] == pytest.approx(reference.accuracy_score(labels, predicted))
    for average in ("macro", "weighted"):
        expected = reference.precision_recall_fscore_support(labels, predicted, labels=all_labels, average=average, zero_division=0)
        assert [found[f"{name}_{average}"] for name in ("precision", "recall", "f1")] == pytest.approx(expected[:3])
    assert found["balanced_accuracy"] == pytest.approx(reference.balanced_accuracy_score(labels, predicted))
    assert metrics.rates(found["confusion"]["counts"]) == pytest.approx(
        reference.confusion_matrix(labels, predicted, labels=all_labels, normalize="true")
    )
    assert found["log_loss"] == pytest.approx(reference.log_loss(labels, probs, labels=all_labels))
    assert found["confusion"] == {"labels": classes, "counts": reference.confusion_matrix(labels, predicted, labels=all_labels).tolist()}
    if len(classes) > 3:
        assert found["top3"] == pytest.approx(reference.top_k_accuracy_score(labels, probs, k=3, labels=all_labels))
    if len(classes) > 5:
        assert found["top5"] == pytest.approx(reference.top_k_accuracy_score(labels, probs, k=5, labels=all_labels))


@settings(max_examples=30, deadline=None)
@given(cases)
def test_averages_leave_out_classes_without_photos(given_case: tuple[np.ndarray, np.ndarray, list[str]]) -> None:
    probs, labels, classes = given_case
    found = metrics.evaluate(probs, labels, classes)
    present = np.unique(labels)
    expected = reference.precision_recall_fscore_support(labels, probs.argmax(axis=1), labels=present, average="macro", zero_division=0)
    assert (found["precision_macro"], found["recall_macro"], found["f1_macro"]) == pytest.approx(expected[:3])
    for i, name in enumerate(classes):
        if i not in present:
            assert found["per_class"][name] == {**dict.fromkeys(PER_CLASS), "n": 0, "ci95": dict.fromkeys(PER_CLASS)}


@settings(max_examples=30, deadline=None)
@given(cases)
def test_every_interval_holds_its_estimate_or_is_ordered_and_all_is_json(given_case: tuple[np.ndarray, np.ndarray, list[str]]) -> None:
    probs, labels, classes = given_case
    found = metrics.evaluate(probs, labels, classes)
    fields = FIELDS | ({"top3"} if len(classes) > 3 else set())
    assert set(found) == fields
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert set(found["ci95"]) == fields - {"n", "accuracy_ci95", "per_class", "confusion", "ci95"}
    for name, interval in found["ci95"].items():
        if interval is None:
            assert name == "roc_auc_macro"
            assert len(np.unique(labels)) == 1
            continue
        low, high = interval
        assert 0 <= low <= high
        if name in (
            "accuracy",
            "balanced_accuracy",
            "top5",
            "top3",
            "baseline_majority",
            "ece",
            "roc_auc_macro",
            "average_precision_macro",
        ):
            assert low <= found[name] <= high <= 1
    for row in found["per_class"].values():
        for name, interval in row["ci95"].items():
            assert (row[name] is None) == (interval is None)
            assert interval is None or interval[0] <= row[name] <= interval[1]


def test_a_case_worked_by_hand() -> None:
    # Truth a a a b b c; predictions a a b b b a. c was never predicted: precision 0.
    probs = np.array([[0.8, 0.1, 0.1], [0.6, 0.3, 0.1], [0.3, 0.5, 0.2], [0.2, 0.7, 0.1], [0.1, 0.9, 0.0], [0.5, 0.2, 0.3]])
    found = metrics.evaluate(probs, [0, 0, 0, 1, 1, 2], ["a", "b", "c"])
    assert found["n"] == 6
    assert found["accuracy"] == pytest.approx(4 / 6)
    assert found["accuracy_ci95"] == found["ci95"]["accuracy"] == pytest.approx(list(wilson(4, 6)))
    assert {name: round(found["per_class"]["a"][name], 6) for name in ("precision", "recall", "f1")} == {
        "precision": round(2 / 3, 6),
        "recall": round(2 / 3, 6),
        "f1": round(2 / 3, 6),
    }
    # b: of 2 x 4 pairs with another photo, the one at 0.7 beats 4 and the one at 0.9 as well.
    assert found["per_class"]["b"] | {"ci95": None} == {
        "precision": pytest.approx(2 / 3),
        "recall": 1.0,
        "f1": pytest.approx(0.8),
        "roc_auc": 1.0,
        "average_precision": 1.0,
        "n": 2,
        "ci95": None,
    }
    # c: the one photo at 0.3 beats all five.
    absent = {"precision": 0.0, "recall": 0.0, "f1": 0.0, "n": 1, "ci95": None}
    assert found["per_class"]["c"] | {"ci95": None} == absent | {"roc_auc": 1.0, "average_precision": 1.0}
    # a: 0.8, 0.6, 0.3 against 0.2, 0.1, 0.5: 8 of 9 pairs; precision 1, 1 and 3/4 at its photos.
    assert found["per_class"]["a"]["roc_auc"] == pytest.approx(8 / 9)
    assert found["per_class"]["a"]["average_precision"] == pytest.approx((1 + 1 + 3 / 4) / 3)
    assert found["balanced_accuracy"] == found["recall_macro"] == pytest.approx((2 / 3 + 1 + 0) / 3)
    assert found["precision_weighted"] == pytest.approx((3 * 2 / 3 + 2 * 2 / 3) / 6)
    assert found["f1_macro"] == pytest.approx((2 / 3 + 0.8) / 3)
    assert found["f1_weighted"] == pytest.approx((3 * 2 / 3 + 2 * 0.8) / 6)
    assert found["confusion"]["counts"] == [[2, 1, 0], [0, 2, 0], [1, 0, 0]]
    assert found["baseline_majority"] == pytest.approx(0.5)
    assert found["log_loss"] == pytest.approx(-np.log([0.8, 0.6, 0.3, 0.7, 0.9, 0.3]).mean())


def test_top5_counts_equals_as_argmax_does_and_is_one_below_six_classes() -> None:
    equal = np.full((7, 7), 1 / 7)
    assert metrics.evaluate(equal, np.arange(7), list("abcdefg"))["top5"] == pytest.approx(5 / 7)
    assert metrics.evaluate(equal, np.arange(7), list("abcdefg"))["top3"] == pytest.approx(3 / 7)
    few = metrics.evaluate(np.full((4, 3), 1 / 3), [0, 1, 2, 2], list("abc"))
    assert few["top5"] == 1.0
    assert "top3" not in few
    assert few["ci95"]["top5"] == [1.0, 1.0]


def test_log_loss_of_a_certain_mistake_is_finite() -> None:
    found = metrics.evaluate(np.array([[1.0, 0.0], [0.0, 1.0]]), [1, 1], ["a", "b"])
    assert found["log_loss"] == pytest.approx(-np.log(np.finfo(float).eps) / 2)


def test_averages_do_not_claim_certainty_when_everything_is_right() -> None:
    found = metrics.evaluate(np.eye(3)[[0, 1, 2] * 10], [0, 1, 2] * 10, list("abc"))
    assert found["f1_macro"] == 1.0
    assert found["ci95"]["f1_macro"] == found["accuracy_ci95"] == list(wilson(30, 30))
    assert found["balanced_accuracy"] == found["roc_auc_macro"] == found["average_precision_macro"] == 1.0
    for name in ("balanced_accuracy", "recall_macro", "roc_auc_macro", "average_precision_macro"):
        assert found["ci95"][name][0] < 0.97
    assert found["per_class"]["a"]["ci95"]["f1"][0] < 0.9


def test_bootstrapped_intervals_equal_resampling_photo_by_photo() -> None:
    probs, labels, classes = case(7, 60, 4)
    predicted = probs.argmax(axis=1)
    found = metrics.evaluate(probs, labels, classes, seed=5)["ci95"]
    rng = np.random.default_rng(5)
    scores = []
    for draw in rng.integers(0, 60, size=(1000, 60)):
        present = np.unique(labels[draw])
        scores.append(reference.f1_score(labels[draw], predicted[draw], labels=present, average="macro", zero_division=0))
    assert found["f1_macro"] == pytest.approx(list(np.quantile(scores, [0.025, 0.975])))


def test_same_seed_same_intervals() -> None:
    probs, labels, classes = case(1, 50, 3)
    assert metrics.evaluate(probs, labels, classes, seed=2) == metrics.evaluate(probs, labels, classes, seed=2)
    assert (
        metrics.evaluate(probs, labels, classes, seed=2)["ci95"]["f1_macro"]
        != metrics.evaluate(probs, labels, classes, seed=3)["ci95"]["f1_macro"]
    )


def test_no_photos_give_none_everywhere() -> None:
    found = metrics.evaluate(np.zeros((0, 2)), [], ["a", "b"])
    assert set(found) == FIELDS
    assert found["n"] == 0
    assert found["accuracy"] is None
    assert set(found["ci95"].values()) == {None}
    assert found["confusion"]["counts"] == [[0, 0], [0, 0]]


@pytest.mark.parametrize(
    ("n_columns", "classes", "expected"),
    [
        (3, ["a", "b"], r"expected probs \[n, 2\] for 2 different classes, found \[4, 3\]"),
        (2, ["a", "a"], "2 different classes, found .* 1 different"),
    ],
)
def test_names_that_do_not_fit_the_columns_are_refused(n_columns: int, classes: list[str], expected: str) -> None:
    with pytest.raises(ValueError, match=expected):
        metrics.evaluate(np.full((4, n_columns), 0.5), [0, 1, 0, 1], classes)


def test_one_number_under_two_names_has_one_interval() -> None:
    probs, labels, classes = case(3, 70, 5)
    found = metrics.evaluate(probs, labels, classes)
    assert found["recall_macro"] == found["balanced_accuracy"]
    assert found["ci95"]["recall_macro"] == found["ci95"]["balanced_accuracy"]
    assert found["recall_weighted"] == found["accuracy"]
    assert found["ci95"]["recall_weighted"] == found["accuracy_ci95"]


def test_ten_thousand_photos_of_two_hundred_classes_take_seconds_and_bounded_memory() -> None:
    probs, labels, classes = case(0, 10_000, 200)
    started = time.process_time()  # of this process: others may be busy
    found: dict[str, Any] = metrics.evaluate(probs, labels, classes)
    assert time.process_time() - started < 10
    assert found["n"] == 10_000
    tracemalloc.start()
    metrics._bootstrap_averages(labels, probs.argmax(axis=1), np.ones(10_000), 200, seed=0)
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak_bytes < 200e6
