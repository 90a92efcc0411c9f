"""Sets of labels that hold the right one for, say, 90 % of photos: split conformal prediction. docs/concepts/none-of-these.md tells why.

A photo's set holds its most probable label, and every other whose probability reaches a threshold. numpy only.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from headstart.evaluate import calibrate
from headstart.evaluate.intervals import Interval, bootstrap, percentile, wilson

COVERAGE = 0.9

_ALWAYS = 2.0  # above every probability: the label is in the set whatever the threshold


@dataclass(frozen=True)
class Conformal:
    """How sets are made.

    coverage: share of photos whose set is to hold the right label, 0..1.
    threshold: least probability, 0..1, of a label beside the most probable one; None where the photos were too few to fix it.
    n: photos that fixed it; reason: why there is none, a sentence.
    """

    coverage: float
    threshold: float | None
    n: int
    reason: str | None = None

    def to_json(self) -> dict[str, Any] | None:
        """What bundle.json keeps; None without a threshold."""
        return None if self.threshold is None else {"coverage": self.coverage, "threshold": self.threshold}


def fit(probs: ArrayLike, labels: ArrayLike, coverage: float = COVERAGE) -> Conformal:
    """Choose the threshold so that sets of new photos of the same kind hold the right label with the probability `coverage`, or more.

    Each photo says how low the threshold may not be for it: the probability of its right label (any will do where that is the most
    probable). The ceil((n + 1) * coverage)-th largest of these is the threshold, which needs n >= coverage / (1 - coverage) photos:
    9 for 90 %. Where the most probable label alone is right often enough it is 1: every set has one label, and is right more often
    than asked.

    Args:
        probs: [n, k], calibrated, of photos that did not train the head; n >= 0.
        labels: int [n], 0..k-1.
        coverage: over 0, under 1.

    Source: Sadinle, Lei and Wasserman (2019), "Least ambiguous set-valued classifiers with bounded error levels"; the rank is that of
        Vovk, Gammerman and Shafer (2005). APS and RAPS make larger sets (bench/novelty.py).
    """
    if not 0 < coverage < 1:
        raise ValueError(f"expected a coverage over 0 and under 1, found {coverage}")
    p, y = np.asarray(probs, dtype=np.float64), np.asarray(labels, dtype=np.int64)
    if len(p) or len(y):
        calibrate.check(p, y, "probs")
    n = len(y)
    rank = rank_of(n, coverage)
    if rank > n:
        least = math.ceil(round(coverage / (1 - coverage), 9))
        few = f"{n} photos that did not train the model are too few for sets that are right {coverage:.0%} of the time"
        return Conformal(coverage, None, n, f"{few}: {least} are the least")
    own = p[np.arange(n), y]
    allows = np.where(p.argmax(axis=1) == y, _ALWAYS, own)
    return Conformal(coverage, min(1.0, float(np.partition(allows, n - rank)[n - rank])), n)


def rank_of(n: int, share: float) -> int:
    """ceil((n + 1) * share): of n + 1 values that come in any order alike, the last is among this many smallest with that probability.

    Above n there is no such value.
    """
    return math.ceil(round((n + 1) * share, 9))  # 0.9 * 10 is a little over 9 in floating point


def members(probs: ArrayLike, threshold: float) -> NDArray[np.bool_]:
    """Which labels are in each photo's set: bool [n, k] from probs [n, k]. No set is empty."""
    p = np.asarray(probs)
    inside = p >= threshold
    if len(p):
        inside[np.arange(len(p)), p.argmax(axis=1)] = True
    return np.asarray(inside)


def measure(conformal: Conformal, probs: ArrayLike, labels: ArrayLike, classes: Sequence[str], *, seed: int = 0) -> dict[str, Any]:
    """How often the sets hold the right label on photos that had no part in the threshold, and how large they are.

    Args:
        probs: [n, k]; labels: int [n].
        classes: k names in the order of the columns.
        seed: of the bootstrap.

    Returns: `n`, `coverage` and `coverage_ci95` (Wilson), `mean_size` and `mean_size_ci95` (bootstrap; labels a set), `alone` (share of
        sets of one label), `per_class` by name: `n`, `coverage`, `coverage_ci95`, `mean_size`, each None for a class without photos. Only
        `reason`, a sentence, where there is no threshold, or no photo.
    """
    p, y = np.asarray(probs, dtype=np.float64), np.asarray(labels, dtype=np.int64)
    if conformal.threshold is None or len(y) == 0:
        return {"reason": "no photo to test on" if conformal.reason is None else conformal.reason}
    calibrate.check(p, y, "probs")
    if p.shape[1] != len(classes):
        raise ValueError(f"expected probs [n, {len(classes)}] for {len(classes)} classes, found {list(p.shape)}")
    inside = members(p, conformal.threshold)
    sizes, right = inside.sum(axis=1), inside[np.arange(len(y)), y]
    return {
        "n": len(y),
        **_coverage(right),
        "mean_size": float(sizes.mean()),
        "mean_size_ci95": list(_mean_interval(sizes.astype(np.float64), seed)),
        "alone": float((sizes == 1).mean()),
        "per_class": {
            name: {
                "n": int((y == c).sum()),
                **_coverage(right[y == c]),
                "mean_size": float(sizes[y == c].mean()) if (y == c).any() else None,
            }
            for c, name in enumerate(classes)
        },
    }


def _coverage(right: NDArray[np.bool_]) -> dict[str, Any]:
    if not len(right):
        return {"coverage": None, "coverage_ci95": None}
    return {"coverage": float(right.mean()), "coverage_ci95": list(wilson(int(right.sum()), len(right)))}


def _mean_interval(values: NDArray[np.float64], seed: int) -> Interval:
    low, high = percentile(bootstrap(lambda weights: (weights @ values / len(values))[:, None], len(values), seed=seed))[0]
    return float(low), float(high)
