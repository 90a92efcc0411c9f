"""Neighbours in time or in name are a burst where they also look alike."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headstart.data.bursts import find_bursts
from headstart.data.table import Photo
from scenes import photo_of, saved_again, scene


def moment(step: int, seed: int = 0) -> np.ndarray:
    """The camera moves on a little, and a tenth of the scene changes."""
    image = scene(seed)[5 + step : 105 + step, 8 + 2 * step : 140 + 2 * step].copy()
    image[30:60, 40:85] = scene(900 + 7 * step + seed, 45, 30)
    return image


def shot(step: int, seed: int = 0, path: str = "", taken: str = "", camera: str = "Canon EOS 80D") -> Photo:
    return photo_of(moment(step, seed), path if path else f"{step * 37}-{seed}x.jpg", taken=taken, camera=camera)


def pairs(*photos: Photo) -> list[tuple[int, int]]:
    return sorted((pair.first, pair.second) for pair in find_bursts(photos))


def at(second: int) -> str:
    return f"2024-05-31T16:20:{second:02}"


def test_photos_of_one_camera_within_seconds_are_a_burst() -> None:
    assert pairs(shot(0, taken=at(7)), shot(1, taken=at(9)), shot(2, taken=at(40))) == [(0, 1)]
    assert find_bursts([shot(0, taken=at(7)), shot(1, taken=at(9))])[0].kind == "burst"


@pytest.mark.parametrize(
    "other",
    [
        shot(1, taken=at(20)),
        shot(1, taken=at(9), camera="Nikon D90"),
        shot(1, taken=at(9), camera=""),
        shot(1),
        shot(1, seed=5, taken=at(9)),
        Photo("plain.jpg", "a", "00", taken=at(9), camera="Canon EOS 80D"),
    ],
    ids=["later", "another camera", "unknown camera", "no time", "another scene", "plain"],
)
def test_one_sign_alone_is_no_burst(other: Photo) -> None:
    assert pairs(shot(0, taken=at(7)), other) == []


@pytest.mark.parametrize(
    ("first", "second", "burst"),
    [
        ("d/IMG_0012.jpg", "d/IMG_0013.jpg", True),
        ("d/IMG_0012.jpg", "d/IMG_0014.JPG", True),
        ("d/IMG_0999.jpg", "d/IMG_1000.jpg", True),
        ("20240531_162007.jpg", "20240531_162008.jpg", True),
        ("d/7 (edited).jpg", "d/8 (edited).jpg", True),
        ("d/IMG_0012.jpg", "d/IMG_0015.jpg", False),
        ("d/IMG_0012.jpg", "e/IMG_0013.jpg", False),
        ("d/IMG_0012.jpg", "d/DSC_0013.jpg", False),
        ("d/one.jpg", "d/two.jpg", False),
    ],
)
def test_numbers_in_names_are_a_burst_where_they_follow(first: str, second: str, burst: bool) -> None:
    assert pairs(shot(0, path=first), shot(1, path=second)) == ([(0, 1)] if burst else [])


def test_a_numbered_folder_of_strangers_has_no_bursts() -> None:
    assert pairs(*(photo_of(scene(seed), f"cat/{seed:04}.jpg") for seed in range(30))) == []


def test_where_strangers_share_a_layout_numbers_in_names_make_no_burst() -> None:
    """The same background and one object that differs, numbered on: all are as alike as a burst elsewhere."""
    photos = []
    for number in range(80):
        image = scene(0).copy()
        image[20:100, 30:130] = scene(500 + number, 100, 80)
        photos.append(photo_of(image, f"slide/{number:04}.jpg"))
    assert pairs(*photos[:40]) != []  # too few to know what is ordinary here
    assert len(pairs(*photos)) <= 4
    photos.append(photo_of(saved_again(image, 70), "slide/0080.jpg"))
    assert (79, 80) in pairs(*photos)


TWO_BURSTS = [shot(step, taken=at(step)) for step in range(4)] + [shot(step, 3, path=f"d/{step}.jpg") for step in range(4)]


def named(photos: list[Photo]) -> set[frozenset[str]]:
    return {frozenset((photos[a].sha256, photos[b].sha256)) for a, b in pairs(*photos)}


@settings(max_examples=15)
@given(st.permutations(TWO_BURSTS))
def test_order_does_not_matter(shuffled: list[Photo]) -> None:
    assert named(shuffled) == named(TWO_BURSTS)


def test_alike_alone_is_no_burst() -> None:
    assert len(named(TWO_BURSTS)) >= 6
    assert named([replace(photo, taken="", path="x.jpg") for photo in TWO_BURSTS]) == set()
