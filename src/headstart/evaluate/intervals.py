"""How far a number measured on a few photos may lie from the truth: 95 % intervals."""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

LEVEL = 0.95
RIGHT_OR_WRONG, ANYWHERE = 1 / 4, 1 / 12  # variance of a value about which nothing is known: 0 or 1 with equal chance; 0 to 1, evenly
N_RESAMPLES = 1000

_Z = 1.959963984540054  # the normal distribution's 97.5 % point
_CHUNK_ENTRIES = 2_000_000  # of one [resamples, photos] block: 16 MB, whatever the number of photos

Interval = tuple[float, float]
Weights = NDArray[np.float64]
Statistic = Callable[[Weights], NDArray[np.float64]]


def wilson(n_right: float, n: float) -> Interval:
    """Wilson's 95 % interval of a share: `n_right` of `n` trials.

    Unlike estimate ± 1.96 standard errors it stays within 0..1 and does not shrink to nothing where all or none are right.

    Args:
        n_right: trials that succeeded (count, 0..n).
        n: trials (count, >= 0); 0 says nothing, so the interval is (0, 1).

    Returns: lower and upper end, 0..1.

    Raises: ValueError: `n_right` does not lie in 0..n.

    Source: Wilson (1927), "Probable inference, the law of succession, and statistical inference"; Brown, Cai and DasGupta (2001) on why.
    """
    if not 0 <= n_right <= n:
        raise ValueError(f"expected 0 <= n_right <= n, found n_right={n_right}, n={n}")
    if n == 0:
        return 0.0, 1.0
    share = n_right / n
    centre = share + _Z**2 / (2 * n)
    reach = _Z * math.sqrt(share * (1 - share) / n + _Z**2 / (4 * n**2))
    scale = 1 + _Z**2 / n
    # At the ends the formula gives exactly 0 or 1, give or take the last bit.
    low = 0.0 if n_right == 0 else (centre - reach) / scale
    high = 1.0 if n_right == n else (centre + reach) / scale
    return low, high


def wilson_of_means(means: ArrayLike, counts: ArrayLike, squares: ArrayLike, spread: float, *, variance: float | None = None) -> Interval:
    """95 % interval of the plain mean of means, each over few values in 0..1: Wilson's, for as many trials as would vary that much.

    The variance is estimated without bias (a class of one photo varies as the others do on average), and one more value that could be
    anything (`doubt`), shared by the classes, is counted in: where all values are equal, nothing is claimed to be certain. For shares
    of one size it comes close to Wilson's interval of all trials together.

    Args:
        means: [k], 0..1. counts: [k], values in each (>= 1). squares: [k], sum of their squared distances from the mean.
        spread: variance of a value about which nothing is known.
        variance: of the mean of means, as measured, where the values of one depend on those of another; None: they do not.

    Source: Korn and Graubard (1998), "Confidence intervals for proportions with small expected number of positive counts estimated from
        survey data", on effective sample sizes in intervals of shares.
    """
    m, n, s = (np.asarray(values, dtype=np.float64) for values in (means, counts, squares))
    k = len(m)
    several = n > 1
    unbiased = s / np.maximum(n - 1, 1)
    unbiased = np.where(several, unbiased, unbiased[several].mean() if several.any() else spread)
    measured = float((s / n**2).sum()) / k**2 if variance is None else variance
    total = measured + float((unbiased / n - s / n**2 + doubt(m, n, spread, weight=1 / k)).sum()) / k**2
    centre = float(((n * m + 0.5 / k) / (n + 1 / k)).mean())
    n_trials = centre * (1 - centre) / total
    return wilson(float(m.mean()) * n_trials, n_trials)


def doubt(mean: ArrayLike, n: ArrayLike, spread: float, *, weight: float = 1.0) -> Any:
    """What one more value (of `weight`) that could be anything adds to the variance of a mean of n values in 0..1."""
    m, counts = np.asarray(mean, dtype=np.float64), np.asarray(n, dtype=np.float64)
    return (weight * spread + (m - 0.5) ** 2 * counts * weight / (counts + weight)) / counts**2


def stretched(value: float, ends: Sequence[float], factor: float, *, most: float | None = 1.0) -> Interval:
    """An interval `factor` times as wide on either side of its value, kept within 0 and `most` (None: no upper limit)."""
    low = max(0.0, value - factor * max(0.0, value - ends[0]))
    high = value + factor * max(0.0, ends[1] - value)
    return low, high if most is None else min(most, high)


def held_out_interval(right: ArrayLike, groups: ArrayLike, n_folds: int) -> Interval:
    """95 % interval of the share of photos answered right while held out, in turn, by heads that learned from the other folds.

    Wilson's, for as many independent photos as would vary as much as these groups of photos; then stretched for the folds.

    Args: of `together` and `folds_reach`.
    """
    values = np.asarray(right, dtype=np.float64)
    share, n = float(values.mean()), len(values) / together(values, groups)
    return stretched(share, wilson(min(share * n, n), n), folds_reach(n_folds))


def folds_reach(n_folds: int) -> float:
    """By what factor an interval must be wider where answers of several folds' heads are pooled; 1 for the answers of one head alone.

    The heads share most of their training photos, so their errors are not independent: the variance grows by n_folds / (n_folds - 1)
    times itself.

    Source: Nadeau and Bengio (2003), "Inference for the generalization error"; that no better estimate is to be had from one
        cross-validation: Bengio and Grandvalet (2004). Measured coverage: docs/concepts/honest-numbers.md.
    """
    return math.sqrt(1 + n_folds / (n_folds - 1)) if n_folds > 1 else 1.0


def together(right: ArrayLike, groups: ArrayLike) -> float:
    """How many photos, on average, say as much as one independent photo (>= 1): the design effect of groups, whose photos are alike.

    By how much the sums of groups vary more than single photos. One more group of the usual size, whose photos are right or wrong
    together, is counted in (`doubt`): where all photos are right, it is what the groups' sizes make of it.

    Args: right: [n], 0..1. groups: [n], of any comparable type; photos without company are groups of their own.
    """
    values = np.asarray(right, dtype=np.float64)
    group_of, sizes = np.unique(np.asarray(groups), return_inverse=True, return_counts=True)[1:]
    error = values - values.mean()
    of_groups = float((np.bincount(group_of, weights=error) ** 2).sum())
    usual = float((sizes**2).sum()) / len(values)  # size of the group that a photo is in, on average over photos
    return max(1.0, (of_groups + RIGHT_OR_WRONG * usual**2) / (float((error**2).sum()) + RIGHT_OR_WRONG * usual))


def f1_interval(n_both: float, n_labelled: float, n_predicted: float) -> Interval:
    """95 % interval of one class's F1, by Wilson's interval of the share it is a function of.

    Of the photos that are of the class or were taken for it, J is the share where both agree, and F1 = 2 J / (1 + J). So J's
    interval, sent through the same function, is F1's. It does not shrink to nothing at 0 and 1 as a bootstrap's does: the coverage
    of both is in docs/concepts/honest-numbers.md.

    Args:
        n_both: photos of the class that were recognised (count).
        n_labelled: photos of the class (count).
        n_predicted: photos taken for the class (count).

    Source: Lam, Gopal and Qian (2023), "Confidence intervals for the F1 score: a comparison of four methods" ("Wilson indirect"),
        arXiv 2309.14621.
    """
    low, high = wilson(n_both, n_labelled + n_predicted - n_both)
    return 2 * low / (1 + low), 2 * high / (1 + high)


def bootstrap(statistic: Statistic, n: int, *, seed: int, n_resamples: int = N_RESAMPLES) -> NDArray[np.float64]:
    """Recompute `statistic` on photos drawn again with replacement.

    Memory stays bounded: resamples come in blocks of at most 16 MB.

    Args:
        statistic: from weights float64 [r, n], how often each photo was drawn in each of r resamples, to values float64 [r, m].
        n: photos (count, >= 1).
        seed: of the draws; the same seed gives the same interval.
        n_resamples: how often to draw (count).

    Returns: the statistics, float64 [n_resamples, m]. `percentile` makes intervals of them.
    """
    return np.concatenate([statistic(weights) for weights in _resamples(n, seed, n_resamples)])


def percentile(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """The middle 95 % of bootstrapped values [n_resamples, m], as [m, 2]; resamples where a statistic is undefined (NaN) do not count."""
    tail = (1 - LEVEL) / 2
    return np.nanquantile(values, [tail, 1 - tail], axis=0).T


def mcnemar(only_first: int, only_second: int) -> float:
    """How often chance alone makes two classifiers that are equally good differ this much or more on the same photos (p-value).

    Args: only_first, only_second: photos that one of the two got right and the other did not (counts).

    Source: McNemar (1947), "Note on the sampling error of the difference between correlated proportions or percentages"; exact, two-sided.
    """
    n, fewer = only_first + only_second, min(only_first, only_second)
    ways = total = 1  # to choose 0 of n; then of 0 to `fewer`
    for i in range(fewer):
        ways = ways * (n - i) // (i + 1)
        total += ways
    return min(1.0, 2 * total / 2**n) if n else 1.0


def photos_to_halve(n: int) -> int:
    """How many more photos would halve an interval measured on `n`: widths shrink as 1 / sqrt(n), so four times as many are needed."""
    return 3 * n


def _resamples(n: int, seed: int, n_resamples: int) -> Iterator[Weights]:
    rng = np.random.default_rng(seed)
    step = max(1, _CHUNK_ENTRIES // n)
    for start in range(0, n_resamples, step):
        n_rows = min(step, n_resamples - start)
        draws = rng.integers(0, n, size=(n_rows, n))
        draws += np.arange(n_rows)[:, None] * n
        yield np.bincount(draws.ravel(), minlength=n_rows * n).reshape(n_rows, n).astype(np.float64)
