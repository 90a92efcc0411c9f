"""What copies flatter by: measured where there are any, on whole groups, and called a difference only beyond noise."""

import numpy as np
import pytest
from label_samples import make_rows, make_table

from headstart.data.table import Table
from headstart.explore import honesty
from headstart.explore.honesty import draw_groups, naive_and_honest, score


def copied(n: int, times: int, *, noise: float, seed: int = 0) -> tuple[np.ndarray, Table]:
    """`n` photos of two classes, each `times` times; the copies of one photo are a group."""
    labels = np.repeat(np.random.default_rng(seed).integers(0, 2, n), times)
    rows = np.repeat(make_rows(labels[::times], 64, noise=noise, seed=seed), times, axis=0)
    groups = [f"g{i // times}" for i in range(n * times)]
    return rows, make_table([("cat", "dog")[y] for y in labels], group=groups)


def test_copies_flatter_the_naive_score() -> None:
    found = naive_and_honest(*copied(60, 3, noise=8), seed=0)
    assert found is not None
    assert found.naive.accuracy > found.honest.accuracy + 0.15
    assert found.differ
    assert found.honest.n == found.naive.n == 180
    assert found.to_json()["differ"] is True


def test_where_copies_change_nothing_no_difference_is_claimed() -> None:
    found = naive_and_honest(*copied(60, 2, noise=0.3), seed=0)
    assert found is not None
    assert not found.differ
    assert found.to_json()["honest"]["accuracy"] == found.to_json()["naive"]["accuracy"] == 1


def test_nothing_is_compared_where_every_photo_stands_alone() -> None:
    labels = np.arange(40) % 2
    assert naive_and_honest(make_rows(labels, 8, noise=1), make_table([("cat", "dog")[y] for y in labels]), seed=0) is None


def test_a_class_in_one_group_cannot_be_held_out_and_is_no_trouble() -> None:
    labels = np.array([0] * 20 + [1] * 20 + [2] * 4)
    groups = [f"{i // 2}" for i in range(40)] + ["one"] * 4
    table = make_table([("ant", "bee", "cat")[y] for y in labels], group=groups)
    found = naive_and_honest(make_rows(labels, 16, noise=1), table, seed=0)
    assert found is not None
    assert found.honest.n == 40


def test_the_same_seed_gives_the_same_answer() -> None:
    rows, table = copied(30, 2, noise=4)
    assert naive_and_honest(rows, table, seed=3) == naive_and_honest(rows, table, seed=3)


def test_of_many_photos_whole_groups_are_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    rows, table = copied(60, 3, noise=8)
    monkeypatch.setattr(honesty, "_MOST_OPERATIONS", 1)
    monkeypatch.setattr(honesty, "_LEAST_PHOTOS", 90)
    found = naive_and_honest(rows, table, seed=0)
    assert found is not None
    assert found.honest.n == 90


def test_groups_are_drawn_whole_and_about_as_many_photos_as_asked_for() -> None:
    groups = np.repeat(np.arange(50), np.arange(50) % 4 + 1)
    kept = draw_groups(groups, 60, seed=1)
    assert 55 <= len(kept) <= 60
    assert all(np.isin(np.flatnonzero(groups == g), kept).all() for g in groups[kept])
    assert np.array_equal(kept, np.sort(kept))
    assert np.array_equal(draw_groups(groups, len(groups), seed=1), np.arange(len(groups)))
    assert len(draw_groups(np.zeros(10), 5, seed=0)) == 10, "one group is more than asked for, and cannot be parted"


def test_copies_do_not_narrow_an_interval() -> None:
    right = np.random.default_rng(0).integers(0, 2, 50).astype(float)
    alone, thrice = score(right, np.arange(50), 5), score(np.repeat(right, 3), np.repeat(np.arange(50), 3), 5)
    assert thrice.accuracy_ci95 == pytest.approx(alone.accuracy_ci95)
    assert (alone.n, thrice.n) == (50, 150)
