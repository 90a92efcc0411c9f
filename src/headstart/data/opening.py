"""Bytes of any image file -> one upright picture in RGB, or `UnreadableImage` with the reason. The rules: docs/concepts/pixels.md.

Nothing here is switched on or off globally: limits are checked on each file's header, and Pillow's `LOAD_TRUNCATED_IMAGES` and
`MAX_IMAGE_PIXELS` stay as they are. The one process-wide trace is a filter that mutes the warnings Pillow's own modules print.
"""

import io
import logging
import os
import re
import stat
import warnings
from dataclasses import dataclass
from pathlib import Path

# Each plugin registers itself with Pillow. Named here so that no thread triggers Pillow's import of all fifty at its first photo.
from PIL import (
    AvifImagePlugin,  # noqa: F401
    BmpImagePlugin,  # noqa: F401
    GifImagePlugin,  # noqa: F401
    Image,
    JpegImagePlugin,
    PngImagePlugin,  # noqa: F401
    TiffImagePlugin,  # noqa: F401
    UnidentifiedImageError,
    WebPImagePlugin,  # noqa: F401
)

from headstart.data.colour import to_rgb
from headstart.data.origin import origin_of
from headstart.data.sniff import foreign_kind, image_format
from headstart.errors import DataError, safe_text
from headstart.files import human_bytes

PIXEL_LIMIT = 178_956_970  # width x height in the header; 512 MiB decoded. Twice Pillow's own warning level: where Pillow refuses, too.
FILE_LIMIT_BYTES = 512 * 2**20
DRAFT_HEADROOM = 2  # a JPEG is decoded small only to at least this many times the shorter side asked for; why: docs/concepts/pixels.md

# EXIF orientation -> (how Pillow turns the picture upright, rows and columns swap, left and right swap after that, top and bottom too).
_UPRIGHT = {
    2: (Image.Transpose.FLIP_LEFT_RIGHT, False, True, False),
    3: (Image.Transpose.ROTATE_180, False, True, True),
    4: (Image.Transpose.FLIP_TOP_BOTTOM, False, False, True),
    5: (Image.Transpose.TRANSPOSE, True, False, False),
    6: (Image.Transpose.ROTATE_270, True, True, False),
    7: (Image.Transpose.TRANSVERSE, True, True, True),
    8: (Image.Transpose.ROTATE_90, True, False, True),
}
_ORIENTATION_TAG = 0x0112
_PILLOW_WARNINGS = ("ignore", None, Warning, re.compile(r"PIL\."), 0)
_SILENT = logging.NullHandler()

Box = tuple[float, float, float, float]


class UnreadableImage(DataError):  # noqa: N818 - named for what the user has in hand
    """A file that is no picture headstart reads. `reason` is short, fit for a table: "truncated", "empty file", "not an image (text)"."""

    def __init__(self, reason: str, *, path: str | None = None, hint: str | None = None) -> None:
        subject = "the picture" if path is None else safe_text(path)
        super().__init__(f"cannot read {subject}: {reason}", hint=hint)
        self.reason = reason
        self.path = path


@dataclass(frozen=True)
class PhotoFacts:
    """What a file's header says. Width and height in pixels of the upright picture, as `decode` returns it; mode as Pillow names it.

    Empty where the file does not say it: `taken`, as 2024-05-31T16:20:07, `camera` and `tables` (origin.py).
    """

    format: str
    mode: str
    width: int
    height: int
    taken: str = ""
    camera: str = ""
    tables: str = ""


@dataclass(frozen=True)
class Opened:
    """An upright RGB picture; `box` (left, top, right, bottom, px) is the part of it that the photo covers.

    A JPEG decoded at 1/8 of its size has its width rounded up; the photo ends inside the last column. Resizing from
    `box` keeps every detail where the full decode has it (without: up to 27 of 255 off, measured on small photos).
    """

    image: Image.Image
    box: Box


def read_bytes(source: bytes | str | os.PathLike[str]) -> bytes:
    """The file's content; bytes are handed through.

    Raises: UnreadableImage: a folder, device or absent file, no permission, empty, or over `FILE_LIMIT_BYTES`.
    """
    if isinstance(source, bytes):
        data = source
    else:
        try:
            data = _read_file(Path(source))
        except UnreadableImage:
            raise
        except (OSError, ValueError) as error:  # ValueError: a null byte in the path
            raise UnreadableImage(_file_reason(error), path=str(source)) from error
    if not data:
        raise UnreadableImage("empty file", path=_name(source))
    return data


def probe(source: bytes | str | os.PathLike[str]) -> PhotoFacts:
    """Format, mode, size and origin from the header alone; no pixel is decoded.

    Raises: UnreadableImage: no image, a format that is not read, a damaged header, or too many pixels.
    """
    data = read_bytes(source)
    try:
        image = _open_header(data)
        turned = image.format != "TIFF" and _orientation(image, loaded=False) >= 5  # a TIFF's size already is the upright one
        width, height = image.size[::-1] if turned else image.size
        return PhotoFacts(image_format(data) or "", image.mode, width, height, *origin_of(image))
    except Exception as error:
        raise _unreadable(error, data, source) from error


def open_upright(source: bytes | str | os.PathLike[str], shorter_px: int | None = None, *, max_pixels: int | None = None) -> Opened:
    """The first frame, upright, in RGB; a JPEG perhaps scaled down to no less than `DRAFT_HEADROOM` x `shorter_px`.

    Raises: UnreadableImage: for whatever reason the pixels cannot all be had; its header says more than `max_pixels` (width x
        height; None: `PIXEL_LIMIT`).
    """
    data = read_bytes(source)
    try:
        image = _open_header(data, max_pixels)
        box = _draft(image, shorter_px)
        image.load()
        orientation = _orientation(image, loaded=True)
        if orientation == 1:
            return Opened(to_rgb(image), box)
        method, swapped, right_to_left, bottom_to_top = _UPRIGHT[orientation]
        upright = to_rgb(image).transpose(method)
        return Opened(upright, _turned(box, upright.size, swapped, right_to_left, bottom_to_top))
    # Pillow raises whatever its parsers stumble over: SyntaxError, struct.error, ValueError, zlib.error, MemoryError, ...
    except Exception as error:
        raise _unreadable(error, data, source) from error


def _read_file(path: Path) -> bytes:
    found = path.stat()
    if stat.S_ISDIR(found.st_mode):
        raise UnreadableImage("is a folder", path=str(path))
    if not stat.S_ISREG(found.st_mode):  # a pipe or device would be waited for, or never end
        raise UnreadableImage("not a regular file", path=str(path))
    if found.st_size > FILE_LIMIT_BYTES:
        size, limit = human_bytes(found.st_size), human_bytes(FILE_LIMIT_BYTES)
        raise UnreadableImage(f"{size}, more than the {limit} a photo may have", path=str(path))
    return path.read_bytes()


def _file_reason(error: OSError | ValueError) -> str:
    if isinstance(error, FileNotFoundError):
        return "no such file"
    if isinstance(error, PermissionError):
        return "permission denied"
    return (getattr(error, "strerror", None) or str(error)).lower()


def _open_header(data: bytes, max_pixels: int | None = None) -> Image.Image:
    """Identify the file by its content, read its header, check its size."""
    _mute_pillow()
    format_name = image_format(data)
    if format_name is None:
        raise UnreadableImage(foreign_kind(data))
    image = _open_heif(data) if format_name == "HEIF" else Image.open(io.BytesIO(data), formats=(format_name,))
    _check_size(image.size, PIXEL_LIMIT if max_pixels is None else max_pixels)
    return image


def _open_heif(data: bytes) -> Image.Image:
    try:
        import pillow_heif
    except ImportError as error:
        raise UnreadableImage('HEIC, which needs: pip install "headstart[heic]"') from error
    image: Image.Image = pillow_heif.HeifImageFile(io.BytesIO(data))  # libheif turns it upright; the EXIF tag is reset to say so
    return image


def _check_size(size: tuple[int, int], max_pixels: int) -> None:
    width, height = size
    if width < 1 or height < 1:
        raise UnreadableImage(f"no pixels ({width} x {height})")
    if width * height > max_pixels:
        raise UnreadableImage(f"{width} x {height} pixels, more than the {max_pixels:,} a photo may have")


def _draft(image: Image.Image, shorter_px: int | None) -> Box:
    """Ask libjpeg for 1/2, 1/4 or 1/8 of the size where that leaves the headroom; the box that the photo then covers."""
    whole = (0.0, 0.0, float(image.width), float(image.height))
    if shorter_px is None or not isinstance(image, JpegImagePlugin.JpegImageFile):
        return whole
    least_px = DRAFT_HEADROOM * shorter_px
    drafted = image.draft(None, (least_px, least_px))  # type: ignore[no-untyped-call, unused-ignore]
    return whole if drafted is None else drafted[1]


def _orientation(image: Image.Image, *, loaded: bool) -> int:
    """EXIF orientation, 1 (upright) to 8; 1 where absent or unreadable, for a photo with damaged EXIF is still a photo."""
    if not loaded and image.format == "PNG" and "exif" not in image.info:
        return 1  # Pillow would decode the picture to look for EXIF behind it
    try:
        value = image.getexif().get(_ORIENTATION_TAG, 1)
    except Exception:
        return 1
    return value if isinstance(value, int) and value in _UPRIGHT else 1


def _turned(box: Box, size: tuple[int, int], swapped: bool, right_to_left: bool, bottom_to_top: bool) -> Box:
    """`box`, anchored at 0, 0, after the picture was turned to `size`."""
    width, height = (box[3], box[2]) if swapped else (box[2], box[3])
    left = size[0] - width if right_to_left else 0.0
    top = size[1] - height if bottom_to_top else 0.0
    return left, top, left + width, top + height


def _unreadable(error: Exception, data: bytes, source: bytes | str | os.PathLike[str]) -> UnreadableImage:
    path = _name(source)
    if isinstance(error, UnreadableImage):
        return UnreadableImage(error.reason, path=path, hint=error.hint)
    text = " ".join(str(error).split())
    name = image_format(data) or "image"
    if isinstance(error, Image.DecompressionBombError):
        return UnreadableImage("more pixels than a photo may have", path=path)
    if isinstance(error, MemoryError):
        return UnreadableImage("needs more memory than there is", path=path)
    if isinstance(error, UnidentifiedImageError):
        return UnreadableImage(f"damaged {name} header", path=path)
    if isinstance(error, EOFError) or re.search("truncated|end of file|eof|not enough|incomplete", text, re.IGNORECASE):
        return UnreadableImage("truncated", path=path)
    return UnreadableImage(f"damaged {name} ({text[:60] or type(error).__name__})", path=path)


def _name(source: bytes | str | os.PathLike[str]) -> str | None:
    return None if isinstance(source, bytes) else str(source)


def _mute_pillow() -> None:
    """Keep Pillow's remarks on odd files ("Corrupt EXIF data", ...) from the user, and from becoming errors where warnings are.

    `warnings.catch_warnings` swaps a list that all threads share, so photos decoded in threads would switch each other's filters
    off. One filter, put in place once and never taken away, has no such race; it touches warnings raised in Pillow's modules only.
    """
    if _PILLOW_WARNINGS not in warnings.filters:
        warnings.filterwarnings("ignore", module=r"PIL\.")
    logging.getLogger("PIL").addHandler(_SILENT)  # only where nobody listens: a handler of the user's own still gets everything
