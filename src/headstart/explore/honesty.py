"""How much copies flatter: the same head, scored with look-alikes kept on one side of every fold, and without."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from headstart.data.table import Table
from headstart.evaluate.intervals import Interval, held_out_interval, mcnemar

NOISE = 0.05  # a difference that chance makes this often, or more often, is noise

_MOST_OPERATIONS = 1e9  # photos x features x classes: 20,000 x 512 x 100 take 10 s of processor time
_LEAST_PHOTOS = 500  # are looked at, however many classes there are


@dataclass(frozen=True)
class Score:
    """Accuracy of `n` photos that the head had not seen, 0 to 1, with its 95 % interval."""

    accuracy: float
    accuracy_ci95: Interval
    n: int

    def to_json(self) -> dict[str, Any]:
        low, high = self.accuracy_ci95
        return {"accuracy": round(self.accuracy, 4), "accuracy_ci95": [round(low, 4), round(high, 4)], "n": self.n}


@dataclass(frozen=True)
class Honesty:
    """The honest score and the naive one, on the same photos; p_equal: how often chance alone makes them differ this much or more."""

    honest: Score
    naive: Score
    p_equal: float

    @property
    def differ(self) -> bool:
        """Whether they differ beyond noise."""
        return self.p_equal < NOISE

    def to_json(self) -> dict[str, Any]:
        """Plain values: honest, naive, differ, p_equal."""
        return {"honest": self.honest.to_json(), "naive": self.naive.to_json(), "differ": self.differ, "p_equal": round(self.p_equal, 6)}


def naive_and_honest(rows: np.ndarray, table: Table, *, seed: int) -> Honesty | None:
    """Cross-validate a linear head twice: with every group of photos held out together, and with every photo for itself.

    The second, naive score is what most tools show: a copy of a held-out photo is among those that were learned from.

    Args:
        rows: float16 or float32 [n, d], the photos' features at the head.
        table: the same n photos; `group` names clusters of look-alikes, bursts and the user's groups (as `split_table` fills it in).
        seed: of the folds, and of the draw where there are more photos than a few seconds allow: whole groups are drawn.

    Returns: None where every photo stands alone, or none could be held out both ways.
    """
    from headstart.train.head import FOLDS, solve_linear  # PyTorch: only where something is solved

    labels, groups = table.labels, table.groups
    kept = draw_groups(groups, _affordable(len(table.classes), rows.shape[1]), seed)
    labels, groups, rows = labels[kept], groups[kept], rows[kept]
    if len(np.unique(groups)) == len(groups):
        return None
    k = len(table.classes)
    # One strength for both, found the honest way: the comparison is of the folds alone.
    strength = solve_linear(rows, labels, k, groups=groups, seed=seed, folds=1).strength
    tried = []
    for together in (groups, None):
        head = solve_linear(rows, labels, k, groups=together, seed=seed, strengths=[strength], folds=FOLDS)
        answers = np.full(len(rows), np.nan)
        answers[head.oof_index] = head.oof_logits.argmax(1) == labels[head.oof_index]
        tried.append((answers, head.folds))
    (honest, honest_folds), (naive, naive_folds) = tried
    both = np.isfinite(honest) & np.isfinite(naive)
    if not both.any():
        return None
    of_groups = groups[both]
    p_equal = _p_equal((naive - honest)[both], of_groups)
    return Honesty(score(honest[both], of_groups, honest_folds), score(naive[both], of_groups, naive_folds), p_equal)


def score(right: np.ndarray, groups: np.ndarray, n_folds: int) -> Score:
    """The share of photos that are `right` ([n], 0 to 1), which `n_folds` heads had not seen; its interval allows for groups and folds."""
    return Score(float(right.mean()), held_out_interval(right, groups, n_folds), len(right))


def draw_groups(groups: np.ndarray, most: int, seed: int) -> np.ndarray:
    """int64, rising: the rows of whole groups, drawn at random, about `most` in all; all where there are no more."""
    if len(groups) <= most:
        return np.arange(len(groups))
    _, group_of, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    order = np.random.default_rng(seed).permutation(len(sizes))
    chosen = order[: max(1, int(np.searchsorted(np.cumsum(sizes[order]), most, side="right")))]
    return np.flatnonzero(np.isin(group_of, chosen))


def content_keys(table: Table) -> np.ndarray:
    """uint8 [n, 32], what photos are told apart by where folds are drawn: their content, whatever their place and the backbone."""
    return np.frombuffer(bytes.fromhex("".join(table.sha256s)), np.uint8).reshape(len(table), -1)


def _affordable(k: int, d: int) -> int:
    """How many photos a few seconds allow."""
    return max(_LEAST_PHOTOS, int(_MOST_OPERATIONS / (k * d)))


def _p_equal(gain: np.ndarray, groups: np.ndarray) -> float:
    """McNemar's test with groups for photos: does the naive head do better or worse on more groups than chance would have it?"""
    _, group_of = np.unique(groups, return_inverse=True)
    gains = np.bincount(group_of, weights=gain)
    return mcnemar(int((gains > 0).sum()), int((gains < 0).sum()))
