"""The fingerprint is the same for a mirror image and for nothing else."""

import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from headstart.data.pixels import decode
from headstart.data.views import perceptual_hash


def scene(height: int = 60, width: int = 80, seed: int = 0) -> np.ndarray:
    """Structure that survives scaling: a few random patches, enlarged."""
    patches = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(patches).resize((width, height), Image.Resampling.BICUBIC))


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 90), st.integers(1, 90), st.integers(0, 10_000))
def test_a_mirror_image_has_the_same_fingerprint(height: int, width: int, seed: int) -> None:
    image = scene(height, width, seed)
    assert perceptual_hash(image) == perceptual_hash(np.ascontiguousarray(image[:, ::-1]))


def test_different_scenes_have_different_fingerprints() -> None:
    hashes = [perceptual_hash(scene(seed=seed)) for seed in range(300)]
    assert None not in hashes
    assert {len(found) for found in hashes if found} == {32}
    assert len(set(hashes)) == 300
    assert perceptual_hash(scene()) != perceptual_hash(np.ascontiguousarray(scene()[::-1]))


def test_plain_pictures_have_none() -> None:
    plain = np.full((40, 50, 3), 128, dtype=np.uint8)
    faint = (plain + np.random.default_rng(0).integers(0, 6, plain.shape)).astype(np.uint8)
    assert perceptual_hash(plain) is None
    assert perceptual_hash(faint) is None


def test_handwritten_digits_are_told_apart() -> None:
    digits = pytest.importorskip("sklearn.datasets").load_digits().images
    hashes = [perceptual_hash(np.repeat(np.rint(digit * 255 / 16).astype(np.uint8)[..., None], 3, axis=2)) for digit in digits]
    assert None not in hashes
    assert len(set(hashes)) == len(digits)


@pytest.mark.slow
def test_photos_are_told_apart_and_recognised_when_saved_again(shared: Path) -> None:
    images = [decode(path) for path in sorted((shared / "data" / "flowers").glob("*/*.jpg"))]
    hashes = [perceptual_hash(image) for image in images]
    known = [found for found in hashes if found is not None]
    assert len(known) > 985
    assert len(set(known)) >= len(known) - 1  # two photos of the same four daisies, seconds apart, may share theirs

    def saved_again(image: np.ndarray) -> np.ndarray:
        file = io.BytesIO()
        Image.fromarray(image).save(file, "JPEG", quality=90)
        return decode(file.getvalue())

    same = [perceptual_hash(saved_again(image)) == found for image, found in zip(images[::5], hashes[::5], strict=True)]
    assert np.mean(same) > 0.6
