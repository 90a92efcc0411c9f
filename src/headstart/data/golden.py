"""Known pictures, so that a trained model can tell whether pixels still reach it as they did when it was made.

A few files of under 400 bytes, one per rule that decoders disagree on, and what they must decode to. Lossless formats are compared
exactly. JPEG libraries may differ by a level or two; those files are blocks of flat colour in the middle of steps of 32 levels, and
compared in such steps: right at any rounding, wrong when a channel, an orientation or an ink is misread.
"""

import base64
import hashlib

import numpy as np
import numpy.typing as npt

from headstart.data.pixels import DECODER, decode
from headstart.errors import DataError

_JPEG_STEP = 32  # levels

# name: the file in base64, and the digest of its pixels. The pictures in them: tests/data/test_golden.py.
_FILES = {
    "png": (
        "iVBORw0KGgoAAAANSUhEUgAAAAgAAAAGCAIAAABxZ0isAAAAKElEQVR4nGNk+M/A+kcVEzFq3NfAKsGi8QBTQgOrhAZWHRpYjULRCgAhBDdJgdN2BwAAAABJ"
        "RU5ErkJggg==",
        "8da61c6588169559",
    ),
    "png-16-bit": (
        "iVBORw0KGgoAAAANSUhEUgAAAAgAAAAGEAAAAACL/lxkAAAAOklEQVR4nGNgaGR9wu0usEqMV7pA4bKaGYu2BKsEGxSzSrBJsGhLsEmwJsMFkyECSKqgAghV"
        "CAEoCQCyvQq+o0DKqQAAAABJRU5ErkJggg==",
        "e7b854d9320231b1",
    ),
    "png-palette-alpha": (
        "iVBORw0KGgoAAAANSUhEUgAAAAgAAAAGBAMAAAAMK8LIAAAAD1BMVEXICgoKyAoKCsgAAAD68Aq9yhDzAAAABXRSTlP/gABA/zgt144AAAAmSURBVHicY2RU"
        "kr3EYnyWQY9ByIRRmcFByISRUVn2khIjo5LsJQBQJwV/iUHKcwAAAABJRU5ErkJggg==",
        "f25199f5dc36263c",
    ),
    "png-grey-alpha": (
        "iVBORw0KGgoAAAANSUhEUgAAAAgAAAAGCAQAAABUDBdwAAAAFElEQVR4nGNk+M/6FxmyaLygvgAAnhMwuckMezsAAAAASUVORK5CYII=",
        "d26a7db00a38a2a2",
    ),
    "gif-animated": (
        "R0lGODlhCAAGAIIAAMgKCgrICgoKyAAAAPrwCgAAAAAAAAAAACH5BAkAAAIALAAAAAAIAAYAAAgZAAEEEDCAgECCBgcWPLhQYUKEDB82hDgwIAAh+QQJAAAC"
        "ACwAAAAACAAGAILICgoKyAoKCsgAAAD68AoAAAAAAAAAAAAIGQAFBABAYIBAggYHFjy4UGFChAwfNoQ4MCAAOw==",
        "fc66cdf5b2b47f70",
    ),
    "webp": (
        "UklGRjwAAABXRUJQVlA4TDAAAAAvB0ABALmM6H/sIqL/AUVtGzH8WRbIuvU6BArSNmBx97yMINs2NJntjwkIcN743wA=",
        "8da61c6588169559",
    ),
    "jpeg": (
        "/9j/4AAQSkZJRgABAQAAAQABAAD/2wBDAAMCAgMCAgMDAwMEAwMEBQgFBQQEBQoHBwYIDAoMDAsKCwsNDhIQDQ4RDgsLEBYQERMUFRUVDA8XGBYUGBIUFRT/"
        "2wBDAQMEBAUEBQkFBQkUDQsNFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBT/wAARCAAQABgDAREAAhEBAxEB/8QA"
        "FgABAQEAAAAAAAAAAAAAAAAACAkH/8QAFBABAAAAAAAAAAAAAAAAAAAAAP/EABkBAAIDAQAAAAAAAAAAAAAAAAcJBQYKCP/EABQRAQAAAAAAAAAAAAAAAAAA"
        "AAD/2gAMAwEAAhEDEQA/AMHBoysg0Iz7gedW6tXKZqRgTvMrU8wBVGt//9k=",
        "bebc9145622b36c1",
    ),
    "jpeg-turned": (
        "/9j/4AAQSkZJRgABAQAAAQABAAD/4QAiRXhpZgAATU0AKgAAAAgAAQESAAMAAAABAAYAAAAAAAD/2wBDAAMCAgMCAgMDAwMEAwMEBQgFBQQEBQoHBwYIDAoM"
        "DAsKCwsNDhIQDQ4RDgsLEBYQERMUFRUVDA8XGBYUGBIUFRT/2wBDAQMEBAUEBQkFBQkUDQsNFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQU"
        "FBQUFBQUFBQUFBQUFBT/wAARCAAQABgDAREAAhEBAxEB/8QAFgABAQEAAAAAAAAAAAAAAAAACAkH/8QAFBABAAAAAAAAAAAAAAAAAAAAAP/EABkBAAIDAQAA"
        "AAAAAAAAAAAAAAcJBQYKCP/EABQRAQAAAAAAAAAAAAAAAAAAAAD/2gAMAwEAAhEDEQA/AMHBoysg0Iz7gedW6tXKZqRgTvMrU8wBVGt//9k=",
        "a7de5f1731a0e3fb",
    ),
    "jpeg-cmyk": (
        "/9j/7gAOQWRvYmUAZAAAAAAA/9sAQwADAgIDAgIDAwMDBAMDBAUIBQUEBAUKBwcGCAwKDAwLCgsLDQ4SEA0OEQ4LCxAWEBETFBUVFQwPFxgWFBgSFBUU/8AA"
        "FAgAEAAYBEMRAE0RAFkRAEsRAP/EABcAAQEBAQAAAAAAAAAAAAAAAAkKAAf/xAAUEAEAAAAAAAAAAAAAAAAAAAAA/9oADgRDAE0AWQBLAAA/AErGoNQqaalQ"
        "A6szJ/1ADKVlKyalhUipIAxVnVirM//Z",
        "bebc9145622b36c1",
    ),
}


def golden_images(px: int) -> npt.NDArray[np.uint8]:
    """Four pictures to compare two forms of a network on: uint8 [4, px, px, 3], the same on every machine.

    A colour gradient, a checkerboard, rings, and fine texture: smooth and sharp, dark and bright, no two channels alike.
    """
    y, x = np.mgrid[0:px, 0:px].astype(np.int64)
    gradient = np.stack([255 * x // px, 255 * y // px, 255 * (2 * px - 2 - x - y) // (2 * px)], axis=-1)
    cell = max(1, px // 8)
    odd = ((x // cell + y // cell) % 2)[..., None]
    checkers = np.where(odd == 1, np.array([230, 40, 20]), np.array([10, 200, 240]))
    radius_squared = (2 * x - px) ** 2 + (2 * y - px) ** 2
    rings = np.stack([radius_squared * factor // px % 256 for factor in (2, 3, 5)], axis=-1)
    texture = np.stack([(x * a ^ y * b) * 97 % 251 for a, b in ((3, 7), (5, 11), (13, 2))], axis=-1)
    return np.stack([gradient, checkers, rings, texture]).astype(np.uint8)


def check_images(px: int) -> npt.NDArray[np.uint8]:
    """What a network and its file are compared on: the golden pictures and two of noise, uint8 [6, px, px, 3]."""
    noise = np.random.default_rng(0).integers(0, 256, (2, px, px, 3), np.uint8)
    return np.concatenate([golden_images(px), noise])


def golden_digest() -> str:
    """Hex digest of what this installation decodes the golden files to; kept in a bundle, compared by `check_golden`."""
    together = hashlib.sha256()
    for name in _FILES:
        together.update(f"{name} {_digest(name)}\n".encode())
    return together.hexdigest()


def check_golden(expected: str | None = None) -> None:
    """Compare this installation's decoder with the one a model was made with (`expected`, its `golden_digest`) or with headstart's rules.

    Raises: DataError: pixels differ; the text names the kinds of file that are read differently.
    """
    wrong = [name for name, (_, digest) in _FILES.items() if _digest(name) != digest]
    hint = "install the Pillow version the model was made with"
    if wrong:
        raise DataError(f"this installation reads some pictures wrongly: {', '.join(wrong)} ({DECODER})", hint=hint)
    if expected is not None and (found := golden_digest()) != expected:
        text = f"the model was made with other rules for reading pictures: expected {expected[:16]}, found {found[:16]} ({DECODER})"
        raise DataError(text, hint="use the headstart version the model was made with, or train it again")


def golden_file(name: str) -> bytes:
    """The content of one golden file."""
    return base64.b64decode(_FILES[name][0])


def _digest(name: str) -> str:
    pixels = decode(golden_file(name))
    levels = pixels // _JPEG_STEP if name.startswith("jpeg") else pixels
    return hashlib.sha256(repr(levels.shape).encode() + levels.tobytes()).hexdigest()[:16]
