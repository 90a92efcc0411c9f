"""How far an answer can be relied on: "none of these" and sets of labels, fixed on photos that the model did not learn from."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from headstart.evaluate import conformal, novelty
from headstart.train.leave_out import leave_one_class_out


@dataclass(frozen=True)
class Held:
    """What the model said of photos that did not train it; they fix the thresholds.

    logits, probs (calibrated): [n, k]. labels: int64 [n].
    """

    logits: np.ndarray
    probs: np.ndarray
    labels: np.ndarray


@dataclass(frozen=True)
class Certainty:
    """The thresholds of a trained model.

    left_out: what `leave_one_class_out` found. is_own: whether it tried this model's kind of head, on its features.
    """

    classes: tuple[str, ...]
    novelty: novelty.Novelty
    conformal: conformal.Conformal
    left_out: dict[str, Any]
    is_own: bool

    def for_bundle(self) -> dict[str, dict[str, Any] | None]:
        """What bundle.json keeps, by field."""
        detection = self.left_out["detection"] if self.is_own else None
        return {"none_of_these": self.novelty.to_json(detection), "conformal": self.conformal.to_json()}

    def measured(self, probs: np.ndarray, known: Sequence[bool | None], labels: np.ndarray, *, seed: int) -> dict[str, dict[str, Any]]:
        """What metrics.json keeps, by field, from the finished model's answers for test photos.

        Args: probs: [n, k]. known: [n], `Prediction.known`. labels: int64 [n].
        """
        return {
            "none_of_these": {**self.left_out, "test": novelty.measure(self.novelty, np.array(known))},
            "conformal": conformal.measure(self.conformal, probs, labels, self.classes, seed=seed),
        }


def fit(
    held: Held,
    rows: np.ndarray,
    labels: np.ndarray,
    classes: Sequence[str],
    *,
    groups: np.ndarray | None = None,
    seed: int = 0,
    strength: float | None = None,
    balanced: bool = False,
) -> Certainty:
    """Fix both thresholds, and try "none of these" on classes left out.

    Args:
        held: of the photos that fix the temperature.
        rows, labels, classes, groups, seed: of `leave_one_class_out`, on photos that are not for testing.
        strength: of the solved head that the model ends in; None: it ends in anything else, which leaving classes out only estimates.
        balanced: whether the head was solved with balanced class weights.
    """
    left_out = leave_one_class_out(rows, labels, classes, groups=groups, seed=seed, strength=strength, balanced=balanced)
    return Certainty(tuple(classes), novelty.fit(held.logits), conformal.fit(held.probs, held.labels), left_out, strength is not None)
