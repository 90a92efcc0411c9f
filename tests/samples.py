"""Photos made for tests, and files that are none."""

import io
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

# name -> (a file that is no photo, why it is refused); bombs and truncated photos are made where they are needed
NO_PHOTOS = {
    "empty": (b"", "empty file"),
    "text": (b"hello, I am no picture\n", "not an image (text)"),
    "long text": ("Grüße, ñ, 写真\n".encode() * 400, "not an image (text)"),
    "html": (b"\n<!DOCTYPE html><html><body>404</body></html>", "not an image (HTML page)"),
    "svg": (b'<?xml version="1.0"?><svg xmlns="x"></svg>', "not an image (SVG drawing)"),
    "git lfs": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "not an image (Git LFS pointer)"),
    "pdf": (b"%PDF-1.7\n", "not an image (PDF)"),
    "zip": (b"PK\3\4rest", "not an image (ZIP archive)"),
    "gzip": (b"\x1f\x8brest", "not an image (gzip archive)"),
    "zeros": (bytes(5000), "not an image (only zero bytes)"),
    "bytes": (bytes(range(256)), "not an image"),
    "video": (b"\0\0\0\x18ftypmp42\0\0\0\0isommp42", "not an image (video)"),
    "jpeg xl": (b"\0\0\0\x0cJXL \r\n\x87\n", "unsupported format (JPEG XL)"),
    "bare jpeg xl": (b"\xff\x0arest", "unsupported format (JPEG XL)"),
    "jpeg 2000": (b"\0\0\0\x0cjP  \r\n\x87\n", "unsupported format (JPEG 2000)"),
    "photoshop": (b"8BPS\0\1", "unsupported format (Photoshop)"),
    "icon": (b"\0\0\1\0\1\0", "unsupported format (icon)"),
    "png header": (b"\x89PNG\r\n\x1a\n", "damaged PNG header"),
    "jpeg header": (b"\xff\xd8\xff\xe0", "damaged JPEG header"),
}


def bomb(width: int, height: int) -> bytes:
    """A PNG of one pixel whose header claims another size."""
    file = io.BytesIO()
    Image.new("1", (1, 1)).save(file, "PNG")
    png = bytearray(file.getvalue())
    png[16:24] = width.to_bytes(4, "big") + height.to_bytes(4, "big")
    png[29:33] = zlib.crc32(png[12:29]).to_bytes(4, "big")
    return bytes(png)


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


def make_squares(folder: Path, n: int) -> Path:
    """`n` photos a class of noise with a bright square, high or low: more than a head on random layers tells apart."""
    rng = np.random.default_rng(0)
    for lowest, name in ((0, "high"), (20, "low")):
        (folder / name).mkdir(parents=True)
        for i in range(n):
            image = rng.integers(0, 90, (32, 32, 3))
            y, x = lowest + rng.integers(0, 5), rng.integers(0, 20)
            image[y : y + 8, x : x + 8] += 120
            Image.fromarray(image.astype(np.uint8)).save(folder / name / f"{i}.png")
    return folder
