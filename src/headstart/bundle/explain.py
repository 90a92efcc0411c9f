"""Where in a photo an answer came from: parts of the photo are hidden, and the network is asked again. No PyTorch.

found = heat_map(load_bundle("runs/a"), "cat.jpg")
overlay(Image.open("cat.jpg"), found).save("why.png")

The network is a closed box here, so the same code serves every network and every runtime, and the map is about the answer of the very file
that predicts. What is hidden follows a folded-over orthogonal design rather than one part at a time: in each of 128 pictures about half
of 64 cells are hidden, and the effect of every cell is read from all 128; the same again with 16 larger cells in 32 pictures.
Source: Plackett and Burman, 1946 (the design); docs/guides/explain.md (measured beside Grad-CAM, attention rollout, occlusion, RISE).
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageOps

from headstart.bundle.format import Bundle
from headstart.bundle.predict import Photo, open_engine, read, softmax
from headstart.bundle.typesetting import typeset
from headstart.data.colour import to_rgb
from headstart.data.pixels import Preprocessing, UnreadableImage, centre_box, decode, shrink
from headstart.errors import BundleError, ConfigError, did_you_mean, safe_text

__all__ = ["PASSES", "HeatMap", "find_label", "heat_map", "overlay", "sheet", "upright"]

# Cells a side, and what a cell's effect counts. Powers of two, so that a Hadamard matrix has as many columns as there are cells.
# Small cells order places most faithfully, large ones point at the right thing more often; both: docs/LOG.md, "Explaining an answer".
_SCALES = ((8, 1.0), (4, 2.0))
PASSES = 2 + sum(2 * cells**2 for cells, _ in _SCALES)
"""Pictures the network is asked about for one map: the photo, the photo with all of it hidden, and those of the designs."""

_LEAST = 0.01  # of the logit, that the strongest place must be worth; else rounding errors would be blown up to a map

# matplotlib's "viridis", every sixteenth of its 256 colours: as light as the value is high, also for the colour-blind and in grey print.
# Enough colours that straight lines between them stay within 6 of 255.
_VIRIDIS = np.frombuffer(
    bytes.fromhex(
        "440154 48186a 472d7b 424086 3b528b 33638d 2c728e 26828e 21918c 1f9f88 27ad81 3dbc74 5cc863 81d34d aadc32 d5e21a fde725",
    ),
    np.uint8,
).reshape(-1, 3)

_OPACITY = 0.8  # of the colour at the place that does most; none where hiding does nothing
_DIMMED = 0.35  # brightness of what the network does not see
_LONGEST_TIMES = 8  # so many times `shorter_px` a picture is long at most: 2,000,000 x 1 px are a small file and would be 2 GB of heat map
_SHEET_PX = 400  # shorter side of each of a sheet's two pictures
_MARGIN_PX, _TEXT_PX, _LINE_PX, _BAR_PX, _SCALE_PX = 12, 18, 26, 100, 520


@dataclass(frozen=True, eq=False)
class HeatMap:
    """Which parts of a photo speak for a label."""

    values: npt.NDArray[np.float32]
    """[px, px], of the part that the network sees, 0 to 1: by how much hiding that place lowers the label's logit against the mean of all
    labels', as a share of the most that any place does. 0 where hiding changes nothing or raises it; all 0 where no place speaks for it"""
    label: str
    index: int
    """of the label in the model's order, from 0"""
    probability: float
    """of the label for this photo, 0 to 1"""
    probability_hidden: float
    """the same once the whole photo is hidden: what the label gets without any of its details"""
    preprocessing: Preprocessing
    """says which part of the photo the network sees"""


def heat_map(
    bundle: Bundle,
    photo: Photo,
    label: str | None = None,
    *,
    provider: str = "auto",
    precision: str = "auto",
    advance: Callable[[int], None] | None = None,
) -> HeatMap:
    """Which parts of `photo` speak for `label`. Costs `PASSES` times a prediction; the same every time.

    Args:
        label: a label's name or id; by default the most probable label.
        provider, precision: as `headstart.bundle.predict.stream`.
        advance: told of the pictures done, `PASSES` in all.

    Raises:
        UnreadableImage: the photo cannot be read.
        ConfigError: no such label.
        BundleError: the network does not run here, or its answer is not a number.
    """
    wanted = None if label is None else find_label(bundle, label)
    seen = read(photo, bundle.preprocessing)
    if seen.pixels is None:
        raise UnreadableImage(str(seen.reason), path=seen.path if seen.path else None)
    session = open_engine(bundle, provider, precision)
    designs = [_design(cells) for cells, _ in _SCALES]
    answers = []
    for logits in session.map(_pictures(seen.pixels, designs, session.batch_size)):
        answers.append(logits)
        if advance is not None:
            advance(len(logits))
    logits = np.concatenate(answers) / bundle.temperature
    if not np.isfinite(logits).all():
        raise BundleError("the network's answer for this photo is not a number", hint="export the model again, or use precision fp32")
    index = int(logits[0].argmax()) if wanted is None else wanted
    probs = softmax(logits[:2])[:, index]
    return HeatMap(
        values=_share_of_most(_effects(_evidence(logits[2:], index), designs, seen.pixels.shape[0])),
        label=bundle.labels[index].name,
        index=index,
        probability=float(probs[0]),
        probability_hidden=float(probs[1]),
        preprocessing=bundle.preprocessing,
    )


def find_label(bundle: Bundle, name: str) -> int:
    """Index of the label whose id or name is `name`.

    Raises: ConfigError: there is none, with the nearest; or several have that name, with their ids.
    """
    found = [i for i, label in enumerate(bundle.labels) if name == label.id] or [
        i for i, one in enumerate(bundle.labels) if name == one.name
    ]
    if not found:
        names = [label.name for label in bundle.labels]
        raise ConfigError(f"the model has no class {safe_text(name)!r} among its {len(names)}", hint=_which(name, names))
    if len(found) > 1:
        ids = ", ".join(str(bundle.labels[i].id) for i in found)
        raise ConfigError(f"{len(found)} classes of the model are called {safe_text(name)!r}", hint=f"name one by its id: {ids}")
    return found[0]


def _which(name: str, names: list[str]) -> str | None:
    if len(names) <= 20:
        return f"expected one of {', '.join(map(safe_text, names))}"
    return did_you_mean(name, names)


def _design(cells: int) -> npt.NDArray[np.float64]:
    """Which cell is shown (1) and which hidden (-1) in which picture: [2 x cells^2, cells, cells].

    A Hadamard matrix and its negative: columns are orthogonal, so that each cell's effect is estimated from all pictures, as well as if it
    alone had been varied in them; and what two cells do only together cancels out of it. Columns are shuffled, so that the triples
    whose joint effect does not cancel are not neighbours, and some of them turned, so that no picture shows or hides everything: such a
    pair would lend all cells the same effect.
    """
    matrix = np.ones((1, 1))
    while len(matrix) < cells**2:
        matrix = np.block([[matrix, matrix], [matrix, -matrix]])
    rng = np.random.default_rng(0)  # a constant of the method, no choice of a run's
    matrix = matrix[:, rng.permutation(len(matrix))] * rng.choice([-1, 1], len(matrix))
    return np.concatenate([matrix, -matrix]).reshape(-1, cells, cells)


def _pictures(pixels: npt.NDArray[np.uint8], designs: list[npt.NDArray[np.float64]], size: int) -> Iterator[npt.NDArray[np.uint8]]:
    """The `PASSES` pictures in batches of `size`. A hidden place takes the photo's mean colour, with soft edges: hard ones are shapes."""
    mean = pixels.mean(axis=(0, 1))
    detail = pixels - mean
    shown = [np.ones((1, 1)), np.zeros((1, 1)), *((cells + 1) / 2 for design in designs for cells in design)]
    for start in range(0, len(shown), size):
        masks = [_enlarged(cells, pixels.shape[0]) for cells in shown[start : start + size]]
        yield np.stack([np.rint(mean + detail * mask[..., None]).astype(np.uint8) for mask in masks])


def _effects(scores: npt.NDArray[np.float64], designs: list[npt.NDArray[np.float64]], px: int) -> npt.NDArray[np.float32]:
    """What showing a place adds to the scores [n] of the designs' pictures: [px, px], for the area of a small cell, mean of both scales."""
    total, finest, start = np.zeros((px, px), np.float32), _SCALES[0][0], 0
    for design, (cells, weight) in zip(designs, _SCALES, strict=True):
        of_cells = np.tensordot(scores[start : start + len(design)], design, 1) / len(design)
        total += weight * _enlarged(of_cells * (cells / finest) ** 2, px)
        start += len(design)
    return total / np.float32(sum(weight for _, weight in _SCALES))


def _enlarged(cells: npt.NDArray[np.floating], px: int) -> npt.NDArray[np.float32]:
    """Values of cells [m, m] -> [px, px], bilinear."""
    return np.asarray(Image.fromarray(cells.astype(np.float32)).resize((px, px), Image.Resampling.BILINEAR))


def _evidence(logits: npt.NDArray[np.floating], index: int) -> npt.NDArray[np.float64]:
    """A label's logit above the mean of all labels', [n].

    It still moves where the network is very sure, which a probability does not. Log-odds do too, but pointed at the right thing less often:
    they hang on the strongest other label, which is another one from picture to picture.
    """
    found: npt.NDArray[np.float64] = logits[:, index].astype(np.float64) - logits.mean(axis=1, dtype=np.float64)
    return found


def _share_of_most(effects: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    values = np.maximum(effects, 0)
    most = values.max()
    return values / most if most >= _LEAST else np.zeros_like(values)


def upright(photo: Photo, shorter_px: int) -> Image.Image:
    """The photo as people see it, RGB and turned upright, its shorter side at most `shorter_px` and its longer one 8 times that.

    Raises: UnreadableImage.
    """
    if isinstance(photo, Image.Image):
        pixels = np.asarray(to_rgb(ImageOps.exif_transpose(photo)))
    elif isinstance(photo, np.ndarray):
        pixels = photo
    else:
        pixels = decode(photo, shorter_px=shorter_px)
    image = Image.fromarray(shrink(pixels, shorter_px))
    image.thumbnail((_LONGEST_TIMES * shorter_px, _LONGEST_TIMES * shorter_px), Image.Resampling.LANCZOS)
    return image


def colours(values: npt.NDArray[np.floating]) -> npt.NDArray[np.float32]:
    """The colour of each value of 0 to 1: [...] -> [..., 3], 0 to 255, of "viridis"."""
    at = np.linspace(0, 1, len(_VIRIDIS))
    return np.stack([np.interp(values, at, _VIRIDIS[:, channel]) for channel in range(3)], axis=-1).astype(np.float32)


def overlay(image: Image.Image, heat_map: HeatMap) -> Image.Image:
    """The photo in grey with its heat map over it in colour, in the size of `image`; dimmed where the network does not look.

    Args: image: the photo, in any size; turned upright here where its EXIF data says so.
    """
    image = to_rgb(ImageOps.exif_transpose(image))
    width, height = image.size
    left, top, right, bottom = map(round, centre_box((0.0, 0.0, float(width), float(height)), heat_map.preprocessing))
    right, bottom = max(right, left + 1), max(bottom, top + 1)
    grey = np.asarray(image.convert("L"), np.float32)[..., None].repeat(3, axis=2)
    picture = np.rint(_DIMMED * grey).astype(np.uint8)
    values = np.asarray(Image.fromarray(heat_map.values).resize((right - left, bottom - top), Image.Resampling.BILINEAR))
    inside = slice(top, bottom), slice(left, right)
    picture[inside] = _painted(grey[inside], values)
    return Image.fromarray(picture)


def _painted(grey: npt.NDArray[np.floating], values: npt.NDArray[np.floating]) -> npt.NDArray[np.uint8]:
    """[h, w, 3] of 0 to 255 under the colours of values [h, w], the more opaque the higher they are."""
    opacity = _OPACITY * values[..., None]
    painted: npt.NDArray[np.uint8] = np.rint((1 - opacity) * grey + opacity * colours(values)).astype(np.uint8)
    return painted


def sheet(photo: Photo, heat_map: HeatMap) -> Image.Image:
    """The photo, its overlay beside it, and below them what the overlay says: a picture that can be read alone.

    Raises: UnreadableImage.
    """
    image = upright(photo, _SHEET_PX)
    width, height = image.size
    lines = [typeset(line, _TEXT_PX) for line in _caption(heat_map, width, height)]
    across = max(2 * width + _MARGIN_PX, _SCALE_PX, *(round(font.getlength(text)) for text, font in lines))
    down = height + _MARGIN_PX + (len(lines) + 1) * _LINE_PX
    page = Image.new("RGB", (across + 2 * _MARGIN_PX, down + 2 * _MARGIN_PX), "white")
    page.paste(image, (_MARGIN_PX, _MARGIN_PX))
    page.paste(overlay(image, heat_map), (width + 2 * _MARGIN_PX, _MARGIN_PX))
    draw = ImageDraw.Draw(page)
    y = height + 2 * _MARGIN_PX
    for text, font in lines:
        draw.text((_MARGIN_PX, y), text, fill="black", font=font)
        y += _LINE_PX
    _scale(page, draw, y)
    return page


def _caption(heat_map: HeatMap, width: int, height: int) -> list[str]:
    """What there is to say in words, a line each, for a picture of that size."""
    name = safe_text(heat_map.label)
    lines = [f"{name}: {heat_map.probability:.2f}, and {heat_map.probability_hidden:.2f} with the whole photo hidden"]
    if not heat_map.values.any():
        lines.append("no part of the photo speaks for it")
    left, top, right, bottom = centre_box((0.0, 0.0, float(width), float(height)), heat_map.preprocessing)
    if left > 1 or top > 1 or right < width - 1 or bottom < height - 1:
        lines.append("dark: outside the centre that the model looks at")
    return lines


def _scale(page: Image.Image, draw: ImageDraw.ImageDraw, y: int) -> None:
    """The legend at height `y`: from nothing to the most, over grey as in the overlay."""
    x = _MARGIN_PX
    for words in ("hiding it changes nothing", "lowers the answer most"):
        text, font = typeset(words, _TEXT_PX)
        draw.text((x, y), text, fill="black", font=font)
        x += round(font.getlength(text)) + 10
        if words.startswith("hiding"):
            values = np.linspace(0, 1, _BAR_PX)[None, :].repeat(_TEXT_PX, axis=0)
            page.paste(Image.fromarray(_painted(np.full((*values.shape, 3), 128.0), values)), (x, y + 2))
            x += _BAR_PX + 10
