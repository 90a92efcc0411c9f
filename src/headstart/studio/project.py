"""A project: a folder of class folders, and beside the photos what the studio keeps. Photos are added, never moved, changed or removed.

No path ever comes from a page: photos and classes are called by identifiers that only this file turns into paths, from its own listing.
"""

import contextlib
import hashlib
import os
import threading
import unicodedata
from dataclasses import dataclass, field
from pathlib import Path

from headstart.data.folders import is_junk, list_folder, looks_split, subfolders
from headstart.data.scan import glance
from headstart.data.sniff import image_format
from headstart.data.table import Candidate, label_called
from headstart.errors import DataError, HeadstartError, safe_text
from headstart.files import atomic_file, human_bytes
from headstart.studio.jobs import Job, Journal
from headstart.studio.labels import Labels

OWN = ".headstart"
"""Folder of the studio's own inside a project. Hidden, so that nothing in it is ever taken for a photo."""

UPLOAD_LIMIT_BYTES = 64 * 2**20
_LONGEST_NAME = 80
_FORBIDDEN = frozenset('<>:"/\\|?*')
_DEVICES = {"con", "prn", "aux", "nul", *(f"{name}{n}" for name in ("com", "lpt") for n in range(1, 10))}  # no names on Windows
_SUFFIXES = {"JPEG": "jpg", "PNG": "png", "GIF": "gif", "BMP": "bmp", "TIFF": "tif", "WEBP": "webp", "AVIF": "avif", "HEIF": "heic"}


class RefusedPhoto(DataError):  # noqa: N818 - named for what the user has in hand
    """A photo that was not added. `reason` is short, fit for a list."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"not added: {reason}")
        self.reason = reason


@dataclass(frozen=True)
class Shown:
    """A photo of the project. id: what pages call it. label: the class whose folder it lies in."""

    id: str
    path: str
    label: str


@dataclass(frozen=True)
class Listing:
    """What lies in the project's folder. classes: label -> its photos; empty ones too, in the order of their names."""

    classes: dict[str, list[Shown]] = field(default_factory=dict)
    by_id: dict[str, Shown] = field(default_factory=dict)
    problem: str = ""
    is_split: bool = False
    """whether it has train, val and test folders: then the studio adds no photos, because it cannot know to which"""

    @property
    def photos(self) -> list[Shown]:
        return [photo for photos in self.classes.values() for photo in photos]


def identifier(text: str) -> str:
    """What pages call a photo or a class: a digest of its path or name, so that neither is ever in an address."""
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:20]


class Project:
    """A folder of class folders that is open in the studio. Safe to use from several threads."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.absolute()
        self.name = self.folder.name
        self.own = self.folder / OWN
        self.labels = Labels(self.own)
        self.jobs = Journal(self.own / "jobs")
        self._listing = Listing()
        self._changing = threading.Lock()

    @property
    def listing(self) -> Listing:
        """As of the last `look`; looks for the first time where nobody has."""
        return self._listing if self._listing.by_id else self.look()

    def look(self) -> Listing:
        """List the folder anew."""
        self._listing = _listed(self.folder)
        return self._listing

    def photo(self, photo_id: str) -> Shown | None:
        """The photo that pages call so."""
        return self.listing.by_id.get(photo_id)

    def class_called(self, class_id: str) -> str | None:
        """The label of the class that pages call so."""
        return next((label for label in self.listing.classes if identifier(label) == class_id), None)

    def file(self, photo: Shown) -> Path:
        """Where a photo lies."""
        return self.folder / photo.path

    def out(self, job: Job) -> Path:
        """The folder of a job: an exploration, or a run."""
        return self.own / ("explored" if job.kind == "explore" else "runs") / f"{job.id:04d}"

    def has(self, job: Job) -> bool:
        """Whether a job was done and its folder is still there; somebody may have made room."""
        return job.state == "done" and self.out(job).is_dir()

    def newest(self, *kinds: str) -> Job | None:
        """The last job of these kinds that was done, of those whose folders are still there."""
        return next((job for job in self.jobs.jobs if job.kind in kinds and self.has(job)), None)

    def add_class(self, name: str) -> str:
        """Make a folder for a class. Returns: its label. Raises: DataError: a name no folder can have, or one that is taken."""
        label = class_name(name)
        with self._changing:
            listing = self.look()
            _check_addable(listing)
            if taken := next((each for each in listing.classes if each.casefold() == label.casefold()), None):
                raise DataError(f"there is a class '{safe_text(taken)}' already", hint="add photos to it, or choose another name")
            try:
                (self.folder / label).mkdir()
            except OSError as error:
                raise DataError(f"cannot make a folder '{safe_text(label)}': {error.strerror}", hint="choose another name") from error
            self.look()
        return label

    def add_photo(self, label: str, name: str, content: bytes) -> Shown:
        """Write a photo into the folder of a class, under a name made from `name`; the pixels are checked to their end first.

        Raises: RefusedPhoto: it cannot be read, is there already, or there is no such class any more.
        """
        kind = _checked_format(content)
        with self._changing:
            listing = self.look()
            _check_addable(listing)
            folder = self._folder_of(label)
            if twin := self._twin(content):
                raise RefusedPhoto(f"already here, in {safe_text(twin.label)}" if twin.label != label else "already in this class")
            file = _free_name(folder, safe_stem(name), _SUFFIXES[kind])
            with atomic_file(file, "wb") as opened:
                opened.write(content)
            path = f"{folder.name}/{file.name}"
            self._listing = _listed(self.folder)
        return Shown(identifier(path), path, label)

    def _folder_of(self, label: str) -> Path:
        """The folder of a class: one that the folder itself lists, whatever the label looks like."""
        for name in subfolders(self.folder):
            if label_called(name) == label:
                return self.folder / name
        raise RefusedPhoto("this class is gone")

    def _twin(self, content: bytes) -> Shown | None:
        """A photo of the project with the same bytes."""
        for photo in self._listing.photos:
            with contextlib.suppress(OSError):
                file = self.file(photo)
                if file.stat().st_size == len(content) and file.read_bytes() == content:
                    return photo
        return None


def class_name(text: str) -> str:
    """`text` as the name of a class and its folder, on any system. Raises: DataError: it cannot be one."""
    name = unicodedata.normalize("NFC", " ".join(text.split()))
    hint = "letters, digits, spaces, dashes and the like, at most 80 of them"
    if not name:
        raise DataError("a class needs a name", hint="for example: daisy")
    unfit = len(name) > _LONGEST_NAME or len(os.fsencode(name)) > 200 or name.endswith(".") or is_junk(name)
    if unfit or not name.isprintable() or set(name) & _FORBIDDEN or name.casefold().partition(".")[0] in _DEVICES:
        raise DataError(f"'{safe_text(name[:_LONGEST_NAME])}' cannot be the name of a folder", hint=hint)
    return name


def safe_stem(name: str) -> str:
    """The part of a file's name before its suffix, as any system takes it, from whatever a browser says.

    >>> safe_stem("../../etc/passwd"), safe_stem(".hidden.jpg"), safe_stem("My cat (2).JPG")
    ('passwd', 'hidden', 'My cat (2)')
    """
    last = unicodedata.normalize("NFC", name.replace("\\", "/").rsplit("/", 1)[-1])
    kept = "".join(c if c.isalnum() or c in " -_()+,'." else "_" for c in last).strip(" .")
    stem = os.path.splitext(kept)[0].strip(" ._")[:_LONGEST_NAME].strip(" .")
    while len(stem.encode()) > 180:
        stem = stem[:-1]
    return f"photo {stem}".strip() if not stem or stem.casefold() in _DEVICES else stem


def _free_name(folder: Path, stem: str, suffix: str) -> Path:
    """A name that nothing in `folder` has, in whatever case and with whatever suffix."""
    taken = {os.path.splitext(name)[0].casefold() for name in os.listdir(folder)}
    n = 1
    while (numbered := stem if n == 1 else f"{stem} ({n})").casefold() in taken:
        n += 1
    return folder / f"{numbered}.{suffix}"


def _checked_format(content: bytes) -> str:
    """The format of a photo that can be read to its end. Raises: RefusedPhoto."""
    if not content:
        raise RefusedPhoto("empty file")
    if len(content) > UPLOAD_LIMIT_BYTES:
        raise RefusedPhoto(f"more than the {human_bytes(UPLOAD_LIMIT_BYTES)} that a photo may have here")
    facts, _ = glance(content)
    kind = image_format(content)
    if facts.reason is not None or kind is None:
        raise RefusedPhoto(facts.reason if facts.reason is not None else "not an image")
    return kind


def _check_addable(listing: Listing) -> None:
    if listing.is_split:
        raise RefusedPhoto("this folder has train and test folders; put photos into those with your file manager")


def _listed(folder: Path) -> Listing:
    try:
        names = subfolders(folder)
        is_split = looks_split(folder)
    except HeadstartError as error:
        return Listing(problem=str(error))
    classes: dict[str, list[Shown]] = {} if is_split else {label_called(name): [] for name in names}
    for candidate in _candidates(folder):
        photo = Shown(identifier(candidate.path), candidate.path, candidate.label)
        classes.setdefault(photo.label, []).append(photo)
    ordered = {label: classes[label] for label in sorted(classes, key=str.casefold)}
    return Listing(ordered, {photo.id: photo for photos in ordered.values() for photo in photos}, is_split=is_split)


def _candidates(folder: Path) -> tuple[Candidate, ...]:
    with contextlib.suppress(DataError):  # no photo yet
        return list_folder(folder, folder.name).candidates
    return ()
