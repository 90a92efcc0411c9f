"""Damaged files of the store: missing rows or a clear error, never a traceback, never a wrong row."""

import contextlib
import logging
import os
import random
import sqlite3
from pathlib import Path

import numpy as np
import pytest
from store_samples import SPEC, fill, keys_of, rows_of

from headstart.errors import StoreError
from headstart.features.store import Store


def shard_of(folder: Path) -> Path:
    (shard,) = folder.glob("rows-*")
    return shard


def test_a_flipped_byte_makes_its_row_missing_and_no_other(store: Store, filled: Path, caplog: pytest.LogCaptureFixture) -> None:
    content = bytearray(shard_of(filled).read_bytes())
    content[7 * 128 + 5] ^= 1
    shard_of(filled).write_bytes(content)
    with store.space(SPEC) as space, caplog.at_level(logging.WARNING, "headstart"):
        assert space.missing(keys_of(range(20))) == [7]
        assert "1 damaged rows removed" in caplog.text
        fill(space, keys_of(range(20)))
        np.testing.assert_array_equal(space.rows(keys_of(range(20)))[:], rows_of(keys_of(range(20))))


def test_damage_found_while_reading_is_an_error_and_the_next_run_computes_the_rows(store: Store, filled: Path) -> None:
    with store.space(SPEC) as space:
        rows = space.rows(keys_of(range(20)))
        with shard_of(filled).open("r+b") as file:
            file.seek(3 * 128)
            file.write(b"damage")
        np.testing.assert_array_equal(rows[4:], rows_of(keys_of(range(4, 20))))
        with pytest.raises(StoreError, match=r"1 of 20 stored rows in .* were damaged on disk") as caught:
            rows[:]
        assert caught.value.hint == "run the same command again: they are computed anew"
        assert space.missing(keys_of(range(20))) == [3]


@pytest.mark.parametrize("size", [0, 1000, 19 * 128])
def test_a_shard_cut_short_loses_the_rows_behind_the_cut_and_no_other(
    store: Store, filled: Path, size: int, caplog: pytest.LogCaptureFixture
) -> None:
    os.truncate(shard_of(filled), size)
    keys = keys_of(range(25))
    with caplog.at_level(logging.WARNING, "headstart"), store.space(SPEC) as space:
        assert "cut short" in caplog.text
        assert space.missing(keys) == list(range(size // 128, 25))
        fill(space, keys)
        np.testing.assert_array_equal(space.rows(keys)[:], rows_of(keys))


def test_a_shard_that_is_gone_is_missing_rows(store: Store, filled: Path) -> None:
    shard_of(filled).unlink()
    with store.space(SPEC) as space:
        assert space.missing(keys_of(range(20))) == list(range(20))
        fill(space, keys_of(range(20)))
        np.testing.assert_array_equal(space.rows(keys_of(range(20)))[:], rows_of(keys_of(range(20))))


def spoil_index(folder: Path) -> None:
    content = bytearray((folder / "index.sqlite").read_bytes())
    content[200:] = random.Random(0).randbytes(len(content) - 200)
    (folder / "index.sqlite").write_bytes(content)


@pytest.mark.parametrize(
    "spoil",
    [
        spoil_index,
        lambda folder: (folder / "index.sqlite").write_bytes(b"not a database"),
        lambda folder: (folder / "index.sqlite").write_bytes(b""),
        lambda folder: (folder / "index.sqlite").unlink(),
        lambda folder: os.truncate(folder / "index.sqlite", 5000),
        lambda folder: (folder / "space.json").write_text("{"),
        lambda folder: (folder / "space.json").write_bytes(b"\xff\x00"),
        lambda folder: (folder / "space.json").write_text('{"format": 99}'),
        lambda folder: (folder / "space.json").write_text("[]"),
    ],
)
def test_a_space_with_damaged_files_is_made_anew(store: Store, filled: Path, spoil: object, caplog: pytest.LogCaptureFixture) -> None:
    spoil(filled)  # type: ignore[operator]
    assert len(store.spaces()) == 1
    with caplog.at_level(logging.WARNING, "headstart"), store.space(SPEC) as space:
        assert "is made anew" in caplog.text
        assert space.missing(keys_of(range(20))) == list(range(20))
        fill(space, keys_of(range(20)))
        np.testing.assert_array_equal(space.rows(keys_of(range(20)))[:], rows_of(keys_of(range(20))))
        assert len(list(space.folder.glob("rows-*"))) == 1, "the old rows were left on the disk"


def test_a_removal_cut_short_is_finished_by_the_next_user(store: Store, filled: Path) -> None:
    (filled / "space.json").unlink()
    with store.space(SPEC) as space:
        assert space.missing(keys_of(range(20))) == list(range(20))
        assert not list(filled.glob("rows-*"))


def test_an_index_that_breaks_in_use_is_an_error_and_the_next_run_starts_afresh(store: Store, filled: Path) -> None:
    with store.space(SPEC) as space:
        spoil_index(filled)
        with pytest.raises(StoreError, match=r"index .*index\.sqlite is damaged"):
            space.missing(keys_of(range(20)))
    with store.space(SPEC) as space:
        assert space.missing(keys_of(range(20))) == list(range(20))


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE rows SET view = 1 - view",
        "UPDATE rows SET offset = offset + 2",
        "UPDATE rows SET offset = 128 * 18 - offset WHERE offset <= 128 * 18",
        "UPDATE rows SET bytes = 64",
        "UPDATE rows SET shard = 9",
        "UPDATE rows SET offset = -128",
    ],
)
def test_rows_of_an_index_that_tells_wrong_places_are_never_returned(store: Store, filled: Path, change: str) -> None:
    with contextlib.closing(sqlite3.connect(filled / "index.sqlite")) as db, db:
        db.execute(change)
    with store.space(SPEC) as space:
        keys = keys_of(range(20)) + keys_of(range(20), view=1)
        absent = set(space.missing(keys))
        held = [key for i, key in enumerate(keys) if i not in absent]
        assert set(held) <= set(keys_of(range(20)))
        np.testing.assert_array_equal(space.rows(held)[:], rows_of(held) if held else np.empty((0, 64)))
