"""Photos that are there twice: equal files, and copies: saved again, resized, slightly cropped, mirrored or made a little brighter.

Time grows with n log n, memory with n. Candidates come from a perceptual hash, sorted under several permutations of its bits so that
hashes which differ in few of them come to lie side by side (Charikar 2002; Manku, Jain and Das Sarma 2007); each candidate is then
compared pixel by pixel on small thumbnails. Nothing depends on names, on the order of the photos, or on features.
Measured: docs/concepts/pixels.md, "Likeness"; bench/duplicates.py.
"""

import contextlib
import hashlib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from headstart.data import views
from headstart.data.table import Photo
from headstart.progress import Advance, progress

Ints = npt.NDArray[np.int64]

# Least likeness and evidence (views.compare) of a near-duplicate. Tuned on planted copies in flowers and CIFAR-10 training photos.
LIKENESS = 0.81
EVIDENCE = 9.0

# From here up to the least above pixels alone do not decide: badly blurred copies lie here, or such as were changed in one corner, and
# strangers. A split keeps these together, too: that costs a little freedom, while parting copies would make its score a memory.
DOUBTFUL_LIKENESS = 0.65
DOUBTFUL_EVIDENCE = EVIDENCE - 2

# From this likeness on, near-duplicates are joined whatever becomes of it; below, only while their cluster stays small.
CERTAIN = 0.9

# Where all photos share a layout (X-rays, a microscope's slides), strangers are alike, too: more likeness is then asked for, so many
# spreads above the median of strangers, but never more than what copies that were only saved again have.
_STRANGERS, _FEWEST_STRANGERS = 500, 100  # pairs drawn; fewer tell nothing
_SPREADS = 6.0
_MOST_ASKED = 0.95

_BITS = 64
_TABLES = 24
_PREFIX_BITS = 17  # that agree in a permutation, to be looked at
_NEIGHBOURS = 16  # looked at to either side
_DISTANCE = 10  # most bits that differ
_CANDIDATES = 8  # compared for each photo, the nearest hashes first
_BLOCK = 1 << 19  # queries in memory at once
_COMPARED = 2048  # pairs in memory at once
_SHOWN_FROM = 5000  # photos; fewer take no time worth a bar


@dataclass(frozen=True, slots=True)
class Pair:
    """Two photos that belong together, by their index; `first` < `second`.

    kind: exact: equal files; near: copies; burst: taken one after the other, and alike; group: the user says so.
    likeness: 0..1; 1 for exact and group. evidence: that a near pair is no chance, in standard errors.
    """

    first: int
    second: int
    kind: Literal["exact", "near", "burst", "group"]
    likeness: float
    evidence: float = math.inf


def find_pairs(photos: Sequence[Photo], *, likeness: float = LIKENESS, evidence: float = EVIDENCE) -> list[Pair]:
    """Exact and near duplicates. Of several equal files the first stands for all: it is paired with each, and near ones with it.

    Args: likeness, evidence: the least of a near-duplicate (views.compare).
    Returns: exact pairs, then near ones, these in an order that depends on the photos' content alone.
    """
    first: dict[str, int] = {}
    pairs = [Pair(first[photo.sha256], i, "exact", 1.0) for i, photo in enumerate(photos) if first.setdefault(photo.sha256, i) != i]
    known = [first[sha256] for sha256 in sorted(first) if photos[first[sha256]].glance]
    if len(known) < 2:
        return pairs
    thumbnails = views.stack([photos[i].glance for i in known])
    whole, other, part = _candidates(views.hashes(thumbnails))
    alike, sure = _compare(thumbnails, whole, other, part)
    found = (alike >= likeness) & (sure >= evidence)
    if np.any(found & (alike < _MOST_ASKED)):
        found &= alike >= likeness_of_strangers(thumbnails, _SPREADS, fewest=_FEWEST_STRANGERS)
    for k in np.flatnonzero(found).tolist():
        one, two = sorted((known[whole[k]], known[other[k]]))
        pairs.append(Pair(one, two, "near", min(1.0, round(float(alike[k]), 4)), round(float(sure[k]), 2)))
    return pairs


def clusters(n: int, pairs: Sequence[Pair]) -> tuple[Ints, list[Pair]]:
    """Photos that belong together, directly or by way of others.

    A chain of weak likenesses must not tie half a data set together: near pairs below `CERTAIN` join in order of their likeness and
    only while they join at most 20 pieces, or a twentieth of the number of photos; a piece is what all other pairs made.

    Returns: int64 [n], in which they share a number; and the pairs that were refused: their photos are in different clusters.
    """
    parent, pieces = list(range(n)), [1] * n
    most = max(20, n // 20)

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    def is_certain(pair: Pair) -> bool:
        return pair.kind != "near" or pair.likeness >= CERTAIN

    for pair in sorted(pairs, key=lambda pair: (not is_certain(pair), -pair.likeness)):  # stable: ties stay in the order of content
        one, two = root(pair.first), root(pair.second)
        if one != two and (is_certain(pair) or pieces[one] + pieces[two] <= most):
            parent[two] = one
            if not is_certain(pair):
                pieces[one] += pieces[two]
    numbers = np.fromiter((root(i) for i in range(n)), np.int64, n)
    return numbers, [pair for pair in pairs if numbers[pair.first] != numbers[pair.second]]


def _compare(thumbnails: npt.NDArray[np.uint8], whole: Ints, other: Ints, part: Ints) -> tuple[views.Floats, views.Floats]:
    """Likeness and evidence [m] of candidates, `other` against the part of `whole`."""
    likeness, evidence = np.zeros(len(whole)), np.zeros(len(whole))
    with _bar("Comparing photos", len(whole), "pairs", len(thumbnails)) as advance:
        for number in np.unique(part).tolist():
            these = np.flatnonzero(part == number)
            for begin in range(0, len(these), _COMPARED):
                at = these[begin : begin + _COMPARED]
                likeness[at], evidence[at] = views.compare(thumbnails[whole[at]], thumbnails[other[at]], views.PARTS[number])
                advance(len(at))
    return likeness, evidence


def likeness_of_strangers(thumbnails: npt.NDArray[np.uint8], spreads: float, *, fewest: int, reach_px: float = 2.4) -> float:
    """A likeness that few strangers of this data set reach: so many spreads above the median, at most `_MOST_ASKED`.

    Drawn are pairs of neighbours in the order of their content's hash. Median and lower spread (median less the 16th percentile, on
    Fisher's scale) do not mind that some of them are copies.

    Args: thumbnails: in the order of their content's hash. fewest: pairs; 0 is returned where there are fewer. reach_px: views.compare.
    """
    m = len(thumbnails) // 2
    if m < fewest:
        return 0.0
    drawn = np.arange(min(m, _STRANGERS)) * 2
    alike, _ = views.compare(thumbnails[drawn], thumbnails[drawn + 1], views.PARTS[views.WHOLE], reach_px=reach_px)
    low, median = np.quantile(np.arctanh(np.clip(alike, -0.999, 0.999)), [0.16, 0.5])
    return min(_MOST_ASKED, float(np.tanh(median + spreads * (median - low))))


def _candidates(hashes: views.Hashes) -> tuple[Ints, Ints, Ints]:
    """Pairs whose hashes differ in few bits: whole, other, and the part of the whole that meets the other; int64 [m] each.

    Args: hashes: uint64 [n, parts].
    """
    n, n_parts = hashes.shape
    own, queries = np.ascontiguousarray(hashes[:, views.WHOLE]), hashes.reshape(-1)
    found = np.empty(0, np.int64)
    with _bar("Looking for duplicates", _TABLES, "passes", n) as advance:
        for number in range(_TABLES):
            permute = _permutation(number)
            keys = permute(own)
            order = np.argsort(keys, kind="stable")
            keys = keys[order]
            for begin in range(0, len(queries), _BLOCK):
                block = permute(queries[begin : begin + _BLOCK])
                for asking, at, distance in _neighbours(keys, block):
                    asker, place = np.divmod(asking + begin, n_parts)
                    other = order[at]
                    fits = (distance <= _DISTANCE) & (other != asker)
                    found = np.concatenate([found, _packed(asker[fits], other[fits], distance[fits], place[fits], n)])
                found = _best(found)
            if len(found) > 4 * _CANDIDATES * n:  # pictures that all look alike
                found = _nearest(found, n)
            advance(1)
    return _unpacked(_nearest(found, n), n)


def _neighbours(keys: views.Hashes, queries: views.Hashes) -> Iterator[tuple[Ints, Ints, Ints]]:
    """Queries, positions in the sorted `keys`, and the bits in which they differ, wherever the first bits agree."""
    start = np.searchsorted(keys, queries)
    for step in (1, -1):
        asking, at = np.arange(len(queries)), start if step == 1 else start - 1
        for _ in range(_NEIGHBOURS):
            inside = (at >= 0) & (at < len(keys))
            asking, at = asking[inside], at[inside]
            differ = keys[at] ^ queries[asking]
            agree = differ >> np.uint64(_BITS - _PREFIX_BITS) == 0
            asking, at = asking[agree], at[agree]
            if not len(asking):
                break
            yield asking, at, _ones(differ[agree])
            at = at + step


# A candidate as one number, so that sorting brings the best of each pair to its front: pair, distance, part, which of the two is the whole.
_BELOW_PAIR = 13


def _packed(whole: Ints, other: Ints, distance: Ints, part: Ints, n: int) -> Ints:
    pair = np.minimum(whole, other) * n + np.maximum(whole, other)
    return np.asarray((pair << _BELOW_PAIR) | (distance << 6) | (part << 1) | (whole > other))


def _unpacked(found: Ints, n: int) -> tuple[Ints, Ints, Ints]:
    low, high = np.divmod(found >> _BELOW_PAIR, n)
    turned = (found & 1).astype(bool)
    return np.where(turned, high, low), np.where(turned, low, high), (found >> 1) & 31


def _best(found: Ints) -> Ints:
    """Of each pair the candidate with the least distance."""
    found = np.sort(found)
    pair = found >> _BELOW_PAIR
    return np.asarray(found[np.diff(pair, prepend=-1) != 0])


def _nearest(found: Ints, n: int) -> Ints:
    """The candidates that are among the nearest few of either photo: at most 2 `_CANDIDATES` for each, however alike all of them are."""
    low, high = np.divmod(found >> _BELOW_PAIR, n)
    photo, which = np.concatenate([low, high]), np.tile(np.arange(len(found)), 2)
    order = np.lexsort((which, (found[which] >> 6) & 127, photo))
    photo, which = photo[order], which[order]
    starts = np.flatnonzero(np.diff(photo, prepend=-1))
    rank = np.arange(len(photo)) - np.repeat(starts, np.diff(starts, append=len(photo)))
    return found[np.unique(which[rank < _CANDIDATES])]


def _permutation(number: int) -> Callable[[views.Hashes], views.Hashes]:
    """What puts a hash's bits in another order; by hashing, since NumPy's random numbers may change between versions."""
    order = sorted(range(_BITS), key=lambda bit: hashlib.sha256(f"{number}:{bit}".encode()).digest())
    moved = np.zeros((8, 256), np.uint64)
    for place, bit in enumerate(order):
        byte, within = divmod(bit, 8)
        has_bit = (np.arange(256) >> within & 1).astype(bool)
        moved[byte, has_bit] |= np.uint64(1 << place)

    def permute(hashes: views.Hashes) -> views.Hashes:
        result = np.zeros_like(hashes)
        for byte in range(8):
            result |= moved[byte, (hashes >> np.uint64(8 * byte)).astype(np.uint8)]
        return result

    return permute


_ONES = np.array([number.bit_count() for number in range(1 << 16)], np.int64)


def _ones(hashes: views.Hashes) -> Ints:
    """How many bits are set (np.bitwise_count, which NumPy 1 lacks)."""
    return np.asarray(_ONES[np.ascontiguousarray(hashes).view(np.uint16).reshape(-1, 4)].sum(1))


def _bar(description: str, total: int, unit: str, n_photos: int) -> contextlib.AbstractContextManager[Advance]:
    return progress(description, total, unit) if n_photos >= _SHOWN_FROM else contextlib.nullcontext(Advance(lambda n: None))
