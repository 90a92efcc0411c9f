"""The store as a whole: budget, removal, listing, folders that cannot be used."""

import dataclasses
import os
import shutil
import time
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
from store_samples import PIXELS, SPEC, fill, finish, go, keys_of, rows_of, start_writer

from headstart.errors import ConfigError, StoreError
from headstart.features import space as space_module
from headstart.features.key import Spec
from headstart.features.store import Store, parse_bytes


def specs(n: int) -> list[Spec]:
    return [dataclasses.replace(SPEC, cut=f"stage{i}") for i in range(n)]


def age(store: Store, spec: Spec, seconds: float) -> None:
    then = time.time() - seconds
    os.utime(store.root / spec.digest() / "lock", (then, then))


def test_the_least_recently_used_space_makes_room(tmp_path: Path) -> None:
    store = Store(tmp_path, budget_bytes=500_000)
    keys = keys_of(range(1000))  # 128 kB, and 80 kB of index
    one, two, three = specs(3)
    for spec in (one, two):
        with store.space(spec) as space:
            fill(space, keys)
    age(store, one, 50)
    age(store, two, 100)
    with store.space(three) as space:
        fill(space, keys)
        assert {info.cut for info in store.spaces()} == {"stage0", "stage2"}
    assert sum(info.bytes for info in store.spaces()) <= 500_000
    assert not (tmp_path / two.digest()).exists()


def test_a_space_in_use_is_never_removed(tmp_path: Path) -> None:
    store = Store(tmp_path, budget_bytes=500_000)
    keys = keys_of(range(1000))
    one, two, three = specs(3)
    with store.space(one) as first, store.space(two) as second:
        fill(first, keys)
        fill(second, keys)
        age(store, one, 100)
        with (
            store.space(three) as third,
            pytest.raises(StoreError, match=r"needs .* KiB, its budget is 488\.3 KiB, and running processes") as caught,
        ):
            fill(third, keys)
        assert "HEADSTART_STORE_BUDGET=" in str(caught.value.hint)
        np.testing.assert_array_equal(first.rows(keys)[:], rows_of(keys))


def test_a_space_bigger_than_the_budget_is_refused_with_both_sizes(tmp_path: Path) -> None:
    store = Store(tmp_path, budget_bytes=3 << 30)
    spec = dataclasses.replace(SPEC, row_shape=(256, 56, 56))
    with pytest.raises(StoreError, match=r"need 15\.0 GiB for these photos, the feature store's budget is 3\.0 GiB") as caught:
        store.check_room(spec, 10_000)
    assert "HEADSTART_STORE_BUDGET=18GB" in str(caught.value.hint)


def test_too_little_free_disk_is_told_before_any_work(tmp_path: Path) -> None:
    store = Store(tmp_path, budget_bytes=1 << 60)
    n_rows = 2 * shutil.disk_usage(tmp_path).total // (256 * 56 * 56 * 2)
    with pytest.raises(StoreError, match=r"rows at cut head need \d+\.\d\d GiB of disk, \d+\.\d\d GiB are free") as caught:
        store.check_room(dataclasses.replace(SPEC, row_shape=(256, 56, 56)), n_rows)
    assert "HEADSTART_CACHE" in str(caught.value.hint)
    store.check_room(PIXELS, 10**9)  # rows of unknown size: nothing to say yet
    with pytest.raises(StoreError, match="rows at cut input need"):
        store.check_room(PIXELS, n_rows, row_bytes=256 * 56 * 56 * 2)


def test_room_is_made_but_never_by_removing_what_is_about_to_grow(tmp_path: Path) -> None:
    store = Store(tmp_path, budget_bytes=600_000)
    one, two = specs(2)
    for spec in (one, two):
        with store.space(spec) as space:
            fill(space, keys_of(range(1000)))
    age(store, one, 100)
    store.check_room(one, 1000)
    assert {info.cut for info in store.spaces()} == {"stage0"}


def test_the_default_budget_is_a_quarter_of_the_free_disk_or_what_the_environment_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HEADSTART_STORE_BUDGET", raising=False)
    expected = min(20e9, shutil.disk_usage(tmp_path).free / 4)
    assert Store(tmp_path / "none").budget_bytes == pytest.approx(expected, rel=0.05)
    monkeypatch.setenv("HEADSTART_STORE_BUDGET", "1.5 GB")
    assert Store(tmp_path).budget_bytes == 1_500_000_000
    assert Store(tmp_path, budget_bytes=7).budget_bytes == 7
    monkeypatch.setenv("HEADSTART_STORE_BUDGET", "lots")
    with pytest.raises(ConfigError, match="expected a size for HEADSTART_STORE_BUDGET, found 'lots'"):
        _ = Store(tmp_path).budget_bytes


@pytest.mark.parametrize(
    ("text", "n_bytes"), [("50GB", 50 * 10**9), ("20GiB", 20 * 2**30), ("500 mb", 5 * 10**8), ("1000", 1000), ("2k", 2000)]
)
def test_sizes_are_read_as_people_write_them(text: str, n_bytes: int) -> None:
    assert parse_bytes(text) == n_bytes


def test_a_space_is_listed_with_what_a_person_wants_to_know(store: Store, filled: Path) -> None:
    with store.space(PIXELS):
        pass
    age(store, SPEC, 100)
    pixels, info = store.spaces()
    assert (pixels.cut, pixels.px, pixels.rows) == ("input", 32, 0)
    assert (info.network, info.cut, info.stop, info.px, info.view, info.dtype) == ("tiny", "head", None, 32, "none", "float16")
    assert info.rows == 20
    assert info.bytes == sum(path.stat().st_size for path in filled.iterdir())
    assert info.last_used < pixels.last_used
    assert info.spec == SPEC.to_json()


def test_clear_frees_what_is_not_in_use_and_says_what_it_left(store: Store) -> None:
    one, two, three = specs(3)
    for spec in (one, two, three):
        with store.space(spec) as space:
            fill(space, keys_of(range(3)))
    age(store, two, 3600)
    assert [info.cut for info in store.clear(match=lambda info: info.cut == "stage0").removed] == ["stage0"]
    assert [info.cut for info in store.clear(older_than=timedelta(minutes=30)).removed] == ["stage1"]
    with store.space(three):
        cleared = store.clear()
        assert (len(cleared.removed), len(cleared.in_use), cleared.bytes) == (0, 1, 0)
        assert cleared.in_use[0].cut == "stage2"
    assert store.clear().bytes > 3 * 128
    assert store.spaces() == []
    assert Store(store.root / "absent").spaces() == []


def test_a_space_used_by_another_process_is_not_removed(store: Store) -> None:
    process = start_writer(store.root, 0, 7, 1)
    assert len(store.clear().in_use) == 1
    go(process)
    assert finish(process) == 0
    assert len(store.clear().removed) == 1


def test_spaces_opened_and_removed_by_many_threads_at_once_never_lose_a_user(store: Store) -> None:
    from concurrent.futures import ThreadPoolExecutor

    keys = keys_of(range(3))

    def use(_: int) -> bool:
        with store.space(SPEC) as space:
            fill(space, keys)
            return bool((space.rows(keys)[:] == rows_of(keys)).all())

    with ThreadPoolExecutor(6) as pool:
        used = pool.map(use, range(30))
        removed = [pool.submit(store.clear) for _ in range(30)]
        assert all(used)
        assert all(future.result() is not None for future in removed)


def test_a_store_that_cannot_be_written_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match=r"cannot write .*file"):
        Store(tmp_path / "file" / "store").space(SPEC)


def test_a_disk_without_locks_is_a_clear_error(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    import portalocker

    def no_locks(*_: object) -> None:
        raise portalocker.LockException("Function not implemented")

    monkeypatch.setattr(portalocker, "lock", no_locks)
    with pytest.raises(StoreError, match=r"cannot lock .*Function not implemented") as caught:
        store.space(SPEC)
    assert "local disk" in str(caught.value.hint)


def test_a_space_locked_by_another_process_for_long_is_a_clear_error(store: Store, filled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from headstart.features.lock import Lock

    monkeypatch.setattr(space_module, "WAIT_S", 0.1)
    other = Lock(filled / "lock")
    assert other.try_exclusive()
    with pytest.raises(StoreError, match="stayed locked by another process"):
        store.space(SPEC)
    other.release()
    store.space(SPEC).close()
