"""Files, folders and globs, as a user names them, become photos; and a list of them that stays on disk where it is long."""

import glob
import hashlib
import itertools
import logging
import os
import re
import tempfile
import weakref
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO

from headstart.data.folders import is_junk, is_picture_name
from headstart.data.sniff import image_format
from headstart.errors import DataError, did_you_mean, safe_text

log = logging.getLogger("headstart")

_HEAD_BYTES = 256
_IN_MEMORY_BYTES = 2**20  # a longer list of paths goes to a temporary file
_CHUNK_BYTES = 2**16


class Paths:
    """Photos by path, in order: counted, with a digest, and in memory only where they are few."""

    def __init__(self, paths: Iterable[str]) -> None:
        """Go through `paths` once. Raises: what going through them raises."""
        self._file: IO[bytes] = tempfile.SpooledTemporaryFile(_IN_MEMORY_BYTES)  # noqa: SIM115
        weakref.finalize(self, self._file.close)  # which removes it
        self._n = 0
        digest = hashlib.sha256()
        for path in paths:
            if "\0" in path:
                raise DataError(f"no file has a null byte in its name: {safe_text(path)}")
            line = os.fsencode(path) + b"\0"
            self._file.write(line)
            digest.update(line)
            self._n += 1
        self.sha256 = digest.hexdigest()
        """of every path, a null byte behind each"""

    def __len__(self) -> int:
        return self._n

    def __iter__(self) -> Iterator[str]:
        self._file.seek(0)
        place, begun = 0, b""
        while chunk := self._file.read(_CHUNK_BYTES):
            place += len(chunk)
            *whole, begun = (begun + chunk).split(b"\0")
            yield from map(os.fsdecode, whole)
            self._file.seek(place)  # another iteration may have moved it


def expand(names: Iterable[str | os.PathLike[str]]) -> list[str]:
    """The photos that `names` mean, as a list; `find` for its rules and errors."""
    return list(find(names))


def find(names: Iterable[str | os.PathLike[str]]) -> Iterator[str]:
    """The photos that `names` mean: in the order of the names, and within a folder or glob in natural order (2 before 10).

    - A file is itself, whatever it holds: one that is no photo becomes a row with a reason.
    - A folder means the photos anywhere in it: files that are named like pictures, which may turn out damaged, and files that
      begin as a picture does, whatever their name. Hidden files and folders are skipped, links are followed, none twice.
    - What does not exist and holds `*`, `?` or `[` is a glob, `**` meaning any folders; a folder it finds counts as a folder.

    In memory are the names of one folder at a time, or of all that a glob finds.

    Raises: DataError: a name or glob finds nothing, or a folder no photos; the text names the nearest that exists.
    """
    for name in names:
        yield from _find_one(os.fspath(name))


def read_list(file: IO[bytes]) -> Iterator[str]:
    """The paths that a file lists: one a line, or with a null byte between them (`find -print0`); empty lines are passed over."""
    begun, separator = b"", b""
    while chunk := file.read(_CHUNK_BYTES):
        if not separator:
            separator = b"\0" if b"\0" in chunk else b"\n"
        *whole, begun = (begun + chunk).split(separator)
        yield from filter(None, (os.fsdecode(line.removesuffix(b"\r")) for line in whole))
    if begun:
        yield os.fsdecode(begun.removesuffix(b"\r"))


def natural_key(text: str) -> str:
    """Sorts `photo 2` before `photo 10`: runs of digits count as numbers.

    One string, for a folder may hold a million names: a number is a null byte, how many digits it has, and these.

    >>> sorted(["10.jpg", "2.jpg", "a.jpg"], key=natural_key)
    ['2.jpg', '10.jpg', 'a.jpg']
    """

    def number(digits: re.Match[str]) -> str:
        found = digits[0].lstrip("0") or "0"
        return f"\0{chr(len(found))}{found}"

    return f"{re.sub('[0-9]+', number, text)}\0\0{text}"


def _find_one(name: str) -> Iterator[str]:
    if os.path.isdir(name):
        photos = _photos_in(name)
        first = next(photos, None)
        if first is None:
            hint = "name the files themselves to see why each is refused"
            raise DataError(f"no photos in {safe_text(name)} or the folders in it", hint=hint)
        return itertools.chain([first], photos)
    if os.path.lexists(name):
        return iter([name])
    if not glob.has_magic(name):
        raise DataError(f"no such file or folder: {safe_text(name)}", hint=_nearest_file(name))
    matches = sorted(glob.iglob(name, recursive=True), key=natural_key)
    found = dict.fromkeys(photo for match in matches for photo in (_photos_in(match) if os.path.isdir(match) else [match]))
    if not found:  # `**` finds a folder and what is in it, hence none twice
        raise DataError(f"no file matches {safe_text(name)}", hint="in a glob * stands for any name, ** for any folders")
    return iter(found)


def _photos_in(folder: str) -> Iterator[str]:
    """Files under `folder` that are or claim to be pictures, folder by folder."""
    seen: set[tuple[int, int]] = set()

    def refused(error: OSError) -> None:
        log.warning("skipped %s: %s", safe_text(str(error.filename)), error.strerror)

    for here, folders, files in os.walk(folder, followlinks=True, onerror=refused):
        status = os.stat(here)
        if (status.st_dev, status.st_ino) in seen:  # a link to a folder above or beside
            folders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        folders[:] = sorted((name for name in folders if not is_junk(name)), key=natural_key)
        for name in sorted(files, key=natural_key):
            path = os.path.join(here, name)
            if not is_junk(name) and (is_picture_name(name) or _begins_as_picture(path)):
                yield path


def _begins_as_picture(path: str) -> bool:
    if not os.path.isfile(path):  # opening a pipe would wait for its writer
        return False
    try:
        with open(path, "rb") as file:
            return image_format(file.read(_HEAD_BYTES)) is not None
    except OSError:
        return False


def _nearest_file(name: str) -> str | None:
    path = Path(name)
    try:
        names = os.listdir(path.parent)
    except OSError:
        return None
    return did_you_mean(path.name, names)
