"""The feature store: what frozen layers saw, computed once, kept on disk within a budget, shared by runs and processes.

    store = Store(cache_folder() / "store")
    with store.space(spec) as space:
        absent = space.missing(keys)
        with space.writer() as writer:
            writer.add([keys[i] for i in absent], computed)
        features = space.rows(keys)

docs/formats.md has the files.
"""

import contextlib
import logging
import os
import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from headstart.errors import ConfigError, StoreError
from headstart.features.index import Index
from headstart.features.key import RowKey, Spec
from headstart.features.lock import Lock, cannot_write
from headstart.features.rows import Rows
from headstart.features.space import Space, empty, read_spec
from headstart.features.writer import Overflow, Writer
from headstart.files import existing_parent, human_bytes

__all__ = ["Cleared", "Overflow", "RowKey", "Rows", "Space", "SpaceInfo", "Store", "Writer", "parse_bytes"]

log = logging.getLogger("headstart")

BUDGET_BYTES = 20 * 10**9
INDEX_ROW_BYTES = 150  # what a row costs in the index, about
_DIGEST = re.compile(r"[0-9a-f]{64}")
_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12, "ki": 2**10, "mi": 2**20, "gi": 2**30, "ti": 2**40}


@dataclass(frozen=True)
class SpaceInfo:
    """One space, for people."""

    digest: str
    spec: dict[str, Any]
    """All ingredients of the key; empty where space.json cannot be read."""
    rows: int
    bytes: int
    last_used: datetime
    """In UTC."""

    @property
    def network(self) -> str:
        """The network's name; empty for stored pixels."""
        return str(self.spec.get("network", ""))

    @property
    def cut(self) -> str:
        """Stage after which the rows were taken."""
        return str(self.spec.get("cut", ""))

    @property
    def stop(self) -> str | None:
        """Last stage used, or None for the whole network."""
        return self.spec.get("stop")

    @property
    def px(self) -> int | None:
        """Side of the network's input, or of stored pixels (the shorter one)."""
        preprocessing = self.spec.get("preprocessing", {})
        return next((preprocessing[key] for key in ("input_px", "shorter_px", "px") if key in preprocessing), None)

    @property
    def view(self) -> str:
        """How augmented views were made."""
        return str(self.spec.get("view_policy", ""))

    @property
    def dtype(self) -> str:
        """Type of the stored values."""
        return str(self.spec.get("dtype", ""))


@dataclass(frozen=True)
class Cleared:
    """What `clear` did."""

    removed: tuple[SpaceInfo, ...]
    in_use: tuple[SpaceInfo, ...]
    """Spaces passed over: a process uses them, or they cannot be removed."""
    bytes: int
    """Bytes freed."""


class Store:
    """Spaces under one folder. Safe for several processes at once; never bigger than its budget."""

    def __init__(self, root: Path, *, budget_bytes: int | None = None) -> None:
        """Args: budget_bytes: by default `HEADSTART_STORE_BUDGET`, else the smaller of 20 GB and a quarter of the free disk."""
        self.root = root
        self._budget_bytes = budget_bytes

    @property
    def budget_bytes(self) -> int:
        """The most the store may hold, now: a quarter of the free disk counts what the store itself holds as free."""
        if self._budget_bytes is not None:
            return self._budget_bytes
        if given := os.environ.get("HEADSTART_STORE_BUDGET"):
            return parse_bytes(given)
        return min(BUDGET_BYTES, (self._free_bytes() + sum(map(_held_bytes, self._folders()))) // 4)

    def room_bytes(self) -> int:
        """The most that one run's rows may take in all: the budget, or the free disk and what the store can give back for it."""
        return min(self.budget_bytes, self._free_bytes() + sum(map(_held_bytes, self._folders())))

    def no_room(self, wanted: Mapping[str, int]) -> StoreError:
        """The error for a run whose rows do not fit; `wanted`: bytes at each of its cuts."""
        total, budget, room = sum(wanted.values()), self.budget_bytes, self.room_bytes()
        each = ", ".join(f"{human_bytes(n_bytes)} at cut {cut}" for cut, n_bytes in wanted.items())
        needs = f"needs {human_bytes(total)} for its photos ({each})"
        if budget <= room:
            hint = f"allow more with HEADSTART_STORE_BUDGET={_suggest(total)}, or use fewer photos"
            return StoreError(f"this run {needs}, the feature store's budget is {human_bytes(budget)}", hint=hint)
        hint = "free some space, set HEADSTART_CACHE to a folder on a bigger disk, or use fewer photos"
        return StoreError(f"this run {needs}, {human_bytes(room)} of disk can be had at {existing_parent(self.root)}", hint=hint)

    def space(self, spec: Spec) -> Space:
        """Open a space, creating it where it is new, and making it anew where its files are damaged.

        Raises: StoreError: the folder cannot be written or locked.
        """
        folder = self.root / spec.digest()
        return Space(spec, folder, lambda n_bytes: self._make_room(folder, n_bytes))

    def spaces(self) -> list[SpaceInfo]:
        """All spaces, most recently used first."""
        infos = [info for folder in self._folders() if (info := _info(folder)) is not None]
        return sorted(infos, key=lambda info: info.last_used, reverse=True)

    def check_room(self, spec: Spec, n_rows: int, *, row_bytes: int | None = None) -> None:
        """Make room for rows still to be computed, or say before the work begins that there is none.

        Args:
            row_bytes: bytes of an average row, where rows are ragged; without it only full rows can be estimated.

        Raises: StoreError: they fit the budget or the disk in no way; the text gives both sizes.
        """
        row_bytes = spec.row_bytes if row_bytes is None else row_bytes
        if row_bytes is None:
            return
        wanted = n_rows * (row_bytes + INDEX_ROW_BYTES)
        self._make_room(self.root / spec.digest(), wanted)
        if wanted > (free := self._free_bytes()):
            raise StoreError(
                f"{n_rows} rows at cut {spec.cut} need {_gib(wanted)} of disk, {_gib(free)} are free at {existing_parent(self.root)}",
                hint="free some space, set HEADSTART_CACHE to a folder on a bigger disk, or use fewer photos",
            )

    def evict(self, n_bytes: int = 0, *, keep: Path | None = None) -> int:
        """Remove least recently used spaces until the store and `n_bytes` more fit the budget. Returns the bytes freed.

        Spaces in use stay, and so does the folder `keep`: the store may still be over the budget then.
        """
        held = {folder: _held_bytes(folder) for folder in self._folders()}
        excess = sum(held.values()) + n_bytes - self.budget_bytes
        freed = 0
        for folder in sorted(held.keys() - {keep}, key=_last_used):
            if freed >= excess:
                break
            if (gone := _remove(folder)) is not None:
                freed += gone
                log.info("removed %s (%s) from the feature store to stay within its budget", folder.name, human_bytes(gone))
        return freed

    def clear(self, *, older_than: timedelta | None = None, match: Callable[[SpaceInfo], bool] | None = None) -> Cleared:
        """Remove all spaces that no process uses; only those not used for `older_than`, and those that `match`, where given."""
        oldest = datetime.now(UTC) - (timedelta(0) if older_than is None else older_than)
        removed: list[SpaceInfo] = []
        in_use: list[SpaceInfo] = []
        freed = 0
        for info in self.spaces():
            if (older_than is not None and info.last_used > oldest) or (match is not None and not match(info)):
                continue
            gone = _remove(self.root / info.digest)
            freed += 0 if gone is None else gone
            (in_use if gone is None else removed).append(info)
        if older_than is None and match is None:
            shutil.rmtree(self.root / "overflowed", ignore_errors=True)
        return Cleared(tuple(removed), tuple(in_use), freed)

    def mark_overflow(self, spec: Spec) -> None:
        """Remember that float16 cannot hold the values of this space, so that the next run goes straight to float32."""
        mark = self._overflow_mark(spec)
        try:
            mark.parent.mkdir(parents=True, exist_ok=True)
            mark.touch()
        except OSError as error:
            raise cannot_write(mark, error) from error

    def overflowed(self, spec: Spec) -> bool:
        """Whether a value of this space was found to be too big for float16."""
        return self._overflow_mark(spec).exists()

    def _overflow_mark(self, spec: Spec) -> Path:
        # Not in the space's own folder, which is the first to be removed: nobody uses it again.
        return self.root / "overflowed" / spec.with_dtype("float16").digest()

    def _make_room(self, folder: Path, n_bytes: int) -> None:
        """Fit `n_bytes` more for one space into the budget. Raises: StoreError."""
        budget, own = self.budget_bytes, _held_bytes(folder)
        if own + n_bytes > budget:
            raise StoreError(
                f"this network and cut need {human_bytes(own + n_bytes)} for these photos,"
                f" the feature store's budget is {human_bytes(budget)}",
                hint=f"allow more with HEADSTART_STORE_BUDGET={_suggest(own + n_bytes)}, use fewer photos, or cut closer to the head",
            )
        self.evict(n_bytes, keep=folder)
        held = sum(map(_held_bytes, self._folders()))
        if held + n_bytes > budget:
            raise StoreError(
                f"the feature store needs {human_bytes(held + n_bytes)}, its budget is {human_bytes(budget)},"
                f" and running processes use {human_bytes(held - own)} of it for other networks or cuts",
                hint=f"allow more with HEADSTART_STORE_BUDGET={_suggest(held + n_bytes)}, or wait for the other runs to end",
            )

    def _folders(self) -> list[Path]:
        try:
            return [path for path in self.root.iterdir() if _DIGEST.fullmatch(path.name)]
        except FileNotFoundError:
            return []
        except OSError as error:
            raise StoreError(f"cannot read the feature store at {self.root}: {error.strerror}") from error

    def _free_bytes(self) -> int:
        return shutil.disk_usage(existing_parent(self.root)).free


def parse_bytes(text: str) -> int:
    """Bytes of a size such as `50GB`, `500 MB`, `20GiB` or `1000000`. Raises: ConfigError."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kmgt]i?)?b?\s*", text.lower())
    if match is None:
        raise ConfigError(f"expected a size for HEADSTART_STORE_BUDGET, found '{text}'", hint="for example 50GB")
    return int(float(match[1]) * _UNITS["" if match[2] is None else match[2]])


def _gib(n_bytes: int) -> str:
    return f"{n_bytes / 2**30:.2f} GiB"


def _suggest(n_bytes: int) -> str:
    """A round budget that holds `n_bytes` with a tenth to spare."""
    wanted = n_bytes * 1.1
    unit, name = next(((u, n) for u, n in ((10**9, "GB"), (10**6, "MB")) if wanted >= u), (10**3, "kB"))
    return f"{int(wanted / unit) + 1}{name}"


def _held_bytes(folder: Path) -> int:
    """Bytes of all files of a space; 0 where it is gone."""
    total = 0
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            with contextlib.suppress(OSError):
                total += entry.stat().st_size
    return total


def _last_used(folder: Path) -> datetime:
    try:
        return datetime.fromtimestamp((folder / "lock").stat().st_mtime, UTC)
    except OSError:
        return datetime.fromtimestamp(0, UTC)


def _info(folder: Path) -> SpaceInfo | None:
    """What a space holds; None where it was removed meanwhile."""
    if not folder.is_dir():
        return None
    spec = read_spec(folder)
    rows = 0
    with contextlib.suppress(StoreError):  # damaged: listed with no rows, made anew when it is next used
        rows = 0 if spec is None else Index(folder).count()
    return SpaceInfo(folder.name, {} if spec is None else spec, rows, _held_bytes(folder), _last_used(folder))


def _remove(folder: Path) -> int | None:
    """Remove a space. Returns the bytes freed, or None where a process uses it or it cannot be removed."""
    try:
        lock = Lock(folder / "lock")
        try:
            if not lock.try_exclusive() or not lock.is_current():
                return None
            freed = empty(folder)
            with contextlib.suppress(OSError):  # Windows refuses while it is open; an empty folder costs nothing
                (folder / "lock").unlink()
                folder.rmdir()
            return freed
        finally:
            lock.release()
    except FileNotFoundError:
        return 0  # another process was faster
    except OSError as error:
        log.warning("cannot remove %s from the feature store: %s", folder, error.strerror)
        return None
