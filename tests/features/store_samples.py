"""A small space and rows that depend on their key alone, shared by the tests of the store."""

import dataclasses
import hashlib
import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from headstart.features.key import RowKey, Spec
from headstart.features.store import Space

HERE = Path(__file__).parent

SPEC = Spec(
    decoder="test",
    preprocessing={"input_px": 32},
    network="tiny",
    weights_sha256="ab" * 32,
    cut="head",
    stop=None,
    view_policy="none",
    dtype="float16",
    engine="torch",
    precision="fp32",
    row_shape=(64,),
)
PIXELS = dataclasses.replace(SPEC, network="", cut="input", dtype="uint8", row_shape=(None, None, 3), preprocessing={"shorter_px": 32})


def keys_of(numbers: Iterable[int], view: int = 0) -> list[RowKey]:
    return [(hashlib.sha256(str(i).encode()).hexdigest(), view) for i in numbers]


def rows_of(keys: list[RowKey]) -> np.ndarray:
    """float16 [n, 64] rows that depend on the key alone."""
    return np.stack([np.random.default_rng(int(sha[:8], 16) + view).normal(size=64).astype(np.float16) for sha, view in keys])


def picture_of(key: RowKey) -> np.ndarray:
    rng = np.random.default_rng(int(key[0][:8], 16))
    return rng.integers(0, 256, (*rng.integers(1, 9, 2), 3), dtype=np.uint8)


def fill(space: Space, keys: list[RowKey]) -> None:
    with space.writer() as writer:
        writer.add(keys, rows_of(keys))


WRITER = """
import sys
sys.path.insert(0, {here!r})
from pathlib import Path
from store_samples import SPEC, keys_of, rows_of
from headstart.features.store import Store
root, first, last, commit_bytes = Path(sys.argv[1]), *map(int, sys.argv[2:])
batches = [(keys_of(range(i, min(i + 7, last))), rows_of(keys_of(range(i, min(i + 7, last))))) for i in range(first, last, 7)]
with Store(root, budget_bytes=1 << 30).space(SPEC) as space, space.writer(commit_bytes=commit_bytes) as writer:
    print("ready", flush=True)
    sys.stdin.readline()
    for keys, rows in batches:
        writer.add(keys, rows)
"""


def start_writer(root: Path, first: int, last: int, commit_bytes: int) -> "subprocess.Popen[str]":
    """A process that writes rows `first` to `last` once it is told to; returns when it is ready."""
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER.format(here=str(HERE)), str(root), str(first), str(last), str(commit_bytes)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def go(process: "subprocess.Popen[str]") -> None:
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()


def finish(process: "subprocess.Popen[str]") -> int:
    process.communicate()
    return process.returncode
