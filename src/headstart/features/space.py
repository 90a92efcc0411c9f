"""One space of the store: rows of one cut of one network, by photo and view."""

import contextlib
import json
import logging
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from headstart import files
from headstart.errors import HeadstartError, StoreError
from headstart.features.index import Index
from headstart.features.key import FORMAT, RowKey, Spec
from headstart.features.lock import Lock, cannot_write
from headstart.features.rows import Rows
from headstart.features.writer import Writer

log = logging.getLogger("headstart")

WAIT_S = 60.0
# `missing` checks rows ahead up to this size; more is checked as it is read, where damage ends the run with a hint.
CHECK_AHEAD_BYTES = 1 << 30


class Space:
    """An open space. While it is open, or any of its `rows` is in use, no process removes it."""

    def __init__(self, spec: Spec, folder: Path, make_room: Callable[[int], None]) -> None:
        self.spec = spec
        self.folder = folder
        self._make_room = make_room
        self._lock: Lock | None = enter(folder, lambda: _prepare(folder, spec))
        self._index = Index(folder)
        touch(folder)
        self._drop_lost()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Let go; `rows` that are still in use keep the space from being removed until they are gone."""
        if self._lock is not None:
            touch(self.folder)
        self._lock = None

    @property
    def _in_use(self) -> Lock:
        if self._lock is None:
            raise ValueError(f"the space {self.folder} is closed")
        return self._lock

    def __len__(self) -> int:
        return self._index.count()

    def missing(self, keys: Sequence[RowKey]) -> list[int]:
        """Positions in `keys` of rows that the space does not hold, ascending. Damaged rows count as missing and are removed."""
        found = self._index.find(keys)
        absent = np.ones(len(keys), bool)
        absent[found.at] = False
        if int(found.n_bytes.sum()) <= CHECK_AHEAD_BYTES:
            held = Rows(self.spec, [keys[i] for i in found.at.tolist()], found, self.folder, self._in_use)
            absent[found.at[held.damaged()]] = True
        return [int(i) for i in np.flatnonzero(absent)]

    def rows(self, keys: Sequence[RowKey]) -> Rows:
        """The rows of `keys`, in this order; nothing is read yet. Raises: StoreError: some are not there."""
        found = self._index.find(keys)
        if len(found.at) < len(keys):
            raise StoreError(
                f"{len(keys) - len(found.at)} of {len(keys)} rows are not in {self.folder}",
                hint="run the same command again: they are computed then",
            )
        return Rows(self.spec, list(keys), found, self.folder, self._in_use)

    def writer(self, *, commit_bytes: int = 64 << 20, commit_s: float = 10.0) -> Writer:
        """Add rows, in a `with` block. Several processes may write to one space at once.

        Args:
            commit_bytes, commit_s: rows are put on disk whenever this much was added or this many seconds have passed.
        """
        return Writer(self.spec, self.folder, self._make_room, self._in_use, commit_bytes=commit_bytes, commit_s=commit_s)

    def _drop_lost(self) -> None:
        """Forget rows of shards that were removed or cut short."""
        for shard in self._index.shards():
            path = self.folder / shard.file
            if shard.end > (path.stat().st_size if path.exists() else 0):
                lost = self._index.drop_beyond(shard, path)
                log.warning("%s was cut short: %d stored rows are lost and will be computed anew", path, lost)


def enter(folder: Path, prepare: Callable[[], None]) -> Lock:
    """Take a space's shared lock; who finds nobody else inside prepares it first.

    Raises: StoreError: another process keeps it locked for a minute; the disk has no locks or cannot be written.
    """
    deadline = time.monotonic() + WAIT_S
    while time.monotonic() < deadline:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            lock = Lock(folder / "lock")
        except FileNotFoundError:
            continue  # removed between the two lines
        except OSError as error:
            raise cannot_write(folder, error) from error
        if lock.try_exclusive() and lock.is_current():
            prepare()
        # Between the two locks another process may remove the space, or be killed while preparing it: then once more.
        if lock.try_shared() and lock.is_current() and (folder / "space.json").exists():
            return lock
        lock.release()
        time.sleep(0.02)
    raise StoreError(
        f"{folder} stayed locked by another process for {WAIT_S:.0f} s",
        hint="wait for the other run, or end it, then run the same command again",
    )


def touch(folder: Path) -> None:
    """Note that the space was used now: the time of its lock file tells which space was used least recently."""
    with contextlib.suppress(OSError):
        os.utime(folder / "lock")


def read_spec(folder: Path) -> dict[str, Any] | None:
    """The ingredients in a space's space.json, or None where there is none that fits the folder."""
    try:
        content = json.loads((folder / "space.json").read_text(encoding="utf-8"))
        spec: dict[str, Any] = content["spec"]
        return spec if content["format"] == FORMAT and content["digest"] == folder.name and isinstance(spec, dict) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def empty(folder: Path) -> int:
    """Remove everything in a space but its lock, which the caller holds exclusively. Returns the bytes freed.

    space.json goes first: without it a space counts as empty, so a removal cut short is finished by whoever comes next.
    """
    freed = 0
    for path in sorted(folder.iterdir(), key=lambda path: path.name != "space.json"):
        if path.name != "lock":
            freed += path.stat().st_size
            path.unlink()
    return freed


def _prepare(folder: Path, spec: Spec) -> None:
    """Make the space usable: new, or anew where it is damaged. The caller is alone inside."""
    index = Index(folder)
    try:
        if (damage := _damage(folder, spec, index)) is not None:
            log.warning("%s was damaged (%s) and is made anew", folder, damage)
        elif (folder / "space.json").exists():
            return
        empty(folder)
        index.create()
        files.write_json(folder / "space.json", {"format": FORMAT, "digest": spec.digest(), "spec": spec.to_json()})
    except StoreError:
        raise
    except HeadstartError as error:
        raise StoreError(error.message, hint=error.hint) from error
    except OSError as error:
        raise cannot_write(folder, error) from error


def _damage(folder: Path, spec: Spec, index: Index) -> str | None:
    """What is wrong with the files of a space, or None where it is sound or new."""
    if not (folder / "space.json").exists():
        return None
    if read_spec(folder) != spec.to_json():
        return "space.json does not describe it"
    if index.damage_mark.exists():
        return index.damage_mark.read_text(encoding="utf-8", errors="replace")
    return index.damage()
