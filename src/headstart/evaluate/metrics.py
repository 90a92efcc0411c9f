"""Every score of a classifier on one set of photos, each with its 95 % interval.

Which interval belongs to which number, and why, is told in docs/concepts/honest-numbers.md. Three rules hold throughout:

- A class without a photo in the set has no score (None) and is left out of every average.
- A class that has photos but was never predicted has precision 0, as scikit-learn's `zero_division=0` says.
- Nothing here is NaN or infinite: what does not exist is None, so that the result is JSON as it stands.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from headstart.evaluate import calibrate
from headstart.evaluate.curves import Area, Areas, areas
from headstart.evaluate.intervals import (
    RIGHT_OR_WRONG,
    Interval,
    Weights,
    bootstrap,
    f1_interval,
    percentile,
    wilson,
    wilson_of_means,
)

SMALLEST_PROBABILITY = float(np.finfo(np.float64).eps)  # log loss would be infinite at 0; scikit-learn cuts here too
_TOPS = (5, 3)
_BOOTSTRAPPED = ("precision_macro", "f1_macro", "precision_weighted", "f1_weighted", "log_loss")


@dataclass(frozen=True, slots=True)
class _Counts:
    """Photos per class; arrays may have leading axes (one row per resample)."""

    both: NDArray[np.float64]
    labelled: NDArray[np.float64]
    predicted: NDArray[np.float64]


def evaluate(probs: ArrayLike, labels: ArrayLike, classes: Sequence[str], *, seed: int = 0) -> dict[str, Any]:
    """Score predictions against labels.

    Args:
        probs: [n, k], probability of each class; rows sum to 1. The prediction is the largest (the first of equals).
        labels: int [n], 0..k-1.
        classes: k names, all different, in the order of the columns.
        seed: of the bootstrap; the same seed gives the same intervals.

    Returns: the fields that metrics.json has for one set (docs/formats.md): `n`, `accuracy`, `accuracy_ci95`, `top5` and `top3` (with more
        than three classes), `balanced_accuracy`, precision, recall and F1 as `..._macro` and `..._weighted`, `roc_auc_macro`,
        `average_precision_macro`, `ece`, `log_loss`, `baseline_majority` (share of the most frequent class), `per_class` (by name:
        `precision`, `recall`, `f1`, `roc_auc`, `average_precision`, `n`, `ci95`), `confusion` (`labels`, and `counts` [k][k] with a row for
        each true class) and `ci95` ([lower, upper] by metric). With fewer than 6 classes `top5` is 1: the right one is always
        among them. With no photo every score is None.

    Raises: ValueError: shapes, names or values that do not fit together; the text says which.
    """
    p = np.asarray(probs, dtype=np.float64)
    y = np.asarray(labels, dtype=np.int64)
    names = list(classes)
    if p.ndim != 2 or p.shape[1] != len(names) or len(set(names)) != len(names):
        raise ValueError(
            f"expected probs [n, {len(names)}] for {len(names)} different classes, found {list(p.shape)}, {len(set(names))} different"
        )
    if len(p) == 0 and len(y) == 0:
        return _nothing(names)
    calibrate.check(p, y, "probs")
    predicted = p.argmax(axis=1)
    counts = confusion(y, predicted, len(names))
    totals = _Counts(np.diagonal(counts).astype(float), counts.sum(axis=1).astype(float), counts.sum(axis=0).astype(float))
    found = areas(p, y)
    scores, ci95 = _shares(p, y, totals)
    log_losses = -np.log(np.clip(p[np.arange(len(y)), y], SMALLEST_PROBABILITY, 1.0))
    averages = [*_averages(totals), log_losses.mean()]
    scores |= {name: float(value) for name, value in zip(_BOOTSTRAPPED, averages, strict=True)} | {"ece": calibrate.ece(p, y)}
    ci95 |= _bootstrap_averages(y, predicted, log_losses, len(names), seed=seed)
    ci95["ece"] = calibrate.ece_interval(p, y, seed=seed)
    for name, area in (("roc_auc_macro", found.roc_auc_macro), ("average_precision_macro", found.average_precision_macro)):
        scores[name], ci95[name] = (None, None) if area is None else (area.value, area.ci95)
    return _record(len(y), scores, ci95, _per_class(names, totals, found), names, counts)


def confusion(labels: ArrayLike, predicted: ArrayLike, n_classes: int) -> NDArray[np.int64]:
    """Photos by true class (row) and predicted class (column): int64 [n_classes, n_classes]."""
    cells = np.asarray(labels, dtype=np.int64) * n_classes + np.asarray(predicted, dtype=np.int64)
    return np.bincount(cells, minlength=n_classes**2).reshape(n_classes, n_classes)


def rates(counts: ArrayLike) -> NDArray[np.float64]:
    """A confusion matrix as shares of each true class's photos: float64 [k, k], rows sum to 1, or to 0 for a class without photos."""
    n = np.asarray(counts, dtype=np.float64)
    return np.asarray(n / np.maximum(n.sum(axis=1, keepdims=True), 1))


def _shares(
    probs: NDArray[np.float64], labels: NDArray[np.int64], counts: _Counts
) -> tuple[dict[str, float | None], dict[str, Interval | None]]:
    """Scores that count photos, and their intervals: Wilson's, or one that is built like it."""
    n_right = {"accuracy": int(counts.both.sum()), "baseline_majority": int(counts.labelled.max())}
    n_right |= {f"top{top}": int(_in_top(probs, labels, top).sum()) for top in _tops(probs.shape[1])}
    scores: dict[str, float | None] = {name: n / len(labels) for name, n in n_right.items()}
    ci95: dict[str, Interval | None] = {name: wilson(n, len(labels)) for name, n in n_right.items()}
    if probs.shape[1] <= _TOPS[0]:
        ci95[f"top{_TOPS[0]}"] = (1.0, 1.0)
    scores["recall_weighted"], ci95["recall_weighted"] = scores["accuracy"], ci95["accuracy"]  # the same by definition
    present = counts.labelled > 0
    recall, n = counts.both[present] / counts.labelled[present], counts.labelled[present]
    interval = wilson_of_means(recall, n, n * recall * (1 - recall), RIGHT_OR_WRONG)
    for name in ("balanced_accuracy", "recall_macro"):  # two names of one number
        scores[name], ci95[name] = float(recall.mean()), interval
    return scores, ci95


def _tops(n_classes: int) -> list[int]:
    return [top for top in _TOPS if top == _TOPS[0] or n_classes > top]


def _order(n_classes: int) -> list[str]:
    """Names of the scores of a whole set, as they are written."""
    averages = [f"{name}_{average}" for average in ("macro", "weighted") for name in ("precision", "recall", "f1")]
    areas_and_more = ["roc_auc_macro", "average_precision_macro", "ece", "log_loss", "baseline_majority"]
    return ["accuracy", *(f"top{top}" for top in _tops(n_classes)), "balanced_accuracy", *averages, *areas_and_more]


def macro_f1(weights: Weights, labels: NDArray[np.int64], predicted: NDArray[np.int64], n_classes: int) -> NDArray[np.float64]:
    """Mean F1 over the classes that have photos, [r], of photos weighted by weights [r, n]."""
    return _averages(_weighted_counts(weights, labels, predicted, n_classes))[1]


def _record(
    n: int,
    scores: dict[str, float | None],
    ci95: dict[str, Interval | None],
    per_class: dict[str, Any],
    names: list[str],
    counts: NDArray[np.int64],
) -> dict[str, Any]:
    order = _order(len(names))
    return {
        "n": n,
        "accuracy": scores["accuracy"],
        "accuracy_ci95": _as_list(ci95["accuracy"]),
        **{name: scores[name] for name in order[1:]},
        "per_class": per_class,
        "confusion": {"labels": names, "counts": counts.tolist()},
        "ci95": {name: _as_list(ci95[name]) for name in order},
    }


def _nothing(names: list[str]) -> dict[str, Any]:
    """The record of a set without photos."""
    none: dict[str, Any] = dict.fromkeys(_order(len(names)))
    per_class = _per_class(
        names, _Counts(*(np.zeros(len(names)) for _ in range(3))), Areas([None] * len(names), [None] * len(names), None, None)
    )
    return _record(0, none, none, per_class, names, np.zeros((len(names), len(names)), dtype=np.int64))


def _per_class(names: list[str], counts: _Counts, found: Areas) -> dict[str, dict[str, Any]]:
    """Each class's own scores; its intervals are Wilson's, because resampling sees no spread where a class is all right or all wrong."""
    rows: dict[str, dict[str, Any]] = {}
    for i, name in enumerate(names):
        both, labelled, predicted = counts.both[i], counts.labelled[i], counts.predicted[i]
        scored: dict[str, tuple[float, Interval] | None] = dict.fromkeys(("precision", "recall", "f1"))
        if labelled:
            scored["precision"] = float(both / predicted) if predicted else 0.0, wilson(both, predicted)
            scored["recall"] = float(both / labelled), wilson(both, labelled)
            scored["f1"] = float(2 * both / (labelled + predicted)), f1_interval(both, labelled, predicted)
        scored |= {"roc_auc": _pair(found.roc_auc[i]), "average_precision": _pair(found.average_precision[i])}
        rows[name] = {
            **{key: None if pair is None else pair[0] for key, pair in scored.items()},
            "n": int(labelled),
            "ci95": {key: None if pair is None else _as_list(pair[1]) for key, pair in scored.items()},
        }
    return rows


def _pair(area: Area | None) -> tuple[float, Interval] | None:
    return None if area is None else (area.value, area.ci95)


def _as_list(interval: Interval | None) -> list[float] | None:
    return None if interval is None else list(interval)


def _averages(counts: _Counts) -> tuple[NDArray[np.float64], ...]:
    """Macro precision and F1, and both weighted by photos, over the classes that have photos: [...] each from counts [..., k]."""
    present = counts.labelled > 0
    n_present = present.sum(axis=-1)
    precision = counts.both / np.maximum(counts.predicted, 1)
    f1 = 2 * counts.both / np.maximum(counts.labelled + counts.predicted, 1)

    def macro(values: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray((values * present).sum(axis=-1) / n_present)

    def weighted(values: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray((values * counts.labelled).sum(axis=-1) / counts.labelled.sum(axis=-1))

    return macro(precision), macro(f1), weighted(precision), weighted(f1)


def _bootstrap_averages(
    labels: NDArray[np.int64],
    predicted: NDArray[np.int64],
    log_losses: NDArray[np.float64],
    n_classes: int,
    *,
    seed: int,
) -> dict[str, Interval]:
    """Percentile intervals of the averages and of log loss, all from the same resamples."""

    def statistic(weights: Weights) -> NDArray[np.float64]:
        counts = _weighted_counts(weights, labels, predicted, n_classes)
        return np.stack([*_averages(counts), weights @ log_losses / len(labels)], axis=1)

    found = percentile(bootstrap(statistic, len(labels), seed=seed))
    ci95 = {name: (float(low), float(high)) for name, (low, high) in zip(_BOOTSTRAPPED, found, strict=True)}
    n_right = int((labels == predicted).sum())
    if n_right in (0, len(labels)):
        # All right or all wrong: resamples cannot differ, and "1.00 to 1.00" would be a lie. The averages then equal accuracy.
        interval = wilson(n_right, len(labels))
        ci95 |= {name: interval for name in _BOOTSTRAPPED if name != "log_loss"}
    return ci95


def _weighted_counts(weights: Weights, labels: NDArray[np.int64], predicted: NDArray[np.int64], n_classes: int) -> _Counts:
    """Photos per class [r, k], weighted by weights [r, n]."""
    both = _sum_by(weights * (labels == predicted), labels, n_classes)
    return _Counts(both, _sum_by(weights, labels, n_classes), _sum_by(weights, predicted, n_classes))


def _sum_by(weights: Weights, groups: NDArray[np.int64], n_groups: int) -> NDArray[np.float64]:
    """Sum of each row's weights [r, n] over photos of the same group [n]: [r, n_groups]."""
    order = np.argsort(groups, kind="stable")
    running = np.zeros((len(weights), len(groups) + 1))
    np.cumsum(weights[:, order], axis=1, out=running[:, 1:])
    ends = np.searchsorted(groups[order], np.arange(n_groups + 1), side="left")
    return running[:, ends[1:]] - running[:, ends[:-1]]


def _in_top(probs: NDArray[np.float64], labels: NDArray[np.int64], top: int) -> NDArray[np.bool_]:
    """Whether the label is among the `top` largest probabilities; of equals, the earlier class counts as larger, as in argmax."""
    own = probs[np.arange(len(labels)), labels][:, None]
    earlier = np.arange(probs.shape[1]) < labels[:, None]
    ahead = (probs > own) | ((probs == own) & earlier)
    return np.asarray(ahead.sum(axis=1) < top)
