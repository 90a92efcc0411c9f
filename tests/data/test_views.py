"""A thumbnail tells a copy from a stranger, wherever the copy was cut out."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headstart.data.views import GLANCE_PX, PARTS, WHOLE, compare, hashes, stack, thumbnail
from scenes import brighter, cropped, mirrored, resized, saved_again, scene

MIRROR = next(i for i, part in enumerate(PARTS) if part.side == 1 and part.mirrored)


def bits(number: np.ndarray) -> int:
    return int(number).bit_count()


def nearest(image: np.ndarray, copy: np.ndarray) -> tuple[int, int]:
    """The part of `image` that meets `copy`, and the bits in which their hashes differ."""
    found = hashes(stack([thumbnail(image), thumbnail(copy)]))
    distances = [bits(found[0, part] ^ found[1, WHOLE]) for part in range(len(PARTS))]
    return int(np.argmin(distances)), min(distances)


def likeness(image: np.ndarray, copy: np.ndarray) -> tuple[float, float]:
    part, _ = nearest(image, copy)
    found = compare(stack([thumbnail(image)]), stack([thumbnail(copy)]), PARTS[part])
    return found[0].item(), found[1].item()


def test_plain_pictures_have_no_thumbnail() -> None:
    plain = np.full((40, 50, 3), 128, dtype=np.uint8)
    faint = (plain + np.random.default_rng(0).integers(0, 6, plain.shape)).astype(np.uint8)
    assert thumbnail(plain) == thumbnail(faint) == b""
    assert len(thumbnail(scene())) == GLANCE_PX**2


@settings(max_examples=25)
@given(st.integers(0, 10_000))
def test_the_mirrored_hash_is_the_hash_of_the_mirror_image(seed: int) -> None:
    grey = np.random.default_rng(seed).integers(0, 256, (1, GLANCE_PX, GLANCE_PX), dtype=np.uint8)
    here, there = hashes(grey)[0], hashes(np.ascontiguousarray(grey[:, :, ::-1]))[0]
    assert (here[MIRROR], here[WHOLE]) == (there[WHOLE], there[MIRROR])


def test_a_hash_does_not_depend_on_what_is_hashed_beside_it() -> None:
    glances = [thumbnail(scene(seed)) for seed in range(7)]
    together = hashes(stack(glances))
    assert all(np.array_equal(hashes(stack([glance]))[0], together[i]) for i, glance in enumerate(glances))


@pytest.mark.parametrize(
    ("change", "least"),
    [
        (lambda image: saved_again(image, 50), 0.97),
        (lambda image: resized(image, 0.5), 0.97),
        (lambda image: resized(image, 1.5), 0.97),
        (mirrored, 0.99),
        (lambda image: brighter(image, 0.8), 0.97),
        (lambda image: cropped(image, 0.05, 0, 1), 0.9),
        (lambda image: cropped(image, 0.1), 0.9),
        (lambda image: mirrored(cropped(image, 0.06, 1, 0.2)), 0.9),
    ],
)
def test_copies_are_alike_beyond_chance(change, least: float) -> None:
    for seed in range(5):
        _, distance = nearest(scene(seed), change(scene(seed)))
        assert distance <= 6
        alike, evidence = likeness(scene(seed), change(scene(seed)))
        assert alike > least
        assert evidence > 15


def test_strangers_are_not_alike() -> None:
    for seed in range(0, 20, 2):
        alike, evidence = likeness(scene(seed), scene(seed + 1))
        assert alike < 0.7
        assert evidence < 6


def test_plain_skies_are_alike_and_that_proves_nothing() -> None:
    def sky(bend: float) -> np.ndarray:
        rising = np.linspace(0, 1, 64)[:, None, None] ** bend
        return np.broadcast_to(40 + 160 * rising, (64, 80, 3)).astype(np.uint8)

    alike, evidence = likeness(sky(1), sky(1.3))
    assert alike > 0.85
    assert evidence < 6
