"""Stored rows, read where they lie: memory-mapped, gathered in any order, each checked once."""

import logging
import math
import mmap
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from headstart.errors import StoreError
from headstart.features.index import Found, Index
from headstart.features.key import RowKey, Spec

log = logging.getLogger("headstart")

GATHER_BYTES = 16 << 20  # copied at once, so that a gather needs little more memory than its result
RELEASE_BYTES = 256 << 20  # mapped pages given back to the system after this much was read


class Rows:
    """Rows of a space, in the order they were asked for; nothing is read before it is indexed.

    `rows[slice]` and `rows[int array]` give an array [m, *row_shape] of `dtype` (a list of m arrays where rows are ragged),
    always a copy. May be used from several threads, and after its space is closed: the space stays in use until the rows are gone.
    """

    def __init__(self, spec: Spec, keys: Sequence[RowKey], found: Found, folder: Path, in_use: object) -> None:
        self.dtype = np.dtype(spec.dtype)
        self.ragged = spec.ragged
        self._spec = spec
        self._keys = keys
        self._found = found
        self._folder = folder
        self._in_use = in_use
        self._positions = np.arange(len(keys))
        self._checked = np.zeros(len(keys), bool)
        self._maps: dict[int, mmap.mmap] = {}
        self._n_read = 0

    def __len__(self) -> int:
        return len(self._keys)

    @property
    def shape(self) -> tuple[int | None, ...]:
        """(n, *row_shape), None where sizes differ from row to row."""
        return (len(self), *self._spec.row_shape)

    @property
    def nbytes(self) -> int:
        """Bytes of all rows together."""
        return int(self._found.n_bytes.sum())

    def __getitem__(self, which: Any) -> Any:
        """Read rows. Raises: StoreError: some are damaged; they are removed, so that the next run computes them anew."""
        index = self._positions[which]
        if index.ndim != 1:
            raise TypeError(f"rows are read by a slice or a one-dimensional array of integers, found {which!r}")
        if damaged := self.damaged(index):
            raise StoreError(
                f"{len(damaged)} of {len(self)} stored rows in {self._folder} were damaged on disk and have been removed",
                hint="run the same command again: they are computed anew",
            )
        rows = [self._row(i) for i in index.tolist()] if self.ragged else self._gather(index)
        self._release(int(self._found.n_bytes[index].sum()))
        return rows

    def damaged(self, index: np.ndarray | None = None) -> list[int]:
        """Check rows against their checksums, each row once; remove the damaged ones from the space.

        The sum costs 3 us for a row of 4 kB (1.3 GB/s), a thousandth of computing it.

        Returns: positions of damaged rows, ascending.
        """
        index = self._positions if index is None else index
        todo = np.unique(index[~self._checked[index]])
        todo = todo[np.lexsort((self._found.offset[todo], self._found.shard[todo]))]  # disk order: one sweep over the file
        bad: list[int] = []
        for i in todo.tolist():
            if not self._is_sound(i):
                bad.append(i)
        self._checked[todo] = True
        if bad:
            self._checked[bad] = False
            log.warning("%d damaged rows removed from the feature store (%s); they will be computed anew", len(bad), self._folder)
            Index(self._folder).drop(self._keys[i] for i in bad)
        return sorted(bad)

    def _is_sound(self, i: int) -> bool:
        found = self._found
        start, n_bytes = int(found.offset[i]), int(found.n_bytes[i])
        if self.ragged:
            right_size = self._fits(found.shapes[i]) and n_bytes == math.prod(found.shapes[i]) * self.dtype.itemsize
        else:
            right_size = n_bytes == self._spec.row_bytes and start % n_bytes == 0
        mapped = self._map(int(found.shard[i]))
        if not right_size or mapped is None or start < 0 or start + n_bytes > len(mapped):
            return False
        with memoryview(mapped) as view, view[start : start + n_bytes] as row:
            return zlib.crc32(row, int(found.seed[i])) == int(found.crc[i])

    def _fits(self, shape: tuple[int, ...]) -> bool:
        wanted = self._spec.row_shape
        return len(shape) == len(wanted) and all(w is None or w == s for w, s in zip(wanted, shape, strict=True))

    def _row(self, i: int) -> np.ndarray:
        """One ragged row."""
        shape, start = self._found.shapes[i], int(self._found.offset[i])
        mapped = self._map(int(self._found.shard[i]))
        return np.frombuffer(mapped, self.dtype, math.prod(shape), start).reshape(shape).copy()  # type: ignore[arg-type]

    def _gather(self, index: np.ndarray) -> np.ndarray:
        """Rows of one shape, read in the order they lie on disk and put down in the order asked."""
        shape = tuple(size for size in self._spec.row_shape if size is not None)
        out = np.empty((len(index), *shape), self.dtype)
        row_bytes = max(1, out[:0].itemsize * math.prod(shape))
        shards, places = self._found.shard[index], self._found.offset[index] // row_bytes
        order = np.lexsort((places, shards))
        step = max(1, GATHER_BYTES // row_bytes)
        for start in range(0, len(order), step):
            part = order[start : start + step]
            for shard in np.unique(shards[part]).tolist():
                here = part[shards[part] == shard]
                mapped = self._map(shard)
                table = np.frombuffer(mapped, self.dtype, len(mapped) // row_bytes * math.prod(shape)).reshape(-1, *shape)  # type: ignore
                if _is_run(here) and _is_run(places[here]):
                    out[here[0] : here[-1] + 1] = table[places[here[0]] : places[here[-1]] + 1]
                else:
                    out[here] = table[places[here]]
        return out

    def _map(self, shard: int) -> mmap.mmap | None:
        """The shard's file, mapped as far as these rows need it; None where it is gone or empty."""
        if shard not in self._maps:
            mine = self._found.shard == shard
            wanted = int((self._found.offset[mine] + self._found.n_bytes[mine]).max())
            try:
                with (self._folder / self._found.files[shard]).open("rb") as file:
                    size = min(wanted, file.seek(0, 2))
                    self._maps[shard] = mmap.mmap(file.fileno(), size, access=mmap.ACCESS_READ)
            except (OSError, KeyError, ValueError):
                return None
        return self._maps[shard]

    def _release(self, n_bytes: int) -> None:
        """Give pages back now and then: read through once, a big store would else count as this process's memory."""
        self._n_read += n_bytes
        if self._n_read > RELEASE_BYTES and hasattr(mmap, "MADV_DONTNEED"):
            self._n_read = 0
            for mapped in list(self._maps.values()):
                mapped.madvise(mmap.MADV_DONTNEED)


def _is_run(numbers: np.ndarray) -> bool:
    """Whether the numbers are consecutive, ascending."""
    return bool(numbers[-1] - numbers[0] == len(numbers) - 1 and (np.diff(numbers) == 1).all())
