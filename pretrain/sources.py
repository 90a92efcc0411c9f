"""What is learned from: rows, each of which is one lesson of a pass over the photos."""

import dataclasses
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from pretrain.photos import Photos, Pixels

NO_LABEL = -1
DETAILED_PX = 192
"""Side of the squares that photos with detail are kept as."""
HELD_OUT = 3
"""Every third of them is held out, for choosing the size at which the finished network reads photos."""
TURNS = 45
"""Lessons of each in one pass: few photos, but large ones, of which a crop shows a small part."""
SMALLEST_DETAILED = 0.11
"""Least part of the area of these that a crop shows: 64 px."""


@dataclasses.dataclass(frozen=True)
class Source:
    """Photos of one kind.

    Fields: pixels: uint8 [photos, px, px, 3]. photos: int64 [n], the photo of each row. labels: int64 [photos], `NO_LABEL` where there is
    none. smallest: least part of a photo's area that a crop shows, 0..1.
    """

    pixels: Pixels
    photos: npt.NDArray[np.int64]
    labels: npt.NDArray[np.int64]
    smallest: float

    def __len__(self) -> int:
        return len(self.photos)


def small_photos(photos: Photos, smallest: float) -> Source:
    """Tiny ImageNet without what it holds out."""
    return Source(photos.pixels, photos.train, photos.labels, smallest)


def detailed_photos(folder: Path) -> Source:
    """The middle squares of the JPEG photos in `folder`, but for those held out. They have no labels.

    They hold what an enlarged photo of 64 px does not: the detail that users' photos have.
    """
    pixels = np.stack([middle(file, DETAILED_PX) for file in _files(folder, held_out=False)])
    rows = np.tile(np.arange(len(pixels)), TURNS)
    return Source(pixels, rows, np.full(len(pixels), NO_LABEL), SMALLEST_DETAILED)


def held_out_files(folder: Path) -> list[Path]:
    """The photos in `folder` that `detailed_photos` leaves out."""
    return _files(folder, held_out=True)


def middle(file: Path, px: int) -> Pixels:
    """The middle square of a photo, uint8 [px, px, 3]."""
    with Image.open(file) as image:
        scale = px / min(image.size)
        w, h = (max(px, round(side * scale)) for side in image.size)
        left, top = (w - px) // 2, (h - px) // 2
        resized = image.convert("RGB").resize((w, h), Image.Resampling.BILINEAR)
    return np.asarray(resized.crop((left, top, left + px, top + px)))


def _files(folder: Path, *, held_out: bool) -> list[Path]:
    files = sorted(folder.glob("*.jpg"))
    if len(files) < HELD_OUT:
        raise FileNotFoundError(f"expected JPEG photos in {folder}, found {len(files)}")
    return [file for i, file in enumerate(files) if (i % HELD_OUT == 0) == held_out]
