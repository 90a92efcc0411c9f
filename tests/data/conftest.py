"""Small real pictures, and folders of them."""

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

WritePhoto = Callable[..., Path]
MakeFolder = Callable[[Path, Mapping[str, int]], Path]


def picture(name: str, px: int = 24) -> Image.Image:
    """A picture of noise that follows from `name`."""
    seed = int.from_bytes(hashlib.sha256(name.encode("utf-8", "surrogateescape")).digest()[:8], "big")
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (px, px, 3), dtype=np.uint8))


@pytest.fixture(scope="session")
def write_photo() -> WritePhoto:
    """Write a picture of its own to a path; its format follows the suffix, PNG where there is none."""

    def write(path: Path, content: str | None = None, px: int = 24) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        image = picture(str(path.parent.name + path.name) if content is None else content, px)
        image.save(path, format=None if path.suffix in (".jpg", ".png", ".bmp", ".gif") else "PNG")
        return path

    return write


@pytest.fixture(scope="session")
def make_folder(write_photo: WritePhoto) -> MakeFolder:
    """`{"train/cat": 2}` -> train/cat/0.png and train/cat/1.png, all different."""

    def make(root: Path, counts: Mapping[str, int]) -> Path:
        for folder, n in counts.items():
            (root / folder).mkdir(parents=True, exist_ok=True)
            for i in range(n):
                write_photo(root / folder / f"{i}.png", f"{folder} {i}")
        return root

    return make
