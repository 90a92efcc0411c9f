"""Do probabilities mean what they say? Measured (expected calibration error, reliability) and set right (temperature)."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from headstart.evaluate.intervals import Interval, bootstrap, wilson

N_BINS = 15
TEMPERATURE_RANGE = (0.05, 20.0)

_MAX_STEPS = 60
_PRECISION = 1e-6  # relative, of the temperature

_N_NULL_ENTRIES = 2_000_000  # of one block of simulated outcomes


@dataclass(frozen=True, slots=True)
class Bin:
    """Photos whose top probability fell into one bin: what was claimed and what came true."""

    n: int
    low: float
    high: float
    confidence: float
    "mean top probability of these photos, 0..1"
    accuracy: float
    "share of them that is right, 0..1"
    accuracy_ci95: Interval


@dataclass(frozen=True, slots=True)
class Calibrated:
    """The best temperature for some logits, and the mean negative log-likelihood (nats) that is left with it."""

    temperature: float
    log_loss: float


def temperature(logits: ArrayLike, labels: ArrayLike) -> float:
    """The number to divide logits by so that their softmax is calibrated; see `calibrate`."""
    return calibrate(logits, labels).temperature


def calibrate(logits: ArrayLike, labels: ArrayLike, weights: ArrayLike | None = None) -> Calibrated:
    """The temperature that minimises the (weighted) mean negative log-likelihood of slightly smoothed labels.

    n right answers of n do not prove that the next one is right: by the rule of succession it is with (n + 1) / (n + 2). That is
    the probability the label is given, and the other classes share the rest evenly. Plain labels would drive the temperature of
    perfectly separated photos to 0; these keep 30 of them at 0.97, whatever k is, and leave next to nothing of themselves at 850.

    The loss is convex in 1 / temperature, so its slope has one zero: found by Newton's method, kept within the interval that still
    holds it, in about six passes. Beyond `TEMPERATURE_RANGE` (nearly all answers wrong, or logits of an unusual scale) the
    result is its nearest end. Where all logits are equal it is 1.

    Args:
        logits: [n, k], of photos that did not train the head, n >= 1.
        labels: int [n], 0..k-1.
        weights: [n], > 0, a photo of weight 2 counts as two; None for 1.

    Returns: temperature, 0.05..20; above 1 means that the logits claimed too much. The log loss is that of the plain labels.

    Source: Guo, Pleiss, Sun and Weinberger (2017), "On calibration of modern neural networks"; the smoothing is Platt's (1999,
    "Probabilistic outputs for support vector machines", section 2.2), with right and wrong answers for his two classes.
    """
    z = np.asarray(logits, dtype=np.float64)
    y = np.asarray(labels, dtype=np.int64)
    check(z, y, "logits")
    z = z - z.max(axis=1, keepdims=True)
    counts = np.ones(len(y)) if weights is None else np.asarray(weights, dtype=np.float64)
    n = float(counts.sum())
    shares = counts / n
    of_label = float(shares @ z[np.arange(len(y)), y])
    low, high = 1 / TEMPERATURE_RANGE[1], 1 / TEMPERATURE_RANGE[0]
    if not np.any(z):
        return Calibrated(1.0, float(np.log(z.shape[1])))
    of_others = (float(shares @ z.sum(axis=1)) - of_label) / (z.shape[1] - 1)  # k > 1, as not all of z is 0
    target = ((n + 1) * of_label + of_others) / (n + 2)
    if _slope(z, shares, target, low)[0] >= 0:
        inverse = low
    elif _slope(z, shares, target, high)[0] <= 0:
        inverse = high
    else:
        inverse = _zero_of_slope(z, shares, target, low, high)
    loss = shares @ np.log(np.exp(inverse * z).sum(axis=1)) - inverse * of_label
    return Calibrated(1 / inverse, float(loss))


def _slope(z: NDArray[np.float64], shares: NDArray[np.float64], target: float, inverse: float) -> tuple[float, float]:
    """First and second derivative of the mean loss by the inverse temperature: mean and variance of the logits under their softmax."""
    weights = np.exp(inverse * z)
    probs = weights / weights.sum(axis=1, keepdims=True)
    mean = (probs * z).sum(axis=1)
    return float(shares @ mean) - target, float(shares @ ((probs * z * z).sum(axis=1) - mean * mean))


def _zero_of_slope(z: NDArray[np.float64], shares: NDArray[np.float64], target: float, low: float, high: float) -> float:
    inverse = 1.0
    for _ in range(_MAX_STEPS):
        slope, curvature = _slope(z, shares, target, inverse)
        low, high = (inverse, high) if slope < 0 else (low, inverse)
        step = inverse - slope / curvature if curvature > 0 else inverse
        nearer = step if low < step < high else (low * high) ** 0.5
        if slope == 0 or abs(nearer - inverse) <= _PRECISION * inverse:
            break
        inverse = nearer
    return inverse


def ece(probs: ArrayLike, labels: ArrayLike, bins: int = N_BINS) -> float:
    """Expected calibration error: how far confidence and accuracy lie apart, averaged over photos, 0..1.

    Photos are sorted by their top probability into `bins` bins of equal width; bin i holds (i / bins, (i + 1) / bins]. In each, the gap
    is |mean top probability - share right|; the gaps are averaged by the number of photos in the bin.

    Args:
        probs: [n, k], rows sum to 1, n >= 1.
        labels: int [n], 0..k-1.
        bins: how many.

    Source: Naeini, Cooper and Hauskrecht (2015); Guo and others (2017).
    """
    confidence, right = _outcomes(probs, labels)
    which = _bin_of(confidence, bins)
    return float(np.abs(np.bincount(which, weights=right - confidence, minlength=bins)).sum() / len(right))


def ece_interval(probs: ArrayLike, labels: ArrayLike, *, seed: int, bins: int = N_BINS) -> Interval:
    """95 % interval of `ece`, corrected for the error it has even where the truth is 0.

    Chance alone opens gaps between confidence and accuracy, so the measured error is too large, and resampled ones are larger
    still: their plain percentiles can miss the truth nearly always (docs/concepts/honest-numbers.md). So the resamples' excess is
    subtracted (the basic bootstrap), and where perfectly calibrated probabilities would have measured as much, it starts at 0.

    Returns: lower and upper end, 0..1; the measured value lies within.
    """
    confidence, right = _outcomes(probs, labels)
    n = len(right)
    which = _bin_of(confidence, bins)
    gaps = np.zeros((n, bins))
    gaps[np.arange(n), which] = right - confidence
    measured = float(np.abs(gaps.sum(axis=0)).sum() / n)
    resampled = bootstrap(lambda weights: np.abs(weights @ gaps).sum(axis=1, keepdims=True) / n, n, seed=seed)
    lowest, highest = np.quantile(resampled, [0.025, 0.975])
    by_chance = float(np.quantile(_ece_by_chance(confidence, which, bins, seed=seed, n_draws=len(resampled)), 0.975))
    low = 0.0 if measured <= by_chance else max(0.0, 2 * measured - float(highest))
    return min(low, measured), min(1.0, max(measured, 2 * measured - float(lowest)))


def reliability(probs: ArrayLike, labels: ArrayLike, bins: int = N_BINS) -> list[Bin]:
    """The bins of `ece` that hold photos, in order of confidence."""
    confidence, right = _outcomes(probs, labels)
    which = _bin_of(confidence, bins)
    found = []
    for i in np.unique(which):
        inside = which == i
        n, n_right = int(inside.sum()), int(right[inside].sum())
        found.append(Bin(n, i / bins, (i + 1) / bins, float(confidence[inside].mean()), n_right / n, wilson(n_right, n)))
    return found


def _ece_by_chance(confidence: NDArray[np.float64], which: NDArray[np.int64], bins: int, *, seed: int, n_draws: int) -> NDArray[np.float64]:
    """What `ece` would measure if each photo were right with exactly the probability it claims: float64 [n_draws]."""
    n = len(confidence)
    rng = np.random.default_rng(seed)
    member = np.zeros((n, bins))
    member[np.arange(n), which] = 1.0
    claimed = confidence @ member
    step = max(1, _N_NULL_ENTRIES // n)
    found = []
    for start in range(0, n_draws, step):
        right = (rng.random((min(step, n_draws - start), n)) < confidence).astype(np.float64)
        found.append(np.abs(right @ member - claimed).sum(axis=1) / n)
    return np.concatenate(found)


def _outcomes(probs: ArrayLike, labels: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Top probability, and 1.0 where the top class is right: float64 [n] each."""
    p = np.asarray(probs, dtype=np.float64)
    y = np.asarray(labels, dtype=np.int64)
    check(p, y, "probs")
    return p.max(axis=1), (p.argmax(axis=1) == y).astype(np.float64)


def _bin_of(confidence: NDArray[np.float64], bins: int) -> NDArray[np.int64]:
    edges = np.arange(bins + 1) / bins
    return np.clip(np.searchsorted(edges, confidence, side="left") - 1, 0, bins - 1).astype(np.int64)


def check(values: NDArray[np.float64], labels: NDArray[np.int64], name: str) -> None:
    """Refuse arrays that do not fit together: ValueError, with what was found."""
    if values.ndim != 2 or labels.shape != values.shape[:1] or len(labels) == 0:
        raise ValueError(f"expected {name} [n, k] and labels [n] with n >= 1, found {list(values.shape)} and {list(labels.shape)}")
    if not np.isfinite(values).all():
        raise ValueError(f"expected finite {name}, found NaN or infinity in row {int(np.argmax(~np.isfinite(values).all(axis=1)))}")
    if labels.min() < 0 or labels.max() >= values.shape[1]:
        raise ValueError(f"expected labels 0..{values.shape[1] - 1}, found {int(labels.min())}..{int(labels.max())}")
