"""The learning curve: it rises where photos are scarce, says so for each class, and claims nothing that few photos cannot tell."""

import time

import numpy as np
import pytest
from label_samples import make_rows, make_table

from headstart.data.table import Table
from headstart.explore import discriminant
from headstart.explore.discriminant import Sums
from headstart.explore.growth import WORTH, ClassGrowth, Growth, learning_curve


def named(labels: np.ndarray) -> list[str]:
    return [f"c{y}" for y in labels]


def grown(rows: np.ndarray, table: Table, seed: int = 0) -> Growth:
    found = learning_curve(rows, table, seed=seed)
    assert found is not None
    return found


def test_scarce_photos_make_a_rising_curve_and_more_would_help() -> None:
    labels = np.arange(800) % 4
    found = grown(make_rows(labels, 200, noise=8), make_table(named(labels)))
    assert found.sizes == (80, 160, 320, 640)
    assert found.accuracy[-1] > found.accuracy[0] + 0.2
    assert "more photos help" in {one.verdict for one in found.per_class.values()}
    assert all(low <= value <= high for value, (low, high) in zip(found.accuracy, found.accuracy_ci95, strict=True))


def test_an_easy_class_is_saturated_and_a_hard_one_is_not() -> None:
    rng = np.random.default_rng(0)
    labels = np.arange(600) % 3
    rows = rng.normal(size=(600, 150))
    rows[labels == 0, :20] += 3
    rows[labels == 1, 20:] += 0.12  # from the third: faintly, in many features
    found = grown(rows.astype(np.float32), make_table(named(labels)))
    assert found.per_class["c0"].verdict == "saturated"
    assert found.per_class["c0"].recall[-1] == 1
    assert {found.per_class[name].verdict for name in ("c1", "c2")} != {"saturated"}


def test_few_photos_of_a_class_cannot_tell_even_where_all_are_right() -> None:
    labels = np.array([0] * 200 + [1] * 8)
    found = grown(make_rows(labels, 8, noise=0.1), make_table(named(labels)))
    assert found.per_class["c1"].recall[-1] == 1
    assert found.per_class["c1"].verdict == "cannot tell"
    assert found.per_class["c0"].verdict == "saturated"


@pytest.mark.parametrize(
    ("interval", "verdict"),
    [
        ((0.01, 0.05), "more photos help"),
        ((-0.03, WORTH - 0.001), "saturated"),
        ((0.001, 0.01), "saturated"),
        ((-0.01, 0.05), "cannot tell"),
    ],
)
def test_verdicts_follow_from_the_interval_of_the_last_doubling(interval: tuple[float, float], verdict: str) -> None:
    assert ClassGrowth(100, (0.5, 0.6), 0.1, interval).verdict == verdict


def test_test_photos_have_no_part_in_it() -> None:
    labels = np.arange(240) % 3
    rows = make_rows(labels, 20, noise=3)
    splits = ["test" if i % 4 == 0 else "val" if i % 4 == 1 else "train" for i in range(240)]
    found = grown(rows, make_table(named(labels), split=splits))
    known = [i for i in range(240) if splits[i] != "test"]
    spoilt = rows.copy()
    spoilt[[i for i in range(240) if splits[i] == "test"]] = 1000
    assert grown(spoilt, make_table(named(labels), split=splits)) == found
    assert sum(one.n for one in found.per_class.values()) == len(known)


def test_copies_are_held_out_together() -> None:
    rng = np.random.default_rng(0)
    originals = rng.integers(0, 2, 60)
    rows = np.repeat(rng.normal(size=(60, 100)), 4, axis=0).astype(np.float32)  # nothing to learn but the copies
    labels = np.repeat(originals, 4)
    found = grown(rows, make_table(named(labels), group=[f"{i // 4}" for i in range(240)]))
    assert found.accuracy[-1] < 0.7


def test_a_class_that_cannot_be_held_out_is_not_listed_and_absent_ones_are_no_trouble() -> None:
    labels = np.array([0] * 30 + [1] * 30 + [2])
    found = grown(make_rows(labels, 10, noise=0.5), make_table(named(labels), classes=["c0", "c1", "c2", "zebra"]))
    assert list(found.per_class) == ["c0", "c1"]
    assert found.accuracy[-1] > 0.9


@pytest.mark.parametrize("labels", [np.arange(10) % 2, np.array([0] * 30), np.arange(30)])
def test_too_few_photos_give_no_curve(labels: np.ndarray) -> None:
    assert learning_curve(make_rows(labels, 4, noise=1), make_table(named(labels)), seed=0) is None


def test_the_record_is_plain_and_the_same_each_time() -> None:
    labels = np.arange(120) % 3
    rows, table = make_rows(labels, 30, noise=2), make_table(named(labels))
    record = grown(rows, table, seed=5).to_json()
    assert record == grown(rows, table, seed=5).to_json()
    assert set(record) == {"sizes", "accuracy", "accuracy_ci95", "per_class"}
    one = record["per_class"]["c1"]
    assert set(one) == {"n", "recall", "gain", "gain_ci95", "verdict"}
    assert len(one["recall"]) == len(record["sizes"]) == len(record["accuracy"]) == 4
    assert one["gain"] == pytest.approx(one["recall"][-1] - one["recall"][-2], abs=2e-4)


def test_many_features_are_condensed_without_losing_the_class(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(discriminant, "_MOST_FEATURES", 30)
    labels = np.arange(300) % 3
    rows = make_rows(labels, 70, noise=2)
    rows[:, 5] = 1  # a feature that never changes
    assert discriminant.condensed(rows).shape == (300, 30)
    assert grown(rows, make_table(named(labels))).accuracy[-1] > 0.95


@pytest.mark.parametrize("shrinkage", [0.1, 1.0, 10.0])
def test_the_head_answers_as_scikit_learns_does(shrinkage: float) -> None:
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

    labels = np.random.default_rng(0).choice(4, 400, p=[0.5, 0.3, 0.15, 0.05])
    z = discriminant.condensed(make_rows(labels, 12, noise=1.5))
    weight, bias = next(Sums.of(z, labels, 4).heads([shrinkage]))
    peer = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=shrinkage / (1 + shrinkage)).fit(z, labels)
    # scikit-learn divides by 1 + shrinkage, which makes its scores louder beside the class frequencies: compare at equal loudness.
    ours = z @ weight + bias - np.log(np.bincount(labels) / 400)
    theirs = (z @ peer.coef_.T + peer.intercept_ - np.log(peer.priors_)) / (1 + shrinkage) * (396 / 400)
    np.testing.assert_allclose(ours, theirs, atol=1e-3)


def test_sums_of_parts_add_up_to_those_of_the_whole() -> None:
    labels = np.random.default_rng(0).integers(0, 3, 50)
    z = make_rows(labels, 6, noise=1).astype(np.float32)
    parts = Sums.of(z[:20], labels[:20], 4) + Sums.of(z[20:20], labels[20:20], 4) + Sums.of(z[20:], labels[20:], 4)
    whole = Sums.of(z, labels, 4)
    for name in ("counts", "sums", "products"):
        np.testing.assert_allclose(getattr(parts, name), getattr(whole, name), rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(whole.counts, np.bincount(labels, minlength=4))


def test_a_hundred_classes_take_about_a_second() -> None:
    labels = np.arange(2000) % 100
    rows, table = make_rows(labels, 128, noise=2), make_table(named(labels))
    started = time.process_time()
    grown(rows, table)
    assert time.process_time() - started < 20, "about 1 s of an idle core"
