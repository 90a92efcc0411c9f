"""How fast networks run on this machine, one beside the other."""

import math
import statistics
import time
from collections.abc import Sequence

import numpy as np

from headstart.features.runtime import Session
from headstart.progress import waiting

_ROUNDS = 5
_IMAGES = 32
_TURN_S = 0.5  # how long a network's turn is at least, so that starting and ending weigh as little as in a job; 32 images for slow ones
_MOST_TIMES = 32  # that the images are repeated in a turn
_ENOUGH_S = 20.0  # after which no further round begins, three done


def rates(sessions: Sequence[Session], images: np.ndarray) -> list[list[float]]:
    """Images a second of each network in each of up to five rounds; in a round all take turns, so that a busy machine slows all.

    Args: images: uint8 [n, px, px, 3], repeated to 32 of them, and these as often as half a second takes; decoding is not part of it.
    """
    images = np.resize(images, (_IMAGES, *images.shape[1:]))
    found: list[list[float]] = [[] for _ in sessions]
    times = [1] * len(sessions)
    started = time.monotonic()
    with waiting("Measuring speed"):
        for done in range(_ROUNDS + 1):
            if done > 3 and time.monotonic() - started > _ENOUGH_S:
                break
            for i, session in enumerate(sessions):
                rate = _rate(session, images, times[i])
                if done:  # the first round warms up, and tells how much is half a second's work
                    found[i].append(rate)
                else:
                    times[i] = min(_MOST_TIMES, math.ceil(_TURN_S * rate / _IMAGES))
    return found


def ratio(first: Sequence[float], second: Sequence[float]) -> float:
    """How many times as fast the second is: the median over rounds of the ratio within each."""
    return statistics.median(b / a for a, b in zip(first, second, strict=True))


def _rate(session: Session, images: np.ndarray, times: int) -> float:
    batches = [images[start : start + session.batch_size] for start in range(0, len(images), session.batch_size)]
    started = time.perf_counter()
    for _ in session.map(batches * times):
        pass
    return times * len(images) / (time.perf_counter() - started)
