"""Preprocessing, the network's square, and how far a JPEG decoded small may stray from the whole one."""

import importlib.metadata
import io
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image, features

from headstart.data import pixels
from headstart.data.pixels import Preprocessing, decode, load, prepare, shrink
from headstart.errors import ConfigError, DataError

HALF = (0.5, 0.5, 0.5)
PRE = Preprocessing(224, 0.875, "bilinear", HALF, HALF)
SMALL = Preprocessing(32, 0.875, "bicubic", HALF, HALF)


def noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def jpeg(image: Image.Image, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=90, **options)
    return file.getvalue()


def photos(shared: Path, every: int) -> list[Path]:
    return sorted((shared / "data" / "flowers").glob("*/*.jpg"))[::every]


def difference(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.abs(one.astype(int) - other).mean())


# Preprocessing


def test_preprocessing_survives_json() -> None:
    assert Preprocessing.from_json(PRE.to_json()) == PRE
    assert PRE.to_json()["mean"] == [0.5, 0.5, 0.5]


def test_resize_is_rounded_as_timm_rounds_it() -> None:
    assert [PRE.resize_px, Preprocessing(224, 0.9, "bicubic", HALF, HALF).resize_px, PRE.with_px(299).resize_px] == [256, 248, 341]


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"input_px": 0}, "at least 1 px, found 0"),
        ({"crop": 1.5}, "up to 1, found 1.5"),
        ({"interpolation": "bicubik"}, r"found 'bicubik'\nhint: did you mean 'bicubic'"),
        ({"std": (1.0, 0.0, 1.0)}, "positive std"),
        ({"mean": ("a", 0, 0)}, "wrong kind: could not convert"),
        ({"mean": (0.5, 0.5)}, "wrong kind: not enough values"),
    ],
)
def test_impossible_preprocessing_is_refused(change: dict[str, object], text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        Preprocessing.from_json({**PRE.to_json(), **change})


def test_the_decoder_names_every_library_that_decodes() -> None:
    code = "import sys; from headstart.data import pixels; print(pixels.DECODER); print('pillow_heif' in sys.modules)"
    decoder, imported = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.splitlines()
    assert decoder == pixels.DECODER
    assert imported == "False"
    versions = dict(part.split("-", 1) for part in decoder.split())
    assert list(versions) == ["headstart", "pillow", "libjpeg", "libwebp", "libavif", "libtiff", "zlib", "heif"]
    assert versions["libwebp"] == str(features.version("webp"))
    assert versions["libtiff"] == str(features.version("libtiff"))


def test_a_decoder_without_heif_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", absent)
    assert pixels._decoder().endswith(" heif-None")


def test_missing_preprocessing_key_is_named() -> None:
    with pytest.raises(ConfigError, match="lacks 'crop'"):
        Preprocessing.from_json({"input_px": 224})


# The square


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 90), st.integers(1, 90), st.sampled_from(["nearest", "box", "bilinear", "hamming", "bicubic", "lanczos"]))
def test_any_shape_becomes_the_networks_square(height: int, width: int, interpolation: str) -> None:
    pre = Preprocessing(32, 0.9, interpolation, HALF, HALF)
    image = prepare(noise(height, width), pre)
    assert image.shape == (32, 32, 3)
    assert image.dtype == np.uint8


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 120), st.integers(1, 120))
@example(8, 14)
def test_only_the_centre_is_computed_and_nothing_else_changes(height: int, width: int) -> None:
    """One resize with a box equals the whole resize followed by the cut, as torchvision rounds it."""
    shorter = min(height, width)
    size = max(36, int(36 * width / shorter)), max(36, int(36 * height / shorter))
    left, top = round((size[0] - 32) / 2), round((size[1] - 32) / 2)
    image = Image.fromarray(noise(height, width))
    square = prepare(noise(height, width), SMALL).astype(int)
    # Pillow goes along rows or columns first, whichever is less work, and rounds in between; of noise that is enlarged, a bicubic
    # kernel turns such a half into more than one step now and then.
    orders = ((size[0], height), size), ((width, size[1]), size)
    wholes = [image.resize(first, Image.Resampling.BICUBIC).resize(then, Image.Resampling.BICUBIC) for first, then in orders]
    assert min(np.abs(square - whole.crop((left, top, left + 32, top + 32))).max() for whole in wholes) <= 2


def test_flat_stays_flat() -> None:
    assert np.unique(prepare(np.full((50, 70, 3), 200, dtype=np.uint8), PRE)).tolist() == [200]


@pytest.mark.parametrize("shape", [(5000, 1), (1, 5000), (200_000, 3), (8, 8)])
def test_extreme_shapes_cost_no_more_than_a_square(shape: tuple[int, int]) -> None:
    image = noise(*shape)
    tracemalloc.start()
    square = prepare(image, PRE)
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert square.shape == (224, 224, 3)
    assert peak_bytes < 10 * 2**20


def test_very_long_pictures_show_their_middle() -> None:
    image = np.zeros((100_001, 4, 3), dtype=np.uint8)
    image[49_990:50_011] = 255
    assert prepare(image, SMALL).min() == 255


@pytest.mark.slow
def test_square_is_timms(shared: Path) -> None:
    transforms = pytest.importorskip("timm.data").create_transform
    for pre in (PRE, Preprocessing(224, 0.9, "bicubic", HALF, HALF), Preprocessing(299, 0.875, "bicubic", HALF, HALF)):
        timms = transforms(
            (3, pre.input_px, pre.input_px), interpolation=pre.interpolation, crop_pct=pre.crop, mean=(0, 0, 0), std=(1, 1, 1)
        )
        for path in photos(shared, 100):
            theirs = timms(Image.open(path).convert("RGB")).numpy().transpose(1, 2, 0) * 255
            assert np.abs(prepare(decode(path), pre) - theirs).mean() < 0.3


def test_load_is_decode_then_prepare(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(noise(70, 50)).save(path)
    assert np.array_equal(load(path, SMALL), prepare(noise(70, 50), SMALL))
    assert np.array_equal(load(path.read_bytes(), SMALL), load(path, SMALL))


@pytest.mark.parametrize("image", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3), np.float32), np.zeros((0, 4, 3), np.uint8)])
def test_pixels_of_another_kind_are_refused(image: np.ndarray) -> None:
    with pytest.raises(DataError, match=r"expected pixels as uint8 \[h, w, 3\], found"):
        prepare(image, PRE)


# Shrinking


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 200), st.integers(1, 200), st.integers(1, 100))
def test_shrink_keeps_the_shape_and_never_enlarges(height: int, width: int, px: int) -> None:
    image = noise(height, width)
    small = shrink(image, px)
    assert min(small.shape[:2]) == min(px, height, width)
    if min(height, width) <= px:
        assert small is image
    else:
        assert abs(small.shape[1] / small.shape[0] - width / height) <= width / height / min(px, *small.shape[:2])


# Big JPEGs


@settings(max_examples=30, deadline=None)
@given(st.integers(16, 400), st.integers(16, 400), st.integers(1, 60), st.sampled_from([1, 2, 3, 4, 5, 6, 7, 8]))
def test_decoded_small_is_never_smaller_than_asked(height: int, width: int, shorter_px: int, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = jpeg(Image.fromarray(np.full((height, width, 3), 90, np.uint8)), exif=exif)
    whole, small = decode(data), decode(data, shorter_px=shorter_px)
    assert min(small.shape[:2]) >= min(shorter_px, *whole.shape[:2])
    assert any(
        all(abs(side / scale - found) <= 0.5 for side, found in zip(whole.shape[:2], small.shape[:2], strict=True))
        for scale in (1, 2, 4, 8)
    )
    assert np.abs(small.astype(int) - 90).max() <= 1


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_details_stay_in_place_when_decoded_small(orientation: int, mode: str) -> None:
    """Odd sizes: the last column of the small picture is only partly covered by the photo, on whichever side it comes to lie."""
    y, x = np.mgrid[0:1021, 0:771]
    waves = np.stack([127 + 120 * np.sin(x / 19 + y / 31), 127 + 120 * np.sin(y / 23), 127 + 120 * np.cos(x / 17)], axis=-1)
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = jpeg(Image.fromarray(waves.astype(np.uint8)).convert(mode), exif=exif, subsampling=0)
    whole = prepare(decode(data), PRE.with_px(64))
    assert difference(load(data, PRE.with_px(64)), whole) < 0.6
    assert difference(prepare(decode(data, shorter_px=73), PRE.with_px(64)), whole) < 1


@pytest.mark.slow
@pytest.mark.parametrize("orientation", [1, 6])
def test_twelve_megapixels_decoded_small_are_within_one_level(shared: Path, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    for path in photos(shared, 200):
        data = jpeg(Image.open(path).convert("RGB").resize((4000, 3000), Image.Resampling.LANCZOS), exif=exif)
        for px in (64, 224, 299):
            assert difference(load(data, PRE.with_px(px)), prepare(decode(data), PRE.with_px(px))) < 1


@pytest.mark.slow
@pytest.mark.parametrize("px", [32, 40, 56])
def test_small_photos_decoded_smaller_are_within_two_levels(shared: Path, px: int) -> None:
    """The hardest case: photos of 256 px, full of detail, of which half or a quarter is enough."""
    differences = [difference(load(path, PRE.with_px(px)), prepare(decode(path), PRE.with_px(px))) for path in photos(shared, 5)]
    assert np.mean(differences) < 0.7
    assert np.percentile(differences, 98) < 2
