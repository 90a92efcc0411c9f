"""Made pictures with structure at several sizes, as photos have it; each is a stranger to all others."""

import hashlib
import io

import numpy as np
from PIL import Image

from headstart.data.table import Photo
from headstart.data.views import thumbnail


def scene(seed: int = 0, width: int = 160, height: int = 120) -> np.ndarray:
    """uint8 [h, w, 3]: random patches of three sizes, laid over one another; the same `seed` at another size is the same picture."""
    rng = np.random.default_rng(seed)
    layers = []
    for cells, weight in ((4, 0.5), (9, 0.3), (20, 0.2)):
        patches = rng.integers(0, 256, (cells, cells + 1, 3), dtype=np.uint8)
        layers.append(weight * np.asarray(Image.fromarray(patches).resize((width, height), Image.Resampling.BICUBIC), dtype=float))
    return np.clip(sum(layers), 0, 255).astype(np.uint8)


def photo_of(image: np.ndarray, path: str, label: str = "a", **fields: str) -> Photo:
    """What a scan would know of a file with these pixels."""
    return Photo(path, label, hashlib.sha256(image.tobytes()).hexdigest(), glance=thumbnail(image), **fields)


def saved_again(image: np.ndarray, quality: int) -> np.ndarray:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file).convert("RGB"))


def resized(image: np.ndarray, by: float) -> np.ndarray:
    size = round(image.shape[1] * by), round(image.shape[0] * by)
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.LANCZOS))


def cropped(image: np.ndarray, share: float, left: float = 0.5, top: float = 0.5) -> np.ndarray:
    """Without `share` of its width and height, taken from the left and top edge in these proportions."""
    height, width = image.shape[:2]
    x, y = round(width * share * left), round(height * share * top)
    return np.ascontiguousarray(image[y : y + round(height * (1 - share)), x : x + round(width * (1 - share))])


def mirrored(image: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(image[:, ::-1])


def brighter(image: np.ndarray, by: float) -> np.ndarray:
    return np.clip(image * by, 0, 255).astype(np.uint8)
