"""Views follow from the photo, the policy and the index alone, and do what their policy says and no more."""

import hashlib
import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageEnhance, ImageOps

from headstart.data.augment import MAX_STRETCH, augment
from headstart.data.pixels import Preprocessing, prepare
from headstart.errors import ConfigError

HALF = (0.5, 0.5, 0.5)
PRE = Preprocessing(32, 0.875, "bilinear", HALF, HALF)
PLAIN = Preprocessing(128, 1.0, "bicubic", HALF, HALF)  # a photo of 128 px is its own centre view
SHA = [hashlib.sha256(bytes([i])).hexdigest() for i in range(200)]
STRONGEST = "crop 0.05, flip, vflip, shear 45, rotate 180, zoom 0.5, shift 0.5"
EVERYTHING = f"{STRONGEST}, randaugment 10 10, trivial, brightness 1, contrast 1, colour 1, blur 10, erase 1"
POLICIES = ("none", "flip", "crop-flip", "crop 0.35", "flip, vflip", "rotate", "zoom 0.5, shift 0.5", "trivial", STRONGEST, EVERYTHING)


def scene(height: int = 60, width: int = 80, seed: int = 0) -> np.ndarray:
    """Structure that survives scaling: a few random patches, enlarged."""
    patches = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(patches).resize((width, height), Image.Resampling.BICUBIC))


def even(value: int, side: int = 128) -> np.ndarray:
    return np.full((side, side, 3), value, dtype=np.uint8)


def with_spots(*places: tuple[int, int]) -> np.ndarray:
    """A black photo of 128 px with one white spot for each channel, at (x, y) from its centre in px."""
    image = even(0)
    for channel, (x, y) in enumerate(places):
        image[61 + y : 67 + y, 61 + x : 67 + x, channel] = 255
    return image


def where(view: np.ndarray, channel: int = 0) -> np.ndarray:
    """(x, y) of the spot, from the centre in px."""
    weights = view[..., channel].astype(float)
    y, x = np.indices(weights.shape)
    return np.array([(x * weights).sum(), (y * weights).sum()]) / weights.sum() - 63.5


@settings(max_examples=60)
@given(st.sampled_from(POLICIES), st.integers(0, 50), st.integers(1, 70), st.integers(1, 70))
@example(EVERYTHING, 0, 1, 1)
@example(EVERYTHING, 1, 3000, 2)
@example("rotate 180", 2, 3000, 2)
@example("crop-flip, shift 0.5", 2, 1, 3000)
def test_every_view_is_the_networks_square(policy: str, index: int, height: int, width: int) -> None:
    view = augment(scene(height, width), SHA[0], policy, index, PRE)
    assert view.shape == (32, 32, 3)
    assert view.dtype == np.uint8
    assert np.array_equal(view, augment(scene(height, width), SHA[0], policy, index, PRE))


def test_without_a_policy_every_view_is_the_centre() -> None:
    for index in (0, 7):
        for policy in ("none", "rotate 0, zoom 0, brightness 0, erase 0"):
            assert np.array_equal(augment(scene(), SHA[1], policy, index, PRE), prepare(scene(), PRE))


@pytest.mark.parametrize("operation", ["rotate 0.001", "shear 0.001", "zoom 1e-5", "shift 1e-5", "blur 0.001", "colour 0.001"])
@pytest.mark.parametrize("px", [32, 52, 100])
def test_the_weakest_views_are_the_centre_but_for_rounding(operation: str, px: int) -> None:
    view = augment(scene(), SHA[2], operation, 1, PRE.with_px(px))
    difference = np.abs(view.astype(int) - prepare(scene(), PRE.with_px(px)))
    assert difference.mean() < 2
    assert difference.max() < 25


def test_flip_gives_the_centre_and_its_mirror_image_in_turn() -> None:
    centre = prepare(scene(), PRE)
    firsts = 0
    for sha in SHA:
        views = [augment(scene(), sha, "flip", index, PRE) for index in range(3)]
        assert {view.tobytes() for view in views[:2]} == {centre.tobytes(), centre[:, ::-1].tobytes()}
        assert np.array_equal(views[0], views[2])
        firsts += np.array_equal(views[0], centre)
    assert 70 < firsts < 130  # of 200


def test_flips_are_exact() -> None:
    centre = prepare(scene(), PRE)
    ways = [centre, centre[:, ::-1], centre[::-1], centre[::-1, ::-1]]
    views = [augment(scene(), sha, "flip, vflip", 0, PRE).tobytes() for sha in SHA]
    counts = [views.count(way.tobytes()) for way in ways]
    assert sum(counts) == len(views)
    assert min(counts) > 25  # of 200, a quarter each
    assert {augment(scene(), sha, "vflip", 0, PRE).tobytes() for sha in SHA[:20]} == {centre.tobytes(), centre[::-1].tobytes()}


def test_views_differ_by_photo_policy_and_index() -> None:
    policies = ("crop-flip", "crop 0.4, flip", "rotate 15", "shear 10", "zoom 0.2", "shift 0.1", "brightness 0.5", "erase 1")
    views = [augment(scene(), sha, policy, index, PRE).tobytes() for policy in policies for sha in SHA[:5] for index in range(5)]
    assert len(set(views)) >= len(views) - 5  # brightness has few steps on 8 bits


def test_the_order_of_the_text_means_nothing() -> None:
    view = augment(scene(), SHA[3], "flip, rotate 15, colour 0.2", 4, PRE)
    assert np.array_equal(view, augment(scene(), SHA[3], "colour .2,rotate, flip", 4, PRE))


def test_crops_stay_pinned() -> None:
    """Stored views are found again by number: this very view must come out of every later version."""
    ramp = np.repeat(np.arange(200, dtype=np.uint8)[None, :, None], 100, axis=0).repeat(3, axis=2)
    view = augment(ramp, "00" * 32, "crop-flip", 3, PRE).astype(int)
    left, right = view[16, 0, 0], view[16, -1, 0]
    assert (left, right) == (33, 182)


def test_other_views_stay_pinned() -> None:
    ramp = np.stack(np.broadcast_arrays(*np.ogrid[:200, :200], 0), axis=-1).astype(np.uint8)
    policy = "flip, shear 10, rotate 15, zoom 0.2, shift 0.1, brightness 0.1"
    corners = augment(ramp, "00" * 32, policy, 3, PRE)[[2, 2, -3, -3], [2, -3, 2, -3], :2].astype(int)
    assert np.abs(corners - [[15, 26], [20, 160], [150, 15], [155, 149]]).max() <= 1
    means = [augment(ramp, "00" * 32, "randaugment 2 9, erase 0.5", index, PRE)[..., 0].mean() for index in range(4)]
    assert np.allclose(means, [99.2, 172.2, 105.2, 99.0], atol=1)


def test_another_process_makes_the_same_views_without_torch() -> None:
    code = (
        "import hashlib, sys, numpy as np; from headstart.data.augment import augment; from headstart.data.pixels import Preprocessing\n"
        "image = (np.arange(60 * 80 * 3) * 7 % 251).astype(np.uint8).reshape(60, 80, 3); h = (0.5, 0.5, 0.5)\n"
        f"views = [augment(image, '{SHA[0]}', {EVERYTHING!r}, i, Preprocessing(32, 0.875, 'bilinear', h, h)) for i in range(3)]\n"
        "assert 'torch' not in sys.modules; print(hashlib.sha256(np.stack(views)).hexdigest())"
    )
    image = (np.arange(60 * 80 * 3) * 7 % 251).astype(np.uint8).reshape(60, 80, 3)
    here = hashlib.sha256(np.stack([augment(image, SHA[0], EVERYTHING, i, PRE) for i in range(3)])).hexdigest()
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONHASHSEED": "7", "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert done.stdout.strip() == here


def test_crops_cover_a_third_of_the_area_at_least() -> None:
    x = np.linspace(0, 240, 160).astype(np.uint8)
    ramps = np.stack([np.tile(x, (160, 1)), np.tile(x[:, None], (1, 160)), np.zeros((160, 160), np.uint8)], axis=-1)
    for policy in ("crop-flip", "crop 0.35, vflip"):
        for sha in SHA[:60]:
            view = augment(ramps, sha, policy, 0, PRE).astype(int)
            across, down = np.ptp(view[..., 0]) / 240, np.ptp(view[..., 1]) / 240
            assert across * down > 0.3
            assert 0.9 / MAX_STRETCH < across / down < 1.1 * MAX_STRETCH


@pytest.mark.parametrize("degrees", [5, 30])
def test_rotation_turns_both_ways_and_never_further(degrees: int) -> None:
    views = [augment(with_spots((35, 0)), SHA[0], f"rotate {degrees}", index, PLAIN) for index in range(40)]
    places = [where(view) for view in views]
    angles = np.degrees([np.arctan2(y, x) for x, y in places])
    assert np.abs(angles).max() <= degrees + 0.5
    assert angles.min() < -0.7 * degrees
    assert angles.max() > 0.7 * degrees
    assert np.allclose(np.linalg.norm(places, axis=1), 35, atol=0.5)


def test_zoom_enlarges_and_shrinks_and_never_further() -> None:
    image = with_spots((-25, -10), (25, 10))
    views = [augment(image, SHA[0], "zoom 0.3", index, PLAIN) for index in range(40)]
    factors = [np.linalg.norm(where(view, 1) - where(view, 0)) / np.hypot(50, 20) for view in views]
    assert 0.69 < min(factors) < 0.8
    assert 1.2 < max(factors) < 1.31


def test_shift_moves_and_never_further() -> None:
    moves = [where(augment(with_spots((0, 0)), SHA[0], "shift 0.2", index, PLAIN)) / 128 for index in range(40)]
    assert np.abs(moves).max() <= 0.205
    assert np.min(moves, axis=0).max() < -0.12
    assert np.max(moves, axis=0).min() > 0.12


def test_shear_slants_sideways_and_never_further() -> None:
    moves = [where(augment(with_spots((0, 40)), SHA[0], "shear 20", index, PLAIN)) for index in range(40)]
    angles = [np.degrees(np.arctan2(x, 40)) for x, _ in moves]
    assert np.abs(angles).max() <= 20.5
    assert min(angles) < -14
    assert max(angles) > 14
    assert np.allclose([y for _, y in moves], 40, atol=0.5)


@settings(max_examples=40)
@given(st.integers(0, 1000), st.integers(1, 80), st.integers(1, 80))
def test_a_white_photo_has_no_dark_corner(index: int, height: int, width: int) -> None:
    white = np.full((height, width, 3), 255, dtype=np.uint8)
    assert augment(white, SHA[0], STRONGEST, index, PRE).min() == 255


def test_beyond_its_edge_a_photo_goes_on_mirrored() -> None:
    ramp = np.tile(np.arange(0, 256, 2, dtype=np.uint8)[None, :, None], (128, 1, 3))

    def shifted(by: float) -> np.ndarray:
        x = (np.arange(128) - by) % 256
        return 2 * np.minimum(x, 255 - x)

    for index in range(10):
        view = augment(ramp, SHA[0], "shift 0.5", index, PLAIN)[64, 4:-4, 0]
        assert min(np.abs(view - shifted(by)[4:-4]).max() for by in np.arange(-64, 64, 0.25)) <= 2


def test_fine_patterns_are_averaged_rather_than_picked_from() -> None:
    squares = (np.indices((1024, 1024)).sum(axis=0) % 2 * 255).astype(np.uint8)[..., None].repeat(3, axis=2)
    view = augment(squares, SHA[0], "rotate 45", 1, PRE)
    assert np.abs(view.astype(int) - 127).max() < 8


def test_brightness_contrast_and_colour_keep_within_their_bounds() -> None:
    greys = [int(augment(even(100), SHA[0], "brightness 0.2", index, PLAIN)[0, 0, 0]) for index in range(40)]
    assert 79 <= min(greys) < 88
    assert 112 < max(greys) <= 121
    halves = even(100)
    halves[:64] = 150
    spans = [int(np.ptp(augment(halves, SHA[0], "contrast 0.4", index, PLAIN))) for index in range(40)]
    assert 29 <= min(spans) < 38
    assert 62 < max(spans) <= 71
    assert np.array_equal(augment(halves, SHA[0], "colour 1", 0, PLAIN), halves)  # a grey picture has no colour to change
    red = even(100)
    red[..., 0] = 160
    spans = [int(np.ptp(augment(red, SHA[0], "colour 0.5", index, PLAIN)[0, 0])) for index in range(40)]
    assert 29 <= min(spans) < 40
    assert 80 < max(spans) <= 91


def test_blur_smooths_and_keeps_the_mean() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (128, 128, 3), dtype=np.uint8)
    views = [augment(noise, SHA[0], "blur 2", index, PLAIN) for index in range(20)]
    assert 0.1 < min(view.std() for view in views) / noise.std() < 0.2  # sigma 2: 1 / (2 sqrt(pi) sigma) = 0.14
    assert max(view.std() for view in views) / noise.std() > 0.5
    assert np.allclose([view.mean() for view in views], noise.mean(), atol=1)


def test_erasing_takes_one_rectangle_of_2_to_33_percent_in_its_share_of_the_views() -> None:
    shares = []
    for sha in SHA:
        changed = (augment(even(128), sha, "erase 0.5", 0, PLAIN) != 128).any(axis=2)
        if changed.any():
            rows, columns = changed.any(axis=1).nonzero()[0], changed.any(axis=0).nonzero()[0]
            area = (np.ptp(rows) + 1) * (np.ptp(columns) + 1)
            assert changed.sum() > 0.99 * area
            shares.append(area / changed.size)
    assert 70 < len(shares) < 130  # of 200
    assert 0.015 < min(shares) < 0.06
    assert 0.28 < max(shares) < 0.34


def test_randaugment_of_magnitude_0_changes_nothing_but_what_has_no_magnitude() -> None:
    image = scene(128, 128) // 2 + 60
    plain = Image.fromarray(image)
    expected = {image.tobytes(), ImageOps.autocontrast(plain).tobytes(), ImageOps.equalize(plain).tobytes()}
    views = [augment(image, sha, "randaugment 1 0", 0, PLAIN).tobytes() for sha in SHA]
    assert set(views) == expected
    assert 150 < views.count(image.tobytes()) < 190  # 12 of 14


def test_randaugment_of_magnitude_10_reaches_as_far_as_stated() -> None:
    ramp = np.tile(np.arange(0, 256, 2, dtype=np.uint8)[None, :, None], (128, 1, 3))
    views = {augment(ramp, sha, "randaugment 1 10", 0, PLAIN).tobytes() for sha in SHA}
    picture = Image.fromarray(ramp)
    factors = (0.1, 1.9)
    expected = [ImageOps.invert(picture), ImageOps.posterize(picture, 4)]
    expected += [enhance(picture).enhance(factor) for enhance in (ImageEnhance.Brightness, ImageEnhance.Contrast) for factor in factors]
    assert {view.tobytes() for view in expected} <= views


@pytest.mark.parametrize("policy", ["randaugment 1 9", "trivial"])
def test_automatic_policies_draw_from_all_their_operations(policy: str) -> None:
    image = scene(128, 128) // 2 + 60
    views = [augment(image, sha, policy, 0, PLAIN) for sha in SHA]
    assert len({view.tobytes() for view in views}) >= 20  # 7 operations of one magnitude and two signs, and those without
    grey = [np.ptp(view.astype(int), axis=2).mean() for view in views]
    assert min(grey) < 0.5 * np.ptp(image.astype(int), axis=2).mean() < 0.6 * max(grey)  # less and more colour
    assert 5 < sum(np.array_equal(view, image) for view in views) < 50


def test_more_operations_and_magnitude_change_more() -> None:
    image = scene(64, 64)

    def change(policy: str) -> float:
        return float(np.mean([np.abs(augment(image, sha, policy, 0, PRE).astype(int) - prepare(image, PRE)).mean() for sha in SHA[:80]]))

    assert change("randaugment 1 2") < change("randaugment 1 9") < change("randaugment 4 9")


def test_unknown_policy_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"found 'crop-flp'\nhint: did you mean 'crop-flip'"):
        augment(scene(), SHA[0], "crop-flp", 0, PRE)
