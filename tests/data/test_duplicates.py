"""Copies are found, strangers are not, and a chain of weak likenesses does not tie everything together."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from headstart.data.duplicates import CERTAIN, Pair, clusters, find_pairs
from headstart.data.table import Photo
from scenes import brighter, cropped, mirrored, photo_of, resized, saved_again, scene

CHANGES = {
    "saved again": lambda image: saved_again(image, 60),
    "smaller": lambda image: resized(image, 0.5),
    "larger": lambda image: resized(image, 1.5),
    "cropped": lambda image: cropped(image, 0.05, 0.9, 0.1),
    "cropped more": lambda image: cropped(image, 0.1),
    "mirrored": mirrored,
    "brighter": lambda image: brighter(image, 1.15),
    "mirrored and cropped": lambda image: mirrored(cropped(image, 0.06, 0, 0)),
    "cropped and saved again": lambda image: saved_again(cropped(image, 0.04, 1, 1), 50),
}
STRANGERS = [photo_of(scene(seed), f"{seed}.jpg") for seed in range(100, 200)]


def named(pairs: list[Pair], photos: list[Photo]) -> set[tuple[str, frozenset[str], float]]:
    return {(pair.kind, frozenset((photos[pair.first].path, photos[pair.second].path)), pair.likeness) for pair in pairs}


def partition(numbers: np.ndarray, names: list[str]) -> set[frozenset[str]]:
    found: dict[int, set[str]] = {}
    for number, name in zip(numbers.tolist(), names, strict=True):
        found.setdefault(number, set()).add(name)
    return {frozenset(members) for members in found.values()}


def test_every_kind_of_copy_is_found_among_strangers_and_nothing_else() -> None:
    originals = [photo_of(scene(seed), f"{seed}") for seed in range(len(CHANGES))]
    copies = [photo_of(change(scene(seed)), name) for seed, (name, change) in enumerate(CHANGES.items())]
    photos = [*STRANGERS, *originals, *copies]
    pairs = find_pairs(photos)
    assert {(kind, ends) for kind, ends, _ in named(pairs, photos)} == {
        ("near", frozenset((f"{seed}", name))) for seed, name in enumerate(CHANGES)
    }
    assert all(pair.first < pair.second and 0.8 < pair.likeness <= 1 for pair in pairs)


def test_equal_files_are_exact_and_one_of_them_stands_for_all() -> None:
    image = scene()
    photos = [photo_of(mirrored(image), "m"), *(photo_of(image, str(i)) for i in range(3)), Photo("p", "a", "77"), Photo("q", "a", "77")]
    pairs = find_pairs(photos)
    assert [(pair.first, pair.second) for pair in pairs if pair.kind == "exact"] == [(1, 2), (1, 3), (4, 5)]
    assert [(pair.first, pair.second) for pair in pairs if pair.kind == "near"] == [(0, 1)]
    assert find_pairs([]) == find_pairs(photos[:1]) == []


MIXED = [*STRANGERS[:9], *(photo_of(change(scene(seed % 3)), name) for seed, (name, change) in enumerate(CHANGES.items()))]
MIXED_PAIRS = find_pairs(MIXED)


@settings(max_examples=8)
@given(st.permutations(MIXED))
def test_neither_order_nor_names_matter(shuffled: list[Photo]) -> None:
    pairs = find_pairs([replace(photo, path=f"{i:04}") for i, photo in enumerate(shuffled)])
    assert named(pairs, shuffled) == named(MIXED_PAIRS, MIXED)
    before = partition(clusters(len(MIXED), MIXED_PAIRS)[0], [photo.path for photo in MIXED])
    assert partition(clusters(len(MIXED), pairs)[0], [photo.path for photo in shuffled]) == before
    assert len(before) == 12


def test_pictures_that_share_a_layout_are_not_one_cluster() -> None:
    """A series: the same background and one small object that differs, as in X-rays, microscopy, product photos."""
    photos = []
    for seed in range(60):
        image = scene(0).copy()
        image[20:100, 20:140] = scene(500 + seed, 120, 80)
        photos.append(photo_of(image, str(seed)))
    assert find_pairs(photos) == []


def test_where_strangers_are_alike_only_clear_copies_count() -> None:
    """All pictures share what is large in them, and differ in detail: strangers correlate by 0.8."""
    rng = np.random.default_rng(0)
    base = scene(0).mean(2)
    images = []
    for _ in range(210):
        detail = np.asarray(Image.fromarray(rng.normal(0, 12, (10, 10)).astype(np.float32)).resize((160, 120), Image.Resampling.BICUBIC))
        images.append(np.repeat(np.clip(base + detail, 0, 255)[..., None], 3, axis=2).astype(np.uint8))
    images += [saved_again(images[0], 50), mirrored(images[1])]
    pairs = find_pairs([photo_of(image, str(i)) for i, image in enumerate(images)])
    assert {(pair.first, pair.second) for pair in pairs} == {(0, 210), (1, 211)}


def test_plain_pictures_are_not_one_cluster() -> None:
    rng = np.random.default_rng(0)
    photos = []
    for i in range(200):
        slope, bend, dark = rng.uniform(0.5, 1), rng.uniform(0.4, 3), rng.uniform(0, 60)
        image = dark + 100 * slope * np.linspace(0, 1, 64)[:, None] ** bend + rng.normal(0, 1, (64, 64))
        photos.append(photo_of(np.repeat(image[..., None], 3, axis=2).astype(np.uint8), str(i)))
    assert len(find_pairs(photos)) < 4


def test_handwritten_digits_are_told_apart() -> None:
    digits = pytest.importorskip("sklearn.datasets").load_digits().images
    images = (np.repeat(np.rint(digit * 255 / 16).astype(np.uint8)[..., None], 3, axis=2) for digit in digits[:300])
    photos = [photo_of(image, str(i)) for i, image in enumerate(images)]
    assert len(find_pairs(photos)) <= 0.02 * len(photos)


@settings(max_examples=60)
@given(st.integers(1, 40), st.data())
def test_certain_pairs_are_never_parted(n: int, data: st.DataObject) -> None:
    ends = st.tuples(st.integers(0, n - 1), st.integers(0, n - 1), st.floats(0.5, 1), st.sampled_from(["exact", "near", "burst", "group"]))
    pairs = [Pair(min(a, b), max(a, b), kind, likeness) for a, b, likeness, kind in data.draw(st.lists(ends, max_size=80))]
    numbers, refused = clusters(n, pairs)
    assert numbers.shape == (n,)
    for pair in pairs:
        if pair.kind != "near" or pair.likeness >= CERTAIN:
            assert numbers[pair.first] == numbers[pair.second]
        assert (pair in refused) == (numbers[pair.first] != numbers[pair.second])
    joined, _ = clusters(n, [replace(pair, kind="group") for pair in pairs])
    assert all(len(set(joined[numbers == number])) == 1 for number in set(numbers.tolist())), "never more than what the pairs join"


def test_a_chain_of_weak_likenesses_ends_and_a_chain_of_copies_does_not() -> None:
    def largest(kind: str, likeness: float) -> int:
        return int(np.bincount(clusters(1000, [Pair(i, i + 1, kind, likeness) for i in range(999)])[0]).max())

    assert largest("near", 0.85) <= 50
    assert largest("near", 0.95) == largest("group", 1.0) == largest("burst", 0.5) == 1000
    numbers, refused = clusters(1000, [Pair(i, i + 1, "near", 0.85) for i in range(999)])
    assert len(refused) == len(set(numbers.tolist())) - 1
