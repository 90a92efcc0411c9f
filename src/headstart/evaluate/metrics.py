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
from headstart.evaluate.intervals import Interval, Weights, bootstrap, f1_interval, percentile, wilson

_SMALLEST_PROBABILITY = float(np.finfo(np.float64).eps)  # log loss would be infinite at 0; scikit-learn cuts here too
_TOP = 5
_BOOTSTRAPPED = ("precision_macro", "recall_macro", "f1_macro", "f1_weighted", "log_loss")


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

    Returns: the fields that metrics.json has for one set (docs/formats.md): `n`, `accuracy`, `accuracy_ci95`, `top5`,
        `precision_macro`, `recall_macro`, `f1_macro`, `f1_weighted`, `ece`, `log_loss`, `baseline_majority` (share of the most frequent
        class), `per_class` (by name: `precision`, `recall`, `f1`, `n`, `ci95`), `confusion` (`labels`, and `counts` [k][k] with a row
        for each true class) and `ci95` ([lower, upper] by metric). With fewer than 6 classes `top5` is 1: the right one is always
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
    log_losses = -np.log(np.clip(p[np.arange(len(y)), y], _SMALLEST_PROBABILITY, 1.0))
    averages = _averages(totals)
    scores = {name: float(value) for name, value in zip(_BOOTSTRAPPED, [*averages, log_losses.mean()], strict=True)}
    scores |= {"ece": calibrate.ece(p, y)}
    shares = {
        "accuracy": int(totals.both.sum()),
        "top5": int(_in_top(p, y, _TOP).sum()),
        "baseline_majority": int(totals.labelled.max()),
    }
    scores |= {name: n_right / len(y) for name, n_right in shares.items()}
    ci95 = {name: wilson(n_right, len(y)) for name, n_right in shares.items()}
    if len(names) <= _TOP:
        ci95["top5"] = (1.0, 1.0)
    ci95 |= _bootstrap_averages(y, predicted, log_losses, len(names), accuracy=(scores["accuracy"], ci95["accuracy"]), seed=seed)
    ci95["ece"] = calibrate.ece_interval(p, y, seed=seed)
    return _record(len(y), scores, ci95, _per_class(names, totals), names, counts)


def confusion(labels: ArrayLike, predicted: ArrayLike, n_classes: int) -> NDArray[np.int64]:
    """Photos by true class (row) and predicted class (column): int64 [n_classes, n_classes]."""
    cells = np.asarray(labels, dtype=np.int64) * n_classes + np.asarray(predicted, dtype=np.int64)
    return np.bincount(cells, minlength=n_classes**2).reshape(n_classes, n_classes)


def _record(
    n: int, scores: dict[str, Any], ci95: dict[str, Interval], per_class: dict[str, Any], names: list[str], counts: NDArray[np.int64]
) -> dict[str, Any]:
    order = ("accuracy", "top5", "precision_macro", "recall_macro", "f1_macro", "f1_weighted", "ece", "log_loss", "baseline_majority")
    return {
        "n": n,
        "accuracy": scores["accuracy"],
        "accuracy_ci95": list(ci95["accuracy"]),
        **{name: scores[name] for name in order[1:]},
        "per_class": per_class,
        "confusion": {"labels": names, "counts": counts.tolist()},
        "ci95": {name: list(ci95[name]) for name in order},
    }


def _nothing(names: list[str]) -> dict[str, Any]:
    """The record of a set without photos."""
    metrics = ("accuracy", "accuracy_ci95", "top5", "precision_macro", "recall_macro", "f1_macro", "f1_weighted", "ece", "log_loss")
    empty = _Counts(*(np.zeros(len(names)) for _ in range(3)))
    return {
        "n": 0,
        **dict.fromkeys((*metrics, "baseline_majority")),
        "per_class": _per_class(names, empty),
        "confusion": {"labels": names, "counts": np.zeros((len(names), len(names)), dtype=int).tolist()},
        "ci95": dict.fromkeys([name for name in (*metrics, "baseline_majority") if name != "accuracy_ci95"]),
    }


def _per_class(names: list[str], counts: _Counts) -> dict[str, dict[str, Any]]:
    """Each class's own scores; its intervals are Wilson's, because resampling sees no spread where a class is all right or all wrong."""
    rows: dict[str, dict[str, Any]] = {}
    for name, both, labelled, predicted in zip(names, counts.both, counts.labelled, counts.predicted, strict=True):
        if labelled == 0:
            rows[name] = {"precision": None, "recall": None, "f1": None, "n": 0, "ci95": {"precision": None, "recall": None, "f1": None}}
            continue
        rows[name] = {
            "precision": float(both / predicted) if predicted else 0.0,
            "recall": float(both / labelled),
            "f1": float(2 * both / (labelled + predicted)),
            "n": int(labelled),
            "ci95": {
                "precision": list(wilson(both, predicted)),
                "recall": list(wilson(both, labelled)),
                "f1": list(f1_interval(both, labelled, predicted)),
            },
        }
    return rows


def _averages(counts: _Counts) -> tuple[NDArray[np.float64], ...]:
    """Macro precision, recall and F1, and F1 weighted by photos, over the classes that have photos: [...] each from counts [..., k]."""
    present = counts.labelled > 0
    n_present = present.sum(axis=-1)
    precision = counts.both / np.maximum(counts.predicted, 1)
    recall = counts.both / np.maximum(counts.labelled, 1)
    f1 = 2 * counts.both / np.maximum(counts.labelled + counts.predicted, 1)

    def macro(values: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray((values * present).sum(axis=-1) / n_present)

    weighted = np.asarray((f1 * counts.labelled).sum(axis=-1) / counts.labelled.sum(axis=-1))
    return macro(precision), macro(recall), macro(f1), weighted


def _bootstrap_averages(
    labels: NDArray[np.int64],
    predicted: NDArray[np.int64],
    log_losses: NDArray[np.float64],
    n_classes: int,
    *,
    accuracy: tuple[float, Interval],
    seed: int,
) -> dict[str, Interval]:
    """Percentile intervals of the averages and of log loss, all from the same resamples."""
    right = labels == predicted

    def statistic(weights: Weights) -> NDArray[np.float64]:
        both = _sum_by(weights * right, labels, n_classes)
        counts = _Counts(both, _sum_by(weights, labels, n_classes), _sum_by(weights, predicted, n_classes))
        return np.stack([*_averages(counts), weights @ log_losses / len(labels)], axis=1)

    found = percentile(bootstrap(statistic, len(labels), seed=seed))
    ci95 = {name: (float(low), float(high)) for name, (low, high) in zip(_BOOTSTRAPPED, found, strict=True)}
    share, interval = accuracy
    if share in (0.0, 1.0):
        # All right or all wrong: resamples cannot differ, and "1.00 to 1.00" would be a lie. The averages then equal accuracy.
        ci95 |= {name: interval for name in _BOOTSTRAPPED if name != "log_loss"}
    return ci95


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
