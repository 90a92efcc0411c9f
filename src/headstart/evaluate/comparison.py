"""Two classifiers on the same photos: which is better, how sure that is, and how many photos would tell."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from headstart.evaluate.calibrate import check
from headstart.evaluate.intervals import Interval, Weights, bootstrap, mcnemar, percentile
from headstart.evaluate.metrics import SMALLEST_PROBABILITY, macro_f1

ERROR = 0.05  # how often chance alone may pass for a difference
POWER = 0.80  # how often a difference that is there is to be found
LEAST_OF_INTEREST = 0.01  # of accuracy, where no difference was seen

_Z_ERROR = 1.959963984540054  # the normal distribution's 97.5 % point
_Z_POWER = 0.8416212335729143  # and its 80 % point
_MOST_STEPS = 60

Verdict = Literal["better", "worse", "cannot tell"]


@dataclass(frozen=True, slots=True)
class Answers:
    """What one classifier says of n photos.

    predicted: int64 [n], the class it names. probs: float [n, k], rows sum to 1.
    """

    predicted: NDArray[np.int64]
    probs: NDArray[np.floating]


@dataclass(frozen=True, slots=True)
class Difference:
    """Second less first, and its 95 % interval."""

    value: float
    ci95: Interval


@dataclass(frozen=True, slots=True)
class Change:
    """A class of which clearly more, or fewer, photos are recognised.

    p: of McNemar's exact test on the class's photos, times what Holm's correction for the number of classes asks.
    """

    label: str
    n: int
    first: float
    second: float
    difference: Difference
    p: float


@dataclass(frozen=True, slots=True)
class Compared:
    """The second classifier against the first, on the same n photos.

    only_first, only_second: photos that one got right and the other did not. p: of McNemar's exact test.
    verdict: of the second. photos_to_tell: how many photos would tell, four times in five, a difference as large as the one seen
        (one point of accuracy, where none was seen); None where both are right on the same photos.
    """

    n: int
    both_right: int
    only_first: int
    only_second: int
    p: float
    verdict: Verdict
    accuracy: Difference
    f1_macro: Difference
    log_loss: Difference
    photos_to_tell: int | None
    per_class: tuple[Change, ...]


def compare(first: Answers, second: Answers, labels: ArrayLike, classes: Sequence[str], *, seed: int = 0) -> Compared:
    """Compare two classifiers that answered the same photos.

    Photos that both get right, or both wrong, say nothing about which is better: McNemar's test looks at the others alone. The
    interval of the difference in accuracy is Tango's, macro F1 and log loss are resampled photo by photo, the same photos for both.

    Args:
        labels: int [n], 0..k-1, n >= 1. classes: k names.
        seed: of the bootstrap.

    Source: McNemar (1947); Tango (1998); why these two: Fagerland, Lydersen and Laake (2014), "Recommended tests and confidence intervals
        for paired binomial proportions".
    """
    y = np.asarray(labels, dtype=np.int64)
    for answers in (first, second):
        check(np.asarray(answers.probs, dtype=np.float64), y, "probs")
    right = first.predicted == y, second.predicted == y
    only_first, only_second = _discordant(*right)
    p = mcnemar(only_first, only_second)
    accuracy = _accuracy_difference(only_first, only_second, len(y))
    f1, log_loss = _resampled(first, second, y, len(classes), seed)
    if (first.predicted == second.predicted).all():  # resamples cannot differ either
        f1 = Difference(f1.value, (min(f1.value, accuracy.ci95[0]), max(f1.value, accuracy.ci95[1])))
    return Compared(
        n=len(y),
        both_right=int((right[0] & right[1]).sum()),
        only_first=only_first,
        only_second=only_second,
        p=p,
        verdict=verdict(p, accuracy.value),
        accuracy=accuracy,
        f1_macro=f1,
        log_loss=log_loss,
        photos_to_tell=photos_to_tell(only_first, only_second, len(y)),
        per_class=_changes(*right, y, classes),
    )


def log_losses(answers: Answers, labels: NDArray[np.int64]) -> NDArray[np.float64]:
    """-ln(probability of the right class), float64 [n], nats."""
    own = answers.probs[np.arange(len(labels)), labels].astype(np.float64)
    return -np.log(np.clip(own, SMALLEST_PROBABILITY, 1.0))


def verdict(p: float, difference: float) -> Verdict:
    """What a p-value and a difference in accuracy (second less first) say of the second."""
    if p >= ERROR:
        return "cannot tell"
    return "better" if difference > 0 else "worse"


def tango(only_first: int, only_second: int, n: int) -> Interval:
    """95 % interval of the difference of two shares, second less first, measured on the same n trials.

    The ends are the differences that a score test just accepts. So, like Wilson's, it stays within -1..1, and does not shrink to nothing
    where no trial differs.

    Args: only_first, only_second: trials that succeeded in one alone (counts). n: trials (>= 1).

    Source: Tango (1998), "Equivalence test and confidence interval for the difference in proportions for the paired-sample design".
    """
    estimate = (only_second - only_first) / n
    return _end(only_first, only_second, n, estimate, -1.0), _end(only_first, only_second, n, estimate, 1.0)


def photos_to_tell(only_first: int, only_second: int, n: int) -> int | None:
    """How many photos make McNemar's test find a difference (at 5 %) four times in five, if the truth is as these counts say.

    Where as many speak for one as for the other, the difference asked for is one point of accuracy. None where no trial differs.

    Source: Connor (1987), "Sample size for testing differences in proportions for the paired-sample design".
    """
    differing = (only_first + only_second) / n
    if differing == 0:
        return None
    gap = abs(only_first - only_second) / n if only_first != only_second else min(LEAST_OF_INTEREST, differing)
    return math.ceil(((_Z_ERROR * math.sqrt(differing) + _Z_POWER * math.sqrt(max(0.0, differing - gap**2))) / gap) ** 2)


def holm(p_values: Sequence[float]) -> list[float]:
    """Each p-value as it counts among the others: the smallest times their number, the next times one less, never falling, at most 1.

    Source: Holm (1979), "A simple sequentially rejective multiple test procedure".
    """
    adjusted = [1.0] * len(p_values)
    largest = 0.0
    for rank, i in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[i]))
        adjusted[i] = largest
    return adjusted


def _discordant(first_right: NDArray[np.bool_], second_right: NDArray[np.bool_]) -> tuple[int, int]:
    return int((first_right & ~second_right).sum()), int((second_right & ~first_right).sum())


def _accuracy_difference(only_first: int, only_second: int, n: int) -> Difference:
    return Difference((only_second - only_first) / n, tango(only_first, only_second, n))


def _end(only_first: int, only_second: int, n: int, estimate: float, limit: float) -> float:
    """The difference between `estimate` and `limit` that the score test just accepts, by halving."""
    inside, outside = estimate, limit
    if inside == outside or _score(only_first, only_second, n, outside) <= _Z_ERROR:
        return outside
    for _ in range(_MOST_STEPS):
        middle = (inside + outside) / 2
        inside, outside = (middle, outside) if _score(only_first, only_second, n, middle) <= _Z_ERROR else (inside, middle)
    return inside


def _score(only_first: int, only_second: int, n: int, difference: float) -> float:
    """How many standard errors the counts lie from a difference in truth, whose share of `only_first` is the most likely one."""
    linear = (2 * n + only_first - only_second) * difference - only_first - only_second
    constant = -only_first * difference * (1 - difference)
    share = (math.sqrt(max(0.0, linear**2 - 8 * n * constant)) - linear) / (4 * n)
    variance = n * (2 * share + difference * (1 - difference))
    gap = abs(only_second - only_first - n * difference)
    return gap / math.sqrt(variance) if variance > 0 else math.inf if gap > 0 else 0.0


def _resampled(first: Answers, second: Answers, labels: NDArray[np.int64], n_classes: int, seed: int) -> tuple[Difference, Difference]:
    """Differences of macro F1 and of log loss."""
    gained = log_losses(second, labels) - log_losses(first, labels)

    def statistic(weights: Weights) -> NDArray[np.float64]:
        f1 = [macro_f1(weights, labels, one.predicted, n_classes) for one in (first, second)]
        return np.stack([f1[1] - f1[0], weights @ gained / len(labels)], axis=1)

    values = statistic(np.ones((1, len(labels))))[0]
    ends = percentile(bootstrap(statistic, len(labels), seed=seed))
    f1, log_loss = (Difference(float(value), (float(low), float(high))) for value, (low, high) in zip(values, ends, strict=True))
    return f1, log_loss


def _changes(
    first_right: NDArray[np.bool_], second_right: NDArray[np.bool_], labels: NDArray[np.int64], classes: Sequence[str]
) -> tuple[Change, ...]:
    """The classes whose recall clearly changed, the largest change first."""
    k = len(classes)
    n, of_first, of_second, of_both = (
        np.bincount(labels, weights=chosen, minlength=k).astype(int)
        for chosen in (np.ones(len(labels)), first_right, second_right, first_right & second_right)
    )
    present = np.flatnonzero(n).tolist()
    counts = {c: (int(of_first[c] - of_both[c]), int(of_second[c] - of_both[c])) for c in present}
    p_values = dict(zip(present, holm([mcnemar(*counts[c]) for c in present]), strict=True))
    changes = [
        Change(classes[c], int(n[c]), of_first[c] / n[c], of_second[c] / n[c], _accuracy_difference(*counts[c], int(n[c])), p_values[c])
        for c in present
        if p_values[c] < ERROR
    ]
    return tuple(sorted(changes, key=lambda change: -abs(change.difference.value)))
