"""The temperature at which held-out logits claim neither too much nor too little, and the log loss that is left then."""

from dataclasses import dataclass

import torch

RANGE = (0.05, 20.0)
"""Where logits and labels agree perfectly (or not at all) the best temperature would be 0 (or infinite): the nearest end is given."""

_MAX_STEPS = 60
_PRECISION = 1e-6  # relative, of the temperature


@dataclass(frozen=True)
class Calibrated:
    """temperature: what to divide logits by. log_loss: mean negative log-likelihood after that, nats."""

    temperature: float
    log_loss: float


def calibrate(logits: torch.Tensor, labels: torch.Tensor, weights: torch.Tensor) -> Calibrated:
    """The temperature that minimises the weighted mean log loss.

    The loss is convex in the inverse temperature: Newton's method, kept between the ends of the interval that still holds the zero of
    the slope, takes about six passes where halving takes sixty.

    Args: logits: float32 [n, k], n >= 1. labels: int64 [n]. weights: [n], > 0.
    """
    z = logits.double() - logits.double().mean(1, keepdim=True)
    share = weights.double() / weights.double().sum()
    target = share @ z.gather(1, labels[:, None])[:, 0]
    low, high, inverse = 1 / RANGE[1], 1 / RANGE[0], 1.0
    for _ in range(_MAX_STEPS):
        p = torch.softmax(inverse * z, 1)
        mean = (p * z).sum(1)
        slope = float(share @ mean - target)
        curvature = float(share @ ((p * z * z).sum(1) - mean * mean))
        low, high = (inverse, high) if slope < 0 else (low, inverse)
        step = inverse - slope / curvature if curvature > 0 else inverse
        nearer = step if low < step < high else (low * high) ** 0.5
        if slope == 0 or abs(nearer - inverse) <= _PRECISION * inverse:
            break
        inverse = nearer
    log_probs = torch.log_softmax(inverse * z, 1)
    return Calibrated(1 / inverse, float(-(share @ log_probs.gather(1, labels[:, None])[:, 0])))
