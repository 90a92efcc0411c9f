import unicodedata
from pathlib import Path

import numpy as np
import pytest

from headstart.data.table import Photo, Table, label_called, some, split_called

PHOTOS = (
    Photo("a/1.png", "cat", "11", split="train", group="g"),
    Photo("/abs/2.png", "dog", "22", split="test"),
    Photo("a/3.png", "cat", "33", split="train", group="g"),
)
TABLE = Table(Path("/photos"), PHOTOS, ("ant", "cat", "dog"), name="x")


def test_labels_and_groups_are_numbers():
    assert TABLE.labels.dtype == TABLE.groups.dtype == np.int64
    assert TABLE.labels.tolist() == [1, 2, 1]
    assert TABLE.groups.tolist() == [0, 1, 0]
    assert Table(Path(), (), ()).labels.shape == (0,)


def test_a_part_of_a_table_keeps_its_classes_and_root():
    train = TABLE.of("train")
    assert (len(train), train.classes, train.file(1)) == (2, TABLE.classes, Path("/photos/a/3.png"))
    assert TABLE.subset(np.array([1])).file(0) == Path("/abs/2.png")
    assert TABLE.subset([2, 0]).sha256s == ["33", "11"]
    assert TABLE.given_splits
    assert not TABLE.subset([]).given_splits


@pytest.mark.parametrize(("word", "split"), [(" Valid ", "val"), ("TRAINING", "train"), ("test", "test"), ("", None), ("dev", None)])
def test_words_for_splits(word, split):
    assert split_called(word) == split


def test_labels_are_composed_valid_text():
    assert label_called(unicodedata.normalize("NFD", "Äffin")) == unicodedata.normalize("NFC", "Äffin")
    label_called("\udcff").encode("utf-8")


def test_long_lists_are_cut():
    assert some("abcdefg") == "a, b, c, d, e and 2 more"
    assert some("ab") == "a, b"
