"""Tables and features made for the checks of labels: no files behind them."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from headstart.data.table import Photo, Table


def make_table(labels: Sequence[str], *, classes: Sequence[str] | None = None, **each: Sequence[Any]) -> Table:
    """A table of photos with these labels; `each` gives a field of Photo its values, photo by photo."""
    photos = []
    for i, label in enumerate(labels):
        facts: dict[str, Any] = {"path": f"{label}/{i}.jpg", "sha256": hashlib.sha256(f"{i}".encode()).hexdigest(), "format": "JPEG"}
        photos.append(Photo(label=label, **{**facts, **{name: values[i] for name, values in each.items()}}))
    return Table(Path("photos"), tuple(photos), tuple(sorted(set(labels) if classes is None else classes)))


def make_rows(labels: np.ndarray, d: int, *, noise: float, seed: int = 0) -> np.ndarray:
    """Features float16 [n, d]: a point of its own for every class, and noise around it."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(int(labels.max()) + 1, d))
    return (centres[labels] + noise * rng.normal(size=(len(labels), d))).astype(np.float16)
