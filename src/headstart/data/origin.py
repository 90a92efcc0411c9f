"""Where a photo comes from, as its header tells: when and with which camera it was taken, and how its JPEG was encoded.

A malformed EXIF block is as good as none: a photo with damaged EXIF is still a photo.
"""

import hashlib
import re
from datetime import datetime
from typing import Any

from PIL import Image

_CAMERA_TAGS = (0x010F, 0x0110)  # make, model
_EXIF_IFD, _TAKEN_TAG = 0x8769, 0x9003  # DateTimeOriginal
_TIME = re.compile(r"(\d{4})[:\-/](\d\d)[:\-/](\d\d)[ T](\d\d):(\d\d):(\d\d)")
_LONGEST = 60  # characters of a make or model; whatever is longer is no name
_DIGEST_DIGITS = 16


def origin_of(image: Image.Image) -> tuple[str, str, str]:
    """When an opened, not yet decoded picture was taken, by which camera, and the digest of its JPEG tables; "" for what is not said."""
    return (*_taken_by(image), _tables(image))


def _taken_by(image: Image.Image) -> tuple[str, str]:
    if image.format == "PNG" and "exif" not in image.info:
        return "", ""  # Pillow would decode the picture to look for EXIF behind it
    try:
        exif = image.getexif()
        camera = " ".join(filter(None, (_words(exif.get(tag)) for tag in _CAMERA_TAGS)))
        taken = _time(exif.get_ifd(_EXIF_IFD).get(_TAKEN_TAG))
    except Exception:  # Pillow raises whatever its parsers stumble over
        return "", ""
    return taken, camera


def _words(value: Any) -> str:
    """Printable text on one line."""
    if not isinstance(value, str):
        return ""
    return " ".join("".join(sign if sign.isprintable() else " " for sign in value[:_LONGEST]).split())


def _time(value: Any) -> str:
    """EXIF's 2024:05:31 16:20:07 as ISO text; "" for what is no time, such as 0000:00:00 00:00:00."""
    found = _TIME.match(value.strip()) if isinstance(value, str) else None
    try:
        return "" if found is None else datetime(*map(int, found.groups())).isoformat()  # type: ignore[arg-type]
    except ValueError:
        return ""


def _tables(image: Image.Image) -> str:
    """Digest of the quantisation tables: they tell the encoder and its quality setting."""
    tables = getattr(image, "quantization", None)
    if not isinstance(tables, dict) or not tables:
        return ""
    text = repr([(number, list(tables[number])) for number in sorted(tables)])
    return hashlib.sha256(text.encode()).hexdigest()[:_DIGEST_DIGITS]
