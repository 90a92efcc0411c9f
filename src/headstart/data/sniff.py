"""What a file is, told from its first bytes; names and extensions play no part."""

import codecs

# Formats that are read, by the bytes they begin with.
_SIGNATURES = (
    (b"\xff\xd8\xff", "JPEG"),
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"GIF87a", "GIF"),
    (b"GIF89a", "GIF"),
    (b"BM", "BMP"),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    (b"II+\0", "TIFF"),
    (b"MM\0+", "TIFF"),
)
# Formats that are often found among photos and are not read.
_FOREIGN = (
    (b"\xff\x0a", "unsupported format (JPEG XL)"),
    (b"\0\0\0\x0cJXL ", "unsupported format (JPEG XL)"),
    (b"\0\0\0\x0cjP  ", "unsupported format (JPEG 2000)"),
    (b"8BPS", "unsupported format (Photoshop)"),
    (b"\0\0\1\0", "unsupported format (icon)"),
    (b"%PDF", "not an image (PDF)"),
    (b"PK\3\4", "not an image (ZIP archive)"),
    (b"\x1f\x8b", "not an image (gzip archive)"),
)
_HEAD_BYTES = 4096
_AVIF_BRANDS = {b"avif", b"avis"}
_HEIF_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1"}


def image_format(data: bytes) -> str | None:
    """Pillow's name of the format (`HEIF` for HEIC), or None where it is none that is read."""
    for signature, name in _SIGNATURES:
        if data.startswith(signature):
            return name
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WEBP"
    if data[4:8] == b"ftyp":
        return _iso_format(data)
    return None


def foreign_kind(data: bytes) -> str:
    """Why `data` is refused, in a few words, where `image_format` finds nothing to read."""
    for signature, reason in _FOREIGN:
        if data.startswith(signature):
            return reason
    if data[4:8] == b"ftyp":
        return "not an image (video)"
    head = data[:_HEAD_BYTES]
    if not head.strip(b"\0"):
        return "not an image (only zero bytes)"
    return f"not an image ({_text_kind(head)})" if _is_text(head) else "not an image"


def _iso_format(data: bytes) -> str | None:
    """AVIF, HEIF, or None for a video: `mif1` alone says neither, so all the brands a file claims are read."""
    end = min(int.from_bytes(data[:4], "big"), 256)
    brands = {data[8:12], *(data[at : at + 4] for at in range(16, end, 4))}
    if brands & _AVIF_BRANDS:
        return "AVIF"
    return "HEIF" if brands & _HEIF_BRANDS else None


def _is_text(head: bytes) -> bool:
    try:
        text = codecs.getincrementaldecoder("utf-8-sig")().decode(head, final=len(head) < _HEAD_BYTES)
    except UnicodeDecodeError:
        return False
    return all(character.isprintable() or character in "\t\r\n\f" for character in text)


def _text_kind(head: bytes) -> str:
    lowered = head.lower()
    if b"<svg" in lowered:
        return "SVG drawing"
    if b"<html" in lowered or b"<!doctype html" in lowered:
        return "HTML page"
    if lowered.startswith(b"version https://git-lfs"):
        return "Git LFS pointer"
    return "text"
