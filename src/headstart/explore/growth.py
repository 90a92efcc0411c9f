"""Would more photos help? Accuracy of a linear head by the number of photos it learns from, over all and for each class.

Every photo is held out once, in one of five folds; heads learn from an eighth, a quarter, a half and all of what remains of each class.
That takes 20 heads for each of several draws, so the head is one that is solved in one step (`discriminant`). On flowers its curve
is that of the head that is shipped, within a point (docs/guides/labels.md).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from headstart.data.table import Table
from headstart.evaluate.intervals import Interval
from headstart.explore.discriminant import Sums, condensed
from headstart.explore.honesty import content_keys, score
from headstart.progress import progress
from headstart.train.folds import assign_folds

Verdict = Literal["more photos help", "saturated", "cannot tell"]

PARTS = (8, 4, 2, 1)
"""A head learns from one part in so many of each class."""
WORTH = 0.02
"""What twice the photos must bring to be worth the work, in recall: below 2 points a class is called saturated."""

_FOLDS = 5
_DRAWS = 4  # of which photos are in the smaller parts
_SHRINKAGES = (0.03, 0.3, 3.0, 30.0)  # added to the covariance, in units of its mean variance; the best is kept for each size
_Z = 1.959964  # the normal distribution's 97.5 % point


@dataclass(frozen=True)
class ClassGrowth:
    """One class.

    recall: share of its `n` photos that is recognised, 0 to 1, for each size. gain: what the last doubling brought, with its 95 % interval.
    """

    n: int
    recall: tuple[float, ...]
    gain: float
    gain_ci95: Interval

    @property
    def verdict(self) -> Verdict:
        """Whether the interval lies below `WORTH`, or else above 0."""
        low, high = self.gain_ci95
        return "saturated" if high < WORTH else "more photos help" if low > 0 else "cannot tell"


@dataclass(frozen=True)
class Growth:
    """The learning curve.

    sizes: photos that a head learned from, on average over folds. accuracy: 0 to 1, with 95 % intervals. per_class: classes that could
    be held out, by name.
    """

    sizes: tuple[int, ...]
    accuracy: tuple[float, ...]
    accuracy_ci95: tuple[Interval, ...]
    per_class: dict[str, ClassGrowth]

    def to_json(self) -> dict[str, Any]:
        """Plain values, as in checks.json."""
        return {
            "sizes": list(self.sizes),
            "accuracy": [round(value, 4) for value in self.accuracy],
            "accuracy_ci95": [[round(end, 4) for end in interval] for interval in self.accuracy_ci95],
            "per_class": {
                name: {
                    "n": one.n,
                    "recall": [round(value, 4) for value in one.recall],
                    "gain": round(one.gain, 4),
                    "gain_ci95": [round(end, 4) for end in one.gain_ci95],
                    "verdict": one.verdict,
                }
                for name, one in self.per_class.items()
            },
        }


def learning_curve(rows: np.ndarray, table: Table, *, seed: int) -> Growth | None:
    """Cross-validate heads on nested parts of the photos, test photos aside. Takes seconds, whatever the number of photos and classes.

    Args:
        rows: float16 or float32 [n, d], the features of the table's photos at the head.
        table: the same n photos, with splits and groups; groups are held out together.
        seed: of folds and draws.

    Returns: None where the photos are too few: the eighths, or what can be held out, lack all but one class.
    """
    known = np.flatnonzero([photo.split != "test" for photo in table.photos])
    some = table.subset(known)
    labels, groups, k = some.labels, some.groups, len(some.classes)
    if len(known) < PARTS[0] * 2:
        return None
    fold_of = assign_folds(content_keys(some), labels, _FOLDS, groups=groups, seed=seed)
    held_out = np.flatnonzero(fold_of >= 0)
    if len(np.unique(labels[held_out])) < 2:
        return None
    answers = _answers(condensed(rows if len(known) == len(rows) else rows[known]), labels, fold_of, k, seed)[..., held_out]
    mean = answers.mean(0)
    of_group = groups[held_out]
    n_folds = len(np.unique(fold_of[held_out]))
    scores = [score(each, of_group, n_folds) for each in mean]
    per_class = {}
    for c in np.unique(labels[held_out]):
        mine = labels[held_out] == c
        gains = answers[:, -1, mine] - answers[:, -2, mine]
        recall = tuple(float(value) for value in mean[:, mine].mean(1))
        per_class[table.classes[c]] = ClassGrowth(int(mine.sum()), recall, recall[-1] - recall[-2], _gain_interval(gains, of_group[mine]))
    trained = len(known) - len(held_out) / _FOLDS
    return Growth(
        sizes=tuple(max(1, round(trained / part)) for part in PARTS),
        accuracy=tuple(one.accuracy for one in scores),
        accuracy_ci95=tuple(one.accuracy_ci95 for one in scores),
        per_class=per_class,
    )


def _answers(z: np.ndarray, labels: np.ndarray, fold_of: np.ndarray, k: int, seed: int) -> np.ndarray:
    """Which photos were answered right while held out: float32 [draws, sizes, n], 0 or 1; 0 for those never held out."""
    right = np.zeros((_DRAWS, len(PARTS), len(z)), np.float32)
    rng = np.random.default_rng(seed)
    shrinkages: list[tuple[float, ...]] = [_SHRINKAGES] * len(PARTS)
    with progress("Trying fewer photos", _DRAWS * _FOLDS, "folds") as advance:
        for draw in range(_DRAWS):
            level = _levels(labels, rng)
            # One more fold than are held out: of photos that always train.
            places = [[(fold_of % (_FOLDS + 1) == fold) & (level == at) for at in range(len(PARTS))] for fold in range(_FOLDS + 1)]
            cells = [[Sums.of(z[mine], labels[mine], k) for mine in row] for row in places]
            tried = [np.zeros((len(some), len(z)), np.float32) for some in shrinkages]
            for fold in range(_FOLDS):
                mine = np.flatnonzero(fold_of == fold)
                for size, learned_from in enumerate(_learned_from(cells, fold)):
                    for i, (weight, bias) in enumerate(learned_from.heads(shrinkages[size])):
                        tried[size][i, mine] = (z[mine] @ weight + bias).argmax(1) == labels[mine]
                advance(1)
            # The first draw chooses, from four numbers for thousands of photos: what that flatters by is far within the interval.
            best = [int(each.sum(1).argmax()) for each in tried]
            shrinkages = [(some[i],) for some, i in zip(shrinkages, best, strict=True)]
            right[draw] = [each[i] for each, i in zip(tried, best, strict=True)]
    return right


def _levels(labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The smallest of the nested parts that each photo is in, int64 [n], 0 to 3; at least one photo of a class is in the first."""
    order = np.lexsort((rng.random(len(labels)), labels))
    counts = np.bincount(labels)
    rank = np.empty(len(labels), np.int64)
    rank[order] = np.arange(len(labels)) - np.repeat(np.cumsum(counts) - counts, counts)
    limits = np.ceil(counts[labels] / np.array(PARTS)[:, None])
    return np.asarray((rank >= limits).sum(0), np.int64)


def _learned_from(cells: list[list[Sums]], fold: int) -> Iterator[Sums]:
    """What the heads that do not see `fold` learn from, the smallest part first; cells by fold and level."""
    others = [levels for other, levels in enumerate(cells) if other != fold]
    total = None
    for level in range(len(PARTS)):
        for levels in others:
            total = levels[level] if total is None else total + levels[level]
        assert total is not None  # there are five others
        yield total


def _gain_interval(gains: np.ndarray, groups: np.ndarray) -> Interval:
    """95 % interval of a mean gain; gains [draws, photos], each -1, 0 or 1.

    Over photos as Agresti and Min do it, who add half a photo to each of the four outcomes (both right, one, the other, none), so that few
    photos without a change do not pass for certainty; groups count for photos. What the draws differ by comes on top.

    Source: Agresti and Min (2005), "Simple improved confidence intervals for comparing matched proportions", Statistics in Medicine 24.
    """
    n = len(np.unique(groups))
    of_photo = gains.mean(0)
    mean, square = float(of_photo.mean()) * n, float(np.square(of_photo).mean()) * n
    centre = mean / (n + 2)
    variance = ((square + 1) / (n + 2) - centre**2) / (n + 2) + float(gains.mean(1).var(ddof=1)) / len(gains)
    reach = _Z * float(np.sqrt(variance))
    return max(-1.0, centre - reach), min(1.0, centre + reach)
