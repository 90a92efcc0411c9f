"""Which labels may be wrong: photos whose label a classifier that never saw them contradicts.

Confident learning's idea (Northcutt, Jiang and Chuang 2021, "Confident learning: estimating uncertainty in dataset labels", JAIR 70): what
a classifier gives to a class means something beside what that class's own photos get on average, its *threshold*. Here a photo's
score is the odds of its likeliest other class against its label, each probability divided by its class's threshold; it is a suspect
from 4 to 1 on. docs/guides/labels.md has the table behind this. With 5 % of flowers' labels flipped, the paper's own rule (the other class
reaches its threshold) lists 0.73 of the flips and this one 0.91; odds without thresholds list as many, and two to six times as many
innocent photos of rare classes.

The package cleanlab does the same and more. What we would use of it are the thirty lines below, and it would bring pandas along.
"""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from headstart.data.table import Table
from headstart.errors import DataError
from headstart.files import atomic_file

SUSPECT_SCORE = 0.8
"""Odds of 4 to 1. At 9 to 1 fewer innocent photos are listed (0.11 of the list for 0.23), and fewer wrong labels (0.86 for 0.91)."""

_BLOCK_ENTRIES = 4_000_000  # of probabilities that are copied at a time
_TINY = 1e-12  # in place of a probability of 0


@dataclass(frozen=True)
class Suspect:
    """A photo whose label is in question.

    photo: its index in the table. likely: the class that is most probable beside `label`. probability_*: out of fold, 0 to 1.
    score: 0.8 to 1, how sure it is that of the two classes the photo is of `likely`. split: of the photo; empty where there is none.
    """

    photo: int
    path: str
    label: str
    likely: str
    probability_label: float
    probability_likely: float
    score: float
    split: str = ""


@dataclass(frozen=True)
class Suspects:
    """Photos in question, the surest first; and how many were asked about."""

    photos: tuple[Suspect, ...]
    n_checked: int

    def to_json(self, most: int = 100) -> dict[str, Any]:
        """Plain values: n, n_checked, and the first `most` photos."""
        shown = [
            {
                "path": one.path,
                "label": one.label,
                "likely": one.likely,
                "probability_label": round(one.probability_label, 4),
                "probability_likely": round(one.probability_likely, 4),
                "score": round(one.score, 4),
            }
            for one in self.photos[:most]
        ]
        return {"n": len(self.photos), "n_checked": self.n_checked, "photos": shown}


def find_suspects(probs: np.ndarray, photos: np.ndarray, table: Table) -> Suspects:
    """Rank the photos whose label may be wrong. Nothing is changed.

    Args:
        probs: float [m, k], calibrated (labels that are wrong make them humble, as they should be), from a classifier that did not see
            the photo it speaks of. Classes without a photo are fine.
        photos: int64 [m], the photos' places in `table`; those without such an answer are left out, and cannot be judged.
        table: with its k classes.

    Raises: DataError: shapes that do not fit the table.
    """
    if probs.shape != (len(photos), len(table.classes)):
        expected = f"[{len(photos)} photos, {len(table.classes)} classes]"
        raise DataError(f"expected probabilities {expected} to find suspect labels, found {list(probs.shape)}")
    labels = table.labels[photos]
    own, likely, other = _label_and_rival(probs, labels)
    usual = _thresholds(own, labels, len(table.classes))
    for_label, for_likely = own / usual[labels], other / usual[likely]
    # A class that nobody recognises has a threshold near 0: it takes more probability than the label has as well.
    score = np.where(other > own, for_likely / np.maximum(for_label + for_likely, _TINY), 0)
    listed = np.flatnonzero(score >= SUSPECT_SCORE)
    ranked = listed[np.lexsort((photos[listed], -score[listed]))].tolist()
    found = [
        Suspect(
            photo=int(photos[i]),
            path=table.photos[photos[i]].path,
            label=table.classes[labels[i]],
            likely=table.classes[likely[i]],
            probability_label=float(own[i]),
            probability_likely=float(other[i]),
            score=float(score[i]),
            split=table.photos[photos[i]].split,
        )
        for i in ranked
    ]
    return Suspects(tuple(found), len(photos))


def write_suspects(path: Path, suspects: Suspects) -> None:
    """Write all as a CSV (path, label, likely, probability_label, probability_likely, score, split), for eyes and for `--exclude`."""
    with atomic_file(path) as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(["path", "label", "likely", "probability_label", "probability_likely", "score", "split"])
        for one in suspects.photos:
            numbers = (one.probability_label, one.probability_likely, one.score)
            rows.writerow([one.path, one.label, one.likely, *(f"{number:.4f}" for number in numbers), one.split])


def write_corrections(path: Path, suspects: Sequence[Suspect]) -> None:
    """Write a CSV (path, label, split) in which `label` is the likely one: for the user to prune, then for `--corrections`.

    Test photos are left out: to give them the labels that a model likes better would be to choose the score.
    """
    with atomic_file(path) as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(["path", "label", "split"])
        rows.writerows((one.path, one.likely, one.split) for one in suspects if one.split != "test")


def _label_and_rival(probs: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of each photo: its label's probability [m], the most probable other class [m], and that one's probability [m]."""
    own = probs[np.arange(len(labels)), labels].astype(np.float64)
    likely = np.empty(len(labels), np.int64)
    other = np.empty(len(labels))
    step = max(1, _BLOCK_ENTRIES // max(1, probs.shape[1]))
    for start in range(0, len(labels), step):
        rows = slice(start, start + step)
        block = probs[rows].astype(np.float64)
        each = np.arange(len(block))
        block[each, labels[rows]] = -1
        likely[rows] = block.argmax(1)
        other[rows] = block[each, likely[rows]]
    return own, likely, other


def _thresholds(own: np.ndarray, labels: np.ndarray, n_classes: int) -> np.ndarray:
    """What the photos of a class get for it on average, above 0 [k]; infinite for a class without one, which nothing can be of."""
    counts = np.bincount(labels, minlength=n_classes)
    sums = np.bincount(labels, weights=own, minlength=n_classes)
    means = np.divide(sums, counts, out=np.full(n_classes, np.inf), where=counts > 0)
    return np.asarray(np.maximum(means, _TINY))
