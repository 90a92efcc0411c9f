"""What a person says of photos is on disk at once, can be taken back, and becomes what `--corrections` and `--exclude` take."""

import csv
import json
from pathlib import Path

import pytest

from headstart.data.scan import scan
from headstart.errors import DataError
from headstart.studio.labels import Labels
from samples import make_photos


def rows(path: Path) -> list[list[str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.reader(file))[1:]


def test_every_word_is_on_disk_when_the_call_returns(tmp_path: Path) -> None:
    labels = Labels(tmp_path)
    labels.say("a/1.jpg", "a", "b")
    labels.say("a/2.jpg", "a", None)
    labels.say("a/3.jpg", "a", "a")
    assert rows(tmp_path / "corrections.csv") == [["a/1.jpg", "b"]]
    assert rows(tmp_path / "left-out.csv") == [["a/2.jpg"]]
    again = Labels(tmp_path)
    assert again.current == labels.current
    assert again.changes() == [("a/1.jpg", "b"), ("a/2.jpg", None)]


def test_a_word_is_taken_back_wherever_it_stands_and_the_one_before_holds_again(tmp_path: Path) -> None:
    labels = Labels(tmp_path)
    first = labels.say("a/1.jpg", "a", "b")
    second = labels.say("a/1.jpg", "a", "c")
    labels.say("a/2.jpg", "a", "b")
    assert labels.undo(second.n) is not None
    assert rows(tmp_path / "corrections.csv") == [["a/1.jpg", "b"], ["a/2.jpg", "b"]]
    labels.undo(first.n)
    assert labels.changes() == [("a/2.jpg", "b")]
    assert labels.undo(first.n) is None
    assert labels.undo(99) is None
    assert [each["undone"] for each in json.loads((tmp_path / "labels.json").read_text())["said"]] == [True, True, False]


def test_the_files_are_what_training_takes(tmp_path: Path) -> None:
    photos = make_photos(tmp_path / "photos", n=4, classes=("a", "b"))
    labels = Labels(tmp_path / "own")
    labels.say("a/photo 0.jpg", "a", "b")
    labels.say("b/photo 1.png", "b", None)
    corrections, left_out = labels.write_files(tmp_path / "c.csv", tmp_path / "l.csv")
    table = scan(photos, corrections=corrections, exclude=left_out)
    assert [photo.path for photo in table.photos if photo.relabelled] == ["a/photo 0.jpg"]
    assert "b/photo 1.png" not in [photo.path for photo in table.photos]
    assert labels.write_files(tmp_path / "c.csv", tmp_path / "l.csv") == (tmp_path / "c.csv", tmp_path / "l.csv")


@pytest.mark.parametrize("content", ["", "{", "[]", '{"labels": 1}', '{"labels": 1, "said": [{"n": 1}]}', '{"labels": 2, "said": []}'])
def test_a_journal_that_is_none_is_an_error_and_stays_as_it_is(tmp_path: Path, content: str) -> None:
    (tmp_path / "labels.json").write_text(content)
    with pytest.raises(DataError, match=r"labels\.json"):
        Labels(tmp_path)
    assert (tmp_path / "labels.json").read_text() == content
