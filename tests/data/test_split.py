import hashlib
import random
from collections import Counter, defaultdict
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headstart.data.split import group_photos, quotas, read_split, split_table, write_split
from headstart.data.table import Photo, Table
from headstart.data.views import thumbnail
from headstart.errors import DataError
from scenes import cropped, mirrored, saved_again, scene


def sha256(value: object) -> str:
    return hashlib.sha256(repr(value).encode()).hexdigest()


def make_table(photos: list[Photo]) -> Table:
    return Table(Path("photos"), tuple(photos), tuple(sorted({photo.label for photo in photos})), name="photos")


def singles(counts: dict[str, int]) -> Table:
    return make_table([Photo(f"{label}/{i}.png", label, sha256((label, i))) for label, n in counts.items() for i in range(n)])


def by_content(table: Table) -> dict[str, set[str]]:
    found = defaultdict(set)
    for photo in table.photos:
        found[photo.sha256].add(photo.split)
    return found


def counts_of(table: Table) -> dict[str, dict[str, int]]:
    return {label: dict(Counter(p.split for p in table.photos if p.label == label)) for label in table.classes}


# Of each scene: the picture, a mirrored crop and a re-encoded one. One photo of a burst.
GLANCES = [
    [thumbnail(image) for image in (whole, mirrored(cropped(whole, 0.05)), saved_again(whole, 60))] for whole in map(scene, range(3))
]
BURST = {"taken": "2024-05-31T16:20:07", "camera": "Canon EOS 80D"}
MOMENTS = [thumbnail(cropped(scene(9), 0.25, x, 0.5)) for x in (0.2, 0.4, 0.6)]


@st.composite
def tables(draw: st.DrawFn) -> Table:
    """Tables with the user's groups, copies, near-duplicates and a burst, which may cross classes."""
    n = draw(st.integers(1, 60))
    photos = []
    for i in range(n):
        label = draw(st.sampled_from("abc"))
        content = draw(st.one_of(st.just(i), st.integers(0, n)))
        group = draw(st.sampled_from(["", "", "", "p1", "p2", "p3"]))
        seen = draw(st.one_of(st.none(), st.none(), st.tuples(st.integers(0, 3), st.integers(0, 2))))
        if seen is None:
            photos.append(Photo(f"{i}.png", label, sha256(content), group=group))
        elif seen[0] < 3:  # equal files look the same
            photos.append(Photo(f"{i}.png", label, sha256(("scene", *seen)), group=group, glance=GLANCES[seen[0]][seen[1]]))
        else:
            photos.append(Photo(f"{i}.png", label, sha256(("burst", seen[1])), group=group, glance=MOMENTS[seen[1]], **BURST))
    return make_table(photos)


seeds = st.integers(0, 2**31)


@settings(max_examples=50, deadline=None)
@given(tables(), seeds)
def test_every_photo_gets_one_split_and_no_group_straddles(table, seed):
    split = split_table(table, seed=seed)
    assert [replace(p, split="", group="") for p in split.photos] == [replace(p, group="") for p in table.photos]
    assert all(photo.split in ("train", "val", "test") for photo in split.photos)
    scene_of = {glance: i for i, glances in enumerate([*GLANCES, MOMENTS]) for glance in glances}
    for key in (lambda photo: photo.sha256, lambda photo: photo.group, lambda photo: scene_of.get(photo.glance, "")):
        places = defaultdict(set)
        for before, after in zip(table.photos, split.photos, strict=True):
            places[key(before)].add(after.split)
        places.pop("", None)
        assert all(len(found) == 1 for found in places.values())
    places = defaultdict(set)
    for group, photo in zip(split.groups, split.photos, strict=True):
        places[group].add(photo.split)
    assert all(len(found) == 1 for found in places.values())


@settings(max_examples=40, deadline=None)
@given(tables(), seeds, st.randoms(use_true_random=False))
def test_the_split_does_not_depend_on_order_or_names(table, seed, rng):
    photos = [replace(photo, path=f"elsewhere/{rng.random()}.jpg") for photo in table.photos]
    rng.shuffle(photos)
    assert by_content(split_table(make_table(photos), seed=seed)) == by_content(split_table(table, seed=seed))


@settings(max_examples=40, deadline=None)
@given(st.dictionaries(st.sampled_from("abcdef"), st.integers(1, 120), min_size=1), seeds)
def test_single_photos_meet_their_quotas_exactly(counts, seed):
    for label, found in counts_of(split_table(singles(counts), seed=seed)).items():
        n = counts[label]
        held_out = int(0.15 * n + 0.5)
        expected = {"test": max(held_out, int(n >= 2)), "val": max(held_out, int(n >= 3))}
        expected["train"] = n - sum(expected.values())
        assert found == {split: n for split, n in expected.items() if n}


@settings(max_examples=50, deadline=None)
@given(st.lists(st.lists(st.integers(1, 30), min_size=1, max_size=8), min_size=1, max_size=4), seeds)
def test_a_class_with_three_groups_is_in_every_split_and_near_its_quotas(sizes, seed):
    photos = [
        Photo(f"{label}/{g}/{i}.png", str(label), sha256((label, g, i)), group=f"{label} {g}")
        for label, groups in enumerate(sizes)
        for g, n in enumerate(groups)
        for i in range(n)
    ]
    table = make_table(photos)
    for label, found in counts_of(split_table(table, seed=seed)).items():
        groups = sizes[int(label)]
        expected = {1: {"train"}, 2: {"train", "test"}}.get(len(groups), {"train", "val", "test"})
        assert set(found) == expected
        wanted = quotas(sum(groups), {"train": 0.7, "val": 0.15, "test": 0.15})
        assert all(abs(found.get(split, 0) - wanted[split]) <= max(groups) for split in ("val", "test"))


def test_another_seed_is_another_split_of_the_same_sizes():
    table = singles({"cat": 100, "dog": 60})
    first, again, other = (split_table(table, seed=seed) for seed in (0, 0, 1))
    assert first == again
    assert by_content(first) != by_content(other)
    assert counts_of(first) == counts_of(other) == {"cat": {"train": 70, "val": 15, "test": 15}, "dog": {"train": 42, "val": 9, "test": 9}}


def test_the_split_is_the_same_on_every_machine():
    split = split_table(singles({"cat": 20, "dog": 20}), seed=0)
    assert "".join(photo.split[1] for photo in split.photos) == "rrrarerrarrererrrarreearerrrrrrarrrrarrr"


def test_one_more_photo_moves_few_others():
    table = singles({"cat": 500, "dog": 500})
    before = by_content(split_table(table, seed=3))
    for i in range(20):
        more = make_table([*table.photos, Photo("new.png", "cat", sha256(("new", i)))])
        after = by_content(split_table(more, seed=3))
        assert sum(after[key] != before[key] for key in before) <= 2


def test_mixed_groups_are_balanced_over_splits():
    rng = random.Random(0)
    photos = [
        Photo(f"{g}/{i}.png", rng.choice("ab"), sha256((g, i)), group=f"patient {g}") for g in range(100) for i in range(rng.randint(1, 12))
    ]
    for label, found in counts_of(split_table(make_table(photos), seed=0)).items():
        n = sum(photo.label == label for photo in photos)
        assert abs(found["test"] / n - 0.15) < 0.03, label
        assert abs(found["val"] / n - 0.15) < 0.03, label


def test_groups_are_joined_over_all_kinds_of_sameness():
    photos = [
        Photo("0", "a", "11", group="x"),
        Photo("1", "a", "22", group="x", glance=GLANCES[0][0]),
        Photo("2", "b", "33", glance=GLANCES[0][1]),
        Photo("3", "b", "33", glance=GLANCES[0][1]),
        Photo("4", "b", "44", glance=GLANCES[1][0]),
        Photo("5", "b", "55", glance=MOMENTS[0], group="y", **BURST),
        Photo("6", "b", "66", glance=MOMENTS[1], **BURST),
    ]
    groups, chains = group_photos(photos)
    assert np.array_equal(groups, chains)
    assert len(set(groups[:4])) == len(set(groups[5:])) == 1
    assert len(set(groups)) == 3
    split = split_table(make_table(photos), seed=0)
    assert [photo.group for photo in split.photos] == ["x", "x", "x", "x", "", "y", "y"]


def test_copies_without_a_given_group_are_named_by_their_content():
    table = make_table([Photo("0", "a", "11" * 32), Photo("1", "a", "11" * 32), Photo("2", "b", "22" * 32)])
    assert [photo.group for photo in split_table(table, seed=0).photos] == ["11" * 8, "11" * 8, ""]


def with_splits(table: Table, splits: list[str]) -> Table:
    return table.with_photos([replace(photo, split=split) for photo, split in zip(table.photos, splits, strict=True)])


def test_given_splits_are_kept():
    table = with_splits(singles({"a": 6, "b": 6}), ["train", "val", "test"] * 4)
    split = split_table(table, seed=0)
    assert split.photos == table.photos
    assert split.notices == ()


def test_without_val_it_is_carved_from_train_and_test_is_untouched():
    table = with_splits(singles({"a": 40, "b": 40}), (["train"] * 34 + ["test"] * 6) * 2)
    split = split_table(table, seed=0)
    assert counts_of(split) == {label: {"train": 28, "val": 6, "test": 6} for label in "ab"}
    assert all(after.split == "test" for before, after in zip(table.photos, split.photos, strict=True) if before.split == "test")
    assert split.notices == ("not given, so carved from train: val (12 photos)",)


def test_without_test_val_becomes_test():
    table = with_splits(singles({"a": 40, "b": 40}), (["train"] * 34 + ["val"] * 6) * 2)
    split = split_table(table, seed=0)
    assert all(after.split == "test" for before, after in zip(table.photos, split.photos, strict=True) if before.split == "val")
    assert counts_of(split)["a"] == {"train": 28, "val": 6, "test": 6}
    assert split.notices[0] == "no test photos are given: val is used as test, and a new val is carved from train"


def test_train_alone_is_split_like_a_new_data_set():
    table = singles({"a": 40, "b": 40})
    alone = split_table(with_splits(table, ["train"] * 80), seed=5)
    assert by_content(alone) == by_content(split_table(table, seed=5))
    assert alone.notices == ("not given, so carved from train: test (12 photos) and val (12 photos)",)


def test_photos_without_a_split_are_assigned_or_follow_their_copies():
    table = with_splits(singles({"a": 30, "b": 30}), (["train", "val", "test"] * 5 + [""] * 15) * 2)
    copy = replace(table.photos[2], path="copy.png", split="")
    split = split_table(make_table([*table.photos, copy]), seed=0)
    assert [after.split for before, after in zip(table.photos, split.photos, strict=False) if before.split] == ["train", "val", "test"] * 10
    assert split.photos[-1].split == "test"
    assert counts_of(split)["b"] == {"train": 16, "val": 7, "test": 7}
    assert "31 photos come without a split" in split.notices[0]


def test_where_only_test_is_given_the_rest_trains_and_validates():
    split = split_table(with_splits(singles({"a": 40, "b": 40}), (["test"] * 6 + [""] * 34) * 2), seed=0)
    assert counts_of(split)["a"] == {"train": 28, "val": 6, "test": 6}


def test_copies_on_both_sides_of_given_splits_are_told_and_not_moved():
    table = with_splits(singles({"a": 6, "b": 6}), ["train", "val", "test"] * 4)
    copy = replace(table.photos[0], path="copy.png", split="test")
    split = split_table(make_table([*table.photos, copy]), seed=0)
    assert (split.photos[0].split, split.photos[-1].split) == ("train", "test")
    assert "2 photos in 1 groups" in split.notices[0]
    assert "not moved" in split.notices[0]


def test_a_table_that_cannot_train_is_an_error():
    with pytest.raises(DataError, match="no photo of photos is in train, found only test"):
        split_table(with_splits(singles({"a": 2, "b": 2}), ["test"] * 4), seed=0)


def test_classes_absent_from_a_given_train_are_told():
    split = split_table(with_splits(singles({"a": 3, "b": 2}), ["train", "val", "test", "val", "test"]), seed=0)
    assert split.notices == ("no photo in train for 1 classes, which cannot be learned: b",)


@pytest.mark.parametrize("fractions", [(0.5, 0.5, 0.5), (0.0, 0.5, 0.5), (1.2, -0.1, -0.1)])
def test_fractions_that_are_none_are_refused(fractions):
    with pytest.raises(DataError, match="expected fractions of train, val and test that sum to 1"):
        split_table(singles({"a": 3}), seed=0, fractions=fractions)


def test_a_split_may_be_done_without():
    assert counts_of(split_table(singles({"a": 10}), seed=0, fractions=(0.8, 0.0, 0.2))) == {"a": {"train": 8, "test": 2}}


@settings(max_examples=30, deadline=None)
@given(table=tables(), seed=seeds)
def test_a_written_split_is_read_back(tmp_path_factory, table, seed):
    path = tmp_path_factory.mktemp("split") / "split.csv"
    split = split_table(table, seed=seed)
    write_split(split, path)
    assert read_split(table, path).photos == split.photos


def test_a_moved_photo_is_found_by_its_content(tmp_path):
    table = singles({"a\n,": 5, 'b"': 5})
    split = split_table(table, seed=0)
    write_split(split, tmp_path / "split.csv")
    assert (tmp_path / "split.csv").read_text().splitlines()[0] == "path,label,split,group,sha256"
    moved = table.with_photos([replace(photo, path=f"new/{i}.png") for i, photo in enumerate(table.photos)])
    again = read_split(moved, tmp_path / "split.csv")
    assert by_content(again) == by_content(split)
    assert again.notices == ()


def test_content_counts_more_than_names_where_files_were_numbered_anew(tmp_path):
    table = singles({"a": 10, "b": 10})
    split = split_table(table, seed=0)
    write_split(split, tmp_path / "split.csv")
    turned = [replace(photo, path=other.path) for photo, other in zip(table.photos, reversed(table.photos), strict=True)]
    assert by_content(read_split(table.with_photos(turned), tmp_path / "split.csv")) == by_content(split)
    edited = table.with_photos([replace(photo, sha256=sha256(("edited", i))) for i, photo in enumerate(table.photos)])
    assert [p.split for p in read_split(edited, tmp_path / "split.csv").photos] == [p.split for p in split.photos]


@pytest.mark.parametrize("header", ["path,split", "path,split,group"])
def test_a_split_file_without_groups_keeps_copies_together_and_tells_what_it_parts(tmp_path, header):
    photos = list(singles({"a": 4, "b": 4}).photos)
    photos[1] = replace(photos[1], sha256=photos[0].sha256)
    photos[3] = replace(photos[3], glance=GLANCES[0][0])
    photos[4] = replace(photos[4], glance=GLANCES[0][2])
    splits = ["train", "train", "val", "train", "test", "train", "val", "test"]
    (tmp_path / "split.csv").write_text(
        header + "\n" + "".join(f"{photo.path},{split}\n" for photo, split in zip(photos, splits, strict=True))
    )
    table = read_split(make_table(photos), tmp_path / "split.csv")
    assert [photo.split for photo in table.photos] == splits
    pair, alike = photos[0].sha256[:16], min(photos[3].sha256, photos[4].sha256)[:16]
    assert [photo.group for photo in table.photos] == [pair, pair, "", alike, alike, "", "", ""]
    assert len(table.notices) == 1
    assert "2 photos in 1 groups (copies, near-duplicates, bursts or one given group) lie on both sides" in table.notices[0]


def test_photos_that_a_split_file_lacks_are_an_error_with_the_count(tmp_path):
    write_split(split_table(singles({"a": 5}), seed=0), tmp_path / "split.csv")
    with pytest.raises(
        DataError, match=r"7 of 12 photos are not in .*: b/0\.png, .*b/4\.png and 2 more\nhint: leave them out with --exclude"
    ):
        read_split(singles({"a": 5, "b": 7}), tmp_path / "split.csv")


def test_photos_that_only_a_split_file_has_are_told(tmp_path):
    write_split(split_table(singles({"a": 5, "b": 5}), seed=0), tmp_path / "split.csv")
    assert read_split(singles({"a": 5, "b": 4}), tmp_path / "split.csv").notices == ("1 photos of split.csv are not in the data: b/4.png",)


def test_words_that_are_no_splits_and_absent_columns_are_errors(tmp_path):
    path = tmp_path / "split.csv"
    path.write_text("path,split\na/0.png,hold\na/1.png,train\na/2.png,\n")
    with pytest.raises(DataError, match=r"expected train, val, test in the column split of .*, found 'hold' \(line 2\), '' \(line 4\)"):
        read_split(singles({"a": 3}), path)
    path.write_text("path,splits\n")
    with pytest.raises(DataError, match="hint: rename the column 'splits' to 'split'"):
        read_split(singles({"a": 3}), path)
