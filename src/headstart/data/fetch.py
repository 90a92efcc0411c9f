"""Files from the network: resumed where they broke off, checked before they are used, never fetched twice at once."""

import hashlib
import http.client
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import IO

from headstart.errors import DataError
from headstart.files import cannot_write
from headstart.progress import progress

TIMEOUT_S = 30
CHUNK_BYTES = 2**18


def fetch_file(url: str, path: Path, *, md5: str, attempts: int = 3, pause_s: float = 1.0, hint: str | None = None) -> Path:
    """Download `url` to `path` unless it is there, continuing what an earlier try left behind.

    Args:
        md5: of the whole file, hex, as its publisher gives it.
        attempts: how often a broken connection is tried again (count, >= 1), `pause_s` apart, a bit longer each time.
        hint: what to do when it cannot be had.

    Raises:
        DataError: unreachable, refused, or not the published file (which is then removed).
        HeadstartError: the disk is full or the folder cannot be written.
    """
    import portalocker

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(path.name + ".part")
        with portalocker.Lock(path.with_name(path.name + ".lock"), "a", flags=portalocker.LOCK_EX):
            if not path.exists():
                _download(url, part, attempts, pause_s, hint)
                _verify(url, part, md5, hint)
                part.replace(path)
    except OSError as error:
        raise cannot_write(path, error) from error
    return path


def _download(url: str, part: Path, attempts: int, pause_s: float, hint: str | None) -> None:
    for attempt in range(attempts):
        if attempt:
            time.sleep(pause_s * 2 ** (attempt - 1))
        start = part.stat().st_size if part.exists() else 0
        try:
            if _continue(url, part, start):
                return
            reason: Exception = ConnectionError("the connection broke off")
        except urllib.error.HTTPError as error:
            error.close()
            if error.code == 416:  # nothing left to send: `part` is whole, or of another file, as the checksum will show
                return
            if error.code < 500:
                raise _unreachable(url, error, hint) from error
            reason = error
        except (urllib.error.URLError, ConnectionError, TimeoutError, http.client.HTTPException) as error:
            reason = error
        except ValueError as error:  # an address of no known kind
            raise _unreachable(url, error, hint) from error
    raise _unreachable(url, reason, hint) from reason


def _continue(url: str, part: Path, start: int) -> bool:
    """Append the rest of the file to `part`. Returns whether all of it has come."""
    request = urllib.request.Request(url, headers={"Range": f"bytes={start}-"} if start else {})
    with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:
        resumed = start > 0 and getattr(answer, "status", None) == 206
        length = answer.headers.get("Content-Length")
        expected = None if length is None else int(length)
        done = start if resumed else 0
        total = None if expected is None else done + expected
        with part.open("ab" if resumed else "wb") as file, progress(f"Fetching {part.stem}", total, "bytes") as advance:
            advance(done)
            received = _copy(answer, file, advance)
    return expected is None or received == expected


def _copy(answer: IO[bytes], file: IO[bytes], advance: Callable[[int], None]) -> int:
    received = 0
    while True:
        try:
            chunk = answer.read(CHUNK_BYTES)
        except OSError as error:  # of the connection; those of the disk pass
            raise urllib.error.URLError(error) from error
        if not chunk:
            break
        file.write(chunk)
        received += len(chunk)
        advance(len(chunk))
    return received


def _verify(url: str, part: Path, md5: str, hint: str | None) -> None:
    with part.open("rb") as file:
        found = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
    if found != md5:
        size = part.stat().st_size
        part.unlink()
        raise DataError(f"{url} is not the published file: expected MD5 {md5}, found {found} ({size} bytes)", hint=hint)


def _unreachable(url: str, error: Exception, hint: str | None) -> DataError:
    reason = getattr(error, "reason", None)
    detail = f"{error.code} {error.reason}" if isinstance(error, urllib.error.HTTPError) else str(reason if reason is not None else error)
    return DataError(f"cannot fetch {url}: {detail or type(error).__name__}", hint=hint)
