import json

import numpy as np
import pytest

from headstart import progress
from headstart.evaluate.intervals import wilson
from headstart.train import leave_out
from headstart.train.certainty import Held, fit
from headstart.train.leave_out import SCORES, leave_one_class_out

CLASSES = ("ant", "bee", "cat", "dog")


def blobs(n_each: int = 40, k: int = 4, d: int = 12, *, spread: float = 0.3, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Rows float16 around one corner a class, shuffled; the less they spread, the easier a class that was left out is told."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.repeat(np.arange(k), n_each))
    return (np.eye(k, d)[labels] + 1 + spread * rng.normal(size=(len(labels), d))).astype(np.float16), labels


@pytest.fixture(autouse=True)
def _quiet():
    with progress.quiet():
        yield


def test_classes_that_lie_apart_are_found_by_every_score_and_noise_by_none() -> None:
    rows, labels = blobs(spread=0.05)
    apart = leave_one_class_out(rows, labels, CLASSES, strength=0.1)
    assert (apart["n_classes"], apart["n_photos"], apart["false_alarms"]) == (4, 160, 0.05)
    for score in SCORES:
        assert apart["scores"][score]["detection"] > 0.95
        assert apart["scores"][score]["auroc"] > 0.98
    noise = leave_one_class_out(np.random.default_rng(1).normal(size=rows.shape).astype(np.float16), labels, CLASSES, strength=0.1)
    for score in SCORES:
        assert abs(noise["scores"][score]["auroc"] - 0.5) < 0.12
        assert noise["scores"][score]["detection"] < 0.2


def test_the_record_is_json_of_every_class_and_score() -> None:
    found = leave_one_class_out(*blobs(), CLASSES, strength=0.1)
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert list(found["per_class"]) == list(CLASSES)
    assert (
        found["detection"]
        == found["scores"]["energy"]["detection"]
        == np.mean([c["energy"]["detection"] for c in found["per_class"].values()])
    )
    ant = found["per_class"]["ant"]
    assert set(ant) == {"n", *SCORES}
    assert ant["energy"]["detection_ci95"] == list(wilson(round(ant["energy"]["detection"] * 40), 40))
    low, high = found["scores"]["nearest"]["auroc_ci95"]
    assert low <= found["scores"]["nearest"]["auroc"] <= high


def test_the_same_seed_gives_the_same_result_and_the_strength_is_searched_where_none_is_given() -> None:
    rows, labels = blobs(20)
    assert leave_one_class_out(rows, labels, CLASSES, seed=3) == leave_one_class_out(rows, labels, CLASSES, seed=3)


def test_a_photo_in_the_store_twice_is_no_nearest_neighbour_of_itself() -> None:
    """Groups keep copies on one side: else every known photo would lie at distance 0, and every unknown one would be found."""
    rows, labels = blobs(20, spread=1.0)
    twice, both = np.concatenate([rows, rows]), np.concatenate([labels, labels])
    apart = leave_one_class_out(twice, both, CLASSES, strength=0.1)
    grouped = leave_one_class_out(twice, both, CLASSES, groups=np.tile(np.arange(len(rows)), 2), strength=0.1)
    assert apart["scores"]["nearest"]["auroc"] > grouped["scores"]["nearest"]["auroc"] + 0.2


def test_what_cannot_be_tried_says_why() -> None:
    rows, labels = blobs(10, k=2)
    assert leave_one_class_out(rows, labels, CLASSES[:2])["reason"].startswith("expected at least 3 classes")
    few = leave_one_class_out(*blobs(5, k=3), CLASSES[:3], strength=0.1)
    assert few["detection"] is None
    assert few["reason"] == "too few photos of the other classes can be held out to allow 5 % false alarms"


def test_few_of_many_classes_are_tried_and_classes_with_hardly_a_photo_never() -> None:
    rows, labels = blobs(12, k=12)
    labels[labels == 11] = 0
    labels[np.flatnonzero(labels == 0)[:2]] = 11
    found = leave_one_class_out(rows, labels, [f"c{i}" for i in range(12)], most_classes=5, strength=0.1)
    assert found["n_classes"] == 5
    assert "c11" not in found["per_class"]
    every = leave_one_class_out(rows, labels, [f"c{i}" for i in range(12)], most_classes=12, strength=0.1)
    assert list(every["per_class"]) == [f"c{i}" for i in range(11)]


def test_of_many_rows_a_bounded_number_is_used_the_same_of_each_class(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leave_out, "MOST_ROWS", 80)
    rows, labels = blobs(100)
    kept = leave_out._some_rows(labels, 4, 0)
    np.testing.assert_array_equal(np.bincount(labels[kept]), [20] * 4)
    assert (np.diff(kept) > 0).all()
    assert leave_one_class_out(rows, labels, CLASSES, strength=0.1)["n_photos"] == 80
    lopsided = np.repeat([0, 1, 2, 3], [300, 5, 5, 5])
    np.testing.assert_array_equal(np.bincount(lopsided[leave_out._some_rows(lopsided, 4, 0)]), [20, 5, 5, 5])


def test_many_classes_are_left_out_several_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    solved = []
    original = leave_out.solve_linear
    monkeypatch.setattr(leave_out, "solve_linear", lambda *args, **options: solved.append(args[2]) or original(*args, **options))
    rows, labels = blobs(6, k=40, d=40)
    found = leave_one_class_out(rows, labels, [f"c{i}" for i in range(40)], most_classes=4, strength=0.1)
    assert (found["n_classes"], solved) == (4, [38, 38])


def test_class_weights_are_the_runs() -> None:
    rows, labels = blobs()
    rare = (labels > 0) | (np.arange(len(labels)) % 4 == 0)
    plain, balanced = (leave_one_class_out(rows[rare], labels[rare], CLASSES, strength=0.1, balanced=each) for each in (False, True))
    assert plain["scores"]["energy"]["auroc"] != balanced["scores"]["energy"]["auroc"]
    assert plain["scores"]["nearest"] == balanced["scores"]["nearest"]  # has no head
    equal, weighted = (leave_one_class_out(rows, labels, CLASSES, strength=0.1, balanced=each) for each in (False, True))
    assert equal == weighted  # classes of one size weigh 1


def test_distances_do_not_depend_on_the_block(monkeypatch: pytest.MonkeyPatch) -> None:
    rows, _ = blobs(10)
    whole = leave_out._distances(rows[:7], rows[7:])
    monkeypatch.setattr(leave_out, "_BLOCK_BYTES", 1)
    np.testing.assert_allclose(leave_out._distances(rows[:7], rows[7:]), whole, atol=1e-6)
    np.testing.assert_allclose(leave_out._distances(np.eye(3)[:2], np.eye(3)[1:]), [1.0, 0.0], atol=1e-6)


def test_thresholds_and_their_trial_go_to_bundle_and_metrics() -> None:
    rows, labels = blobs()
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(60, 4))
    held = Held(logits, np.exp(logits) / np.exp(logits).sum(1, keepdims=True), rng.integers(0, 4, 60))
    certainty = fit(held, rows, labels, CLASSES, strength=0.1)
    kept = certainty.for_bundle()
    assert kept["none_of_these"]["detection"] == certainty.left_out["detection"] is not None
    assert kept["conformal"] == {"coverage": 0.9, "threshold": certainty.conformal.threshold}
    found = certainty.measured(held.probs, [True] * 59 + [False], held.labels, seed=0)
    assert found["none_of_these"]["test"]["false_alarms"] == pytest.approx(1 / 60)
    assert set(found["conformal"]["per_class"]) == set(CLASSES)
    assert fit(held, rows, labels, CLASSES).for_bundle()["none_of_these"]["detection"] is None  # not this model's head
    assert fit(Held(logits[:5], held.probs[:5], held.labels[:5]), rows, labels, CLASSES).for_bundle() == {
        "none_of_these": None,
        "conformal": None,
    }
