"""What files are read, how each kind of pixel becomes RGB, and what is refused with which reason."""

import io
import os
import random
import struct
import sys
import threading
import warnings
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms, ImageFile

from headstart.data import opening
from headstart.data.pixels import PhotoFacts, UnreadableImage, decode, probe
from samples import NO_PHOTOS, bomb

LOSSLESS = {"PNG": {}, "TIFF": {}, "BMP": {}, "WEBP": {"lossless": True}}
FUZZED = {
    "PNG": {},
    "GIF": {},
    "BMP": {},
    "TIFF": {"compression": "tiff_lzw"},
    "JPEG": {"quality": 90},
    "WEBP": {"quality": 80},
    "AVIF": {"quality": 60, "speed": 10},
}
ORIENTATION = 0x0112
TURNS = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
    8: lambda a: np.rot90(a, 1),
}


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def noise(height: int, width: int, channels: int = 3, seed: int = 0) -> np.ndarray:
    shape = (height, width, channels) if channels > 1 else (height, width)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def smooth(height: int, width: int) -> np.ndarray:
    """A picture that JPEG keeps well, no two corners alike."""
    y, x = np.mgrid[0:height, 0:width]
    return np.stack([255 * x // width, 255 * y // height, 255 * (x + y) // (width + height)], axis=-1).astype(np.uint8)


def reason_of(source: bytes | Path) -> str:
    with pytest.raises(UnreadableImage) as caught:
        decode(source)
    return caught.value.reason


def outcome(run: Callable[[], object]) -> str | None:
    """The reason of a refusal, or None where `run` succeeds."""
    try:
        run()
    except UnreadableImage as error:
        return error.reason
    return None


# Rules


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(sorted(LOSSLESS)), st.integers(1, 40), st.integers(1, 40), st.integers(0, 1000))
def test_lossless_formats_give_back_the_pixels(kind: str, height: int, width: int, seed: int) -> None:
    pixels = noise(height, width, seed=seed)
    data = encoded(Image.fromarray(pixels), kind, **LOSSLESS[kind])
    assert np.array_equal(decode(data), pixels)
    assert probe(data) == PhotoFacts(kind, "RGB", width, height)


@pytest.mark.parametrize("kind", ["JPEG", "AVIF", "WEBP", "GIF"])
def test_lossy_formats_come_close(kind: str) -> None:
    pixels = smooth(48, 64)
    difference = decode(encoded(Image.fromarray(pixels), kind, quality=95)).astype(int) - pixels
    assert np.abs(difference).mean() < (8 if kind == "GIF" else 2)  # a GIF has 256 colours


def test_heic_is_read_with_its_extra() -> None:
    pillow_heif = pytest.importorskip("pillow_heif")
    file = io.BytesIO()
    pillow_heif.from_pillow(Image.fromarray(smooth(64, 96))).save(file, quality=95)
    assert probe(file.getvalue()) == PhotoFacts("HEIF", "RGB", 96, 64)
    assert np.abs(decode(file.getvalue()).astype(int) - smooth(64, 96)).mean() < 4


def test_heic_without_its_extra_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    assert reason_of(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(50)) == 'HEIC, which needs: pip install "headstart[heic]"'


def test_the_extension_plays_no_part(tmp_path: Path) -> None:
    path = tmp_path / "really a png\n.jpg"
    path.write_bytes(encoded(Image.fromarray(noise(5, 7)), "PNG"))
    assert np.array_equal(decode(path), noise(5, 7))
    assert np.array_equal(decode(str(path)), decode(path.read_bytes()))


@pytest.mark.parametrize("orientation", TURNS)
@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF", "TIFF lzw", "JPEG", "AVIF"])
def test_exif_orientation_is_applied(kind: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    options = {"TIFF lzw": {"compression": "tiff_lzw"}, "WEBP": {"lossless": True}, "JPEG": {"quality": 95}, "AVIF": {"quality": 95}}
    pixels = smooth(24, 40)
    data = encoded(Image.fromarray(pixels), kind.split()[0], exif=exif, **options.get(kind, {}))
    upright = TURNS[orientation](pixels)
    found = decode(data)
    assert found.shape == upright.shape
    assert np.abs(found.astype(int) - upright).mean() < (2.5 if kind in ("JPEG", "AVIF") else 1e-9)
    assert (probe(data).height, probe(data).width) == upright.shape[:2]


@pytest.mark.parametrize(
    "exif", [b"Exif\0\0garbage", b"Exif\0\0II*\0\x08\0\0\0\xff\xff", b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x09"]
)
def test_damaged_exif_costs_the_orientation_not_the_photo(exif: bytes) -> None:
    for kind in ("JPEG", "PNG", "WEBP"):
        assert decode(encoded(Image.fromarray(smooth(16, 24)), kind, exif=exif)).shape == (16, 24, 3)


def test_sixteen_bit_grey_is_divided_by_257() -> None:
    values = np.arange(0, 65536, 16, dtype=np.uint16).reshape(64, 64)
    expected = np.rint(values / 257).astype(np.uint8)
    for kind in ("PNG", "TIFF"):
        found = decode(encoded(Image.fromarray(values), kind))
        assert all(np.array_equal(found[..., channel], expected) for channel in range(3))


def test_deep_grey_does_not_depend_on_the_brightest_pixel() -> None:
    dim = np.full((4, 4), 5000, dtype=np.uint16)
    bright = dim.copy()
    bright[0, 0] = 65535
    assert decode(encoded(Image.fromarray(dim), "PNG"))[3, 3, 0] == decode(encoded(Image.fromarray(bright), "PNG"))[3, 3, 0] == 19


def test_big_endian_sixteen_bit_grey() -> None:
    values = np.array([[0, 257, 65535]], dtype=">u2")
    image = Image.frombytes("I;16B", (3, 1), values.tobytes())
    assert decode(encoded(image, "TIFF"))[0, :, 0].tolist() == [0, 1, 255]


def test_thirty_two_bit_grey_is_scaled_by_its_range() -> None:
    image = Image.fromarray(np.array([[-5, 0, 2**30, 2**31 - 1]], dtype=np.int32))
    assert decode(encoded(image, "TIFF"))[0, :, 0].tolist() == [0, 0, 128, 255]


def test_unsigned_thirty_two_bit_grey_is_scaled_by_its_range() -> None:
    data = encoded(Image.fromarray(np.array([[0, 2**30, -1]], dtype=np.int32)), "TIFF")
    signed, unsigned = (struct.pack("<HHIHH", 339, 3, 1, kind, 0) for kind in (2, 1))  # the SampleFormat tag
    assert data.count(signed) == 1
    assert decode(data.replace(signed, unsigned))[0, :, 0].tolist() == [0, 64, 255]


def test_floating_point_grey_is_zero_to_one() -> None:
    values = np.array([[-1.0, 0.0, 0.5, 1.0, 300.0, np.nan, np.inf]], dtype=np.float32)
    assert decode(encoded(Image.fromarray(values), "TIFF"))[0, :, 0].tolist() == [0, 0, 128, 255, 255, 0, 255]


def test_sixteen_bit_colour_keeps_the_high_byte() -> None:
    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    row = b"\0" + struct.pack(">6H", 0, 0x1234, 0xFFFF, 0x8000, 0x0100, 0x00FF)
    png = (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", 2, 1, 16, 2, 0, 0, 0))
        + chunk(b"IDAT", zlib.compress(row))
        + chunk(b"IEND", b"")
    )
    assert decode(png).tolist() == [[[0, 0x12, 255], [128, 1, 0]]]


def test_grey_and_one_bit_become_three_equal_channels() -> None:
    grey = noise(6, 9, 1)
    assert np.array_equal(decode(encoded(Image.fromarray(grey), "PNG")), np.repeat(grey[..., None], 3, axis=2))
    bits = Image.fromarray(grey).convert("1")
    for kind in ("PNG", "TIFF", "BMP", "GIF"):
        assert np.array_equal(decode(encoded(bits, kind))[..., 1], np.where(np.asarray(bits), 255, 0))


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_alpha_lies_over_white(mode: str) -> None:
    pixels = noise(8, 8, len(mode))
    colour, alpha = pixels[..., :-1].astype(float), pixels[..., -1:] / 255
    expected = np.broadcast_to(colour * alpha + 255 * (1 - alpha), (8, 8, 3))
    image = Image.fromarray(pixels) if mode == "RGBA" else Image.merge("LA", [Image.fromarray(pixels[..., i]) for i in range(2)])
    assert np.abs(decode(encoded(image, "PNG")) - expected).max() <= 1


def test_transparent_colours_without_an_alpha_channel_become_white() -> None:
    palette = Image.frombytes("P", (3, 1), b"\0\1\2")
    palette.putpalette([200, 0, 0, 0, 200, 0, 0, 0, 200])
    for kind in ("PNG", "GIF"):
        assert decode(encoded(palette, kind, transparency=1)).tolist() == [[[200, 0, 0], [255, 255, 255], [0, 0, 200]]]
    half = decode(encoded(palette, "PNG", transparency=bytes([255, 128, 0])))
    assert half.tolist() == [[[200, 0, 0], [127, 227, 127], [255, 255, 255]]]
    grey = Image.fromarray(np.array([[7, 9]], dtype=np.uint8))
    assert decode(encoded(grey, "PNG", transparency=9))[0, :, 0].tolist() == [7, 255]
    deep = Image.fromarray(np.array([[7000, 9000]], dtype=np.uint16))
    assert decode(encoded(deep, "PNG", transparency=9000))[0, :, 0].tolist() == [27, 255]
    colour = Image.fromarray(np.array([[[1, 2, 3], [4, 5, 6]]], dtype=np.uint8))
    assert decode(encoded(colour, "PNG", transparency=(4, 5, 6))).tolist() == [[[1, 2, 3], [255, 255, 255]]]


@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_cmyk_inks_become_colours(kind: str) -> None:
    inks = np.zeros((16, 32, 4), dtype=np.uint8)
    inks[:, :16, 0] = 255  # cyan
    inks[:, 16:, 3] = 255  # black
    found = decode(encoded(Image.frombytes("CMYK", (32, 16), inks.tobytes()), kind)).astype(int)
    assert np.abs(found[8, 4] - [0, 255, 255]).max() <= 3
    assert np.abs(found[8, 28]).max() <= 3


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF", "AVIF", "MPO"])
def test_the_first_frame_counts(kind: str) -> None:
    frames = [Image.new("RGB", (32, 32), colour) for colour in ((250, 0, 0), (0, 0, 250))]
    data = encoded(frames[0], kind, save_all=True, append_images=frames[1:], quality=95)
    assert np.abs(decode(data).astype(int) - [250, 0, 0]).max() <= 8
    assert probe(data).format == {"MPO": "JPEG"}.get(kind, kind)


def test_colour_profiles_are_ignored() -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    plain = Image.fromarray(noise(8, 8))
    assert np.array_equal(decode(encoded(plain, "PNG", icc_profile=profile)), noise(8, 8))


# Refusals


@pytest.mark.parametrize(("data", "reason"), NO_PHOTOS.values(), ids=NO_PHOTOS)
def test_what_is_no_photo_is_named(data: bytes, reason: str) -> None:
    assert reason_of(data) == reason
    with pytest.raises(UnreadableImage, match="cannot read the picture: "):
        probe(data)


def test_paths_that_are_no_files_are_named(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    os.mkfifo(tmp_path / "pipe")
    assert reason_of(tmp_path) == "is a folder"
    assert reason_of(tmp_path / "absent.jpg") == "no such file"
    assert reason_of(tmp_path / "pipe") == "not a regular file"
    assert "symbolic links" in reason_of(tmp_path / "loop")
    assert "null" in reason_of(Path("a\0b"))
    with pytest.raises(UnreadableImage, match=r"cannot read .*two\\nlines\.jpg: no such file"):
        decode(tmp_path / "two\nlines.jpg")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="the superuser may read everything")
def test_a_file_without_permission_is_named(tmp_path: Path) -> None:
    path = tmp_path / "secret.png"
    path.write_bytes(encoded(Image.fromarray(noise(4, 4)), "PNG"))
    path.chmod(0)
    assert reason_of(path) == "permission denied"


def test_a_huge_file_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "huge.jpg"
    with path.open("wb") as file:
        file.truncate(opening.FILE_LIMIT_BYTES + 1)
    assert reason_of(path) == "512.0 MiB, more than the 512.0 MiB a photo may have"


@pytest.mark.parametrize("size", [(20_000, 10_000), (2**31 - 1, 2**31 - 1)])
def test_a_bomb_is_refused_from_its_header(size: tuple[int, int]) -> None:
    assert "more" in reason_of(bomb(*size))
    assert "pixels" in reason_of(bomb(*size))


def test_own_pixel_limit_holds_where_pillows_is_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opening, "PIXEL_LIMIT", 100)
    assert reason_of(encoded(Image.new("RGB", (20, 10)), "PNG")) == "20 x 10 pixels, more than the 100 a photo may have"


@pytest.mark.parametrize("kind", FUZZED)
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_a_truncated_file_is_refused(kind: str, share: float) -> None:
    data = encoded(Image.fromarray(noise(64, 64)), kind, **FUZZED[kind])
    reason = reason_of(data[: int(len(data) * share)])
    assert reason.startswith(("truncated", "damaged"))


@pytest.mark.parametrize("progressive", [False, True])
def test_a_truncated_jpeg_is_refused_when_scaled_down_too(progressive: bool) -> None:
    data = encoded(Image.fromarray(noise(256, 256)), "JPEG", quality=90, progressive=progressive)
    for share in (0.3, 0.6, 0.9):
        with pytest.raises(UnreadableImage, match="truncated"):
            decode(data[: int(len(data) * share)], shorter_px=16)


SAMPLES = {kind: encoded(Image.fromarray(smooth(20, 28)), kind, **options) for kind, options in FUZZED.items()}
SAMPLES["TIFF raw"] = encoded(Image.fromarray(smooth(20, 28)), "TIFF")
SAMPLES["PNG 16"] = encoded(Image.fromarray(np.arange(400, dtype=np.uint16).reshape(20, 20)), "PNG")
SAMPLES["GIF animated"] = encoded(Image.fromarray(smooth(9, 9)), "GIF", save_all=True, append_images=[Image.new("RGB", (9, 9))])


@settings(max_examples=500, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.sampled_from(sorted(SAMPLES)), st.integers(0, 2**32), st.integers(1, 12), st.booleans())
def test_hostile_bytes_are_read_or_refused_never_worse(name: str, seed: int, n_changes: int, cut: bool) -> None:
    rng = random.Random(seed)
    data = bytearray(SAMPLES[name])
    for _ in range(n_changes):
        at = rng.randrange(min(len(data), 200) if rng.random() < 0.7 else len(data))
        data[at] = rng.choice([0, 1, 127, 128, 255, rng.randrange(256)])
    if cut:
        del data[rng.randrange(len(data)) :]
    for run in (lambda: decode(bytes(data)), lambda: decode(bytes(data), shorter_px=4), lambda: probe(bytes(data))):
        reason = outcome(run)
        assert reason is None or (reason and "\n" not in reason)


@settings(max_examples=200, deadline=None)
@given(
    st.binary(max_size=200), st.sampled_from([b"", b"BM", b"GIF89a", b"II*\0", b"\xff\xd8\xff", b"RIFF\0\0\0\0WEBP", b"\0\0\0\x18ftypavif"])
)
def test_any_bytes_are_refused_with_a_reason(tail: bytes, head: bytes) -> None:
    assert reason_of(head + tail)


# Threads, warnings


def test_pillows_remarks_stay_silent_in_threads() -> None:
    """A BigTIFF-like tag mess makes Pillow warn; neither a warning nor, with warnings as errors, a refusal may follow."""
    exif = b"Exif\0\0II*\0\x08\0\0\0\x02\0" + b"\x12\x01\x03\0\xff\xff\xff\x7f\x08\0\0\0" + b"\x1a\x01\x05\0\x01\0\0\0\xff\xff\xff\x7f"
    data = encoded(Image.fromarray(smooth(16, 24)), "JPEG", exif=exif)
    start = threading.Barrier(4)

    def read(_: int) -> tuple[int, ...]:
        start.wait()
        return [decode(data).shape for _ in range(20)][-1]

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        Image.open(io.BytesIO(data)).getexif()
        assert caught  # the file does make Pillow warn
    with warnings.catch_warnings(), ThreadPoolExecutor(4) as pool:
        warnings.simplefilter("error")
        assert set(pool.map(read, range(4))) == {(16, 24, 3)}


def test_pillows_global_switches_are_left_alone() -> None:
    decode(SAMPLES["JPEG"])
    assert not ImageFile.LOAD_TRUNCATED_IMAGES
    assert Image.MAX_IMAGE_PIXELS == 89_478_485
