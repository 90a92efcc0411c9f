"""Which rows a space holds and where: one SQLite file beside the shards.

A connection lives for one operation only: lookups and commits are rare (once a run, once in 64 MB), and a connection
that stays open survives neither a fork nor a move to another thread.
"""

import contextlib
import errno
import sqlite3
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from headstart.errors import StoreError
from headstart.features.key import RowKey
from headstart.features.lock import cannot_write

BUSY_S = 60.0
LOOKUP_ROWS = 50_000  # keys asked for at once; bounds the memory of a lookup

TABLES = (
    "CREATE TABLE IF NOT EXISTS shards (id INTEGER PRIMARY KEY, file TEXT NOT NULL UNIQUE, end INTEGER NOT NULL)",
    "CREATE TABLE IF NOT EXISTS rows (sha256 BLOB NOT NULL, view INTEGER NOT NULL, shard INTEGER NOT NULL, offset INTEGER NOT NULL,"
    " bytes INTEGER NOT NULL, crc INTEGER NOT NULL, shape TEXT, PRIMARY KEY (sha256, view)) WITHOUT ROWID",
)


@dataclass(frozen=True)
class Shard:
    """A data file of a space; its first `end` bytes are committed."""

    id: int
    file: str
    end: int


@dataclass(frozen=True)
class Place:
    """Where one row lies: bytes `offset` to `offset + n_bytes` of its shard."""

    key: RowKey
    offset: int
    n_bytes: int
    crc: int
    shape: str | None
    """Sizes joined by commas, where rows are ragged."""


@dataclass(frozen=True)
class Found:
    """The rows of a lookup that the space holds, in the order asked.

    at: int64 [m], positions in the keys asked for; shard int64 [m]; offset, n_bytes: int64 [m];
    crc, seed: int64 [m], checksum of the row and the checksum of its key that it starts from; shapes: [m], () where all
    rows have one shape.
    """

    at: np.ndarray
    shard: np.ndarray
    offset: np.ndarray
    n_bytes: np.ndarray
    crc: np.ndarray
    seed: np.ndarray
    shapes: list[tuple[int, ...]]
    files: dict[int, str]


def key_crc(key: RowKey, shape: str | None) -> int:
    """Checksum of a row's key and shape, from which the checksum of its bytes starts: a row under a wrong key is damage too."""
    sha256, view = key
    return zlib.crc32(bytes.fromhex(sha256) + view.to_bytes(4, "little") + ("" if shape is None else shape).encode())


class Index:
    """The index of the space in `folder`."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "index.sqlite"

    def create(self) -> None:
        """Make an empty index where there is none."""
        with self._connection(create=True) as db:
            for statement in TABLES:
                db.execute(statement)

    def damage(self) -> str | None:
        """What is wrong with the file, or None."""
        if not self.path.is_file():
            return f"{self.path.name} is gone"
        try:
            with self._connection() as db:
                found: str = db.execute("PRAGMA quick_check(1)").fetchone()[0]
                db.execute("SELECT sha256, view, shard, offset, bytes, crc, shape FROM rows LIMIT 1").fetchall()
                db.execute("SELECT id, file, end FROM shards LIMIT 1").fetchall()
        except _DamagedError as error:
            return error.message
        return None if found == "ok" else found

    def count(self) -> int:
        """How many rows the space holds."""
        with self._connection() as db:
            return int(db.execute("SELECT count(*) FROM rows").fetchone()[0])

    def find(self, keys: Sequence[RowKey]) -> Found:
        """Look up many keys at once: 60,000 take about 0.3 s."""
        with self._transaction("DEFERRED") as db:
            return _find(db, keys)

    def shards(self) -> list[Shard]:
        """All data files, oldest first."""
        with self._connection() as db:
            return [Shard(*row) for row in db.execute("SELECT id, file, end FROM shards ORDER BY id")]

    def add_shard(self, file: str) -> None:
        """Announce a data file before it is made, so that none is ever on disk unknown."""
        with self._transaction() as db:
            db.execute("INSERT INTO shards (file, end) VALUES (?, 0)", (file,))

    @contextlib.contextmanager
    def update(self) -> Iterator["Update"]:
        """Add rows with nobody else adding any: what is looked up within the block stays true until its end, the commit.

        Where the block raises, nothing has changed.
        """
        with self._transaction() as db:
            yield Update(db)

    def drop(self, keys: Iterable[RowKey]) -> None:
        """Forget rows: they count as missing from now on."""
        with self._transaction() as db:
            db.executemany("DELETE FROM rows WHERE sha256 = ? AND view = ?", ((bytes.fromhex(sha), view) for sha, view in keys))

    def drop_beyond(self, shard: Shard, path: Path) -> int:
        """Forget the rows that a shard cut short has lost. Returns how many."""
        with self._transaction() as db:
            size = path.stat().st_size if path.exists() else 0
            lost = db.execute("DELETE FROM rows WHERE shard = ? AND offset + bytes > ?", (shard.id, size)).rowcount
            last = db.execute("SELECT max(offset + bytes) FROM rows WHERE shard = ?", (shard.id,)).fetchone()[0]
            db.execute("UPDATE shards SET end = ? WHERE id = ? AND end > ?", (0 if last is None else last, shard.id, size))
        return int(lost)

    @contextlib.contextmanager
    def _transaction(self, kind: str = "IMMEDIATE") -> Iterator[sqlite3.Connection]:
        with self._connection() as db:
            db.execute(f"BEGIN {kind}")
            yield db
            db.execute("COMMIT")  # where an error comes first, closing the connection rolls back

    @contextlib.contextmanager
    def _connection(self, *, create: bool = False) -> Iterator[sqlite3.Connection]:
        uri = f"{self.path.absolute().as_uri()}?mode={'rwc' if create else 'rw'}"
        try:
            with contextlib.closing(sqlite3.connect(uri, uri=True, timeout=BUSY_S, isolation_level=None)) as db:
                db.execute("PRAGMA temp_store = MEMORY")
                yield db
        except sqlite3.DatabaseError as error:
            raise self._explained(error) from error

    def _explained(self, error: sqlite3.DatabaseError) -> StoreError:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF  # the low byte is the kind, the rest details
        if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            return StoreError(
                f"the feature store's index {self.path} stayed locked by another process for {BUSY_S:.0f} s",
                hint="wait for the other run, or end it, then run the same command again",
            )
        if code == sqlite3.SQLITE_FULL:
            return cannot_write(self.path, OSError(errno.ENOSPC, "disk full"))
        if code in (sqlite3.SQLITE_IOERR, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM):
            return StoreError(f"cannot use the feature store's index {self.path}: {error}", hint="check that you may write there")
        self.mark_damaged(str(error))
        return _DamagedError(
            f"the feature store's index {self.path} is damaged: {error}", hint="run the same command again: it is made anew"
        )

    @property
    def damage_mark(self) -> Path:
        """A file whose presence says that the index failed in use; whoever next has the space alone starts it afresh."""
        return self.path.with_name("damaged")

    def mark_damaged(self, reason: str) -> None:
        """Have the space made anew when it is next opened by nobody else."""
        with contextlib.suppress(OSError):
            self.damage_mark.write_text(reason, encoding="utf-8")


class _DamagedError(StoreError):
    """The index is not a sound SQLite file of this format."""


class Update:
    """Additions to an index, in one transaction."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db

    def held(self, keys: Sequence[RowKey]) -> set[int]:
        """Positions in `keys` of rows that are known already."""
        return set(_find(self._db, keys).at.tolist())

    def end(self, shard: Shard) -> int:
        """The committed length of a shard, in bytes."""
        return int(self._db.execute("SELECT end FROM shards WHERE id = ?", (shard.id,)).fetchone()[0])

    def add(self, shard: Shard, end: int, places: Iterable[Place]) -> None:
        """Make rows known, whose bytes lie safely on disk."""
        self._db.executemany(
            "INSERT INTO rows VALUES (?, ?, ?, ?, ?, ?, ?)",
            ((bytes.fromhex(p.key[0]), p.key[1], shard.id, p.offset, p.n_bytes, p.crc, p.shape) for p in places),
        )
        self._db.execute("UPDATE shards SET end = ? WHERE id = ?", (end, shard.id))


def _find(db: sqlite3.Connection, keys: Sequence[RowKey]) -> Found:
    numbers: list[np.ndarray] = []
    shapes: list[tuple[int, ...]] = []
    db.execute("CREATE TEMP TABLE asked (at INTEGER PRIMARY KEY, sha256 BLOB, view INTEGER)")
    for start in range(0, len(keys), LOOKUP_ROWS):
        db.execute("DELETE FROM asked")
        asked = ((start + i, bytes.fromhex(sha), view) for i, (sha, view) in enumerate(keys[start : start + LOOKUP_ROWS]))
        db.executemany("INSERT INTO asked VALUES (?, ?, ?)", asked)
        # CROSS JOIN keeps the order of the tables: the few keys asked for are looked up, never the whole space read.
        found = db.execute(
            "SELECT at, shard, offset, bytes, crc, shape FROM asked CROSS JOIN rows USING (sha256, view) ORDER BY at"
        ).fetchall()
        shapes += [_shape(row[5]) for row in found]
        try:
            numbers.append(np.array([(*row[:5], key_crc(keys[row[0]], row[5])) for row in found], np.int64).reshape(-1, 6))
        except (TypeError, ValueError, OverflowError) as error:
            raise sqlite3.DatabaseError(f"a row holds no numbers: {error}") from error
    files = {int(id_): str(file) for id_, file in db.execute("SELECT id, file FROM shards")}
    columns = np.concatenate(numbers) if numbers else np.empty((0, 6), np.int64)
    at, shard, offset, n_bytes, crc, seed = np.ascontiguousarray(columns.T)
    return Found(at, shard, offset, n_bytes, crc, seed, shapes, files)


def _shape(text: str | None) -> tuple[int, ...]:
    try:
        return () if text is None else tuple(map(int, text.split(",")))
    except ValueError:
        return ()  # damaged; no ragged row has such a shape
