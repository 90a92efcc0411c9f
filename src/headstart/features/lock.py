"""Locks between processes: one file, held shared by whoever uses a space and exclusively by whoever removes it.

The operating system frees a lock when its process ends, however it ends.
"""

import errno
import os
import weakref
from pathlib import Path

import portalocker

from headstart import files
from headstart.errors import StoreError


class Lock:
    """A lock on one file, free at first; let go by `release`, by the garbage collector or by the end of the process."""

    def __init__(self, path: Path) -> None:
        """Open the lock file, creating it where it is absent. Raises: FileNotFoundError: no such folder."""
        self.path = path
        self.fd = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o666)
        # Closing frees the lock. Unlocking would do so for a forked child's parent too.
        self.release = weakref.finalize(self, os.close, self.fd)

    def try_shared(self) -> bool:
        """Take or turn into a shared lock now; False where another process holds it exclusively."""
        return self._try(portalocker.LockFlags.SHARED)

    def try_exclusive(self) -> bool:
        """Take or turn into an exclusive lock now; False where anyone else holds it."""
        return self._try(portalocker.LockFlags.EXCLUSIVE)

    def is_current(self) -> bool:
        """Whether the locked file is still the one at `path`: it may have been removed before the lock was taken."""
        try:
            there = os.stat(self.path)
        except FileNotFoundError:
            return False
        return os.path.samestat(os.fstat(self.fd), there)

    def _try(self, flags: portalocker.LockFlags) -> bool:
        try:
            portalocker.lock(self.fd, flags | portalocker.LockFlags.NON_BLOCKING)
        except portalocker.AlreadyLocked:
            return False
        except (portalocker.LockException, ImportError, OSError) as error:
            raise StoreError(
                f"cannot lock {self.path}: {error}",
                hint="the feature store needs a disk with file locks: set HEADSTART_CACHE to a folder on a local disk",
            ) from error
        return True


def cannot_write(path: Path, error: OSError) -> StoreError:
    """The user's words for a write of the store that failed."""
    if error.errno == errno.EFBIG:
        return StoreError(f"cannot write {path}: larger than this system allows a file to be", hint="raise the limit (ulimit -f)")
    told = files.cannot_write(path, error)
    return StoreError(told.message, hint=told.hint)
