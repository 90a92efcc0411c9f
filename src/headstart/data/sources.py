"""The forms of DATA: whatever a user calls their photos becomes one list of candidates."""

import os
from dataclasses import replace
from pathlib import Path

from headstart.data import archive, folders, lists, named
from headstart.data.table import Omitted, Source
from headstart.errors import DataError, nearest, safe_text

FORMS = "a folder of class folders, a .csv, a .zip or .tar, or a data set's name"


def find(data: str | Path, cache: Path) -> Source:
    """List the photos that `data` names, whichever form it has.

    A folder or file of a data set's name wins over the data set, with a notice: what lies on the user's disk is what
    they see; `./digits` says so without a notice.

    Args: cache: where archives are unpacked and data sets are kept.
    Raises: DataError: nothing there, no form of DATA, no photos; archives and downloads that fail.
    """
    check(data)
    path = Path(data).expanduser()
    if not os.path.exists(path):
        return folders.list_folder(named.fetch(str(data), cache), str(data))
    source = _of_path(path, cache)
    if str(data) in named.NAMES:
        notice = f"reading the {'folder' if os.path.isdir(path) else 'file'} {safe_text(str(path.absolute()))}, not the data set '{data}'"
        return replace(source, notices=(notice, *source.notices))
    return source


def check(data: str | Path) -> None:
    """Whether anything is called `data`, before anything slow starts. Raises: DataError: nothing is; the hint has the nearest name."""
    path = Path(data).expanduser()
    # Path.exists() raises for names that are too long and folders one may not enter.
    if str(data) not in named.NAMES and not os.path.exists(path):
        raise _missing(path)


def _of_path(path: Path, cache: Path) -> Source:
    name = path.absolute().name
    if os.path.isdir(path):
        return folders.list_folder(path, name)
    if path.suffix.casefold() in (".csv", ".tsv"):
        return lists.list_csv(path, name)
    if archive.is_archive(path):
        return _unpacked(archive.extract(path, cache), name)
    hint = "give the folder that holds the class folders" if folders.is_picture_name(path.name) else None
    raise DataError(f"expected {FORMS}, found the file {safe_text(str(path))}", hint=hint)


def _unpacked(root: Path, name: str) -> Source:
    """An unpacked archive: a wrapping folder is looked through, and a table of photos at its root is the CSV form."""
    passed: list[Omitted] = []
    while (wrapped := _wrapped(root)) is not None:
        strays = sorted(path.name for path in root.iterdir() if os.path.isfile(path) and not folders.is_junk(path.name))
        passed += [Omitted(stray, "beside the folder that holds the rest") for stray in strays]
        root = wrapped
    tables = _tables(root)
    source = lists.list_csv(tables[0], name, inside=root) if len(tables) == 1 else folders.list_folder(root, name)
    return replace(source, omitted=(*passed, *source.omitted))


def _wrapped(root: Path) -> Path | None:
    """The one folder in `root` that holds everything, or None where `root` itself is a form of DATA."""
    inside = folders.subfolders(root)
    if len(inside) != 1 or _tables(root) or folders.looks_split(root):
        return None
    only = root / inside[0]
    return only if folders.subfolders(only) or _tables(only) else None


def _tables(root: Path) -> list[Path]:
    """CSV files in `root` with the columns path and label; other CSV files may well lie beside class folders."""
    found = []
    for path in sorted(root.iterdir()):
        if path.suffix.casefold() == ".csv" and os.path.isfile(path) and not folders.is_junk(path.name):
            try:
                columns = lists.read_rows(path).columns
            except DataError:
                continue
            if {"path", "label"} <= set(columns):
                found.append(path)
    return found


def _missing(path: Path) -> DataError:
    """No such path: say what nearly has that name, at the first part of it that does not exist."""
    place = path.absolute()
    while not os.path.exists(place.parent):
        place = place.parent
    try:
        beside = [name for name in os.listdir(place.parent) if not folders.is_junk(name)]
    except OSError:
        beside = []
    names = named.NAMES if path.name == str(path) else ()
    near = nearest(place.name, [*names, *beside])
    if near is None:
        hint = f"expected {FORMS} ({', '.join(named.NAMES)})"
    elif near in names:
        hint = f"did you mean the data set '{near}'?"
    else:
        hint = f"did you mean '{safe_text(near if place.parent == Path.cwd() else str(place.parent / near))}'?"
    return DataError(f"no folder or file at {safe_text(str(path))}", hint=hint)
