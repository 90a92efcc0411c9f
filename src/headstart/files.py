"""Where headstart keeps things on disk, and how it writes them: to a temporary name first, then renamed."""

import contextlib
import errno
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from headstart.errors import ConfigError, HeadstartError, safe_text


def cache_folder() -> Path:
    """The folder for everything that can be computed or fetched again: store, weights, bundles, data sets.

    `HEADSTART_CACHE` if set; else `$XDG_CACHE_HOME/headstart`; else the platform's usual place.
    """
    if given := os.environ.get("HEADSTART_CACHE"):
        return Path(given).expanduser()
    if given := os.environ.get("XDG_CACHE_HOME"):
        return Path(given) / "headstart"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "headstart"
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", str(Path.home()))) / "headstart"
    return Path.home() / ".cache" / "headstart"


@contextlib.contextmanager
def atomic_file(path: Path, mode: str = "w") -> Iterator[IO[Any]]:
    """Open a temporary file beside `path`; on success it is flushed to disk and takes `path`'s place there, else it is removed.

    A reader, or a process started after a crash, sees the old file or the new one, never half of one.

    Raises: HeadstartError: the disk is full or the folder cannot be written; the text names the path and the free space.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name[:80]}.", suffix=".part")
    except OSError as error:
        raise cannot_write(path, error) from error
    temporary = Path(name)
    try:
        text = {} if "b" in mode else {"encoding": "utf-8", "newline": "", "errors": "surrogateescape"}
        with os.fdopen(handle, mode, **text) as file:  # type: ignore[call-overload]
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(0o666 & ~_umask())  # mkstemp makes files private; these are ordinary results
        temporary.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        raise cannot_write(path, error) from error
    finally:
        temporary.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Put a new name in a folder on disk as well, where the system can do that: Windows opens no folders."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON, atomically: in ASCII, so that the escapes also hold names that are not UTF-8."""
    with atomic_file(path) as file:
        json.dump(value, file, indent=2, ensure_ascii=True)
        file.write("\n")


@contextlib.contextmanager
def only_here(path: Path) -> Iterator[bool]:
    """Whether this process is the only one inside such a block with the lock file `path`. The system frees it however a process ends.

    What `features.lock` does for the store, with nothing that predicting would have to install. The file is removed at the end, and its
    folder if it is empty by then.

    Raises: HeadstartError: the file cannot be made.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        raise cannot_write(path, error) from error
    alone = False
    try:
        alone = _lock(handle)
        yield alone
    finally:
        os.close(handle)
        if alone:
            with contextlib.suppress(OSError):
                path.unlink()
                path.parent.rmdir()


def _lock(handle: int) -> bool:
    try:
        if sys.platform == "win32":
            import msvcrt

            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def cannot_write(path: Path, error: OSError) -> HeadstartError:
    """The user's words for a write that failed, with the free space where the disk is full."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        free = human_bytes(shutil.disk_usage(existing_parent(path)).free)
        return HeadstartError(f"disk full while writing {path} ({free} free)", hint="free some space, then run the same command again")
    return HeadstartError(
        f"cannot write {path}: {error.strerror or error}", hint="check that the folder exists and that you may write to it"
    )


def names_in_out(folder: Path, purpose: str) -> list[str]:
    """What lies in a folder that was given as --out; nothing where it does not exist yet.

    Args: purpose: what is to be put there, such as "the run".
    Raises: ConfigError: it is a file, cannot be read, or has a name that cannot be written to files.
    """
    if safe_text(str(folder)) != str(folder):
        raise ConfigError(f"the name of {safe_text(str(folder))} has control characters or undecodable bytes", hint="choose another --out")
    try:
        return os.listdir(folder)
    except FileNotFoundError:
        return []
    except NotADirectoryError:
        raise ConfigError(f"expected a folder for {purpose}, found a file: {folder}", hint="choose another --out") from None
    except OSError as error:
        raise ConfigError(f"cannot use {folder} for {purpose}: {error.strerror}", hint="choose another --out") from error


def existing_parent(path: Path) -> Path:
    """The nearest folder at or above `path` that exists."""
    path = path.absolute()
    while not os.path.exists(path) and path != path.parent:
        path = path.parent
    return path


def human_bytes(n_bytes: float) -> str:
    """A size for people: `1536` -> `1.5 KiB`."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if n_bytes < 1024:
            return f"{n_bytes:.0f} {unit}" if unit == "B" else f"{n_bytes:.1f} {unit}"
        n_bytes /= 1024
    return f"{n_bytes:.1f} TiB"


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current
