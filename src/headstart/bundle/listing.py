"""Files, folders and globs, as a user names them, become a list of photos."""

import glob
import logging
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from headstart.data.folders import is_junk, is_picture_name
from headstart.data.sniff import image_format
from headstart.errors import DataError, did_you_mean, safe_text

log = logging.getLogger("headstart")

_HEAD_BYTES = 256


def expand(names: Iterable[str | os.PathLike[str]]) -> list[str]:
    """The photos that `names` mean: in the order of the names, and within a folder or glob in natural order (2 before 10).

    - A file is itself, whatever it holds: one that is no photo becomes a row with a reason.
    - A folder means the photos anywhere in it: files that are named like pictures, which may turn out damaged, and files that
      begin as a picture does, whatever their name. Hidden files and folders are skipped, links are followed, none twice.
    - What does not exist and holds `*`, `?` or `[` is a glob, `**` meaning any folders; a folder it finds counts as a folder.

    Raises: DataError: a name or glob finds nothing, or a folder no photos; the text names the nearest that exists.
    """
    found: list[str] = []
    for name in names:
        found += _expand_one(os.fspath(name))
    return found


def natural_key(text: str) -> tuple[tuple[int, str], ...]:
    """Sorts `photo 2` before `photo 10`: runs of digits count as numbers.

    >>> sorted(["10.jpg", "2.jpg", "a.jpg"], key=natural_key)
    ['2.jpg', '10.jpg', 'a.jpg']
    """
    parts = re.split(r"([0-9]+)", text)
    numbers_and_text = tuple((int(part), "") if i % 2 else (-1, part) for i, part in enumerate(parts))
    return (*numbers_and_text, (-1, text))


def _expand_one(name: str) -> list[str]:
    if os.path.isdir(name):
        photos = list(_photos_in(name))
        if not photos:
            hint = "name the files themselves to see why each is refused"
            raise DataError(f"no photos in {safe_text(name)} or the folders in it", hint=hint)
        return photos
    if os.path.lexists(name):
        return [name]
    if not glob.has_magic(name):
        raise DataError(f"no such file or folder: {safe_text(name)}", hint=_nearest_file(name))
    photos = []
    for match in sorted(glob.iglob(name, recursive=True), key=natural_key):
        photos += _photos_in(match) if os.path.isdir(match) else [match]
    if not photos:
        raise DataError(f"no file matches {safe_text(name)}", hint="in a glob * stands for any name, ** for any folders")
    return list(dict.fromkeys(photos))  # `**` finds a folder and what is in it


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
