"""Between the probe and the tuned network: averages of their weights, and which of all candidates val prefers.

Fine-tuned weights still lie in the valley where they started, so weights in between are good networks too, and often generalise better
than either end. Source: Wortsman et al. (2022), "Robust fine-tuning of zero-shot models" (WiSE-FT), arXiv:2109.01903.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from headstart.backbone.cut import Tail
from headstart.evaluate.calibrate import calibrate

ALPHAS = (0.25, 0.5, 0.75)
"""Shares of the tuned weights in the averages that are tried; 0 is the probe, 1 the tuned network."""

STANDARD_ERRORS = 1.0
"""A candidate farther from the probe is taken only where val prefers it by more than this many standard errors of the difference."""


@dataclass(frozen=True)
class Scored:
    """How a candidate did on the val photos that select."""

    alpha: float
    "share of the tuned weights, 0 (the probe) to 1"
    accuracy: float
    losses: np.ndarray
    "float64 [n], negative log-likelihood of each photo's label (nats), after the temperature that is best for them all"

    @property
    def loss(self) -> float:
        """Mean of the losses."""
        return float(self.losses.mean())

    def to_json(self) -> dict[str, float]:
        """For run.json."""
        return {"val_accuracy": self.accuracy, "val_loss": self.loss}


def averaged(start: Tail, tuned: Tail, alpha: float) -> Tail:
    """The tail whose every weight is (1 - alpha) times that of `start` plus alpha times that of `tuned`, of the same tensors.

    Statistics of batch norms are averaged like weights; counters are those of `tuned`.
    """
    between, state = copy.deepcopy(tuned), start.state_dict()
    mixed = {name: state[name].lerp(end, alpha) if end.is_floating_point() else end for name, end in tuned.state_dict().items()}
    between.load_state_dict(mixed)
    return between.eval()


def can_average(start: Tail, tuned: Tail) -> bool:
    """Whether both hold the same tensors in the same shapes: not so where the head was replaced."""
    shapes = [{name: tensor.shape for name, tensor in tail.state_dict().items()} for tail in (start, tuned)]
    return shapes[0] == shapes[1]


def score(alpha: float, logits: np.ndarray, labels: np.ndarray) -> Scored:
    """Score a candidate by its logits [n, k] for n >= 1 photos.

    The loss is taken after temperature scaling: how loud the logits are is set later, so it should not sway the choice.
    """
    z = logits.astype(np.float64) / calibrate(logits, labels).temperature
    z -= z.max(axis=1, keepdims=True)
    losses = np.log(np.exp(z).sum(axis=1)) - z[np.arange(len(labels)), labels]
    return Scored(alpha, float((logits.argmax(1) == labels).mean()), losses)


def choose(candidates: Sequence[Scored]) -> Scored:
    """The candidate to keep; the first is the probe, the others follow with rising alpha.

    No candidate with a lower accuracy or a higher loss than the probe's is considered. Of the others the one nearest to the probe is
    taken whose loss is within STANDARD_ERRORS of the lowest, by the standard error of the photos' paired differences: a gain that may
    be chance is none.
    """
    probe = candidates[0]
    fit = [one for one in candidates if one.accuracy >= probe.accuracy and one.loss <= probe.loss]
    best = min(fit, key=lambda one: one.loss)
    return next(one for one in fit if one.loss - best.loss <= STANDARD_ERRORS * _standard_error(one.losses - best.losses))


def _standard_error(differences: np.ndarray) -> float:
    """Of the mean; 0 for fewer than two photos."""
    n = len(differences)
    return float(differences.std(ddof=1)) / n**0.5 if n > 1 else 0.0
