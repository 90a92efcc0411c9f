"""Adding rows to a space, so that a process killed at any moment leaves a usable store.

Bytes first, known second: rows are written behind the committed end of a shard that no other process writes to, flushed to
the disk, and only then made known in the index, in one transaction. What a killed process wrote without making it known
lies behind the committed end, where the next writer overwrites it.
"""

import contextlib
import logging
import math
import os
import time
import uuid
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np

from headstart.errors import StoreError
from headstart.features.index import Index, Place, Shard, key_crc
from headstart.features.key import RowKey, Spec
from headstart.features.lock import Lock, cannot_write
from headstart.files import sync_folder

log = logging.getLogger("headstart")

FLOAT16_MAX = 65504.0
WRITE_BYTES = 4 << 20


class Overflow(StoreError):  # noqa: N818  (a condition the trunk pass handles, seldom seen by a user)
    """A value is too big for float16, or not a number."""


@dataclass(frozen=True)
class _Pending:
    """Rows given and not yet committed: one array [m, ...] or m arrays."""

    keys: list[RowKey]
    rows: np.ndarray | list[np.ndarray]


class Writer:
    """Adds rows to a space. A context manager, for one thread.

    Commits every `commit_bytes` or `commit_s` seconds, at the end, and when an exception or Ctrl-C passes (what was complete).
    """

    def __init__(
        self,
        spec: Spec,
        folder: Path,
        make_room: Callable[[int], None],
        in_use: object,
        *,
        commit_bytes: int = 64 << 20,
        commit_s: float = 10.0,
    ) -> None:
        self._spec = spec
        self._folder = folder
        self._index = Index(folder)
        self._make_room = make_room
        self._in_use = in_use  # held, so that no process removes the space meanwhile
        self._commit_bytes = commit_bytes
        self._commit_s = commit_s
        self._pending: list[_Pending] = []
        self._pending_bytes = 0
        self._committed_at = time.monotonic()
        self._shard: tuple[Shard, Lock] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            self.commit()
        except StoreError as problem:
            if kind is None:
                raise
            log.warning("the last computed rows could not be stored: %s", problem.message)
        finally:
            self._let_go()

    def add(self, keys: Sequence[RowKey], rows: np.ndarray | Sequence[np.ndarray]) -> None:
        """Add rows; keys that the space holds already are passed over.

        Args:
            keys: m keys.
            rows: [m, *row_shape]; m arrays where rows are ragged. float32 for a float16 space is converted.

        Raises:
            Overflow: float16 cannot hold a value; nothing of this call is stored.
            StoreError: the disk or the budget is full; what was committed stays usable. Or a value is not finite.
        """
        if len(keys) != len(rows):
            raise ValueError(f"expected one row for each of {len(keys)} keys, found {len(rows)}")
        kept = [self._stored(row) for row in rows] if self._spec.ragged else self._stored(np.asarray(rows), batch=True)
        self._pending.append(_Pending([(sha256, int(view)) for sha256, view in keys], kept))  # one step: Ctrl-C leaves all of it or none
        self._pending_bytes += sum(row.nbytes for row in kept) if isinstance(kept, list) else kept.nbytes
        if self._pending_bytes >= self._commit_bytes or time.monotonic() - self._committed_at >= self._commit_s:
            self.commit()

    def commit(self) -> None:
        """Put what was added on disk, then make it known. Raises: StoreError, as `add`."""
        given: dict[RowKey, np.ndarray] = {}
        for pending in self._pending:
            for key, row in zip(pending.keys, pending.rows, strict=True):
                given.setdefault(key, row)
        if given:
            self._put(given)
        self._pending.clear()
        self._pending_bytes = 0
        self._committed_at = time.monotonic()

    def _stored(self, values: np.ndarray, *, batch: bool = False) -> np.ndarray:
        """A contiguous copy in the space's dtype, checked."""
        wanted = self._spec.row_shape
        shape = values.shape[1:] if batch else values.shape
        if len(shape) != len(wanted) or any(w not in (None, s) for w, s in zip(wanted, shape, strict=True)) or 0 in shape:
            raise ValueError(f"expected rows of shape {wanted}, found {shape}")
        target = np.dtype(self._spec.dtype)
        if values.dtype != target and not (target == np.float16 and values.dtype == np.float32):
            raise ValueError(f"expected {target} rows, found {values.dtype}")
        if target.kind == "f":
            _check_finite(values, target, self._spec.precision)
        return np.array(values, target, order="C")  # a copy: the caller may use its buffer again

    def _put(self, given: dict[RowKey, np.ndarray]) -> None:
        """Write the rows that the space lacks, and commit them.

        Other writers of the space wait meanwhile (they share the disk anyway), so that no row is ever written twice.
        """
        shard, lock = self._claim()
        with self._index.update() as update:
            keys = list(given)
            held = update.held(keys)
            new = [(key, given[key]) for i, key in enumerate(keys) if i not in held]
            if not new:
                return
            self._make_room(sum(row.nbytes for _, row in new))
            end = update.end(shard)
            try:
                places = self._write(lock.fd, end + _gap(end, self._spec.row_bytes), new)
                update.add(shard, places[-1].offset + places[-1].n_bytes, places)
            except OSError as error:
                with contextlib.suppress(OSError):
                    os.ftruncate(lock.fd, end)  # a full disk gets back what is of no use
                raise cannot_write(lock.path, error) from error

    def _write(self, fd: int, start: int, new: list[tuple[RowKey, np.ndarray]]) -> list[Place]:
        """Put rows on disk from byte `start` on. Returns where they lie."""
        places: list[Place] = []
        at = start
        for key, row in new:
            shape = ",".join(map(str, row.shape)) if self._spec.ragged else None
            places.append(Place(key, at, row.nbytes, zlib.crc32(row.data, key_crc(key, shape)), shape))
            at += row.nbytes
        os.lseek(fd, start, os.SEEK_SET)
        for chunk in _chunks(row for _, row in new):
            _write_all(fd, chunk)
        os.fsync(fd)
        return places

    def _claim(self) -> tuple[Shard, Lock]:
        """A shard that no other process writes to: the one held already, an idle one, or a new one."""
        while self._shard is None:
            for shard in self._index.shards():
                self._try_claim(shard)
            if self._shard is None:
                self._index.add_shard(f"rows-{uuid.uuid4().hex[:12]}.bin")
        return self._shard

    def _try_claim(self, shard: Shard) -> None:
        path = self._folder / shard.file
        is_new = not path.exists()
        try:
            lock = Lock(path)
        except OSError as error:
            raise cannot_write(path, error) from error
        if not lock.try_exclusive():
            lock.release()
            return
        self._cut_tail(shard, lock)
        if is_new:
            sync_folder(self._folder)
        if self._shard is None:
            self._shard = (shard, lock)
        else:
            lock.release()

    def _cut_tail(self, shard: Shard, lock: Lock) -> None:
        """Free what a killed process wrote behind the committed end of a shard that is now ours."""
        end = next(s.end for s in self._index.shards() if s.id == shard.id)
        with contextlib.suppress(OSError):  # Windows refuses while another process has it mapped; the next writer frees it
            if os.fstat(lock.fd).st_size > end:
                os.ftruncate(lock.fd, end)

    def _let_go(self) -> None:
        if self._shard is not None:
            self._shard[1].release()
            self._shard = None


def _check_finite(values: np.ndarray, target: np.dtype, precision: str) -> None:
    """Refuse what `target` cannot hold. `precision`: of the arithmetic that gave the values."""
    if values.size == 0:
        return
    if values.dtype == np.float16:  # many times as fast as its min and max: an exponent of all ones is infinite or no number
        if ((np.ascontiguousarray(values).view(np.uint16) & 0x7C00) == 0x7C00).any():
            raise Overflow("expected finite float16 rows, found values that are infinite or no number")
        return
    low, high = float(values.min()), float(values.max())  # NaN if any is NaN
    if target == np.float16 and not (low >= -FLOAT16_MAX and high <= FLOAT16_MAX):
        raise Overflow(f"expected values from -65504 to 65504 for float16 rows, found {low:g} to {high:g}")
    if not (math.isfinite(low) and math.isfinite(high)):
        hint = "use other weights: these give no features" if precision == "fp32" else "try --precision fp32"
        raise StoreError(f"expected finite values from the frozen trunk, found {low:g} to {high:g}", hint=hint)


def _gap(end: int, row_bytes: int | None) -> int:
    """Bytes to skip so that rows of one size lie at multiples of it (after a shard was cut short)."""
    return 0 if row_bytes is None else -end % row_bytes


def _chunks(rows: Iterator[np.ndarray]) -> Iterator[bytes]:
    """The rows' bytes, joined to a few MB: thousands of small writes cost more than the copy."""
    joined: list[memoryview] = []
    size = 0
    for row in rows:
        joined.append(row.reshape(-1).view(np.uint8).data)
        size += row.nbytes
        if size >= WRITE_BYTES:
            yield b"".join(joined)
            joined, size = [], 0
    if joined:
        yield b"".join(joined)


def _write_all(fd: int, chunk: bytes) -> None:
    left = memoryview(chunk)
    while left:
        left = left[os.write(fd, left) :]
