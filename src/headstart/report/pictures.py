"""Pictures inside the page, as data URIs: thumbnails of photos, and the confusion of many classes at a glance."""

import base64
import io
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from headstart.data import pixels
from headstart.errors import DataError

THUMBNAIL_PX = 160
_FEW_PX = 24  # of a photo's longer side; what has no more is shown as the squares it is, where a browser would blur it
_LEAST_VIEW_PX = 96  # JPEG blurs the colours of very small pictures

_RIGHT_RGB = (15, 122, 114)
_WRONG_RGB = (214, 84, 32)


def thumbnail(path: Path, longer_px: int = THUMBNAIL_PX) -> str | None:
    """The photo as a small JPEG, its longer side at most so many px; None where it is gone or cannot be read."""
    try:
        if not path.is_file():
            return None
        photo = pixels.decode(path, shorter_px=longer_px)
    except (DataError, OSError, ValueError):  # ValueError: a path with a null byte
        return None
    return small_jpeg(_as_squares(photo) if max(photo.shape[:2]) <= _FEW_PX else Image.fromarray(photo), longer_px)


def view_picture(view: NDArray[np.uint8]) -> str:
    """What the network sees, uint8 [px, px, 3], as a small JPEG; few pixels are shown as the squares they are."""
    return small_jpeg(_as_squares(view))


def _as_squares(photo: NDArray[np.uint8]) -> Image.Image:
    """A picture [h, w, 3] with its pixels as squares, where it would be too small for JPEG."""
    scale = max(1, -(-_LEAST_VIEW_PX // max(photo.shape[:2])))
    return Image.fromarray(photo.repeat(scale, axis=0).repeat(scale, axis=1))


def small_jpeg(image: Image.Image, longer_px: int = THUMBNAIL_PX) -> str:
    image.thumbnail((longer_px, longer_px), Image.Resampling.LANCZOS)
    file = io.BytesIO()
    image.save(file, "JPEG", quality=80, optimize=True)
    return _data_uri("image/jpeg", file.getvalue())


def heat_map(counts: NDArray[np.int64]) -> str:
    """A confusion matrix [k, k] as a picture, one cell per pair: transparent where nothing happened, so that it fits light and dark pages.

    The share of the row's photos sets the opacity. Mistakes are rarer than hits, so theirs goes by the square root.
    """
    rates = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    opacity = np.sqrt(rates)
    np.fill_diagonal(opacity, np.diagonal(rates))
    cells = np.empty((*counts.shape, 4), dtype=np.uint8)
    cells[..., :3] = _WRONG_RGB
    cells[np.arange(len(counts)), np.arange(len(counts)), :3] = _RIGHT_RGB
    cells[..., 3] = np.ceil(opacity * 255).astype(np.uint8)
    # Browsers blur a magnified picture in print; whole multiples stay crisp everywhere.
    scale = max(1, 600 // len(counts))
    file = io.BytesIO()
    Image.fromarray(cells.repeat(scale, axis=0).repeat(scale, axis=1)).save(file, "PNG", optimize=True)
    return _data_uri("image/png", file.getvalue())


def _data_uri(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
