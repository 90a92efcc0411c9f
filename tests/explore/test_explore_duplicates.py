"""Clusters of copies, where they lie, and what features have to say about them."""

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from headstart.data.split import split_table
from headstart.data.table import Photo, Table
from headstart.explore.duplicates import Duplicates, find_duplicates, write_duplicates
from scenes import cropped, mirrored, photo_of, resized, saved_again, scene


def table_of(*photos: Photo) -> Table:
    return Table(Path("photos"), photos, tuple(sorted({photo.label for photo in photos})))


STRANGERS = [photo_of(scene(seed), f"s{seed}.jpg", "ab"[seed % 2]) for seed in range(20, 50)]
# 0 and 1: equal files of two classes. 2, 3 and 4: copies in two splits. 5 and 6: copies in one class and split.
TABLE = table_of(
    photo_of(scene(0), "0.jpg", "a", split="train"),
    photo_of(scene(0), "1.jpg", "b", split="train"),
    photo_of(scene(1), "2.jpg", "a", split="train"),
    photo_of(mirrored(scene(1)), "3.jpg", "a", split="test"),
    photo_of(cropped(scene(1), 0.05), "4.jpg", "a", split="train"),
    photo_of(scene(2), "5.jpg", "b", split="val"),
    photo_of(saved_again(scene(2), 60), "6,\n.jpg", "b", split="val"),
    *STRANGERS,
)
COPIES = [(0, 1), (2, 3, 4), (5, 6)]


def features(alike: float = 1.0) -> np.ndarray:
    """[n, d]: strangers at random; copies that share `alike` of what makes them."""
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(len(TABLE), 64))
    for copies in COPIES:
        rows[list(copies)] = alike * rows[copies[0]] + (1 - alike) * rows[list(copies)]
    return rows.astype(np.float32)


def members(found: Duplicates) -> list[tuple[int, ...]]:
    return [cluster.photos for cluster in found.clusters]


def test_clusters_that_mislead_come_first() -> None:
    found = find_duplicates(TABLE, None)
    assert members(found) == [(2, 3, 4), (0, 1), (5, 6)]
    record = found.to_json()
    counts = {"n_exact": 1, "n_near": 2, "n_photos": 7, "across_splits": 1, "across_test": 1, "across_classes": 1}
    assert {name: record[name] for name in counts} == counts
    assert record["clusters"][0] == {
        "kind": "near",
        "photos": ["2.jpg", "3.jpg", "4.jpg"],
        "labels": ["a", "a", "a"],
        "splits": ["train", "test", "train"],
    }
    assert len(found.to_json(most=1)["clusters"]) == 1
    assert found.to_json(most=1)["n_near"] == 2


def test_only_test_against_the_rest_counts_as_across_test() -> None:
    for splits, across in ((("train", "val"), (1, 0)), (("val", "test"), (1, 1)), (("test", "test"), (0, 0)), (("", "test"), (0, 0))):
        pair = table_of(*(replace(TABLE.photos[i], split=split) for i, split in zip((2, 3), splits, strict=True)))
        record = find_duplicates(pair, None).to_json()
        assert (record["across_splits"], record["across_test"]) == across, splits


def test_features_confirm_what_looks_the_same() -> None:
    assert members(find_duplicates(TABLE, features(0.8))) == [(2, 3, 4), (0, 1), (5, 6)]


def test_features_reject_what_only_looks_the_same_but_not_equal_files() -> None:
    rows = features()
    rows[[3, 4]] = -rows[[2, 2]]
    assert members(find_duplicates(TABLE, rows)) == [(3, 4), (0, 1), (5, 6)]


# A badly blurred copy: too little is left of it to be sure by pixels alone.
BLURRED = photo_of(resized(resized(scene(0), 0.08), 12.5), "blurred.jpg")
DOUBTFUL = table_of(photo_of(scene(0), "sharp.jpg"), BLURRED, *(replace(photo, label="a") for photo in STRANGERS))


@pytest.mark.parametrize(("alike", "found"), [(0.9, True), (0.0, False)])
def test_of_doubtful_pairs_features_decide(alike: float, found: bool) -> None:
    rows = np.random.default_rng(1).normal(size=(len(DOUBTFUL), 64))
    rows[1] = alike * rows[0] + (1 - alike) * rows[1]
    assert members(find_duplicates(DOUBTFUL, None)) == []
    assert members(find_duplicates(DOUBTFUL, rows)) == ([(0, 1)] if found else [])


def test_no_split_parts_what_features_may_find_to_be_copies() -> None:
    for seed in range(12):  # each parts two photos in one of two cases
        split = split_table(DOUBTFUL, seed=seed)
        assert split.photos[0].split == split.photos[1].split
        assert split.groups[0] == split.groups[1]
    rows = np.random.default_rng(1).normal(size=(len(DOUBTFUL), 64))
    rows[1] = rows[0]
    assert find_duplicates(split_table(DOUBTFUL, seed=0), rows).to_json()["across_splits"] == 0


def test_photos_without_features_are_judged_by_pixels_alone() -> None:
    rows = features()
    rows[[3, 4]] = -rows[[2, 2]]
    at = np.arange(len(TABLE))[::-1].copy()  # rows in another order
    assert members(find_duplicates(TABLE, rows[::-1], at)) == [(3, 4), (0, 1), (5, 6)]
    at[2] = -1
    assert members(find_duplicates(TABLE, rows[::-1], at)) == [(2, 3, 4), (0, 1), (5, 6)]
    assert members(find_duplicates(DOUBTFUL, np.ones((len(DOUBTFUL), 4)), np.full(len(DOUBTFUL), -1))) == []


def test_small_and_odd_tables_are_searched_too() -> None:
    assert members(find_duplicates(table_of(), None)) == members(find_duplicates(table_of(), np.empty((0, 4)))) == []
    pair = table_of(TABLE.photos[2], TABLE.photos[3])
    assert members(find_duplicates(pair, np.ones((2, 4)))) == [(0, 1)]
    each = table_of(*(replace(photo, label=str(i)) for i, photo in enumerate(TABLE.photos)))
    assert len(find_duplicates(each, features(0.8)).clusters) == 3
    halves = table_of(*(photo_of(resized(scene(1), by), f"{by}") for by in (0.5, 1.0)))
    assert find_duplicates(halves, None).to_json()["across_splits"] == 0


def test_the_table_of_duplicates_has_a_row_for_each_photo(tmp_path: Path) -> None:
    write_duplicates(tmp_path / "duplicates.csv", find_duplicates(TABLE, None), TABLE)
    with (tmp_path / "duplicates.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["cluster", "kind", "path", "label", "split"]
    assert rows[1:3] == [["1", "near", "2.jpg", "a", "train"], ["1", "near", "3.jpg", "a", "test"]]
    assert [row[0] for row in rows[1:]] == ["1", "1", "1", "2", "2", "3", "3"]
    assert rows[-1] == ["3", "near", "6,\n.jpg", "b", "val"]
