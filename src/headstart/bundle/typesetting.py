"""Text on pictures, with whatever fonts a machine has."""

import functools
import unicodedata

from PIL import ImageFont

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

# Pillow's own font has ASCII only. The later ones have Chinese, Japanese and Korean letters.
_FONTS = (
    *("DejaVuSans.ttf", "Arial Unicode.ttf", "Arial.ttf", "arial.ttf"),
    *("NotoSansCJK-Regular.ttc", "wqy-microhei.ttc", "wqy-zenhei.ttc", "PingFang.ttc", "Hiragino Sans GB.ttc", "msyh.ttc", "malgun.ttf"),
)
_NO_LETTER = "\U0010fffe"  # no font has it: shows what one draws for letters it lacks


def typeset(text: str, px: int) -> tuple[str, Font]:
    """`text` and a font that has its letters; where this machine has none, accents are dropped and other letters become `?`."""
    if text.isascii():
        return text, _default_font(px)
    for name in _FONTS:
        font = _font(name, px)
        if font is not None and _has(font, text):
            return text, font
    letters = (letter for letter in unicodedata.normalize("NFKD", text) if not unicodedata.combining(letter))
    return "".join(letters).encode("ascii", "replace").decode("ascii"), _default_font(px)


def shortened(text: str, font: Font, width: float) -> str:
    """`text`, or as much of its beginning as fits `width` px, with three dots."""
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(f"{text}...") > width:
        text = text[:-1]
    return f"{text.rstrip()}..."


@functools.lru_cache(maxsize=16)
def _default_font(px: int) -> Font:
    return ImageFont.load_default(px)


@functools.lru_cache(maxsize=64)
def _font(name: str, px: int) -> ImageFont.FreeTypeFont | None:
    try:
        return ImageFont.truetype(name, px)
    except OSError:
        return None


def _has(font: ImageFont.FreeTypeFont, text: str) -> bool:
    lacking = bytes(font.getmask(_NO_LETTER))
    return all(bytes(font.getmask(letter)) != lacking for letter in set(text) if not letter.isascii())
