"""None of these: does a photo look like any class the model knows? By the energy of its logits. docs/concepts/none-of-these.md tells why.

numpy only.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from headstart.evaluate.conformal import rank_of
from headstart.evaluate.intervals import wilson

SCORE = "energy"
FALSE_ALARMS = 0.05


@dataclass(frozen=True)
class Novelty:
    """When a photo is said to be none of the classes: where its energy is above `threshold`.

    false_alarms: share of photos of the known classes that may be called so, 0..1.
    threshold: None where the photos were too few to fix it.
    n: photos that fixed it; reason: why there is none, a sentence.
    """

    false_alarms: float
    threshold: float | None
    n: int
    reason: str | None = None

    def to_json(self, detection: float | None = None) -> dict[str, Any] | None:
        """What bundle.json keeps; None without a threshold. Args: detection: share of photos of a class left out that it finds."""
        if self.threshold is None:
            return None
        return {"score": SCORE, "threshold": self.threshold, "false_alarms": self.false_alarms, "detection": detection}


def energy(logits: ArrayLike, temperature: float = 1.0) -> NDArray[np.float64]:
    """-T * ln(sum over classes of exp(logit / T)): the higher, the less the photo looks like any class. float64 [n] from logits [n, k].

    The temperature hardly matters: between a quarter of the calibrated one and four times as much, detection of left-out classes moved by
    0.035 at most (bench/novelty.py). So bundles use 1.

    Source: Liu, Wang, Owens and Li (2020), "Energy-based out-of-distribution detection".
    """
    z = np.asarray(logits, dtype=np.float64) / temperature
    highest = z.max(axis=1, keepdims=True)
    return np.asarray(-temperature * (highest[:, 0] + np.log(np.exp(z - highest).sum(axis=1))))


def threshold(scores: ArrayLike, false_alarms: float = FALSE_ALARMS) -> float | None:
    """The score that a new photo of the known classes exceeds with the probability `false_alarms`, or less.

    The ceil((n + 1) * (1 - false_alarms))-th smallest; so it takes 19 photos to fix it for 5 %. With fewer: None.

    Args: scores: [n], of photos of the known classes that did not train the head; higher is stranger.
    """
    if not 0 < false_alarms < 1:
        raise ValueError(f"expected a share of false alarms over 0 and under 1, found {false_alarms}")
    s = np.asarray(scores, dtype=np.float64)
    rank = rank_of(len(s), 1 - false_alarms)
    return float(np.partition(s, rank - 1)[rank - 1]) if rank <= len(s) else None


def fit(logits: ArrayLike, false_alarms: float = FALSE_ALARMS) -> Novelty:
    """The energy above which a photo is none of the classes. Args: logits: [n, k], of photos that did not train the head; n >= 0."""
    z = np.asarray(logits, dtype=np.float64)
    found = threshold(energy(z), false_alarms) if len(z) else None
    if found is None:
        few = f"{len(z)} photos that did not train the model are too few to allow {false_alarms:.0%} false alarms"
        return Novelty(false_alarms, None, len(z), f"{few}: {round(1 / false_alarms) - 1} are the least")
    return Novelty(false_alarms, found, len(z))


def measure(novelty: Novelty, known: ArrayLike) -> dict[str, Any]:
    """How often photos of the known classes, which had no part in the threshold, are called none of them.

    Args: known: bool [n], what the model says of them (`Prediction.known`).
    Returns: `n`, `false_alarms` (share of them, 0..1), `false_alarms_ci95` (Wilson). Only `reason`, a sentence, where
        there is no threshold, or no photo.
    """
    k = np.asarray(known)
    if novelty.threshold is None or not len(k):
        return {"reason": "no photo to test on" if novelty.reason is None else novelty.reason}
    n_called = int((~k.astype(bool)).sum())
    return {"n": len(k), "false_alarms": n_called / len(k), "false_alarms_ci95": list(wilson(n_called, len(k)))}
