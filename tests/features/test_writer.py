"""Writers: values that cannot be stored, processes that die, disks that fill."""

import dataclasses
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from store_samples import HERE, SPEC, fill, finish, go, keys_of, rows_of, start_writer

from headstart.errors import StoreError
from headstart.features.store import Overflow, Space, Store


@pytest.mark.parametrize("value", [65505.0, -70000.0, np.inf, -np.inf, np.nan])
def test_what_float16_cannot_hold_is_refused_and_remembered(store: Store, value: float) -> None:
    rows = np.zeros((2, 64), np.float32)
    rows[1, 3] = value

    with store.space(SPEC) as space:
        with space.writer() as writer:
            writer.add(keys_of(range(3)), np.full((3, 64), 65504, np.float32))  # the most it can
            with pytest.raises(Overflow, match="expected values from -65504 to 65504"):
                writer.add(keys_of(range(3, 5)), rows)
        assert space.missing(keys_of(range(5))) == [3, 4]
        with np.errstate(over="ignore"), pytest.raises(Overflow, match="infinite or no number"), space.writer() as writer:
            writer.add(keys_of(range(3, 5)), (rows * 10).astype(np.float16))
    assert not store.overflowed(SPEC)
    store.mark_overflow(SPEC)
    assert Store(store.root).overflowed(SPEC)
    assert not store.overflowed(dataclasses.replace(SPEC, cut="layer3"))
    store.clear()
    assert not store.overflowed(SPEC)


def test_float32_spaces_hold_big_values_and_refuse_what_is_no_number(store: Store) -> None:
    spec = SPEC.with_dtype("float32")
    rows = np.full((2, 64), 1e30, np.float32)
    with store.space(spec) as space:
        with space.writer() as writer:
            writer.add(keys_of(range(2)), rows)
        np.testing.assert_array_equal(space.rows(keys_of(range(2)))[:], rows)
        no_number = "expected finite values from the frozen trunk, found nan to nan\nhint: use other weights"
        with pytest.raises(StoreError, match=no_number), space.writer() as writer:
            writer.add(keys_of([2]), np.full((1, 64), np.nan, np.float32))
    with (
        store.space(dataclasses.replace(spec, precision="bf16")) as space,
        space.writer() as writer,
        pytest.raises(StoreError, match="found inf to inf\nhint: try --precision fp32"),
    ):
        writer.add(keys_of([2]), np.full((1, 64), np.inf, np.float32))


def test_rows_of_another_shape_dtype_or_number_are_refused(store: Store) -> None:
    with store.space(SPEC) as space, space.writer() as writer:
        with pytest.raises(ValueError, match=r"expected rows of shape \(64,\), found \(63,\)"):
            writer.add(keys_of([0]), np.zeros((1, 63), np.float16))
        with pytest.raises(ValueError, match="expected float16 rows, found float64"):
            writer.add(keys_of([0]), np.zeros((1, 64)))
        with pytest.raises(ValueError, match="one row for each of 2 keys, found 1"):
            writer.add(keys_of([0, 1]), np.zeros((1, 64), np.float16))


def test_rows_are_known_after_the_commit_size_or_time(store: Store) -> None:
    with store.space(SPEC) as space:
        with space.writer(commit_bytes=3 * 128) as writer:
            writer.add(keys_of(range(2)), rows_of(keys_of(range(2))))
            assert len(space) == 0
            writer.add(keys_of([2]), rows_of(keys_of([2])))
            assert len(space) == 3
        with space.writer(commit_s=0) as writer:
            writer.add(keys_of([3]), rows_of(keys_of([3])))
            assert len(space) == 4


@pytest.mark.parametrize("kind", [KeyboardInterrupt, RuntimeError])
def test_what_was_complete_is_kept_when_an_exception_passes(store: Store, kind: type[BaseException]) -> None:
    keys = keys_of(range(6))

    def write_until_interrupted(space: Space) -> None:
        with space.writer() as writer:
            writer.add(keys[:4], rows_of(keys[:4]))
            raise kind

    with store.space(SPEC) as space:
        with pytest.raises(kind):
            write_until_interrupted(space)
        assert space.missing(keys) == [4, 5]
        np.testing.assert_array_equal(space.rows(keys[:4])[:], rows_of(keys[:4]))


def test_a_process_killed_at_any_moment_leaves_a_usable_store(store: Store) -> None:
    n, rng, survived = 20_000, random.Random(0), 0  # more than a fast machine writes in all these moments
    keys = keys_of(range(n))
    processes = [start_writer(store.root, 0, n, 2000) for _ in range(6)]
    for process in processes:  # one after the other, each goes on where the last was killed
        go(process)
        time.sleep(rng.uniform(0.0, 0.12))
        process.kill()
        assert finish(process) == -signal.SIGKILL
        with store.space(SPEC) as space:
            absent = set(space.missing(keys))
            held = [key for i, key in enumerate(keys) if i not in absent]
            assert len(held) >= survived, "committed rows were lost"
            survived = len(held)
            if held:
                np.testing.assert_array_equal(space.rows(held)[:], rows_of(held))
    with store.space(SPEC) as space:
        fill(space, keys)
        np.testing.assert_array_equal(space.rows(keys)[:], rows_of(keys))
        on_disk = sum(path.stat().st_size for path in space.folder.glob("rows-*"))
    assert 0 < survived < n, "the test killed too early or too late to show anything"
    assert on_disk == n * 128, "disk was lost to killed writers"


def test_processes_that_write_the_same_rows_at_once_are_safe(store: Store) -> None:
    n = 2100
    processes = [start_writer(store.root, first, n, 5000) for first in (0, 0, 700)]
    for process in processes:
        go(process)
    assert [finish(process) for process in processes] == [0, 0, 0]
    keys = keys_of(range(n))
    with store.space(SPEC) as space:
        assert space.missing(keys) == []
        assert len(space) == n
        np.testing.assert_array_equal(space.rows(keys)[:], rows_of(keys))
        shards = list(space.folder.glob("rows-*"))
        assert len(shards) <= 3
        assert sum(path.stat().st_size for path in shards) == n * 128, "rows were written twice"


def test_a_torn_tail_is_cut_off_by_the_next_writer(store: Store) -> None:
    with store.space(SPEC) as space:
        fill(space, keys_of(range(4)))
        (shard,) = space.folder.glob("rows-*")
        with shard.open("ab") as file:
            file.write(b"x" * 1000)  # what a killed process wrote and never committed
        fill(space, keys_of(range(5)))
        assert shard.stat().st_size == 5 * 128
        np.testing.assert_array_equal(space.rows(keys_of(range(5)))[:], rows_of(keys_of(range(5))))


FULL = """
import resource, signal, subprocess, sys
sys.path.insert(0, {here!r})
from pathlib import Path
from store_samples import SPEC, keys_of, rows_of
from headstart.errors import StoreError
from headstart.features.store import Store
root, how = Path(sys.argv[1]), sys.argv[2]
if how == "tmpfs":
    root.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", str(root)], check=True)
else:
    resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))
keys = keys_of(range(8000))
with Store(root, budget_bytes=1 << 30).space(SPEC) as space:
    try:
        with space.writer(commit_bytes=20_000) as writer:
            for i in range(0, 8000, 50):
                writer.add(keys[i : i + 50], rows_of(keys[i : i + 50]))
    except StoreError as error:
        print(error.message)
    absent = set(space.missing(keys))
    held = [key for i, key in enumerate(keys) if i not in absent]
    assert (space.rows(held)[:] == rows_of(held)).all()
    print("held", len(held))
"""


@pytest.mark.parametrize(("how", "expected"), [("tmpfs", "disk full while writing"), ("limit", "larger than this system allows")])
def test_a_disk_that_fills_is_a_clear_error_and_what_was_committed_stays(tmp_path: Path, how: str, expected: str) -> None:
    command = [sys.executable, "-c", FULL.format(here=str(HERE)), str(tmp_path / "full"), how]
    if how == "tmpfs":  # a small disk of its own, which vanishes with the process
        if shutil.which("unshare") is None or subprocess.run(["unshare", "-rm", "true"], capture_output=True, check=False).returncode:
            pytest.skip("no name spaces here to mount a small disk in")
        command = ["unshare", "-rm", *command]
    told = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert told.returncode == 0, told.stderr
    message, held = told.stdout.splitlines()
    assert expected in message
    assert 1000 < int(held.removeprefix("held ")) < 8000
