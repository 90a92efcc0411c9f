"""Where a photo comes from is read from its header, and damage there costs nothing but that."""

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from headstart.data.pixels import probe

PIXELS = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)


def encoded(kind: str = "JPEG", exif: bytes | None = None, **options: object) -> bytes:
    file = io.BytesIO()
    Image.fromarray(PIXELS).save(file, kind, **({} if exif is None else {"exif": exif}), **options)
    return file.getvalue()


def exif(make: object = "Canon", model: object = "EOS 80D", taken: object = "2024:05:31 16:20:07") -> bytes:
    values = Image.Exif()
    values[0x010F], values[0x0110] = make, model
    values.get_ifd(0x8769)[0x9003] = taken
    return values.tobytes()


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_time_and_camera_are_read(kind: str) -> None:
    facts = probe(encoded(kind, exif()))
    assert (facts.taken, facts.camera) == ("2024-05-31T16:20:07", "Canon EOS 80D")


@pytest.mark.parametrize(
    ("taken", "expected"),
    [("0000:00:00 00:00:00", ""), ("2024:13:01 00:00:00", ""), ("yesterday", ""), ("", ""), ("2024-05-31 16:20:07", "2024-05-31T16:20:07")],
)
def test_what_is_no_time_is_none(taken: str, expected: str) -> None:
    assert probe(encoded(exif=exif(taken=taken))).taken == expected


def test_names_are_one_printable_line() -> None:
    assert probe(encoded(exif=exif(make="A\nB\x07 ", model="C\x00"))).camera == "A B C"
    assert probe(encoded(exif=exif(make="", model=""))).camera == ""


def test_without_exif_nothing_is_known() -> None:
    for kind in ("JPEG", "PNG", "GIF", "BMP"):
        assert (probe(encoded(kind)).taken, probe(encoded(kind)).camera) == ("", "")


@settings(max_examples=80)
@given(st.binary(max_size=60), st.integers(0, 120), st.integers(0, 255))
def test_malformed_exif_is_no_error(junk: bytes, place: int, value: int) -> None:
    damaged = bytearray(exif())
    damaged[place % len(damaged)] = value
    for block in (b"Exif\0\0" + junk, bytes(damaged)):
        assert probe(encoded(exif=block)).format == "JPEG"


def test_tables_tell_one_quality_from_another_and_nothing_else() -> None:
    low, again, high = (probe(encoded(quality=quality)).tables for quality in (60, 60, 95))
    assert low == again != high
    assert len(low) == 16
    assert probe(encoded("PNG")).tables == ""
