"""The golden files hold the pictures they are meant to hold, and a decoder that reads them otherwise is found out."""

import numpy as np
import pytest

from headstart.data import golden
from headstart.data.golden import check_golden, golden_digest, golden_file, golden_images
from headstart.data.pixels import decode, probe
from headstart.errors import DataError

COUNT = np.arange(48).reshape(6, 8)
COLOURS = np.stack([COUNT * 5, 255 - COUNT * 4, COUNT * 37 % 256], axis=-1)
PALETTE = np.array([[200, 10, 10], [10, 200, 10], [10, 10, 200], [0, 0, 0], [250, 240, 10]])
BLOCKS = np.array([[[240, 16, 16], [16, 208, 48], [16, 16, 240]], [[240, 240, 16], [112, 112, 112], [240, 144, 240]]])


def over_white(colour: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    return colour * (alpha / 255) + 255 * (1 - alpha / 255)


def test_lossless_golden_files_hold_what_they_should() -> None:
    assert np.array_equal(decode(golden_file("png")), COLOURS)
    assert np.array_equal(decode(golden_file("webp")), COLOURS)
    assert np.array_equal(decode(golden_file("png-16-bit"))[..., 1], np.rint((COUNT * 1379 + 129) / 257))
    alpha = np.array([255, 128, 0, 64, 255])[COUNT % 5]
    assert np.abs(decode(golden_file("png-palette-alpha")) - over_white(PALETTE[COUNT % 5], alpha[..., None])).max() <= 1
    assert np.abs(decode(golden_file("png-grey-alpha"))[..., 0] - over_white(COUNT * 5, 255 - COUNT * 3)).max() <= 1
    first_frame = np.where((COUNT % 5 == 2)[..., None], 255, PALETTE[COUNT % 5])
    assert np.array_equal(decode(golden_file("gif-animated")), first_frame)


def test_jpeg_golden_files_are_flat_blocks_far_from_any_step() -> None:
    blocks = BLOCKS.repeat(8, axis=0).repeat(8, axis=1)
    for name, expected in (("jpeg", blocks), ("jpeg-cmyk", blocks), ("jpeg-turned", np.rot90(blocks, -1))):
        assert np.abs(decode(golden_file(name)).astype(int) - expected).max() <= 2
    assert probe(golden_file("jpeg-cmyk")).mode == "CMYK"
    assert np.all(BLOCKS % 32 == 16)


def test_this_installation_passes() -> None:
    check_golden()
    check_golden(golden_digest())


def test_a_decoder_that_reads_otherwise_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(golden, "decode", lambda data: decode(data)[..., ::-1])
    with pytest.raises(DataError, match=r"reads some pictures wrongly: png, .*jpeg-cmyk"):
        check_golden()


def test_rounding_of_jpeg_libraries_is_forgiven(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = golden_digest()
    step = np.random.default_rng(0)

    def imprecise(data: bytes) -> np.ndarray:
        pixels = decode(data)
        return pixels + step.integers(0, 4, pixels.shape, dtype=np.uint8) if data.startswith(b"\xff\xd8") else pixels

    monkeypatch.setattr(golden, "decode", imprecise)
    check_golden(expected)


def test_a_model_made_with_other_rules_is_refused() -> None:
    with pytest.raises(DataError, match=r"made with other rules.*expected 0000, found [0-9a-f]{16}"):
        check_golden("0000")


@pytest.mark.parametrize("px", [1, 8, 33, 224])
def test_golden_images_are_four_and_always_the_same(px: int) -> None:
    images = golden_images(px)
    assert images.shape == (4, px, px, 3)
    assert images.dtype == np.uint8
    assert np.array_equal(images, golden_images(px))
    if px >= 8:
        assert all(np.ptp(image[..., channel]) > 30 for image in images for channel in range(3))
        assert len({image.tobytes() for image in images}) == 4
