"""A picture of photos with what a model says about each: its most probable answers, with bars. No PyTorch.

grid(bundle.predict(["a.jpg", "b.jpg"])).save("answers.png")
"""

import math
import os
import textwrap
from collections.abc import Sequence

from PIL import Image, ImageDraw

from headstart.bundle.predict import Prediction
from headstart.bundle.typesetting import shortened, typeset
from headstart.data.pixels import UnreadableImage, decode
from headstart.errors import safe_text

__all__ = ["MOST_ANSWERS", "MOST_PHOTOS", "grid"]

MOST_PHOTOS = 48
MOST_ANSWERS = 5

_COLUMNS = 6
_CELL_PX, _PHOTO_PX, _MARGIN_PX, _LINE_PX, _TEXT_PX = 250, 190, 18, 24, 15
_INK, _FAINT, _PLACE, _BAR, _FAINT_BAR, _WARN = "#1c1c1c", "#767676", "#f1f1ef", "#bcd7ee", "#e4e4e1", "#a4400a"


def grid(answers: Sequence[Prediction], *, n_photos: int | None = None) -> Image.Image:
    """Draw photos, six a row, each above its answers; at most the first 48 photos and 5 answers a photo.

    A photo that is none of the labels says so, its nearest answers in grey; one that cannot be read shows the reason.

    Args:
        answers: of photos by path.
        n_photos: how many there are in all, where `answers` are only the first of them.
    """
    n_photos = len(answers) if n_photos is None else n_photos
    shown = answers[:MOST_PHOTOS]
    top = max((min(MOST_ANSWERS, len(answer.top)) for answer in shown), default=0)
    n_columns = max(1, min(_COLUMNS, math.ceil(math.sqrt(len(shown) * 1.5))))
    n_lines = 1 + top + any(answer.known is False for answer in shown)
    cell_down = _PHOTO_PX + n_lines * _LINE_PX + _MARGIN_PX
    n_rows = math.ceil(len(shown) / n_columns)
    more = n_photos > len(shown)
    across = n_columns * (_CELL_PX + _MARGIN_PX) + _MARGIN_PX
    page = Image.new("RGB", (across, n_rows * cell_down + _MARGIN_PX + (_LINE_PX if more else 0)), "white")
    for i, answer in enumerate(shown):
        row, column = divmod(i, n_columns)
        _cell(page, _MARGIN_PX + column * (_CELL_PX + _MARGIN_PX), _MARGIN_PX + row * cell_down, answer)
    if more:
        _write(ImageDraw.Draw(page), _MARGIN_PX, page.height - _LINE_PX - 6, f"the first {len(shown)} of {n_photos:,} photos", _FAINT)
    return page


def _cell(page: Image.Image, x: int, y: int, answer: Prediction) -> None:
    """One photo with its name and answers, `x` and `y` its upper left corner."""
    draw = ImageDraw.Draw(page)
    draw.rectangle((x, y, x + _CELL_PX - 1, y + _PHOTO_PX - 1), fill=_PLACE)
    reason = answer.reason
    if reason is None:
        try:
            photo = _thumbnail(answer.path)
            page.paste(photo, (x + (_CELL_PX - photo.width) // 2, y + (_PHOTO_PX - photo.height) // 2))
        except UnreadableImage as error:  # it changed since it was answered
            reason = error.reason
    y += _PHOTO_PX
    if reason is not None:
        lines = textwrap.wrap(f"could not be read: {safe_text(reason)}", 30)[:5]
        for i, line in enumerate(lines):
            _write(draw, x + 12, y - _PHOTO_PX // 2 + round((i - len(lines) / 2) * _LINE_PX), line, _WARN, _CELL_PX - 24)
    _write(draw, x, y + 3, safe_text(os.path.basename(answer.path)), _FAINT, _CELL_PX)
    y += _LINE_PX
    if answer.known is False:
        _write(draw, x, y + 3, "none of these; the nearest:", _WARN, _CELL_PX)
        y += _LINE_PX
    for label, probability in answer.top[:MOST_ANSWERS]:
        _bar(draw, x, y, safe_text(label), probability, faint=answer.known is False)
        y += _LINE_PX


def _bar(draw: ImageDraw.ImageDraw, x: int, y: int, label: str, probability: float, *, faint: bool) -> None:
    """An answer on a bar as long as it is probable, the whole width being 1."""
    length = round(probability * (_CELL_PX - 1))
    draw.rectangle((x, y + 1, x + length, y + _LINE_PX - 3), fill=_FAINT_BAR if faint else _BAR)
    number = f"{probability:.2f}"
    _, font = typeset(number, _TEXT_PX)
    room = math.ceil(font.getlength(number)) + 5
    ink = _FAINT if faint else _INK
    _write(draw, x + _CELL_PX - room, y + 2, number, ink)
    _write(draw, x + 5, y + 2, label, ink, _CELL_PX - room - 12)


def _write(draw: ImageDraw.ImageDraw, x: int, y: int, text: str, ink: str, width: int | None = None) -> None:
    text, font = typeset(text, _TEXT_PX)
    draw.text((x, y), text if width is None else shortened(text, font, width), fill=ink, font=font)


def _thumbnail(path: str) -> Image.Image:
    """The whole photo, upright, as large as its place. Raises: UnreadableImage."""
    photo = Image.fromarray(decode(path, shorter_px=_PHOTO_PX))
    scale = min(_CELL_PX / photo.width, _PHOTO_PX / photo.height)
    size = max(1, round(photo.width * scale)), max(1, round(photo.height * scale))
    return photo.resize(size, Image.Resampling.LANCZOS)
