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
_LEAST_VIEW_PX = 96  # JPEG blurs the colours of very small pictures

_RIGHT_RGB = (15, 122, 114)
_WRONG_RGB = (214, 84, 32)


def thumbnail(path: Path) -> str | None:
    """The photo as a small JPEG, longer side at most 160 px; None where it is gone or cannot be read."""
    try:
        if not path.is_file():
            return None
        image = Image.fromarray(pixels.decode(path, shorter_px=THUMBNAIL_PX))
    except (DataError, OSError, ValueError):  # ValueError: a path with a null byte
        return None
    return _small_jpeg(image)


def view_picture(view: NDArray[np.uint8]) -> str:
    """What the network sees, uint8 [px, px, 3], as a small JPEG; few pixels are shown as the squares they are."""
    side = view.shape[0]
    scale = max(1, -(-_LEAST_VIEW_PX // side))
    return _small_jpeg(Image.fromarray(view.repeat(scale, axis=0).repeat(scale, axis=1)))


def _small_jpeg(image: Image.Image) -> str:
    image.thumbnail((THUMBNAIL_PX, THUMBNAIL_PX), Image.Resampling.LANCZOS)
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
