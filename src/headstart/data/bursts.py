"""Photos taken one right after the other, of the same thing: by the camera's clock, or by the numbers in their names.

Either alone says little (a whole data set may be numbered, and a busy photographer turns round), so the two photos must look alike, too.
"""

import re
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import PurePosixPath

import numpy as np

from headstart.data import views
from headstart.data.duplicates import Pair, likeness_of_strangers
from headstart.data.table import Photo

BURST_S = 5.0  # between two photos of one burst
_NEXT = 8  # photos after each that are compared with it
_NAME_STEP = 2  # of the number in the name: one photo of a run may have been deleted

# Least likeness and evidence (views.compare). Of 4,600 pairs of neighbouring strangers of one class, flowers and CIFAR-10, 1.5 %
# pass the first line and one in 2,000 the second, which has to hold where every photo of a data set is numbered.
_BY_TIME = 0.40, 3.0
_BY_NAME = 0.50, 6.0

# All numbers of a data set may count on, so where its strangers share a layout, names ask for more: so many spreads above their median.
_NAME_SPREADS, _FEWEST_STRANGERS = 3.0, 30

_REACH_PX = 6.0  # the camera moved: a fifth of the picture
_NUMBER = re.compile(r"(.*?)(\d{1,15})(\D*)", re.DOTALL)
_COMPARED = 2048  # pairs in memory at once


def find_bursts(photos: Sequence[Photo]) -> list[Pair]:
    """Pairs of neighbours in a burst, in an order that depends on content, times and names, not on the order of the photos."""
    named = dict.fromkeys(_by_name(photos))
    wanted: dict[tuple[int, int], tuple[float, float]] = dict.fromkeys(named, _least_by_name(photos) if named else _BY_NAME)
    wanted.update(dict.fromkeys(_by_time(photos), _BY_TIME))
    pairs = sorted(
        (pair for pair in wanted if photos[pair[0]].sha256 != photos[pair[1]].sha256),
        key=lambda pair: tuple(photos[i].sha256 for i in pair),
    )
    found = []
    for begin in range(0, len(pairs), _COMPARED):
        some = pairs[begin : begin + _COMPARED]
        first, second = (views.stack([photos[pair[side]].glance for pair in some]) for side in (0, 1))
        alike, sure = views.compare(first, second, views.PARTS[views.WHOLE], reach_px=_REACH_PX)
        least = np.array([wanted[pair] for pair in some])
        found += [_pair(some[k], float(alike[k])) for k in np.flatnonzero((alike >= least[:, 0]) & (sure >= least[:, 1]))]
    return found


def _least_by_name(photos: Sequence[Photo]) -> tuple[float, float]:
    """Least likeness and evidence of a burst by name."""
    glances = {photo.sha256: photo.glance for photo in photos if photo.glance}
    thumbnails = views.stack([glances[sha256] for sha256 in sorted(glances)])
    ordinary = likeness_of_strangers(thumbnails, _NAME_SPREADS, fewest=_FEWEST_STRANGERS, reach_px=_REACH_PX)
    return max(_BY_NAME[0], ordinary), _BY_NAME[1]


def _by_time(photos: Sequence[Photo]) -> Iterator[tuple[int, int]]:
    """Photos of one camera within a few seconds, as indices, the smaller hash first."""
    known = {photo.sha256: i for i, photo in enumerate(photos) if photo.camera and photo.taken and photo.glance}  # equal files: one
    dated = sorted((photos[i].camera, photos[i].taken, sha256, i) for sha256, i in known.items())
    seconds = [_seconds(taken) for _, taken, _, _ in dated]
    for k, (camera, _, _, i) in enumerate(dated):
        for later in range(k + 1, min(k + 1 + _NEXT, len(dated))):
            if dated[later][0] != camera or seconds[later] - seconds[k] > BURST_S:
                break
            yield _ordered(photos, i, dated[later][3])


def _seconds(taken: str) -> float:
    return (datetime.fromisoformat(taken) - datetime(1970, 1, 1)).total_seconds()


def _by_name(photos: Sequence[Photo]) -> Iterator[tuple[int, int]]:
    """Photos of one folder whose names differ by one or two in their last number, as indices, the smaller hash first."""
    numbered: list[tuple[str, str, str, int, str, int]] = []
    for i, photo in enumerate(photos):
        path = PurePosixPath(photo.path)
        if photo.glance and (found := _NUMBER.fullmatch(path.stem)) is not None:
            numbered.append((str(path.parent), found[1], found[3], int(found[2]), photo.sha256, i))
    numbered.sort()
    for k, (*run, number, _, i) in enumerate(numbered):
        for later in range(k + 1, min(k + 1 + _NAME_STEP, len(numbered))):
            *other_run, other_number, _, j = numbered[later]
            if other_run != run or other_number - number > _NAME_STEP:
                break
            yield _ordered(photos, i, j)


def _ordered(photos: Sequence[Photo], i: int, j: int) -> tuple[int, int]:
    return (i, j) if photos[i].sha256 <= photos[j].sha256 else (j, i)


def _pair(indices: tuple[int, int], likeness: float) -> Pair:
    return Pair(min(indices), max(indices), "burst", min(1.0, round(likeness, 4)))
