"""One class against the rest, at every threshold: ROC and precision-recall curves, the areas under them, and their 95 % intervals."""

import heapq
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray

from headstart.evaluate.intervals import ANYWHERE, Interval, doubt, wilson_of_means

MOST_POINTS = 200
_INVISIBLE = 5e-4  # of the height: half a pixel of a chart of 1,000

Values = NDArray[np.float64]
Indices = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Curve:
    """Points in drawing order, to be joined by straight lines: float64 [m] each, 0..1; x never falls."""

    x: Values
    y: Values


@dataclass(frozen=True, slots=True)
class Area:
    """An area under a curve, 0..1, and its 95 % interval."""

    value: float
    ci95: Interval


@dataclass(frozen=True, slots=True)
class Areas:
    """Areas of each class in the order of the columns, and their plain mean over the classes that have one; None where there is none."""

    roc_auc: list[Area | None]
    average_precision: list[Area | None]
    roc_auc_macro: Area | None
    average_precision_macro: Area | None


def areas(probs: ArrayLike, labels: ArrayLike) -> Areas:
    """Areas under both curves for every class against the rest, each with its interval; one sort a class serves both.

    The variance is that of each photo's influence: for the ROC area this is DeLong's, for average precision its like. A mean over
    classes adds the influences up photo by photo, because one photo speaks for its class and against all others. The interval is
    Wilson's (`intervals.wilson_of_means`). Its coverage is in docs/concepts/honest-numbers.md.

    Args:
        probs: [n, k], finite. labels: int [n], 0..k-1.

    Returns: no area for a class without photos, and no ROC area where all photos are of one class.

    Source: DeLong, DeLong and Clarke-Pearson (1988), "Comparing the areas under two or more correlated receiver operating characteristic
        curves"; average precision's influence is its derivative by the photos' weights (the infinitesimal jackknife).
    """
    p, y = np.asarray(probs), np.asarray(labels, dtype=np.int64)
    roc_areas, precisions = _Mean(len(y)), _Mean(len(y))
    for c in range(p.shape[1]):
        own = y == c
        n_own = int(own.sum())
        ranked = _rank(p[:, c], own) if n_own else None
        roc_areas.add(None if ranked is None or n_own == len(y) else _roc_area(ranked))
        precisions.add(None if ranked is None else _average_precision(ranked))
    return Areas(roc_areas.of_each, precisions.of_each, roc_areas.result(), precisions.result())


def roc(probs: ArrayLike, labels: ArrayLike, c: int) -> Curve | None:
    """Class `c` against the rest: share of the rest that is taken for it (x) and share of its photos that is found (y), from (0, 0) on.

    Returns: a point for each distinct probability; None where there are no photos of the class, or no others.
    """
    own = np.asarray(labels) == c
    if own.all() or not own.any():
        return None
    ranked = _rank(np.asarray(probs)[:, c], own)
    starts = _distinct(ranked)
    n_found = ranked.n_own - ranked.own_below[starts]
    x = (len(own) - starts - n_found) / (len(own) - ranked.n_own)
    return Curve(np.concatenate([[0.0], x]), np.concatenate([[0.0], n_found / ranked.n_own]))


def precision_recall(probs: ArrayLike, labels: ArrayLike, c: int) -> Curve | None:
    """Class `c` against the rest: share of its photos that is found (x, recall) and share that is right of those taken for it (y).

    Returns: (0, 1), then a point for each distinct probability, the highest first; None where there are no photos of the class.
    """
    own = np.asarray(labels) == c
    if not own.any():
        return None
    ranked = _rank(np.asarray(probs)[:, c], own)
    starts = _distinct(ranked)
    n_found = ranked.n_own - ranked.own_below[starts]
    return Curve(np.concatenate([[0.0], n_found / ranked.n_own]), np.concatenate([[1.0], n_found / (len(own) - starts)]))


def thin(curve: Curve, most: int = MOST_POINTS) -> Curve:
    """The same line, drawn with fewer points: both ends, then always the one that lies farthest from the line so far.

    It stops where nothing left out could be seen (`_INVISIBLE`), or `most` points are in.

    Source: Ramer (1972), "An iterative procedure for the polygonal approximation of plane curves"; Douglas and Peucker (1973).
    """
    points = np.stack([curve.x, curve.y], axis=1)
    kept = {0, len(points) - 1}
    waiting: list[tuple[float, int, int, int]] = []

    def look_between(first: int, last: int) -> None:
        if last - first > 1:
            away = _distances(points[first + 1 : last], points[first], points[last])
            farthest = int(away.argmax())
            heapq.heappush(waiting, (-float(away[farthest]), first, first + 1 + farthest, last))

    look_between(0, len(points) - 1)
    while waiting and len(kept) < most:
        away, first, farthest, last = heapq.heappop(waiting)
        if -away < _INVISIBLE:
            break
        kept.add(farthest)
        look_between(first, farthest)
        look_between(farthest, last)
    shown = sorted(kept)
    return Curve(curve.x[shown], curve.y[shown])


@dataclass(frozen=True, slots=True)
class _Ranked:
    """Photos by rising score: [n] each, but for `n_own`."""

    order: Indices
    own: NDArray[np.bool_]
    "whether a photo is of the class"
    n_own: int
    lower: Indices
    "photos with a lower score"
    upper: Indices
    "photos with a lower or equal score"
    own_below: Indices
    "photos of the class with a lower score"
    own_upto: Indices
    "photos of the class with a lower or equal score"


@dataclass(frozen=True, slots=True)
class _Measured:
    """An area and what its variance is made of.

    influence: float64 [n], in the photos' order: how far each moves the area, to first order; they sum to 0.
    squares: the area is the mean of one value (0..1) a photo of the class; sum of their squared distances from it.
    variance: to first order, with what few photos of the rest leave open.
    """

    value: float
    influence: Values
    n_own: int
    squares: float
    variance: float


@dataclass(slots=True)
class _Mean:
    """The areas of the classes as they come, and their mean."""

    n: int
    of_each: list[Area | None] = field(default_factory=list)
    _measured: list[tuple[float, int, float]] = field(default_factory=list)
    _influence: Values | None = None

    def add(self, found: _Measured | None) -> None:
        if found is None:
            self.of_each.append(None)
            return
        self._measured.append((found.value, found.n_own, found.squares))
        self._influence = found.influence if self._influence is None else self._influence + found.influence
        ends = wilson_of_means([found.value], [found.n_own], [found.squares], ANYWHERE, variance=found.variance)
        self.of_each.append(Area(found.value, ends))

    def result(self) -> Area | None:
        areas = [area for area in self.of_each if area is not None]
        if self._influence is None:
            return None
        values, counts, squares = zip(*self._measured, strict=True)
        mean = float(np.mean(values))
        if len(areas) <= 2:  # of two classes, one's photos are the other's rest: what is open is open in both
            low, high = np.mean([area.ci95 for area in areas], axis=0)
            return Area(mean, (float(low), float(high)))
        variance = float(self._influence @ self._influence) / len(areas) ** 2
        return Area(mean, wilson_of_means(values, counts, squares, ANYWHERE, variance=variance))


def _rank(scores: NDArray[np.floating], own: NDArray[np.bool_]) -> _Ranked:
    order = np.argsort(scores, kind="stable")
    by_score = scores[order]
    starts = np.flatnonzero(np.concatenate([[True], by_score[1:] != by_score[:-1]]))
    ends = np.append(starts[1:], len(order))
    running = np.concatenate([[0], np.cumsum(own[order])])
    sizes = ends - starts
    lower, upper = np.repeat(starts, sizes), np.repeat(ends, sizes)
    return _Ranked(order, own[order], int(running[-1]), lower, upper, running[lower], running[upper])


def _distinct(ranked: _Ranked) -> Indices:
    """Where each distinct score begins, the highest first."""
    return np.unique(ranked.lower)[::-1]


def _roc_area(ranked: _Ranked) -> _Measured:
    """The chance that a photo of the class has a higher score than one of the rest; of equals, half counts."""
    n_own, n_rest = ranked.n_own, len(ranked.own) - ranked.n_own
    rest_below = (ranked.lower - ranked.own_below + ranked.upper - ranked.own_upto) / (2 * n_rest)  # share of the rest a photo beats
    own_above = 1 - (ranked.own_below + ranked.own_upto) / (2 * n_own)
    value = min(1.0, float(rest_below[ranked.own].mean()))
    in_order = np.where(ranked.own, (rest_below - value) / n_own, (own_above - value) / n_rest)
    squares = float(((rest_below[ranked.own] - value) ** 2).sum())
    variance = float(in_order @ in_order) + doubt(value, n_rest, ANYWHERE)
    return _Measured(value, _in_photos_order(ranked, in_order), n_own, squares, variance)


def _average_precision(ranked: _Ranked) -> _Measured:
    """The mean, over photos of the class, of the share that is right among those with at least as high a score."""
    n_own = ranked.n_own
    n_above = len(ranked.own) - ranked.lower
    precision = (n_own - ranked.own_below) / n_above
    value = min(1.0, float(precision[ranked.own].mean()))
    # A photo also enters the precision at every photo of the class with a lower or equal score.
    entered = np.concatenate([[0.0], np.cumsum(ranked.own / n_above)])[ranked.upper]
    expected = np.concatenate([[0.0], np.cumsum(ranked.own * precision / n_above)])[ranked.upper]
    in_order = (ranked.own * (precision - value + entered) - expected) / n_own
    squares = float(((precision[ranked.own] - value) ** 2).sum())
    return _Measured(value, _in_photos_order(ranked, in_order), n_own, squares, float(in_order @ in_order))


def _in_photos_order(ranked: _Ranked, values: Values) -> Values:
    back = np.empty_like(values)
    back[ranked.order] = values
    return back


def _distances(points: Values, first: Values, last: Values) -> Values:
    """How far points [m, 2] lie from the line through two others [2]: float64 [m]."""
    along = last - first
    length = float(np.hypot(*along))
    away = points - first
    if length == 0:
        return np.asarray(np.hypot(*away.T))
    return np.asarray(np.abs(along[0] * away[:, 1] - along[1] * away[:, 0]) / length)
