"""What photos look like: a small grey thumbnail, a hash of it, and how alike two of them are once one is fitted to the other.

Everything here takes whole stacks of thumbnails. Measured: docs/concepts/pixels.md, "Likeness".
"""

from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt
from PIL import Image

from headstart.data.pixels import Pixels

Floats = npt.NDArray[np.float64]
Hashes = npt.NDArray[np.uint64]

# Sides of the thumbnail. JPEGs of 256 px and more are decoded at a quarter or an eighth of their size for it.
GLANCE_PX = 32

_PLAIN = 3.0  # standard deviation, of 255, below which a thumbnail shows little but rounding and noise
_MOST_FREQUENCY = 10
_CENTRE = (GLANCE_PX - 1) / 2
_REACH = np.arange(GLANCE_PX) - _CENTRE


@dataclass(frozen=True)
class Part:
    """The part of a picture that is compared: left and top edge and the side's length, as fractions of width and height."""

    left: float
    top: float
    side: float
    mirrored: bool


def _parts() -> tuple[Part, ...]:
    """The whole, and what crops by 5 and 10 % would leave; each as it is and mirrored."""
    places = [(0.0, 0.0, 1.0)]
    places += [(0.05 * x, 0.05 * y, 0.95) for x, y in ((0, 0), (0, 1), (1, 0), (1, 1), (0.5, 0.5))]
    places += [(0.05 * x, 0.05 * y, 0.90) for x in (0, 1, 2) for y in (0, 1, 2)]
    return tuple(Part(left, top, side, mirrored) for left, top, side in places for mirrored in (False, True))


PARTS = _parts()
WHOLE = 0  # index into PARTS


def thumbnail(image: Pixels) -> bytes:
    """GLANCE_PX x GLANCE_PX grey pixels of a picture, its shape not kept; empty where it is too plain to be told from another."""
    grey = Image.fromarray(image).convert("L").resize((GLANCE_PX, GLANCE_PX), Image.Resampling.BILINEAR)
    return grey.tobytes() if np.asarray(grey, np.float64).std() >= _PLAIN else b""


def stack(glances: list[bytes]) -> npt.NDArray[np.uint8]:
    """uint8 [n, GLANCE_PX, GLANCE_PX]."""
    return np.frombuffer(b"".join(glances), np.uint8).reshape(len(glances), GLANCE_PX, GLANCE_PX)


def hashes(thumbnails: npt.NDArray[np.uint8]) -> Hashes:
    """uint64 [n, len(PARTS)]: one perceptual hash for each part of each thumbnail.

    The signs of the 64 lowest frequencies of the part's cosine transform. They differ in few bits for pictures that look the same; a
    photo that was cropped out of another meets it at one of the parts. Computed on whole numbers, so equal on every machine.
    """
    n = len(thumbnails)
    across, down = _low_frequencies()
    edges = sorted({(part.left, part.side) for part in PARTS} | {(part.top, part.side) for part in PARTS})
    bases = np.stack([_cosines(start, side) for start, side in edges])  # [edges, frequencies, px]
    number = {edge: i for i, edge in enumerate(edges)}
    result = np.empty((n, len(PARTS)), np.uint64)
    for begin in range(0, n, 2048):
        some = thumbnails[begin : begin + 2048].astype(np.float64)
        rows = (some.reshape(-1, GLANCE_PX) @ bases.reshape(-1, GLANCE_PX).T).reshape(len(some), GLANCE_PX, len(edges), _MOST_FREQUENCY)
        for i, part in enumerate(PARTS):
            wide = rows[:, :, number[part.left, part.side]].transpose(1, 0, 2).reshape(GLANCE_PX, -1)
            both = (bases[number[part.top, part.side]] @ wide).reshape(_MOST_FREQUENCY, len(some), _MOST_FREQUENCY)
            values = both[down, :, across].T
            if part.mirrored:
                values = values * np.where(across % 2, -1, 1)
            packed = np.ascontiguousarray(np.packbits(values > 0, axis=1))
            result[begin : begin + len(some), i] = packed.view(">u8")[:, 0]
    return result


def _low_frequencies() -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Half-waves across and down, int64 [64] each, slowest first; not the constant."""
    every = [(u, v) for u in range(_MOST_FREQUENCY) for v in range(_MOST_FREQUENCY) if u + v > 0]
    chosen = np.array(sorted(every, key=lambda pair: (pair[0] ** 2 + pair[1] ** 2, pair))[:64])
    return chosen[:, 0], chosen[:, 1]


def _cosines(start: float, side: float) -> Floats:
    """[frequencies, px]: whole numbers that take a row of pixels to the cosine transform of its part `start` .. `start + side`.

    Sums of them with 8-bit pixels stay far below 2**53, where float64 is exact.
    """
    at = np.clip((start + (np.arange(GLANCE_PX) + 0.5) * side / GLANCE_PX) * GLANCE_PX - 0.5, 0, GLANCE_PX - 1)
    low = np.minimum(at.astype(np.int64), GLANCE_PX - 2)
    taken = np.zeros((GLANCE_PX, GLANCE_PX))
    taken[np.arange(GLANCE_PX), low] = 1 - (at - low)
    taken[np.arange(GLANCE_PX), low + 1] += at - low
    return np.asarray(np.rint(1024 * _cosine_table()[:_MOST_FREQUENCY] @ taken))


@cache
def _cosine_table() -> Floats:
    """[px frequencies, px]: the cosine transform, not normalised."""
    return np.cos(np.pi * np.arange(GLANCE_PX)[:, None] * (2 * np.arange(GLANCE_PX) + 1) / (2 * GLANCE_PX))


def compare(wholes: npt.NDArray[np.uint8], others: npt.NDArray[np.uint8], part: Part, *, reach_px: float = 2.4) -> tuple[Floats, Floats]:
    """How alike each of `others` [m, px, px] is to that part of its counterpart in `wholes` [m, px, px], and how sure that is no chance.

    The part is first fitted: moved and scaled by a few Gauss-Newton steps to where it matches best, brightness and contrast aside.

    Args: reach_px: how far from the centre the fitted part may lie, in pixels of the thumbnail.

    Returns:
        likeness [m], -1..1: the mean of two correlations, of the grey values and of the steps between neighbouring pixels. The first
            forgives blur, the second tells apart two pictures of equal layout.
        evidence [m], in standard errors: Fisher's z of the second correlation, were it between strangers of the same two spectra (their
            number of independent values: Bartlett's). It is what plain pictures lack, where few values agree by chance.
    """
    pictures = wholes.astype(np.float64)
    if part.mirrored:
        pictures = pictures[:, :, ::-1]
    wanted = others.astype(np.float64)
    fitted = _fit(pictures, wanted, part, reach_px)
    edges, wanted_edges = _steps(fitted), _steps(wanted)
    alike = _cosine(edges, wanted_edges)
    likeness = (_correlation(fitted, wanted) + alike) / 2
    evidence = np.arctanh(np.clip(alike, -0.9999, 0.9999)) * np.sqrt(_independent(wholes, others))
    return likeness, evidence


def _fit(pictures: Floats, wanted: Floats, part: Part, reach_px: float) -> Floats:
    """The part of each picture, [m, px, px], where it matches `wanted` best: four steps of Lucas and Kanade's registration (1981)."""
    place = np.empty((len(pictures), 4))  # scale and shift across, scale and shift down; px from the centre
    place[:, [0, 2]] = part.side
    left = 1 - part.left - part.side if part.mirrored else part.left
    place[:, 1] = (left + part.side / 2 - 0.5) * GLANCE_PX
    place[:, 3] = (part.top + part.side / 2 - 0.5) * GLANCE_PX
    best = cut = _cut(pictures, place)
    score = _correlation(cut, wanted)
    for _ in range(4):
        place = place + _step_towards(cut, wanted, place)
        place[:, [0, 2]] = np.clip(place[:, [0, 2]], 0.86, 1.02)
        place[:, [1, 3]] = np.clip(place[:, [1, 3]], -reach_px, reach_px)
        cut = _cut(pictures, place)
        now = _correlation(cut, wanted)
        better = now > score
        score = np.where(better, now, score)
        best = np.where(better[:, None, None], cut, best)
    return best


def _step_towards(cut: Floats, wanted: Floats, place: Floats) -> Floats:
    """[m, 4]: the change of `place` that least squares asks for, together with a gain and an offset of brightness."""
    m = len(cut)
    across, down = np.gradient(cut, axis=2) / place[:, 0, None, None], np.gradient(cut, axis=1) / place[:, 2, None, None]
    terms = np.stack([across * _REACH, across, down * _REACH[:, None], down, cut, np.ones_like(cut)], 1).reshape(m, 6, -1)
    normal = np.einsum("mik,mjk->mij", terms, terms)
    diagonal = np.arange(6)
    normal[:, diagonal, diagonal] = 1.001 * normal[:, diagonal, diagonal] + 1e-6
    found = np.linalg.solve(normal, np.einsum("mik,mk->mi", terms, wanted.reshape(m, -1))[..., None])[..., 0]
    gain = np.where(np.abs(found[:, 4:5]) > 0.2, found[:, 4:5], 1.0)
    return np.asarray(np.clip(found[:, :4] / gain, [-0.05, -1.5, -0.05, -1.5], [0.05, 1.5, 0.05, 1.5]))


def _cut(pictures: Floats, place: Floats) -> Floats:
    """Each picture [m, px, px] sampled at its place, bilinear; beyond its edge, the edge."""
    which = np.arange(len(pictures))[:, None, None]
    x = np.clip(_REACH * place[:, 0:1] + place[:, 1:2] + _CENTRE, 0, GLANCE_PX - 1)
    y = np.clip(_REACH * place[:, 2:3] + place[:, 3:4] + _CENTRE, 0, GLANCE_PX - 1)
    left, top = (np.minimum(at.astype(np.int64), GLANCE_PX - 2) for at in (x, y))
    right_share, low_share = (x - left)[:, None, :], (y - top)[:, :, None]
    rows, columns = top[:, :, None], left[:, None, :]
    upper = pictures[which, rows, columns] * (1 - right_share) + pictures[which, rows, columns + 1] * right_share
    lower = pictures[which, rows + 1, columns] * (1 - right_share) + pictures[which, rows + 1, columns + 1] * right_share
    return np.asarray(upper * (1 - low_share) + lower * low_share)


def _steps(pictures: Floats) -> Floats:
    """[m, steps]: from each pixel to its right and to its lower neighbour."""
    m = len(pictures)
    return np.concatenate([np.diff(pictures, axis=2).reshape(m, -1), np.diff(pictures, axis=1).reshape(m, -1)], axis=1)


def _correlation(some: Floats, others: Floats) -> Floats:
    centred = [(values - values.mean((1, 2), keepdims=True)).reshape(len(values), -1) for values in (some, others)]
    return _cosine(*centred)


def _cosine(some: Floats, others: Floats) -> Floats:
    norms = np.einsum("mk,mk->m", some, some) * np.einsum("mk,mk->m", others, others)
    return np.asarray(np.einsum("mk,mk->m", some, others) / np.sqrt(norms + 1e-9))


def _independent(some: npt.NDArray[np.uint8], others: npt.NDArray[np.uint8]) -> Floats:
    """[m]: how many independent steps between neighbours a pair of pictures has, by their spectra (Bartlett 1935, in two dimensions)."""
    first, second = _spectra(some), _spectra(others)
    return np.asarray(first.sum(1) * second.sum(1) / (np.einsum("mk,mk->m", first, second) + 1e-9))


def _spectra(pictures: npt.NDArray[np.uint8]) -> Floats:
    """[m, frequencies]: power of the steps between neighbours."""
    table = _cosine_table() * np.where(np.arange(GLANCE_PX) == 0, np.sqrt(0.5), 1.0)[:, None] * np.sqrt(2 / GLANCE_PX)
    values = table @ pictures.astype(np.float64) @ table.T
    slope = 2 - 2 * np.cos(np.pi * np.arange(GLANCE_PX) / GLANCE_PX)
    return np.asarray((values**2 * (slope[:, None] + slope)).reshape(len(pictures), -1))
