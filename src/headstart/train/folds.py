"""Folds for choosing a head's strength: stratified, whole groups only, seeded, the same in whatever order the rows come."""

from hashlib import blake2b

import numpy as np

ALWAYS_TRAINING = -1
"""The fold of a row that is never held out, because its class would then have nothing to learn from."""


def assign_folds(x: np.ndarray, labels: np.ndarray, n_folds: int, *, groups: np.ndarray | None, seed: int) -> np.ndarray:
    """Put each row into one of `n_folds` parts of about equal size and mixture of classes.

    Rows are told apart by their content and not by their place, so that listing the same photos in another order changes nothing.

    Args:
        x: [n, d] features; only hashed. labels: int64 [n], each >= 0. n_folds: >= 2.
        groups: [n] of any comparable type; rows of one group share a fold. None: every row is a group of its own.

    Returns: int64 [n], the fold (0 to n_folds - 1) that holds the row out, or ALWAYS_TRAINING where all of a class fell into one fold.
    """
    members, group_of = _members(len(x), groups)
    keys = np.array([_key(row, label, seed) for row, label in zip(x, labels.tolist(), strict=True)], dtype=np.uint64)
    members.sort(key=lambda rows: (-len(rows), keys[rows].min()))  # large groups first, while there is room to balance them
    fold_of = np.empty(len(x), dtype=np.int64)
    per_class = [[0] * n_folds for _ in range(int(labels.max(initial=0)) + 1)]
    sizes = [0] * n_folds
    for rows in members:
        classes = labels[rows].tolist()
        # The fold that has least of these classes; among equals, the smallest.
        fold = min(range(n_folds), key=lambda f: (sum(per_class[c][f] for c in classes), sizes[f]))
        for c in classes:
            per_class[c][fold] += 1
        sizes[fold] += len(rows)
        fold_of[rows] = fold
    return _keep_every_class_learnable(fold_of, labels, group_of)


def _key(row: np.ndarray, label: int, seed: int) -> int:
    return int.from_bytes(blake2b(row.tobytes() + b"%d,%d" % (label, seed), digest_size=8).digest(), "little")


def _members(n: int, groups: np.ndarray | None) -> tuple[list[np.ndarray], np.ndarray]:
    """The rows of each group, and the group of each row [n]."""
    group_of = np.arange(n) if groups is None else np.unique(groups, return_inverse=True)[1]
    order = np.argsort(group_of, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(group_of[order])) + 1), group_of


def _keep_every_class_learnable(fold_of: np.ndarray, labels: np.ndarray, group_of: np.ndarray) -> np.ndarray:
    """Where all rows of a class lie in one fold, the model tested there would not know the class: their groups are never held out."""
    for label in np.unique(labels):
        rows = labels == label
        folds = np.unique(fold_of[rows])
        if len(folds) == 1 and folds[0] != ALWAYS_TRAINING:
            fold_of = np.where(np.isin(group_of, group_of[rows]), ALWAYS_TRAINING, fold_of)
    return fold_of
