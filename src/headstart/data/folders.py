"""Folders of class folders, and of train/val/test folders of class folders, as lists of candidate photos."""

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from headstart.data.table import Candidate, Omitted, Source, label_called, some, split_called
from headstart.errors import DataError, safe_text

PICTURES = frozenset(
    ".jpg .jpeg .jpe .jfif .png .webp .avif .gif .bmp .dib .tif .tiff .heic .heif .jp2 .ppm .pgm .pbm .pnm .tga .ico .svg .psd".split()  # noqa: SIM905
)

_JUNK = frozenset({"thumbs.db", "ehthumbs.db", "desktop.ini", "__macosx", "@eadir", "$recycle.bin", "icon\r"})


def is_junk(name: str) -> bool:
    """Whether a name is hidden or an operating system's own: ignored without a word."""
    return name.startswith(".") or name.casefold() in _JUNK


def is_picture_name(name: str) -> bool:
    """Whether a file's name claims that it is a picture. What it is, only its content says."""
    return os.path.splitext(name)[1].casefold() in PICTURES


@dataclass
class _Found:
    """What has been listed so far."""

    root: Path
    candidates: list[Candidate] = field(default_factory=list)
    omitted: list[Omitted] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)

    def relative(self, path: str) -> str:
        return os.path.relpath(path, self.root).replace(os.sep, "/")

    def omit(self, path: str, reason: str) -> None:
        self.omitted.append(Omitted(self.relative(path), reason))

    def omit_stray(self, entry: os.DirEntry[str]) -> None:
        """A file where only folders belong."""
        self.omit(entry.path, "not in a class folder" if is_picture_name(entry.name) else "not a photo")


def list_folder(root: Path, name: str) -> Source:
    """List the photos under `root`, whichever of the two folder forms it has.

    The second form is taken where folders named like splits hold folders and no photos of their own, and nothing but
    one such folder would be left otherwise; so `train` beside `bus` and `car` is a class.

    Raises: DataError: the folder cannot be read, or holds no class folder with files.
    """
    found = _Found(root)
    folders, files = _entries(str(root), found)
    splits = _split_folders(folders)
    for entry in files:
        found.omit_stray(entry)
    if splits:
        _list_splits(found, splits, folders)
    else:
        _list_classes(found, folders, "", [root])
    if not found.candidates:
        raise _nothing(root, found)
    found.candidates.sort(key=lambda candidate: os.fsencode(candidate.path))
    return Source(root, tuple(found.candidates), tuple(found.omitted), tuple(found.notices), name)


def looks_split(root: Path) -> bool:
    """Whether `root` holds train/val/test folders of class folders."""
    return bool(_split_folders(_entries(str(root), _Found(root))[0]))


def subfolders(root: Path) -> list[str]:
    """Names of the folders in `root` that count, sorted."""
    return sorted(entry.name for entry in _entries(str(root), _Found(root))[0])


def _split_folders(folders: list[os.DirEntry[str]]) -> list[os.DirEntry[str]]:
    named = [entry for entry in folders if split_called(entry.name) is not None]
    holding_classes = [entry for entry in named if _holds_only_folders(entry.path)]
    enough = len(named) >= 2 or len(named) == len(folders)
    has_train = any(split_called(entry.name) == "train" for entry in holding_classes)
    return named if holding_classes and enough and (has_train or len(holding_classes) == len(named)) else []


def _holds_only_folders(path: str) -> bool:
    scratch = _Found(Path(path))
    folders, files = _entries(path, scratch)
    return bool(folders) and not any(is_picture_name(entry.name) for entry in files)


def _list_splits(found: _Found, splits: list[os.DirEntry[str]], folders: list[os.DirEntry[str]]) -> None:
    names = [entry.name for entry in splits]
    if others := [entry.name for entry in folders if entry.name not in names]:
        found.notices.append(f"not read, because they lie beside {' and '.join(names)}: {some(map(safe_text, others))}")
    for entry in splits:
        inside, files = _entries(entry.path, found)
        for stray in files:
            found.omit_stray(stray)
        split = split_called(entry.name)
        _list_classes(found, inside, split if split is not None else "", [found.root, Path(entry.path)])


def _list_classes(found: _Found, folders: list[os.DirEntry[str]], split: str, above: list[Path]) -> None:
    """List each of `folders` as a class. `above` are the folders that lead to them."""
    for entry in folders:
        before = len(found.candidates)
        label = label_called(entry.name)
        for path in _files_below(found, entry, above):
            found.candidates.append(Candidate(found.relative(path), label, split))
        if len(found.candidates) == before:
            found.notices.append(f"folder '{safe_text(found.relative(entry.path))}' holds no photos")


def _files_below(found: _Found, top: os.DirEntry[str], above: list[Path]) -> Iterator[str]:
    """Every file under a class folder, however deep. Links are followed; each folder is read once, so no loop is endless."""
    seen = {_identity(str(path)) for path in above}
    waiting = [top.path]
    while waiting:
        folder = waiting.pop()
        identity = _identity(folder)
        if identity in seen:
            found.omit(folder, "a link to a folder that is read already")
            continue
        seen.add(identity)
        folders, files = _entries(folder, found)
        waiting.extend(entry.path for entry in reversed(folders))
        yield from (entry.path for entry in files)


def _identity(path: str) -> tuple[int, int]:
    status = os.stat(path)
    return status.st_dev, status.st_ino


def _entries(path: str, found: _Found) -> tuple[list[os.DirEntry[str]], list[os.DirEntry[str]]]:
    """The folders and the files in `path`, each sorted by name; everything else is omitted with a reason."""
    try:
        with os.scandir(path) as listing:
            entries = sorted((entry for entry in listing if not is_junk(entry.name)), key=lambda entry: os.fsencode(entry.name))
    except OSError as error:
        if Path(path) == found.root:
            raise DataError(f"cannot read the folder {safe_text(path)}: {error.strerror}") from error
        found.omit(
            path, "no permission to read the folder" if isinstance(error, PermissionError) else f"cannot be listed: {error.strerror}"
        )
        return [], []
    folders, files = [], []
    for entry in entries:
        kind = _kind(entry)
        if kind == "folder":
            folders.append(entry)
        elif kind == "file":
            files.append(entry)
        else:
            found.omit(entry.path, kind)
    return folders, files


def _kind(entry: os.DirEntry[str]) -> str:
    """folder, file, or the reason why it is neither."""
    try:
        if entry.is_dir():
            return "folder"
        if entry.is_file():
            return "file"
        entry.stat()
    except FileNotFoundError:
        return "a broken link"
    except OSError as error:  # such as a link to itself
        return "a broken link" if entry.is_symlink() else f"cannot be read: {error.strerror}"
    return "not a regular file"  # a pipe or a device would block whoever opens it


def _nothing(root: Path, found: _Found) -> DataError:
    n_loose = sum(omitted.reason == "not in a class folder" for omitted in found.omitted)
    where = safe_text(str(root))
    if n_loose:
        hint = "put each class's photos into a folder of its own, or list them in a CSV with the columns path,label"
        if tables := sorted(path.name for path in root.glob("*.csv")):
            hint = f"put each class's photos into a folder of its own, or give the CSV: {safe_text(str(root / tables[0]))}"
        return DataError(f"expected a folder for each class in {where}, found {n_loose} photos and no class folder with photos", hint=hint)
    others = f" ({len(found.omitted)} other files: {some(safe_text(o.path) for o in found.omitted)})" if found.omitted else ""
    return DataError(f"no photos in {where}{others}", hint="expected a folder for each class with that class's photos in it")
