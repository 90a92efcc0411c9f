"""Would the model notice a class it was never shown? Each class is left out in turn, the head solved again, and its photos tried.

Three scores are asked side by side: energy, which bundles use; distance to the nearest stored feature; the top probability.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from headstart.evaluate import curves, novelty
from headstart.evaluate.calibrate import temperature
from headstart.evaluate.intervals import bootstrap, percentile, wilson
from headstart.progress import progress
from headstart.train.folds import assign_folds
from headstart.train.head import FOLDS, LinearHead, balanced_weights, solve_linear

MOST_CLASSES = 10
MOST_ROWS = 1_000  # that heads are solved on; more where there are so many classes that each would have under _ROWS_A_CLASS
SCORES = ("energy", "nearest", "probability")

_ROWS_A_CLASS = 10
_ALL_FOLDS_ROWS = 400  # up to here every row is held out once; beyond, one fifth is enough
_TOGETHER = 20  # one class in so many is left out at once: a head hardly changes with one class in twenty, and is solved less often
_LEAST_UNKNOWN = 5  # photos; fewer say nothing about a class
_BLOCK_BYTES = 2**25  # of one block of similarities


def leave_one_class_out(
    rows: np.ndarray,
    labels: np.ndarray,
    classes: Sequence[str],
    *,
    groups: np.ndarray | None = None,
    seed: int = 0,
    most_classes: int = MOST_CLASSES,
    strength: float | None = None,
    balanced: bool = False,
) -> dict[str, Any]:
    """Detection of classes that a head was solved without, at 5 % false alarms among held-out photos of the others.

    What it says of a tuned network is an estimate: the features are those of the published one. With 40 classes and more, several are
    left out at once, at most one in twenty. Cost is bounded: at most `most_classes` are tried, on about 1,000 rows.

    Args:
        rows: float16 or float32 [n, d], features of photos that are not for testing. labels: int64 [n], 0..k-1.
        classes: k names.
        groups: [n]; photos of one group are held out together, as in `solve_linear`.
        seed: of the choice of rows, classes and folds.
        strength: L2 penalty of the head, as the run chose it; None: searched once.
        balanced: whether every class counts the same, however few photos it has, as the run chose it.

    Returns: `false_alarms` (0.05), `n_classes` (left out), `n_photos` (of them), `scores`: for `energy`, `nearest` and `probability`:
        `detection` (share of a left-out class found, mean over classes), `detection_ci95` (bootstrap over classes), `auroc`, `auroc_ci95`;
        `per_class` by name: `n`, and for each score `detection` and `auroc`, with energy's `detection_ci95` (Wilson). Without enough
        classes or photos: `reason`, a sentence, and `detection` None, no `scores`.
    """
    kept = _some_rows(labels, len(classes), seed)
    x, y = rows[kept], labels[kept]
    g = None if groups is None else groups[kept]
    counts = np.bincount(y, minlength=len(classes))
    tried = np.flatnonzero(counts >= _LEAST_UNKNOWN)
    tried = np.sort(np.random.default_rng(seed).permutation(tried)[:most_classes])
    n_present = int((counts > 0).sum())
    if n_present < 3 or not len(tried):
        return _nothing(f"expected at least 3 classes, one of them with {_LEAST_UNKNOWN} photos, to leave one out")
    if strength is None:
        strength = _solve(x, y, len(classes), g, balanced, seed=seed, folds=1).strength
    at_once = max(1, n_present // _TOGETHER)
    per_class: dict[str, dict[str, Any]] = {}
    with progress("Leaving classes out", len(tried), "classes") as advance:
        for out in np.array_split(tried, -(-len(tried) // at_once)):
            found = _without(x, y, g, out, strength, balanced, seed)
            if found is None:
                return _nothing("too few photos of the other classes can be held out to allow 5 % false alarms")
            per_class |= {classes[c]: scores for c, scores in found.items()}
            advance(len(out))
    return {
        "false_alarms": novelty.FALSE_ALARMS,
        "n_classes": len(per_class),
        "n_photos": sum(one["n"] for one in per_class.values()),
        "detection": _mean(per_class, "energy", "detection", seed)[0],
        "scores": {score: _summary(per_class, score, seed) for score in SCORES},
        "per_class": per_class,
    }


def _nothing(reason: str) -> dict[str, Any]:
    return {"false_alarms": novelty.FALSE_ALARMS, "detection": None, "reason": reason}


def _some_rows(labels: np.ndarray, n_classes: int, seed: int) -> np.ndarray:
    """Indices of at most about MOST_ROWS rows, the same number of each class as far as it goes, in their order."""
    each = max(_ROWS_A_CLASS, MOST_ROWS // n_classes)
    if len(labels) <= each * n_classes:
        return np.arange(len(labels))
    shuffled = np.random.default_rng(seed).permutation(len(labels))
    by_class = shuffled[np.argsort(labels[shuffled], kind="stable")]
    counts = np.bincount(labels, minlength=n_classes)
    place = np.arange(len(labels)) - np.repeat(np.cumsum(counts) - counts, counts)
    return np.sort(by_class[place < each])


def _solve(x: np.ndarray, y: np.ndarray, k: int, groups: np.ndarray | None, balanced: bool, **options: Any) -> LinearHead:
    return solve_linear(x, y, k, groups=groups, class_weights=balanced_weights(y, k) if balanced else None, **options)


def _without(
    x: np.ndarray, y: np.ndarray, groups: np.ndarray | None, out: np.ndarray, strength: float, balanced: bool, seed: int
) -> dict[int, dict[str, Any]] | None:
    """Each left-out class's scores by its index; None where too few known photos were held out to fix a threshold."""
    known = ~np.isin(y, out)
    present, labels = np.unique(y[known], return_inverse=True)
    rows, g = x[known], None if groups is None else groups[known]
    folds = FOLDS if len(rows) <= _ALL_FOLDS_ROWS else 1
    head = _solve(rows, labels, len(present), g, balanced, seed=seed, strengths=[strength], folds=folds)
    if not len(head.oof_index):
        return None
    fold_of = assign_folds(rows, labels, FOLDS, groups=g, seed=seed)  # those that the head was solved with
    scale = temperature(head.oof_logits, labels[head.oof_index])
    of_known = _scores(head.oof_logits, scale) | {"nearest": _held_out_distances(rows, fold_of, head)}
    least = {name: novelty.threshold(scores) for name, scores in of_known.items()}
    found = {}
    for c in out.tolist():
        of_class = _scores(head.logits(x[y == c]), scale) | {"nearest": _distances(x[y == c], rows)}
        n = int((y == c).sum())
        one: dict[str, Any] = {"n": n}
        for name in SCORES:
            if (above := least[name]) is None:
                return None
            n_found = int((of_class[name] > above).sum())
            one[name] = {"detection": n_found / n, "auroc": _auroc(of_known[name], of_class[name])}
            if name == novelty.SCORE:
                one[name]["detection_ci95"] = list(wilson(n_found, n))
        found[c] = one
    return found


def _auroc(known: np.ndarray, unknown: np.ndarray) -> float:
    """Probability that a photo of the class left out scores higher than a known one, 0..1; a tie counts half. From scores [n] and [m]."""
    scores = np.concatenate([unknown, known])[:, None]
    area = curves.areas(scores, (np.arange(len(scores)) >= len(unknown)).astype(np.int64)).roc_auc[0]
    assert area is not None  # there are photos of both
    return area.value


def _scores(logits: np.ndarray, scale: float) -> dict[str, np.ndarray]:
    """Strangeness by energy and by the calibrated top probability, [n] each, from logits [n, k]."""
    z = logits.astype(np.float64) / scale
    top = 1 / np.exp(z - z.max(axis=1, keepdims=True)).sum(axis=1)
    return {"energy": novelty.energy(logits), "probability": -top}


def _held_out_distances(rows: np.ndarray, fold_of: np.ndarray, head: LinearHead) -> np.ndarray:
    """Each held-out row's distance to the rows its head was solved on, in the order of `head.oof_index`."""
    found = np.zeros(len(rows))
    for fold in np.unique(fold_of[head.oof_index]):
        held_out = fold_of == fold
        found[held_out] = _distances(rows[held_out], rows[~held_out])
    return np.asarray(found[head.oof_index])


def _distances(rows: np.ndarray, stored: np.ndarray) -> np.ndarray:
    """Cosine distance to the nearest stored row, 0..2: [n] from rows [n, d] and stored [m, d].

    The nearest, not the fifth or the fiftieth: it did better on every network tried (bench/novelty.py).
    Source: Sun, Ming, Zhu and Li (2022), "Out-of-distribution detection with deep nearest neighbors".
    """
    ends, unit = [], _unit(stored)
    step = max(1, _BLOCK_BYTES // (4 * len(stored)))
    for start in range(0, len(rows), step):
        ends.append((_unit(rows[start : start + step]) @ unit.T).max(axis=1))
    return np.asarray(1.0 - np.concatenate(ends).astype(np.float64))


def _unit(rows: np.ndarray) -> np.ndarray:
    values = rows.astype(np.float32)
    return np.asarray(values / np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-12))


def _summary(per_class: dict[str, dict[str, Any]], score: str, seed: int) -> dict[str, Any]:
    summary: dict[str, Any] = {}
    for name in ("detection", "auroc"):
        mean, low, high = _mean(per_class, score, name, seed)
        summary |= {name: mean, f"{name}_ci95": [low, high]}
    return summary


def _mean(per_class: dict[str, dict[str, Any]], score: str, name: str, seed: int) -> tuple[float, float, float]:
    """Mean over classes, and its interval from resampling them: which class is new is the luck that matters most."""
    values = np.array([one[score][name] for one in per_class.values()])
    low, high = percentile(bootstrap(lambda weights: (weights @ values / len(values))[:, None], len(values), seed=seed))[0]
    return float(values.mean()), float(low), float(high)
