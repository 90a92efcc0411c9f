"""An exported network beside its original on the same photos, and whether it may be kept: the bars, and the numbers under them."""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from headstart.bundle.predict import read, softmax
from headstart.data.pixels import Preprocessing
from headstart.data.reading import read_ahead
from headstart.errors import DataError, safe_text
from headstart.evaluate.comparison import tango
from headstart.evaluate.intervals import Interval, wilson
from headstart.features.runtime import cores
from headstart.progress import progress

LARGEST_DIFFERENCE = 1e-3
"""of any probability, that an fp32 export may show"""
MARGIN = 0.01
"""between the original's two most probable labels: where it is larger, bf16 must give the same answer"""
MAX_DROP = 0.5
"""points of accuracy: an int8 export is refused where the 95 % interval of its drop lies above"""

_BATCH = 32


class Asked(Protocol):
    """A network that answers."""

    def run(self, images: np.ndarray) -> np.ndarray:
        """uint8 [n, px, px, 3] -> logits [n, k]."""


@dataclass(frozen=True)
class Way:
    """One way to run the exported network, and how its answers compare with the original's.

    engine: with version. n: photos compared. n_differ: of them with another answer; largest_margin: among these, the largest difference of
    the original's two highest probabilities. largest_difference: of any probability of any photo. accuracy, drop (points of accuracy
    lost, 0 to 1) and their intervals: null without labels.
    """

    engine: str
    provider: str
    precision: str
    n: int
    n_differ: int
    largest_margin: float
    largest_difference: float
    accuracy: float | None
    accuracy_ci95: Interval | None
    drop: float | None
    drop_ci95: Interval | None
    passed: bool
    bar: str
    found: str

    @property
    def agreement(self) -> float:
        """Share of photos with the same answer."""
        return 1 - self.n_differ / self.n


@dataclass(frozen=True)
class Bar:
    """What is asked of an export. int8: whether its network is. max_drop: points of accuracy, 0 to 100."""

    int8: bool
    max_drop: float = MAX_DROP


def ask(networks: Sequence[Asked], files: Sequence[Path], preprocessing: Preprocessing) -> list[NDArray[np.float32]]:
    """Each network's logits [n, k] for these photos, read from their files once.

    Raises: DataError: one cannot be read.
    """
    answers: list[list[np.ndarray]] = [[] for _ in networks]
    with progress("Testing the export", len(files)) as advance:
        for batch in batches(files, preprocessing):
            for rows, network in zip(answers, networks, strict=True):
                rows.append(network.run(batch))
            advance(len(batch))
    return [np.concatenate(rows) for rows in answers]


def batches(files: Sequence[Path], preprocessing: Preprocessing) -> Iterator[NDArray[np.uint8]]:
    """The photos as the network takes them, uint8 [n, px, px, 3], in order. Raises: DataError: one cannot be read."""
    reading = read_ahead(lambda file: read(file, preprocessing), files, threads=cores(), ahead=2 * _BATCH + cores())
    batch: list[np.ndarray] = []
    with contextlib.closing(reading):  # type: ignore[type-var]
        for photo in reading:
            if photo.pixels is None:
                raise DataError(f"cannot read {safe_text(photo.path)} any more: {photo.reason}", hint="run the same command again")
            batch.append(photo.pixels)
            if len(batch) == _BATCH:
                yield np.stack(batch)
                batch = []
    if batch:
        yield np.stack(batch)


def compare(
    original: NDArray[np.floating],
    found: NDArray[np.floating],
    labels: NDArray[np.int64] | None,
    *,
    engine: str,
    provider: str,
    precision: str,
    temperature: float,
    bar: Bar,
) -> Way:
    """Judge one way to run the export by its logits and the original's, [n, k] both.

    Args: labels: the right classes, int64 [n], or None. precision: what it computed in; `fp32` or `bf16`.
    """
    before, after = softmax(original / temperature), softmax(found / temperature)
    two = np.sort(before, axis=1)[:, -2:]
    margins = two[:, -1] - two[:, 0] if before.shape[1] > 1 else np.zeros(len(before))
    differ = before.argmax(axis=1) != after.argmax(axis=1)
    largest_margin = float(margins[differ].max()) if differ.any() else 0.0
    largest = float(np.abs(before - after).max()) if np.isfinite(after).all() else float("inf")
    accuracy, drop = (None, None) if labels is None else _accuracies(before, after, labels)
    passed, asked, seen = _judged(bar, precision, largest, largest_margin, drop)
    return Way(
        engine=engine,
        provider=provider,
        precision=precision,
        n=len(before),
        n_differ=int(differ.sum()),
        largest_margin=largest_margin,
        largest_difference=largest,
        accuracy=None if accuracy is None else accuracy[0],
        accuracy_ci95=None if accuracy is None else accuracy[1],
        drop=None if drop is None else drop[0],
        drop_ci95=None if drop is None else drop[1],
        passed=passed,
        bar=asked,
        found=seen,
    )


def _accuracies(
    before: NDArray[np.float32], after: NDArray[np.float32], labels: NDArray[np.int64]
) -> tuple[tuple[float, Interval], tuple[float, Interval]]:
    """Accuracy of the export, and what it lost against the original, each with its 95 % interval; the second is paired."""
    was_right, is_right = before.argmax(axis=1) == labels, after.argmax(axis=1) == labels
    n, n_right = len(labels), int(is_right.sum())
    only_before, only_after = int((was_right & ~is_right).sum()), int((is_right & ~was_right).sum())
    low, high = tango(only_after, only_before, n)
    return (n_right / n, wilson(n_right, n)), ((only_before - only_after) / n, (low, high))


def _judged(bar: Bar, precision: str, largest: float, largest_margin: float, drop: tuple[float, Interval] | None) -> tuple[bool, str, str]:
    """Whether it passed; what was asked; what was found."""
    if bar.int8 and drop is not None:
        low, high = (100 * end for end in drop[1])
        asked = f"interval of the accuracy drop not above {bar.max_drop:g} points"
        return np.isfinite(largest).item() and low <= bar.max_drop, asked, f"{100 * drop[0]:.1f} points, {low:.1f} to {high:.1f}"
    if precision == "bf16":
        asked = f"the same answer wherever the margin exceeds {MARGIN:g}"
        seen = f"another answer at a margin of {largest_margin:.3f}" if largest_margin else "the same answers"
        return np.isfinite(largest).item() and largest_margin <= MARGIN, asked, seen
    return largest <= LARGEST_DIFFERENCE, f"no probability off by more than {LARGEST_DIFFERENCE:g}", f"{largest:.2g}"
