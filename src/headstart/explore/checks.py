"""The abridged exploration that every training run makes, from what it has at hand: nothing is decoded again.

Test photos choose nothing here. They are compared for duplicates, which is how a leak shows; all else is of the other photos.
"""

from typing import Any

import numpy as np

from headstart.bundle.predict import softmax
from headstart.data.table import Table
from headstart.evaluate.calibrate import temperature
from headstart.explore.duplicates import find_duplicates
from headstart.explore.exploration import OutOfFold
from headstart.explore.growth import learning_curve
from headstart.explore.honesty import naive_and_honest
from headstart.explore.shortcuts import check_shortcuts
from headstart.explore.suspects import find_suspects


def checks(
    table: Table, rows: np.ndarray, oof_logits: np.ndarray, oof_index: np.ndarray, *, seed: int, whole: Table | None = None
) -> dict[str, Any]:
    """The content of checks.json (docs/formats.md).

    Args:
        table: photos that the network saw, split.
        rows: float [n, d], its features of them.
        oof_logits: float [m, k], what heads that had not seen these photos said of them.
        oof_index: int64 [m], which photos of `table` these are; none of test.
        whole: the run's table, where it has photos that the network did not see: a given test set.
    """
    known = np.flatnonzero([photo.split != "test" for photo in table.photos])
    seen, seen_rows = table.subset(known), rows[known]
    everything = table if whole is None else whole
    row_of = {photo.path: i for i, photo in enumerate(table.photos)}
    duplicates = find_duplicates(everything, rows, np.array([row_of.get(photo.path, -1) for photo in everything.photos], np.int64))
    suspects = find_suspects(_calibrated(oof_logits, table.labels[oof_index]), oof_index, table) if len(oof_index) else None
    honesty = naive_and_honest(seen_rows, seen, seed=seed)
    growth = learning_curve(seen_rows, seen, seed=seed)
    return {
        "duplicates": duplicates.to_json(),
        "naive": None if honesty is None else honesty.to_json(),
        "suspects": {"n": 0, "n_checked": 0, "photos": []} if suspects is None else suspects.to_json(),
        "shortcuts": [shortcut.to_json() for shortcut in check_shortcuts(seen, None, seed=seed)],
        "learning_curve": None if growth is None else growth.to_json(),
    }


def out_of_fold(logits: np.ndarray, photos: np.ndarray, table: Table, n_folds: int) -> OutOfFold | None:
    """Calibrated answers for photos that were held out in `n_folds` parts: logits [m, k] of `photos` [m]. None where none could be."""
    if len(photos) == 0:
        return None
    labels = table.labels[photos]
    return OutOfFold(photos, _calibrated(logits, labels), logits.argmax(axis=1) == labels, table.groups[photos], n_folds)


def _calibrated(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    return softmax(logits / temperature(logits, labels))
