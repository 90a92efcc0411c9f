"""Spaces: what was put in comes out, in any order, from any number of writers."""

import contextlib
import random
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from store_samples import PIXELS, SPEC, fill, keys_of, picture_of, rows_of

from headstart.errors import StoreError
from headstart.features.store import Store


def test_rows_come_back_as_they_were_in_any_order_and_more_than_once(store: Store) -> None:
    keys = keys_of(range(100))
    with store.space(SPEC) as space:
        assert space.missing(keys) == list(range(100))
        fill(space, keys)
        assert space.missing([*keys, *keys_of([100])]) == [100]
        rows = space.rows(keys)
        assert (len(rows), rows.shape, rows.dtype, len(space)) == (100, (100, 64), np.float16, 100)
        expected = rows_of(keys)
        np.testing.assert_array_equal(rows[:], expected)
        np.testing.assert_array_equal(rows[10:90:-7], expected[10:90:-7])
        np.testing.assert_array_equal(rows[90:10:-7], expected[90:10:-7])
        wanted = np.array([5, 99, 0, 5, -1, 5])
        np.testing.assert_array_equal(rows[wanted], expected[wanted])
        np.testing.assert_array_equal(space.rows([keys[i] for i in wanted])[1:], expected[wanted][1:])
        assert rows[[]].shape == (0, 64)
        assert space.rows([])[:].shape == (0, 64)


def test_a_second_store_on_the_same_folder_finds_the_rows(store: Store) -> None:
    keys = keys_of(range(10))
    with store.space(SPEC) as space:
        fill(space, keys[:9])
    with Store(store.root).space(SPEC) as space:
        assert space.missing(keys) == [9]
        np.testing.assert_array_equal(space.rows(keys[:9])[:], rows_of(keys[:9]))


def test_views_of_a_photo_are_rows_of_their_own(store: Store) -> None:
    keys = [key for view in range(3) for key in keys_of(range(5), view)]
    with store.space(SPEC) as space:
        fill(space, keys)
        np.testing.assert_array_equal(space.rows(keys)[:], rows_of(keys))
        assert space.missing(keys_of(range(5), view=3)) == list(range(5))


def test_rows_of_different_sizes_come_back_as_lists(store: Store) -> None:
    keys = keys_of(range(20))
    with store.space(PIXELS) as space:
        with space.writer() as writer:
            writer.add(keys, [picture_of(key) for key in keys])
        rows = space.rows(keys[::-1])
        assert rows.shape == (20, None, None, 3)
        for got, key in zip(rows[2:9], keys[::-1][2:9], strict=True):
            np.testing.assert_array_equal(got, picture_of(key))
        with space.writer() as writer, pytest.raises(ValueError, match=r"expected rows of shape \(None, None, 3\), found \(4, 4\)"):
            writer.add(keys_of([77]), [np.zeros((4, 4), np.uint8)])


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.tuples(st.integers(0, 2), st.lists(st.integers(0, 40), max_size=12)), max_size=6),
    st.sampled_from([1, 300, 1 << 20]),
    st.randoms(use_true_random=False),
)
def test_any_sequence_of_writers_keeps_every_row(
    tmp_path: Path, adds: list[tuple[int, list[int]]], commit_bytes: int, rng: random.Random
) -> None:
    store = Store(Path(tempfile.mkdtemp(dir=tmp_path)), budget_bytes=1 << 30)
    with store.space(SPEC) as space, contextlib.ExitStack() as stack:
        writers = [stack.enter_context(space.writer(commit_bytes=commit_bytes)) for _ in range(3)]
        for which, numbers in adds:
            if numbers:
                writers[which].add(keys_of(numbers), rows_of(keys_of(numbers)))
        stack.close()
        added = sorted({number for _, numbers in adds for number in numbers})
        asked = keys_of([rng.randrange(41) for _ in range(60)])
        absent = space.missing(asked)
        assert [i for i, key in enumerate(asked) if key not in keys_of(added)] == absent
        assert len(space) == len(added)
        held = [key for key in asked if key in keys_of(added)]
        if held:
            np.testing.assert_array_equal(space.rows(held)[:], rows_of(held))


def test_rows_that_are_held_already_take_no_more_disk(store: Store) -> None:
    keys = keys_of(range(50))
    with store.space(SPEC) as space:
        for _ in range(3):
            fill(space, keys + keys[:5])
        assert sum(path.stat().st_size for path in space.folder.glob("rows-*")) == 50 * 128
        assert len(list(space.folder.glob("rows-*"))) == 1


def test_asking_for_absent_rows_is_an_error_that_counts_them(store: Store) -> None:
    with store.space(SPEC) as space:
        fill(space, keys_of(range(3)))
        with pytest.raises(StoreError, match="2 of 5 rows are not in"):
            space.rows(keys_of(range(5)))


def test_rows_outlive_their_space_and_are_never_read_as_a_whole_by_accident(store: Store) -> None:
    keys = keys_of(range(5))
    with store.space(SPEC) as space:
        fill(space, keys)
        rows = space.rows(keys)
    assert len(store.clear().removed) == 0  # the rows still use it
    np.testing.assert_array_equal(rows[:], rows_of(keys))
    with pytest.raises(TypeError, match="by a slice or a one-dimensional array"):
        np.asarray(rows)
    with pytest.raises(ValueError, match="is closed"):
        space.missing(keys)


def test_many_keys_are_looked_up_and_read_quickly(store: Store) -> None:
    keys = keys_of(range(60_000))
    values = np.arange(60_000 * 64, dtype=np.float32).reshape(-1, 64) % 2048
    with store.space(SPEC) as space:
        with space.writer() as writer:
            writer.add(keys, values)
        started = time.process_time()
        rows = space.rows(keys)
        assert time.process_time() - started < 1
        order = np.random.default_rng(0).permutation(60_000)
        started = time.process_time()
        np.testing.assert_array_equal(rows[order], values[order])
        assert time.process_time() - started < 1
