"""Seeded views of a photo: augmentation that can be stored and found again. The policies: `headstart.data.policy`.

All geometric operations of a policy become one affine map, sampled once from the decoded photo; colour operations follow.
What is measured and why it is done so: docs/concepts/augmentation.md.
"""

import functools
import hashlib
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageEnhance, ImageFilter, ImageOps

from headstart.data.opening import Box
from headstart.data.pixels import Pixels, Preprocessing, centre_box, prepare, resample
from headstart.data.policy import OPERATIONS, canonical, check, parse

__all__ = ["MAX_STRETCH", "OPERATIONS", "augment", "canonical", "check"]

MAX_STRETCH = 4 / 3  # width to height of a crop, before it is made square
MOST_STEP = 1.25  # photo px per view px that two-tap sampling takes as they are; where there are more, they are averaged first
ERASED = (0.02, 0.33)  # of the view's area; these two: "Random Erasing Data Augmentation" (Zhong et al. 2020), section 4
ERASED_RATIO = 1 / 0.3
_ROUNDING = 1e-6  # px

Map = npt.NDArray[np.float64]
"""[3, 3]: where a point of the view comes from. Both in shares of the side from the centre, rightward and downward."""
Change = Callable[[Image.Image], Image.Image]
"""A view's colours changed."""


def augment(image: Pixels, sha256: str, policy: str, index: int, pre: Preprocessing) -> Pixels:
    """View number `index` of a photo, uint8 [h, w, 3] -> uint8 [px, px, 3] with px = `pre.input_px`.

    The view follows from the photo's sha256, the canonical policy and the index alone: no seed, no order, no thread changes it.

    Args:
        image: the decoded photo, or a smaller copy of it.
        sha256: hex digest of the photo's bytes.
        policy: operations as in `OPERATIONS`, such as `flip, rotate 15, zoom 0.2`.
        index: number of the view (>= 0).
    Raises: ConfigError: as `check`.
    Source: crops as in "Going Deeper with Convolutions" (Szegedy et al. 2015), section 6, with a larger least area: their 8 % is meant
        for training from nothing on a million photos. Others: docs/concepts/augmentation.md.
    """
    name, steps = canonical(policy), parse(policy)
    if name == "none":
        return prepare(image, pre)
    if name == "flip":  # two views differ at all; which of them comes first is drawn, so that one view still mirrors half the photos
        first = _draws(sha256, name, 0)[0] < 0.5
        view = prepare(image, pre)
        return _mirrored(view) if first == (index % 2 == 0) else view
    if name == "crop-flip":  # older than the others, and all from one digest: views in users' stores stay what they are
        draws = _draws(sha256, name, index)
        view = resample(image, _crop(image, dict(steps)["crop"][0], draws[1:]), pre.input_px, pre.interpolation)
        return _mirrored(view) if draws[0] < 0.5 else view

    box = centre_box((0.0, 0.0, float(image.shape[1]), float(image.shape[0])), pre)
    whole = np.eye(3)
    changes: list[Change] = []
    for operation, numbers in steps:
        draw = functools.partial(_draws, sha256, name, index, operation)
        if operation == "crop":
            box = _crop(image, numbers[0], draw())
        for part in _parts(operation, numbers, draw):
            if isinstance(part, np.ndarray):
                whole = whole @ part
            else:
                changes.append(part)
    view = _sampled(image, box, whole, pre)
    if not changes:
        return view
    picture = Image.fromarray(view)
    for change in changes:
        picture = change(picture)
    return np.asarray(picture, dtype=np.uint8)


def _draws(*key: str | int) -> list[float]:
    """Eight numbers in 0..1, from a hash rather than a generator: NumPy may change its streams, SHA-256 does not."""
    digest = hashlib.sha256(" ".join(map(str, key)).encode()).digest()
    return [int.from_bytes(digest[at : at + 4], "big") / 2**32 for at in range(0, 32, 4)]


def _crop(image: Pixels, least: float, draws: list[float]) -> Box:
    height, width = image.shape[:2]
    area = (least + (1 - least) * draws[0]) * width * height
    stretch = math.exp((2 * draws[1] - 1) * math.log(MAX_STRETCH))
    crop_w, crop_h = min(width, math.sqrt(area * stretch)), min(height, math.sqrt(area / stretch))
    left, top = draws[2] * (width - crop_w), draws[3] * (height - crop_h)
    return left, top, min(width, left + crop_w), min(height, top + crop_h)


def _parts(operation: str, numbers: tuple[float, ...], draw: Callable[..., list[float]]) -> Iterator[Map | Change]:
    """What an operation does to one view. `draw` gives eight numbers in 0..1, others for other arguments."""
    draws = draw()
    either_way = [2 * number - 1 for number in draws]  # -1..1
    match operation, numbers:
        case "flip", _:
            yield _scaled(-1 if draws[0] < 0.5 else 1, 1)
        case "vflip", _:
            yield _scaled(1, -1 if draws[0] < 0.5 else 1)
        case "shear", (degrees,):
            yield _sheared(math.tan(math.radians(degrees * either_way[0])), 0)
        case "rotate", (degrees,):
            yield _turned(degrees * either_way[0])
        case "zoom", (zoom,):
            yield _scaled(1 + zoom * either_way[0], 1 + zoom * either_way[0])
        case "shift", (share,):
            yield _shifted(share * either_way[0], share * either_way[1])
        case "randaugment", (count, magnitude):
            for number in range(int(count)):
                which, sign = draw(number)[:2]
                yield _automatic(which, magnitude / 10, sign, _RAND)
        case "trivial", _:
            yield _automatic(draws[0], math.floor(31 * draws[2]) / 30, draws[1], _WIDE)
        case (("brightness" | "contrast" | "colour"), (change,)):
            yield _enhanced(operation, 1 + change * either_way[0])
        case "blur", (sigma,):
            yield functools.partial(Image.Image.filter, filter=ImageFilter.GaussianBlur(sigma * draws[0]))
        case "erase", (chance,):
            if draws[0] < chance:
                yield functools.partial(_erased, draws=draws[1:])


# Maps: each says where the view's points come from, so what it does to the picture is its inverse.


def _scaled(across: float, down: float) -> Map:
    return np.diag([1 / across, 1 / down, 1.0])


def _sheared(across: float, down: float) -> Map:
    """One of the two is 0."""
    return np.array([[1.0, -across, 0.0], [-down, 1.0, 0.0], [0.0, 0.0, 1.0]])


def _turned(degrees: float) -> Map:
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return np.array([[cos, -sin, 0.0], [sin, cos, 0.0], [0.0, 0.0, 1.0]])


def _shifted(across: float, down: float) -> Map:
    return np.array([[1.0, 0.0, -across], [0.0, 1.0, -down], [0.0, 0.0, 1.0]])


@dataclass(frozen=True)
class _Reach:
    """How far the operations of `_AUTOMATIC` go at full magnitude."""

    turn_degrees: float
    shear: float
    shift: float  # share of the view's side
    factor: float  # of brightness, contrast, colour, sharpness: distance from 1
    bits: int  # of 8 that posterize drops


# "RandAugment" (Cubuk et al. 2020): the ranges of AutoAugment's table 6, where a shift of 150 px is of 331.
_RAND = _Reach(turn_degrees=30, shear=0.3, shift=150 / 331, factor=0.9, bits=4)
# "TrivialAugment" (Müller and Hutter 2021), its Wide space, whose shift of 32 px is taken as of 224.
_WIDE = _Reach(turn_degrees=135, shear=0.99, shift=32 / 224, factor=0.99, bits=6)
_AUTOMATIC = (
    "identity",
    "autocontrast",
    "equalize",
    "rotate",
    "solarize",
    "colour",
    "posterize",
    "contrast",
    "brightness",
    "sharpness",
    "shear-x",
    "shear-y",
    "shift-x",
    "shift-y",
)


def _automatic(which: float, magnitude: float, sign: float, most: _Reach) -> Map | Change:
    """One operation of `_AUTOMATIC`. `which` and `sign`: 0..1, drawn; `magnitude`: 0..1 of its reach."""
    operation = _AUTOMATIC[int(which * len(_AUTOMATIC))]
    signed = magnitude if sign < 0.5 else -magnitude
    match operation:
        case "autocontrast":
            return ImageOps.autocontrast
        case "equalize":
            return ImageOps.equalize
        case "rotate":
            return _turned(signed * most.turn_degrees)
        case "solarize":
            return functools.partial(ImageOps.solarize, threshold=256 - round(256 * magnitude))
        case "posterize":
            return functools.partial(ImageOps.posterize, bits=8 - round(most.bits * magnitude))
        case "colour" | "contrast" | "brightness" | "sharpness":
            return _enhanced(operation, 1 + signed * most.factor)
        case "shear-x":
            return _sheared(signed * most.shear, 0)
        case "shear-y":
            return _sheared(0, signed * most.shear)
        case "shift-x":
            return _shifted(signed * most.shift, 0)
        case "shift-y":
            return _shifted(0, signed * most.shift)
        case _:
            return np.eye(3)


_ENHANCERS = {
    "brightness": ImageEnhance.Brightness,
    "contrast": ImageEnhance.Contrast,
    "colour": ImageEnhance.Color,
    "sharpness": ImageEnhance.Sharpness,
}


def _enhanced(what: str, factor: float) -> Change:
    return lambda picture: _ENHANCERS[what](picture).enhance(factor)


def _erased(picture: Image.Image, draws: list[float]) -> Image.Image:
    """A rectangle of noise, from the draws too."""
    view = np.array(picture)
    px = len(view)
    area = (ERASED[0] + (ERASED[1] - ERASED[0]) * draws[0]) * px**2
    ratio = math.exp((2 * draws[1] - 1) * math.log(ERASED_RATIO))
    height, width = (max(1, min(px, round(math.sqrt(side)))) for side in (area * ratio, area / ratio))
    top, left = int(draws[2] * (px - height + 1)), int(draws[3] * (px - width + 1))
    noise = hashlib.shake_256(repr(draws).encode()).digest(3 * height * width)
    view[top : top + height, left : left + width] = np.frombuffer(noise, np.uint8).reshape(height, width, 3)
    return Image.fromarray(view)


def _sampled(image: Pixels, box: Box, whole: Map, pre: Preprocessing) -> Pixels:
    """The view [px, px, 3] whose points come from where `whole` says, in shares of `box` from its centre."""
    px = pre.input_px
    width, height = box[2] - box[0], box[3] - box[1]
    (a, b, c), (d, e, f) = whole[:2].tolist()
    # From a view's pixel to the photo's: x_photo = a x + b y + c, y_photo = d x + e y + f.
    a, b, c = a * width / px, b * width / px, box[0] + width * (0.5 + c - (a + b) / 2)
    d, e, f = d * height / px, e * height / px, box[1] + height * (0.5 + f - (d + e) / 2)
    # Where the view's corners lie, and as far around them as filters see.
    left, right = c + px * (min(a, 0) + min(b, 0)), c + px * (max(a, 0) + max(b, 0))
    top, bottom = f + px * (min(d, 0) + min(e, 0)), f + px * (max(d, 0) + max(e, 0))
    steps = math.hypot(a, b), math.hypot(d, e)
    reach_x, reach_y = (math.ceil(3 * max(1.0, step)) + 1 for step in steps)
    from_x, from_y = math.floor(left) - reach_x, math.floor(top) - reach_y
    to_x, to_y = math.ceil(right) + reach_x, math.ceil(bottom) + reach_y

    if b == 0 and d == 0:  # upright: a box, for the same resampling as the centre view's
        within = left >= 0 and top >= 0 and right <= image.shape[1] + _ROUNDING and bottom <= image.shape[0] + _ROUNDING
        if within:
            upright = (left, top, min(right, image.shape[1]), min(bottom, image.shape[0]))
            view = resample(image, upright, px, pre.interpolation)
        else:
            part = _part(image, (from_y, to_y), (from_x, to_x))
            view = resample(part, (left - from_x, top - from_y, right - from_x, bottom - from_y), px, pre.interpolation)
        return np.ascontiguousarray(view[:: 1 if e > 0 else -1, :: 1 if a > 0 else -1])
    picture = Image.fromarray(_part(image, (from_y, to_y), (from_x, to_x)))
    size = picture.size
    fewer = [max(1.0, step / MOST_STEP) for step in steps]
    if max(fewer) > 1:
        picture = picture.resize((math.ceil(size[0] / fewer[0]), math.ceil(size[1] / fewer[1])), Image.Resampling.BICUBIC)
    x, y = picture.width / size[0], picture.height / size[1]
    inverse = (a * x, b * x, (c - from_x) * x, d * y, e * y, (f - from_y) * y)
    return np.asarray(picture.transform((px, px), Image.Transform.AFFINE, inverse, Image.Resampling.BILINEAR), dtype=np.uint8)


def _part(image: Pixels, rows: tuple[int, int], columns: tuple[int, int]) -> Pixels:
    """These rows and columns of a photo, first to before last; beyond its edges it goes on mirrored."""
    spans = list(zip((rows, columns), image.shape, strict=False))
    inner = [(max(0, first), min(last, size)) for (first, last), size in spans]
    beyond = [(inside[0] - first, last - inside[1]) for inside, ((first, last), _) in zip(inner, spans, strict=True)]
    if all(max(over) <= last - first for over, (first, last) in zip(beyond, inner, strict=True)):  # nearly always, and 4 times faster
        (top, bottom), (left, right) = inner
        return np.pad(image[top:bottom, left:right], (*beyond, (0, 0)), mode="symmetric")
    at = [np.arange(first, last) % (2 * size) for (first, last), size in spans]
    down, across = (np.minimum(places, 2 * size - 1 - places) for places, (_, size) in zip(at, spans, strict=True))
    return np.asarray(image.take(down, 0).take(across, 1), dtype=np.uint8)


def _mirrored(view: Pixels) -> Pixels:
    return np.ascontiguousarray(view[:, ::-1])
