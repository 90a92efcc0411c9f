"""Long bursts stay together in a split; long chains of weak likenesses are cut only where quotas ask for it, and told."""

import hashlib
from collections import Counter
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from headstart.data.split import group_photos, split_table
from headstart.data.table import Photo, Table
from headstart.data.views import thumbnail
from scenes import scene


def sha256(value: object) -> str:
    return hashlib.sha256(repr(value).encode()).hexdigest()


def make_table(photos: list[Photo]) -> Table:
    return Table(Path("photos"), tuple(photos), tuple(sorted({photo.label for photo in photos})), name="photos")


def singles(counts: dict[str, int]) -> Table:
    return make_table([Photo(f"{label}/{i}.png", label, sha256((label, i))) for label, n in counts.items() for i in range(n)])


def counts_of(table: Table) -> dict[str, dict[str, int]]:
    return {label: dict(Counter(p.split for p in table.photos if p.label == label)) for label in table.classes}


seeds = st.integers(0, 2**31)


def pan(seed: int) -> list[bytes]:
    """Thumbnails of 60 frames: the camera turns along a wide scene, until nothing of the first is in sight."""
    wide = scene(seed, 900, 400)
    return [thumbnail(np.ascontiguousarray(wide[100:220, 10 * k : 10 * k + 160])) for k in range(60)]


PANS = {seed: pan(seed) for seed in (77, 78, 79)}


def burst(seed: int, labels: str) -> list[Photo]:
    """One photo a second, as many as labels."""
    starts = datetime(2024, 5, 31, 16, 20) + timedelta(hours=seed)
    return [
        Photo(
            f"{seed}-{k * 37}x.jpg",
            label,
            sha256((seed, k)),
            glance=PANS[seed][k],
            taken=(starts + timedelta(seconds=k)).isoformat(),
            camera="Canon EOS 80D",
        )
        for k, label in enumerate(labels)
    ]


def test_a_long_burst_stays_together() -> None:
    frames = burst(77, "a" * 60)
    table = make_table([*singles({"a": 60, "b": 120}).photos, *frames])
    for seed in (0, 1):
        split = split_table(table, seed=seed)
        assert {photo.split for photo in split.photos if photo.camera} == {"train"}
        assert counts_of(split)["a"] == {"train": 84, "val": 18, "test": 18}
        assert split.notices == ()


@settings(max_examples=40, deadline=None)
@given(
    st.dictionaries(st.sampled_from(sorted(PANS)), st.text("abc", min_size=2, max_size=60), min_size=1),
    st.dictionaries(st.sampled_from("abc"), st.integers(1, 60), min_size=1),
    seeds,
)
def test_no_burst_of_any_length_straddles(bursts, counts, seed):
    table = make_table([*singles(counts).photos, *(photo for of, labels in bursts.items() for photo in burst(of, labels))])
    split = split_table(table, seed=seed)
    for of in bursts:
        assert len({photo.split for photo in split.photos if photo.path.startswith(f"{of}-")}) == 1
    untested = [label for label, found in counts_of(split).items() if "test" not in found and sum(found.values()) > 1]
    told = [notice for notice in split.notices if notice.startswith("no photo in test")]
    assert len(told) == bool(untested)
    assert all(notice.endswith(", ".join(untested)) for notice in told)


def test_a_class_that_is_one_burst_trains_and_is_told_to_go_untested():
    split = split_table(make_table([*singles({"a": 40, "b": 40}).photos, *burst(77, "c" * 50)]), seed=0)
    assert counts_of(split)["c"] == {"train": 50}
    assert counts_of(split)["a"] == {"train": 28, "val": 6, "test": 6}
    assert len(split.notices) == 1
    assert split.notices[0].startswith("no photo in test for 1 class, whose photos all belong together")
    assert split.notices[0].endswith(": c")


def morphing(n: int) -> list[Photo]:
    """One scene turns into the next, and that into another, under noise: neighbours are alike, weakly; no time, no numbers that tell."""
    noise = np.random.default_rng(0)
    scenes = [scene(seed, 32, 32) - 128.0 for seed in range(400, 400 + n // 8 + 2)]
    photos = []
    for i in range(n):
        at, step = divmod(i, 8)
        turned = np.pi / 16 * step
        mixed = 128 + scenes[at] * np.cos(turned) + scenes[at + 1] * np.sin(turned) + noise.normal(0, 4, (32, 32, 1))
        photos.append(Photo(f"{i * 37}x.jpg", "a", sha256(("m", i)), glance=thumbnail(np.clip(mixed, 0, 255).astype(np.uint8))))
    return photos


def test_a_chain_of_weak_likenesses_is_cut_only_where_quotas_ask_for_it_and_told():
    chain = morphing(80)
    groups, chains = group_photos(chain)
    assert Counter(chains.tolist()).most_common(1)[0][1] == 80
    assert Counter(groups.tolist()).most_common(1)[0][1] <= 20

    alone = split_table(make_table([*chain, *singles({"b": 40}).photos]), seed=0)
    counts = counts_of(alone)["a"]
    assert set(counts) == {"train", "val", "test"}
    assert alone.notices[0].startswith("80 photos form chains of look-alikes too long to keep together, and lie in different splits")

    among = split_table(make_table([*chain, *singles({"a": 400}).photos]), seed=0)
    assert len({photo.split for photo in among.photos if photo.glance}) == 1
    assert among.notices == ()
