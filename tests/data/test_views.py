"""Views follow from the photo alone; the fingerprint is the same for a mirror image and for nothing else."""

import hashlib
import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from headstart.data.pixels import Preprocessing, decode, prepare
from headstart.data.views import MAX_STRETCH, POLICIES, augment, perceptual_hash
from headstart.errors import ConfigError

HALF = (0.5, 0.5, 0.5)
PRE = Preprocessing(32, 0.875, "bilinear", HALF, HALF)
SHA = [hashlib.sha256(bytes([i])).hexdigest() for i in range(200)]


def scene(height: int = 60, width: int = 80, seed: int = 0) -> np.ndarray:
    """Structure that survives scaling: a few random patches, enlarged."""
    patches = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(patches).resize((width, height), Image.Resampling.BICUBIC))


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(POLICIES), st.integers(0, 50), st.integers(1, 70), st.integers(1, 70))
def test_every_view_is_the_networks_square(policy: str, index: int, height: int, width: int) -> None:
    view = augment(scene(height, width), SHA[0], policy, index, PRE)
    assert view.shape == (32, 32, 3)
    assert view.dtype == np.uint8
    assert np.array_equal(view, augment(scene(height, width), SHA[0], policy, index, PRE))


def test_without_a_policy_every_view_is_the_centre() -> None:
    for index in (0, 7):
        assert np.array_equal(augment(scene(), SHA[1], "none", index, PRE), prepare(scene(), PRE))


def test_flip_gives_the_centre_and_its_mirror_image_in_turn() -> None:
    centre = prepare(scene(), PRE)
    firsts = 0
    for sha in SHA:
        views = [augment(scene(), sha, "flip", index, PRE) for index in range(3)]
        assert {view.tobytes() for view in views[:2]} == {centre.tobytes(), centre[:, ::-1].tobytes()}
        assert np.array_equal(views[0], views[2])
        firsts += np.array_equal(views[0], centre)
    assert 70 < firsts < 130  # of 200


def test_crops_differ_by_photo_policy_and_index() -> None:
    views = [augment(scene(), sha, "crop-flip", index, PRE).tobytes() for sha in SHA[:5] for index in range(5)]
    assert len(set(views)) == 25


def test_crops_stay_pinned() -> None:
    """Stored views are found again by number: this very view must come out of every later version."""
    ramp = np.repeat(np.arange(200, dtype=np.uint8)[None, :, None], 100, axis=0).repeat(3, axis=2)
    view = augment(ramp, "00" * 32, "crop-flip", 3, PRE).astype(int)
    left, right = view[16, 0, 0], view[16, -1, 0]
    assert (left, right) == (33, 182)


def test_crops_cover_a_third_of_the_area_at_least() -> None:
    x = np.linspace(0, 240, 160).astype(np.uint8)
    ramps = np.stack([np.tile(x, (160, 1)), np.tile(x[:, None], (1, 160)), np.zeros((160, 160), np.uint8)], axis=-1)
    for sha in SHA[:60]:
        view = augment(ramps, sha, "crop-flip", 0, PRE).astype(int)
        across, down = np.ptp(view[..., 0]) / 240, np.ptp(view[..., 1]) / 240
        assert across * down > 0.3
        assert 0.9 / MAX_STRETCH < across / down < 1.1 * MAX_STRETCH


def test_unknown_policy_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"found 'crop-flp'\nhint: did you mean 'crop-flip'"):
        augment(scene(), SHA[0], "crop-flp", 0, PRE)


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
