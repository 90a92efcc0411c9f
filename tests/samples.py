"""Photos made for tests."""

from pathlib import Path

import numpy as np
from PIL import Image


def make_photos(folder: Path, *, n: int = 20, classes: tuple[str, ...] = ("blue sky", "grün", "red"), seed: int = 0) -> Path:
    """A folder of class folders: `n` noisy photos a class, each class with a colour of its own, PNG and JPEG mixed."""
    rng = np.random.default_rng(seed)
    for k, name in enumerate(classes):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for i in range(n):
            image = rng.integers(0, 140, (36 + i % 5, 40, 3))
            image[..., k % 3] += 100
            kind = "png" if i % 2 else "jpg"
            Image.fromarray(image.astype(np.uint8)).save(folder / name / f"photo {i}.{kind}")
    return folder
