"""The table of photos: what was found, what it is called, which split it is in; and what was left out, with the reason."""

import csv
import dataclasses
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

from headstart.files import atomic_file

SPLITS = ("train", "val", "test")

_SPELLINGS = {"train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}


@dataclass(frozen=True, slots=True)
class Candidate:
    """A file that may be a photo: listed by a form of DATA, not opened yet."""

    path: str
    label: str
    split: str = ""
    group: str = ""
    relabelled: bool = False


@dataclass(frozen=True, slots=True)
class Photo:
    """A photo that was read whole and can be decoded."""

    path: str
    """relative to the table's root with forward slashes, or as the CSV gives it"""
    label: str
    sha256: str
    """of the file's bytes, 64 hex digits"""
    split: str = ""
    """train, val or test; empty where nobody said"""
    group: str = ""
    """photos of one group never straddle splits; empty: alone"""
    width: int = 0
    """px, as stored in the file"""
    height: int = 0
    """px, as stored in the file"""
    format: str = ""
    mode: str = ""
    """of the file's pixels, as Pillow names it"""
    n_bytes: int = 0
    taken: str = ""
    """when, by the camera's clock (EXIF), as 2024-05-31T16:20:07; empty where nobody knows"""
    camera: str = ""
    """make and model (EXIF); empty where nobody knows"""
    tables: str = ""
    """digest of a JPEG's quantisation tables, hex: equal for files of one encoder and quality; empty for other formats"""
    relabelled: bool = False
    """whether `label` is not the one that the data gives"""
    glance: bytes = field(default=b"", repr=False)
    """`views.GLANCE_PX` x `views.GLANCE_PX` grey pixels, to compare photos by; empty for flat pictures"""


@dataclass(frozen=True, slots=True)
class Omitted:
    """A file, or a row of a CSV, that was left out. split: of a photo that the user left out, as given; empty where nobody said."""

    path: str
    reason: str
    split: str = ""


@dataclass(frozen=True)
class Source:
    """What a form of DATA lists, before any photo is opened."""

    root: Path
    candidates: tuple[Candidate, ...]
    omitted: tuple[Omitted, ...]
    notices: tuple[str, ...]
    name: str


@dataclass(frozen=True)
class Table:
    """Photos with labels, in a fixed order, and what was left out.

    `classes` is the sorted union over all splits: the index of a class never shifts because a split lacks one.
    """

    root: Path
    photos: tuple[Photo, ...]
    classes: tuple[str, ...]
    omitted: tuple[Omitted, ...] = ()
    notices: tuple[str, ...] = ()
    name: str = ""

    def __len__(self) -> int:
        return len(self.photos)

    @cached_property
    def labels(self) -> np.ndarray:
        """int64 [n], index into `classes`."""
        index = {name: i for i, name in enumerate(self.classes)}
        return np.fromiter((index[photo.label] for photo in self.photos), np.int64, len(self.photos))

    @cached_property
    def groups(self) -> np.ndarray:
        """int64 [n]: photos of one group share a number; a photo without a group has its own."""
        numbers: dict[tuple[str, int], int] = {}
        keys = ((photo.group, -1 if photo.group else i) for i, photo in enumerate(self.photos))
        return np.fromiter((numbers.setdefault(key, len(numbers)) for key in keys), np.int64, len(self.photos))

    @property
    def sha256s(self) -> list[str]:
        """The photos' content hashes, in order."""
        return [photo.sha256 for photo in self.photos]

    @property
    def given_splits(self) -> bool:
        """Whether any photo comes with a split."""
        return any(photo.split for photo in self.photos)

    def file(self, i: int) -> Path:
        """Where photo `i` lies on disk."""
        return self.root / self.photos[i].path

    def of(self, split: str) -> "Table":
        """The photos of one split; all classes are kept."""
        return self.subset(i for i, photo in enumerate(self.photos) if photo.split == split)

    def subset(self, indices: Iterable[int]) -> "Table":
        """The photos at `indices`, in that order; all classes are kept."""
        return self.with_photos([self.photos[int(i)] for i in indices])

    def with_photos(self, photos: Sequence[Photo], *notices: str) -> "Table":
        """The same table with other photos, and more to tell."""
        return dataclasses.replace(self, photos=tuple(photos), notices=(*self.notices, *notices))


def write_omitted(table: Table, path: Path) -> None:
    """Write omitted.csv (path, reason), atomically."""
    with atomic_file(path) as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(["path", "reason"])
        rows.writerows((omitted.path, omitted.reason) for omitted in table.omitted)


def split_called(name: str) -> str | None:
    """The split that a folder's or a column's word means, in any case, or None.

    >>> split_called("Validation")
    'val'
    """
    return _SPELLINGS.get(name.strip().casefold())


def label_called(name: str) -> str:
    """A class name as labels are compared: in Unicode's composed form (macOS stores names decomposed), always valid text.

    >>> label_called("cafe\\u0301") == "caf\\u00e9"
    True
    """
    text = name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return unicodedata.normalize("NFC", text)


def some(items: Iterable[str], n: int = 5) -> str:
    """The first `n` items for a message, and how many more there are."""
    every = list(items)
    more = f" and {len(every) - n} more" if len(every) > n else ""
    return ", ".join(every[:n]) + more
