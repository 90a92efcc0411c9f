"""Pixel figures of every photo: intensities, brightness, contrast, sharpness, border colours. One decode a photo, constant memory."""

import contextlib
import io
import os
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from headstart.data.opening import Box, UnreadableImage, open_upright
from headstart.data.reading import read_ahead, read_unchanged
from headstart.data.table import Table
from headstart.errors import DataError, safe_text
from headstart.progress import progress

LOOK_PX = 224  # of the shorter side: what common networks see. JPEGs of four times that and more are decoded smaller
BORDER_CELLS = 8  # along each side
BORDER_DEPTH = 32  # the border is one part in this many of the shorter side
MOST_NOT_FINITE = 20  # paths of such photos that are listed; all are counted
PHOTO_WEIGHT = 65_536  # what the pixels of one photo sum to in the histogram, whatever its size

_LEVELS = np.arange(256.0)
_FLOATS = "F"  # Pillow's mode of files that hold floating-point numbers


@dataclass(frozen=True)
class Looks:
    """Figures of n photos, on the scale 0 to 255; channels are R, G, B.

    A JPEG whose shorter side has 896 px or more is decoded at 1/2, 1/4 or 1/8 of its size: means stay as they are, and standard
    deviations come out a little smaller, since neighbouring pixels are averaged. Smaller photos are read in full.

    Over all photos, each counts the same whatever its size, as it does for a network that sees all at one size.
    """

    mean: np.ndarray
    "float32 [n, 3]"
    std: np.ndarray
    "float32 [n, 3]"
    brightness: np.ndarray
    "float32 [n], mean of the grey picture"
    contrast: np.ndarray
    "float32 [n], its standard deviation"
    sharpness: np.ndarray
    "float32 [n], variance of the Laplacian of the grey picture at 224 x 224 px; small for blurred and for plain photos"
    border: np.ndarray
    "uint8 [n, 96], colours of the outermost pixels: 8 cells along the top, bottom, left and right, three channels each"
    not_finite: np.ndarray
    "int64 [m], photos whose file holds values that are not finite (only files of floating-point numbers can)"
    histogram: np.ndarray
    "int64 [3, 256], of all photos; each channel of each photo sums to 65,536 or nearly so"
    pixel_mean: np.ndarray
    "float64 [3]"
    pixel_std: np.ndarray
    "float64 [3]"
    mean_all: float
    "over all channels"
    std_all: float

    def to_json(self, table: Table) -> dict[str, Any]:
        """The figures of all photos of `table` together, as preprocessing wants them: 0 to 255, and 0 to 1 beside it."""
        return {
            "n": len(self.mean),
            "channels": ["red", "green", "blue"],
            "mean": self.pixel_mean.round(3).tolist(),
            "std": self.pixel_std.round(3).tolist(),
            "mean_0_1": (self.pixel_mean / 255).round(5).tolist(),
            "std_0_1": (self.pixel_std / 255).round(5).tolist(),
            "mean_all": round(self.mean_all, 3),
            "std_all": round(self.std_all, 3),
            "not_finite": len(self.not_finite),
            "not_finite_photos": [table.photos[i].path for i in self.not_finite[:MOST_NOT_FINITE]],
            "histogram": self.histogram.tolist(),
        }


@dataclass(frozen=True, slots=True)
class _Seen:
    """One photo: the share of its pixels at each level, float64 [3, 256], and its figures."""

    shares: np.ndarray
    brightness: float
    contrast: float
    sharpness: float
    border: np.ndarray
    finite: bool


def look(table: Table) -> Looks:
    """Decode every photo of `table` once, in threads, and keep its figures; about 200 bytes a photo.

    Raises: DataError: a photo changed or vanished since it was scanned.
    """
    n = len(table)
    mean, std = np.zeros((n, 3), np.float32), np.zeros((n, 3), np.float32)
    figures = np.zeros((3, n), np.float32)
    border = np.zeros((n, 4 * BORDER_CELLS * 3), np.uint8)
    sums, histogram = np.zeros((2, 3)), np.zeros((3, 256))
    not_finite = []
    threads = os.cpu_count() or 1
    waiting = read_ahead(lambda i: _see(table, i), range(n), threads=threads, ahead=16 * threads)
    with progress("Looking at photos", n) as advance, contextlib.closing(waiting) as seen:  # type: ignore[type-var]
        for i, one in enumerate(seen):
            first, second = one.shares @ _LEVELS, one.shares @ _LEVELS**2
            mean[i], std[i] = first, np.sqrt(np.maximum(second - first**2, 0))
            figures[:, i] = one.brightness, one.contrast, one.sharpness
            border[i] = one.border
            sums += first, second
            histogram += one.shares
            if not one.finite:
                not_finite.append(i)
            advance(1)
    first, second = sums / max(1, n)
    return Looks(
        mean=mean,
        std=std,
        brightness=figures[0],
        contrast=figures[1],
        sharpness=figures[2],
        border=border,
        not_finite=np.array(not_finite, np.int64),
        histogram=np.rint(histogram * PHOTO_WEIGHT).astype(np.int64),
        pixel_mean=first,
        pixel_std=_deviation(first, second),
        mean_all=float(first.mean()),
        std_all=float(_deviation(first.mean(), second.mean())),
    )


def _deviation(mean: Any, mean_square: Any) -> Any:
    return np.sqrt(np.maximum(mean_square - mean**2, 0))


def _see(table: Table, i: int) -> _Seen:
    source = read_unchanged(table.file(i), table.photos[i].sha256)
    try:
        opened = open_upright(source, LOOK_PX)
    except UnreadableImage as error:  # it was read before: too little memory, perhaps
        where = safe_text(str(table.file(i)))
        raise DataError(f"cannot read {where} any more: {error.reason}", hint="run the same command again") from error
    image, box = opened.image, opened.box
    grey = image.convert("L")
    grey_shares = _shares(grey)[0]
    brightness = float(grey_shares @ _LEVELS)
    return _Seen(
        shares=_shares(image),
        brightness=brightness,
        contrast=float(_deviation(brightness, grey_shares @ _LEVELS**2)),
        sharpness=_sharpness(grey, box),
        border=_border(image, box),
        finite=table.photos[i].mode != _FLOATS or _is_finite(source),
    )


def _shares(image: Image.Image) -> np.ndarray:
    """Share of the pixels at each level, float64 [channels, 256]."""
    return np.array(image.histogram(), np.float64).reshape(-1, 256) / (image.width * image.height)


def _sharpness(grey: Image.Image, box: Box) -> float:
    """Variance of the discrete Laplacian, at one size for all photos so that they compare.

    Source: Pech-Pacheco et al. (2000), "Diatom autofocusing in brightfield microscopy: a comparative study".
    """
    x = np.asarray(grey.resize((LOOK_PX, LOOK_PX), Image.Resampling.BILINEAR, box=box), np.int16)
    edges = 4 * x[1:-1, 1:-1] - x[:-2, 1:-1] - x[2:, 1:-1] - x[1:-1, :-2] - x[1:-1, 2:]
    return float(edges.var())


def _border(image: Image.Image, box: Box) -> np.ndarray:
    """Mean colours of cells along the four sides: uint8 [96]."""
    left, top, right, bottom = box
    depth = max(1.0, min(right - left, bottom - top) / BORDER_DEPTH)
    along, down = (BORDER_CELLS, 1), (1, BORDER_CELLS)
    sides = (
        (along, (left, top, right, top + depth)),
        (along, (left, bottom - depth, right, bottom)),
        (down, (left, top, left + depth, bottom)),
        (down, (right - depth, top, right, bottom)),
    )
    return np.concatenate([np.asarray(image.resize(size, Image.Resampling.BOX, box=side), np.uint8).ravel() for size, side in sides])


def _is_finite(source: bytes) -> bool:
    """Whether all values of a file of floating-point numbers are numbers. Where decoded, others are black or white."""
    with Image.open(io.BytesIO(source)) as image:
        return bool(np.isfinite(np.asarray(image)).all())
