"""What is known of a photo's bytes, remembered by their hash: a second scan of the same photos decodes nothing."""

import contextlib
import hashlib
import sqlite3
import threading
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from headstart.data import pixels
from headstart.errors import safe_text

# Raise it when the meaning of a fact changes, the glance included.
VERSION = 2

# Raise it when the columns change. An older table is dropped: what it knew is read from the photos again.
_TABLE, _OLDER = "facts_2", ("facts",)

# Column: type. The names and their order are those of `Facts`.
_COLUMNS = {
    "format": "TEXT NOT NULL",
    "width": "INTEGER NOT NULL",
    "height": "INTEGER NOT NULL",
    "mode": "TEXT NOT NULL",
    "taken": "TEXT NOT NULL",
    "camera": "TEXT NOT NULL",
    "tables": "TEXT NOT NULL",
    "glance": "BLOB NOT NULL",
    "reason": "TEXT",
}
_SELECT = f"SELECT {', '.join(_COLUMNS)} FROM {_TABLE}"

# A row is about 1,200 bytes; a process that is killed decodes this many photos again at most.
ROWS_PER_COMMIT = 2000

# Enough for another process's commit; a scan never waits longer for what is only a shortcut.
BUSY_S = 10.0


@dataclass(frozen=True, slots=True)
class Facts:
    """What decoding a photo showed. `reason` is None for a photo that can be read; then the rest holds."""

    format: str = ""
    width: int = 0
    height: int = 0
    mode: str = ""
    taken: str = ""
    camera: str = ""
    tables: str = ""
    glance: bytes = b""
    reason: str | None = None


class FactsCache:
    """Facts by content hash, in one SQLite file that several processes may use at once.

    A cache only saves time: a damaged file is thrown away, and where the disk is full or the folder cannot be written
    the scan goes on without it. `notices` says so. Methods may be called from any thread.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.notices: list[str] = []
        self._lock = threading.Lock()
        self._fresh: dict[bytes, Facts] = {}
        self._database: sqlite3.Connection | None = None

    def __enter__(self) -> Self:
        try:
            self._database = self._open()
        except (OSError, sqlite3.Error) as error:
            self._recover(error)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        with self._lock:  # also on Ctrl-C: what was decoded stays known
            self._commit()
            self._close()

    def find(self, sha256: bytes) -> Facts | None:
        """The facts of the bytes with this hash (32 bytes), or None where nobody has decoded them yet."""
        key = _key(sha256)
        with self._lock:
            if key in self._fresh:
                return self._fresh[key]
            if self._database is None:
                return None
            try:
                row = self._database.execute(f"{_SELECT} WHERE key = ?", (key,)).fetchone()
            except sqlite3.Error as error:
                self._recover(error)
                return None
        return None if row is None else Facts(*row)

    def add(self, sha256: bytes, facts: Facts) -> None:
        """Remember `facts`."""
        with self._lock:
            self._fresh[_key(sha256)] = facts
            if len(self._fresh) >= ROWS_PER_COMMIT:
                self._commit()

    def _open(self) -> sqlite3.Connection:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        database = sqlite3.connect(self.path, timeout=BUSY_S, check_same_thread=False, isolation_level=None)
        try:
            database.execute("PRAGMA synchronous = NORMAL")
            for older in _OLDER:
                database.execute(f"DROP TABLE IF EXISTS {older}")
            columns = ", ".join(f"{name} {kind}" for name, kind in _COLUMNS.items())
            database.execute(f"CREATE TABLE IF NOT EXISTS {_TABLE} (key BLOB PRIMARY KEY, {columns})")
            database.execute(f"{_SELECT} LIMIT 1").fetchone()
        except BaseException:
            database.close()
            raise
        return database

    def _commit(self) -> None:
        """Write what is new, in one short transaction. Facts stay in memory only until then, or without a database."""
        if self._database is None:
            self._fresh.clear()
            return
        rows = [(key, *(getattr(facts, name) for name in _COLUMNS)) for key, facts in self._fresh.items()]
        try:
            self._database.execute("BEGIN IMMEDIATE")
            self._database.executemany(f"INSERT OR REPLACE INTO {_TABLE} VALUES (?{', ?' * len(_COLUMNS)})", rows)
            self._database.execute("COMMIT")
        except sqlite3.Error as error:
            with contextlib.suppress(sqlite3.Error):
                self._database.execute("ROLLBACK")
            self._recover(error)
        self._fresh.clear()

    def _recover(self, error: Exception) -> None:
        """Begin a new file in place of a damaged one; otherwise go on without a cache."""
        self._close()
        where = safe_text(str(self.path))
        # OperationalError: locked, full, no permission. The file itself may be good.
        damaged = isinstance(error, sqlite3.DatabaseError) and (
            not isinstance(error, sqlite3.OperationalError) or "no such column" in str(error)
        )
        if damaged and not self.notices:
            self.notices.append(f"{where} was damaged and has been started anew ({error})")
            try:
                for suffix in ("", "-journal", "-wal", "-shm"):
                    Path(f"{self.path}{suffix}").unlink(missing_ok=True)
                self._database = self._open()
                return
            except (OSError, sqlite3.Error) as again:
                error = again
        self.notices.append(f"photos read now are not remembered in {where} ({error})")

    def _close(self) -> None:
        if self._database is not None:
            with contextlib.suppress(sqlite3.Error):
                self._database.close()
        self._database = None


def _key(sha256: bytes) -> bytes:
    """What the facts depend on: the bytes, the decoder, and the meaning of the facts."""
    return hashlib.sha256(b"%d %s " % (VERSION, pixels.DECODER.encode()) + sha256).digest()
