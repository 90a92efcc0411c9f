"""What gives the class away beside the subject: size, format, camera, time, file name, the border of the picture.

A classifier takes the easiest way to the label. Where all cats were photographed with one camera, the camera's traces will do; on photos
of another one it fails, and no test on the same collection shows it. So simple models are given nothing but one such clue, and are
cross-validated.
"""

import re
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np

from headstart.data.table import Photo, Table
from headstart.evaluate.intervals import Interval
from headstart.explore.discriminant import Sums, condensed
from headstart.explore.honesty import content_keys, draw_groups, score
from headstart.progress import progress
from headstart.train.folds import assign_folds

if TYPE_CHECKING:
    from headstart.explore.look import Looks

MARGIN = 0.25
"""A clue is worth a warning where the lower end of its interval lies more than this share of the way from the baseline to 1. Ordinary
photos need room: a subject has its usual background and its usual detail, and so a file size. Shares measured: border 0.17 on flowers and
0.20 on CIFAR-10, size 0.11 and 0.05 (docs/guides/labels.md)."""

MOST_PHOTOS = 5000  # are looked at: their interval is about 4 points wide at most

_LEAST_PHOTOS = 20
_FOLDS = 5
_VALUES = 32  # of a property that has names: the most frequent ones
_GRAMS = 256  # columns that a name's runs of three letters are spread over
_LEAST_LETTERS = 3  # of a class's name that is looked for in file names


@dataclass(frozen=True)
class Shortcut:
    """What one clue alone reaches.

    name: of the clue, a word or two. words: what it consists of, as a phrase. accuracy: of photos held out, 0 to 1, with its 95 % interval.
    baseline: of always answering the most frequent class. warning: what to be careful of, None where there is no need. note: what is worth
    knowing and no danger, None where there is nothing.
    """

    name: str
    words: str
    accuracy: float
    accuracy_ci95: Interval
    baseline: float
    warning: str | None = None
    note: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "name": self.name,
            "words": self.words,
            "accuracy": round(self.accuracy, 4),
            "accuracy_ci95": [round(end, 4) for end in self.accuracy_ci95],
            "baseline": round(self.baseline, 4),
            "warning": self.warning,
            "note": self.note,
        }


@dataclass(frozen=True)
class _Clue:
    """A clue's numbers, float32 [n, m], and what to say where they tell the class. linear: whether a linear model suits them."""

    name: str
    words: str
    x: np.ndarray
    advice: str
    linear: bool = False


def check_shortcuts(table: Table, looks: "Looks | None", *, seed: int) -> tuple[Shortcut, ...]:
    """Cross-validate a simple model on each clue; groups of photos are held out together.

    Args:
        looks: the photos' pixel figures, for the border; None leaves that out.
        seed: of the folds, and of the draw where there are more than `MOST_PHOTOS` photos.

    Returns: one for each clue in which the photos differ, in a fixed order; nothing for fewer than 20 photos.
    """
    kept = draw_groups(table.groups, MOST_PHOTOS, seed)
    some = table.subset(kept)
    if len(some) < _LEAST_PHOTOS:
        return ()
    fold_of = assign_folds(content_keys(some), some.labels, _FOLDS, groups=some.groups, seed=seed)
    if len(np.unique(some.labels[fold_of >= 0])) < 2:
        return ()
    clues = [clue for clue in _clues(some, None if looks is None else looks.border[kept]) if (clue.x != clue.x[:1]).any()]
    found = []
    with progress("Looking for shortcuts", len(clues), "clues") as advance:
        for clue in clues:
            found.append(_judge(clue, some, fold_of))
            advance(1)
    return tuple(found)


def _judge(clue: _Clue, table: Table, fold_of: np.ndarray) -> Shortcut:
    held_out = fold_of >= 0
    answers = np.full(len(table), -1)
    folds = np.unique(fold_of[held_out])
    for fold in folds:
        mine = fold_of == fold
        answer = _linear if clue.linear else _tree
        answers[mine] = answer(clue.x[~mine], table.labels[~mine], clue.x[mine], len(table.classes))
    reached = score((answers == table.labels)[held_out].astype(float), table.groups[held_out], len(folds))
    baseline = float(np.bincount(table.labels[held_out]).max() / held_out.sum())
    low, high = reached.accuracy_ci95
    text = None
    if low > baseline + MARGIN * (1 - baseline):
        text = (
            f"{clue.words[0].upper()}{clue.words[1:]} alone give away the class of {100 * reached.accuracy:.0f} % of the photos "
            f"({100 * low:.0f} to {100 * high:.0f} %; always the most frequent class: {100 * baseline:.0f} %). {clue.advice}"
        )
    harmless = clue.name == _NAME
    return Shortcut(
        name=clue.name,
        words=clue.words,
        accuracy=reached.accuracy,
        accuracy_ci95=reached.accuracy_ci95,
        baseline=baseline,
        warning=None if harmless else text,
        note=text if harmless else None,
    )


def _tree(x: np.ndarray, labels: np.ndarray, others: np.ndarray, k: int) -> np.ndarray:
    """What a small decision tree that learns from `x` says of `others`."""
    from sklearn.tree import DecisionTreeClassifier  # slow to import

    tree = DecisionTreeClassifier(min_samples_leaf=5, max_leaf_nodes=max(64, 4 * k), random_state=0)
    return np.asarray(tree.fit(x, labels).predict(others))


def _linear(x: np.ndarray, labels: np.ndarray, others: np.ndarray, k: int) -> np.ndarray:
    """What a linear model says; for colours, on which it did better than a tree (0.33 for 0.28 on flowers)."""
    z = condensed(np.concatenate([x, others]))
    weight, bias = next(Sums.of(z[: len(x)], labels, k).heads((1.0,)))
    return np.asarray((z[len(x) :] @ weight + bias).argmax(1))


_NAME = "file name"


def _clues(table: Table, border: np.ndarray | None) -> Iterator[_Clue]:
    photos = table.photos
    yield _Clue(
        "size",
        "width, height and file size",
        _sizes(photos),
        "Photos of different classes were cut, scaled or saved differently, which leaves traces in the picture: treat all alike.",
    )
    yield _Clue(
        "format",
        "file format and JPEG tables",
        np.hstack([_named([getattr(photo, name) for photo in photos]) for name in ("format", "mode", "tables")]),
        "Photos of different classes were saved by different programs or at different qualities, which leaves traces in the picture: "
        "save all alike, from the originals if you have them.",
    )
    yield _Clue(
        "camera",
        "make and model of the camera",
        _named([photo.camera for photo in photos]),
        "Photos of different classes come from different cameras, whose colours and noise a classifier can learn: "
        "take photos of every class with each, and test on those of a camera it has not seen.",
    )
    yield _Clue(
        "time",
        "date and time of the photo",
        _times(photos),
        "Photos of different classes were taken at different times, so light, season or place may stand for the class: "
        "test on photos of other days.",
    )
    yield _Clue(
        _NAME,
        "numbers and letters of the file name",
        _names(table),
        "Names never reach the classifier, so this does no harm, and numbered files are no surprise (names of classes are not counted). It "
        "is a hint on how the photos were gathered: class by class, perhaps from different sources.",
    )
    if border is not None:
        yield _Clue(
            "border",
            "colours along the edge of the picture",
            border.astype(np.float32),
            "The classifier may learn the background in place of the subject. That is fine where the background belongs to the class "
            "(places, weather); else take photos of every class before the same backgrounds.",
            linear=True,
        )


def _sizes(photos: Sequence[Photo]) -> np.ndarray:
    sizes = np.array([(photo.width, photo.height, photo.n_bytes) for photo in photos], np.float64)
    width, height, n_bytes = np.maximum(sizes, 1).T
    return np.column_stack([sizes, width / height, n_bytes / (width * height)]).astype(np.float32)


def _named(values: Sequence[str]) -> np.ndarray:
    """A column for each of the most frequent values, 1 where a photo has it; of a property without values, one that is 0."""
    frequent = sorted(Counter(values).items(), key=lambda item: (-item[1], item[0]))[:_VALUES]
    return np.array([[value == name for name, _ in frequent] for value in values], np.float32)


def _times(photos: Sequence[Photo]) -> np.ndarray:
    """Known, day, weekday, minute of the day."""
    rows = []
    for photo in photos:
        try:
            taken = datetime.fromisoformat(photo.taken)
        except ValueError:
            rows.append((0, 0, 0, 0))
        else:
            rows.append((1, taken.toordinal(), taken.weekday(), 60 * taken.hour + taken.minute))
    return np.array(rows, np.float32)


def _names(table: Table) -> np.ndarray:
    """Of each name: its length, its last number (its place among all of them), how many digits it has, and which runs of three letters."""
    classes = sorted({_plain(name) for name in table.classes}, key=len, reverse=True)
    long = [re.escape(name) for name in classes if len(name) >= _LEAST_LETTERS and not name.isdigit()]
    class_names = re.compile("|".join(long) if long else r"(?!)")
    rows = np.zeros((len(table), 3 + _GRAMS), np.float32)
    last = []
    for row, photo in zip(rows, table.photos, strict=True):
        stem = class_names.sub("", _plain(PurePosixPath(photo.path.replace("\\", "/")).stem))
        numbers = re.findall("[0-9]+", stem)
        last.append(int(numbers[-1]) if numbers else -1)
        row[:2] = len(stem), sum(map(len, numbers))
        text = f"^{re.sub('[0-9]+', '0', stem)}$"  # every number counts as one letter
        for start in range(len(text) - 2):
            row[3 + zlib.crc32(text[start : start + 3].encode("utf-8", "surrogateescape")) % _GRAMS] = 1
    place = {number: i for i, number in enumerate(sorted(set(last)))}
    rows[:, 2] = [place[number] for number in last]
    return rows


def _plain(name: str) -> str:
    """In lower case, everything but letters and digits as one underscore."""
    return re.sub(r"[\W_]+", "_", name.casefold())
