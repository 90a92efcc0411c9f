"""The one pixel contract: a photo's bytes -> uint8 RGB, the same for training, evaluation, prediction, serving and export.

Equal bytes and an equal `Preprocessing` give equal pixels. The rules, and the measurements behind them: docs/concepts/pixels.md.
"""

import dataclasses
import importlib.metadata
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import PIL
from PIL import Image, features

from headstart.data.opening import Box, Opened, PhotoFacts, UnreadableImage, open_upright, probe
from headstart.errors import ConfigError, DataError, did_you_mean

__all__ = [
    "DECODER",
    "PhotoFacts",
    "Preprocessing",
    "UnreadableImage",
    "centre_box",
    "decode",
    "load",
    "prepare",
    "probe",
    "resample",
    "shrink",
]


def _decoder() -> str:
    """What decodes here: our rules, Pillow, the libraries it was built with, and pillow-heif, which is not imported for this."""
    versions = {
        "headstart": "1",
        "pillow": PIL.__version__,
        "libjpeg": features.version("libjpeg_turbo") or features.version("jpg"),
        "libwebp": features.version("webp"),
        "libavif": features.version("avif"),
        "libtiff": features.version("libtiff"),
        "zlib": features.version("zlib"),
    }
    try:
        versions["heif"] = importlib.metadata.version("pillow-heif")
    except importlib.metadata.PackageNotFoundError:
        versions["heif"] = None
    return " ".join(f"{name}-{version}" for name, version in versions.items())


# Changes whenever the same bytes may give other pixels: a rule of ours, Pillow, or a library that decodes for it.
DECODER = _decoder()

Pixels = npt.NDArray[np.uint8]
Source = bytes | str | os.PathLike[str]

_FILTERS = {
    "nearest": Image.Resampling.NEAREST,
    "box": Image.Resampling.BOX,
    "bilinear": Image.Resampling.BILINEAR,
    "hamming": Image.Resampling.HAMMING,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}
_LONGEST_PX = 16_384  # Pillow takes a resize's box in 32-bit floats, which no longer hold a pixel's fraction far beyond this


@dataclass(frozen=True)
class Preprocessing:
    """What a backbone expects of a picture. `mean` and `std` are of RGB in 0..1; they are applied inside the network, not here."""

    input_px: int
    crop: float
    interpolation: str
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def __post_init__(self) -> None:
        if self.input_px < 1:
            raise ConfigError(f"expected an input size of at least 1 px, found {self.input_px}")
        if not 0 < self.crop <= 1:
            raise ConfigError(f"expected a crop over 0 and up to 1, found {self.crop}")
        if self.interpolation not in _FILTERS:
            hint = did_you_mean(self.interpolation, _FILTERS)
            raise ConfigError(f"expected an interpolation of {', '.join(_FILTERS)}, found {self.interpolation!r}", hint=hint)
        if len(self.mean) != 3 or len(self.std) != 3 or min(self.std) <= 0:
            raise ConfigError(f"expected a mean and a positive std for each of R, G, B, found {self.mean} and {self.std}")

    @property
    def resize_px(self) -> int:
        """What the shorter side is resized to before the centre is cut out (timm's rounding: down)."""
        return math.floor(self.input_px / self.crop)

    def with_px(self, px: int) -> "Preprocessing":
        """The same at another input size."""
        return dataclasses.replace(self, input_px=px)

    def to_json(self) -> dict[str, Any]:
        """Plain values for a JSON file; `from_json` is the way back."""
        return {**dataclasses.asdict(self), "mean": list(self.mean), "std": list(self.std)}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "Preprocessing":
        """Raises: ConfigError: a key is absent, or a value is none that `Preprocessing` takes; keys beyond its own are ignored."""
        try:
            return cls(
                input_px=int(values["input_px"]),
                crop=float(values["crop"]),
                interpolation=str(values["interpolation"]),
                mean=_triple(values["mean"]),
                std=_triple(values["std"]),
            )
        except KeyError as error:
            raise ConfigError(f"preprocessing record lacks {error}, found {sorted(values)}") from error
        except (TypeError, ValueError) as error:
            raise ConfigError(f"preprocessing record holds a value of the wrong kind: {error}") from error


def decode(source: Source, *, shorter_px: int | None = None) -> Pixels:
    """A photo as uint8 [h, w, 3], RGB, upright.

    Args:
        source: the file's bytes, or its path.
        shorter_px: the caller needs no more than this shorter side. A JPEG of four times that or more is then decoded at 1/2, 1/4 or
            1/8 of its size, never below twice `shorter_px`; 12 megapixels cost a seventh of the time. After `prepare` the two
            differ by 0.2 to 1 of 255 on average for photos of several megapixels, and by less than 2 for 98 in 100 of the
            smallest to which it applies.
    Raises: UnreadableImage: with a short `reason`.
    Source: docs/concepts/pixels.md, "Big JPEGs".
    """
    opened = open_upright(source, shorter_px)
    width, height = opened.box[2] - opened.box[0], opened.box[3] - opened.box[1]
    if (width, height) == opened.image.size:
        return _array(opened.image)
    whole_size = max(1, round(width)), max(1, round(height))
    return _array(opened.image.resize(whole_size, Image.Resampling.BICUBIC, box=opened.box))


def load(source: Source, pre: Preprocessing, *, max_pixels: int | None = None) -> Pixels:
    """A photo as the network takes it: uint8 [px, px, 3] with px = `pre.input_px`.

    Raises: UnreadableImage: with a short `reason`; one of more than `max_pixels` (width x height) is refused by its header.
    """
    return _fit(open_upright(source, pre.resize_px, max_pixels=max_pixels), pre)


def prepare(image: Pixels, pre: Preprocessing) -> Pixels:
    """Resize the shorter side to `pre.resize_px` (antialiased) and cut out the centre: uint8 [h, w, 3] -> uint8 [px, px, 3].

    The same geometry as timm's evaluation transform. Only the centre is computed, so that 1 x 5000 px cost no more than a square.
    """
    height, width = _checked(image).shape[:2]
    return _fit(Opened(Image.fromarray(image), (0.0, 0.0, float(width), float(height))), pre)


def shrink(image: Pixels, px: int) -> Pixels:
    """`image` with its shorter side brought down to `px`, shape kept; smaller ones are returned as they are."""
    height, width = _checked(image).shape[:2]
    shorter = min(height, width)
    if shorter <= px:
        return image
    size = max(1, round(width * px / shorter)), max(1, round(height * px / shorter))
    return _array(Image.fromarray(image).resize(size, Image.Resampling.LANCZOS))


def resample(image: Pixels, box: Box, px: int, interpolation: str) -> Pixels:
    """`box` (left, top, right, bottom in px) of a picture, resized to uint8 [px, px, 3] with Pillow's antialiased filter."""
    return _resample(Image.fromarray(_checked(image)), box, px, interpolation)


def _resample(image: Image.Image, box: Box, px: int, interpolation: str) -> Pixels:
    if max(image.size) > _LONGEST_PX:
        image, box = _neighbourhood(image, box, px)
    return _array(image.resize((px, px), _FILTERS[interpolation], box=box))


def _fit(opened: Opened, pre: Preprocessing) -> Pixels:
    return _resample(opened.image, centre_box(opened.box, pre), pre.input_px, pre.interpolation)


def centre_box(box: Box, pre: Preprocessing) -> Box:
    """The part of a picture that fills `box` which `prepare` shows, left, top, right and bottom in px."""
    left, top, right, bottom = box
    width, height = right - left, bottom - top
    shorter = min(width, height)
    # torchvision's Resize and CenterCrop, to the rounding
    resized_w, resized_h = (max(pre.resize_px, int(pre.resize_px * side / shorter)) for side in (width, height))
    crop_left, crop_top = round((resized_w - pre.input_px) / 2), round((resized_h - pre.input_px) / 2)
    scale_x, scale_y = width / resized_w, height / resized_h
    return (
        left + crop_left * scale_x,
        top + crop_top * scale_y,
        min(right, left + (crop_left + pre.input_px) * scale_x),
        min(bottom, top + (crop_top + pre.input_px) * scale_y),
    )


def _neighbourhood(image: Image.Image, box: Box, px: int) -> tuple[Image.Image, Box]:
    """The part of `image` that a resize of `box` to `px` can see, and the box within it."""
    reach_x, reach_y = (math.ceil(3 * max(1.0, side / px)) + 1 for side in (box[2] - box[0], box[3] - box[1]))
    left, top = max(0, math.floor(box[0]) - reach_x), max(0, math.floor(box[1]) - reach_y)
    right, bottom = min(image.width, math.ceil(box[2]) + reach_x), min(image.height, math.ceil(box[3]) + reach_y)
    return image.crop((left, top, right, bottom)), (box[0] - left, box[1] - top, box[2] - left, box[3] - top)


def _checked(image: Pixels) -> Pixels:
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or image.size == 0:
        raise DataError(f"expected pixels as uint8 [h, w, 3], found {image.dtype} {list(image.shape)}")
    return image


def _array(image: Image.Image) -> Pixels:
    return np.asarray(image, dtype=np.uint8)


def _triple(values: Any) -> tuple[float, float, float]:
    red, green, blue = (float(value) for value in values)
    return red, green, blue
