"""Corrections: labels that the user gives to single photos, without touching a file."""

from pathlib import Path

import pytest

from headstart.data.corrections import about_test
from headstart.data.scan import scan
from headstart.data.split import read_split, split_table
from headstart.errors import DataError


@pytest.fixture
def folder(tmp_path, make_folder) -> Path:
    return make_folder(tmp_path / "photos", {"cat": 3, "big dog": 3})


def labels(folder: Path, text: str, **more) -> dict[str, str]:
    return {photo.path: photo.label for photo in corrected(folder, text, **more).photos}


def corrected(folder: Path, text: str, **more):
    file = folder.parent / "fix.csv"
    file.write_bytes(text.encode())
    return scan(folder, corrections=file, **more)


def test_named_photos_take_the_given_label_and_no_file_moves(folder):
    before = {path: path.read_bytes() for path in folder.rglob("*.png")}
    found = labels(folder, "path,label\ncat/0.png,big dog\nbig dog/2.png,cat\n")
    assert found == {
        "big dog/0.png": "big dog",
        "big dog/1.png": "big dog",
        "big dog/2.png": "cat",
        "cat/0.png": "big dog",
        "cat/1.png": "cat",
        "cat/2.png": "cat",
    }
    assert {path: path.read_bytes() for path in folder.rglob("*.png")} == before


@pytest.mark.parametrize("form", ["absolute", "dotted", "semicolons, more columns", "a blank around it"])
def test_the_same_photo_may_be_written_in_many_ways(folder, form):
    text = {
        "absolute": f"path,label\n{folder}/cat/0.png,big dog\n",
        "dotted": "path,label\n./cat/../cat/0.png,big dog\n",
        "semicolons, more columns": "\ufeffwhy;Label;Path\nblurred;big dog;cat/0.png\n",
        "a blank around it": "path,label\n cat/0.png , big dog \n",
    }[form]
    assert labels(folder, text)["cat/0.png"] == "big dog"


def test_notices_count_the_changes_and_name_photos_that_are_not_there(folder):
    table = corrected(folder, "path,label\ncat/0.png,big dog\ncat/1.png,cat\ncat/9.png,big dog\ncat/2.png,\n")
    assert table.notices[0] == "fix.csv gives 1 photo another label"
    assert table.notices[1].startswith("fix.csv names 1 photos that are not in the data: cat/9.png (did you mean cat/")


@pytest.mark.parametrize(("wrong", "near"), [("big dgo", "big dog"), ("Cat", "cat"), ("CATS", None), ("zebra", None)])
def test_a_class_that_the_data_does_not_have_is_an_error_with_the_nearest_name(folder, wrong, near):
    hint = f" (did you mean '{near}'?)" if near else ""
    with pytest.raises(DataError) as caught:
        corrected(folder, f"path,label\ncat/1.png,cat\ncat/0.png,{wrong}\n")
    assert f"fix.csv: line 3: '{wrong}' is no class of the data{hint}" in str(caught.value)
    assert hint or "did you mean" not in str(caught.value)


def test_all_problems_are_told_at_once(folder):
    with pytest.raises(DataError, match=r"line 2: 'x' is no class .*, line 4: \./cat/1\.png is 'cat', and 'big dog' in a line before"):
        corrected(folder, "path,label\ncat/0.png,x\ncat/1.png,big dog\n./cat/1.png,cat\n")


def test_a_file_without_the_columns_is_an_error_that_names_them(folder):
    with pytest.raises(DataError, match=r"expected the columns label in .*fix\.csv, found 'path', 'likely'"):
        corrected(folder, "path,likely\ncat/0.png,big dog\n")


def test_a_class_may_lose_its_last_photo_and_that_is_told(tmp_path, make_folder):
    folder = make_folder(tmp_path / "photos", {"cat": 2, "dog": 2, "dgo": 1})
    table = corrected(folder, "path,label\ndgo/0.png,dog\n")
    assert table.classes == ("cat", "dog")
    assert "after fix.csv no photo is left of class dgo" in table.notices


def test_a_photo_may_be_corrected_and_left_out_at_once(folder):
    (folder.parent / "out.txt").write_text("cat/0.png\n")
    table = corrected(folder, "path,label\ncat/0.png,big dog\n", exclude=folder.parent / "out.txt")
    assert "cat/0.png" not in {photo.path for photo in table.photos}
    assert not any("not in the data" in notice for notice in table.notices)


def test_a_csv_of_photos_is_corrected_as_a_folder_is(folder):
    data = folder.parent / "photos.csv"
    rows = [f"photos/{name}/{i}.png,{name}" for name in ("cat", "big dog") for i in range(3)]
    data.write_text("\n".join(["path,label", *rows]) + "\n")
    file = folder.parent / "fix.csv"
    file.write_text("path,label\nphotos/cat/2.png,big dog\n")
    found = {photo.path: photo.label for photo in scan(data, corrections=file).photos}
    assert (found["photos/cat/2.png"], found["photos/cat/1.png"]) == ("big dog", "cat")


RELABELLED = "of the relabelled photos"
GIVEN = "given as test: the score is of a test set that was chosen"
MAYBE = "if {} chosen by how a model answered {}, the score is too good"


def given_split(folder: Path, tmp_path: Path) -> Path:
    """Photos 0 to 2 of each class: train, val and test."""
    rows = [f"photos/{name}/{i}.png,{name},{split}" for name in ("cat", "big dog") for i, split in enumerate(("train", "val", "test"))]
    data = tmp_path / "photos.csv"
    data.write_text("\n".join(["path,label,split", *rows]) + "\n")
    return data


@pytest.mark.parametrize(("photo", "n"), [(0, 0), (1, 0), (2, 1)])
def test_a_relabelled_test_photo_is_told_and_no_other(folder, tmp_path, photo, n):
    file = tmp_path / "fix.csv"
    file.write_text(f"path,label\nphotos/cat/{photo}.png,big dog\nphotos/big dog/2.png,big dog\n")  # the second is what it was
    found = scan(given_split(folder, tmp_path), corrections=file)
    said = about_test(found, split_table(found, seed=0))
    assert said == [f"1 {RELABELLED} is a test photo: the score is of a test set that was chosen"] * n


@pytest.mark.parametrize(("photos", "said"), [((0, 1), []), ((0, 2), [f"out.txt leaves out 1 photo that was {GIVEN}"])])
def test_left_out_photos_of_a_given_split_are_told_where_they_would_test(folder, tmp_path, photos, said):
    exclude = tmp_path / "out.txt"
    exclude.write_text("".join(f"photos/cat/{i}.png\n" for i in photos))
    found = scan(given_split(folder, tmp_path), exclude=exclude)
    assert about_test(found, split_table(found, seed=0), exclude=exclude) == said


@pytest.mark.parametrize(
    ("split", "said"), [("train", []), ("test", [f"out.txt leaves out 1 photo that was {GIVEN}"]), (None, [MAYBE.format("it was", "it")])]
)
def test_left_out_photos_are_looked_up_in_a_split_file(folder, tmp_path, split, said):
    exclude, splits = tmp_path / "out.txt", tmp_path / "split.csv"
    exclude.write_text("cat/0.png\n")
    rows = [f"{name}/{i}.png,{'test' if i else 'train'}" for name in ("cat", "big dog") for i in (1, 2)]
    rows += ["big dog/0.png,train"] + ([] if split is None else [f"cat/0.png,{split}"])
    splits.write_text("\n".join(["path,split", *rows]) + "\n")
    found = scan(folder, exclude=exclude)
    told = about_test(found, read_split(found, splits), exclude=exclude, split=splits)
    assert [notice.removeprefix("1 photo was left out by out.txt; ") for notice in told] == said


def test_left_out_photos_that_the_seed_might_have_tested_are_told(folder, tmp_path):
    exclude = tmp_path / "out.txt"
    exclude.write_text("cat/0.png\ncat/1.png\nnot there.png\n")
    found = scan(folder, exclude=exclude)
    said = about_test(found, split_table(found, seed=0), exclude=exclude)
    assert said == [f"2 photos were left out by out.txt; {MAYBE.format('they were', 'them')}"]


def test_val_that_becomes_test_counts_as_test(folder, tmp_path):
    data, exclude = given_split(folder, tmp_path), tmp_path / "out.txt"
    data.write_text(data.read_text().replace("test", "val"))
    exclude.write_text("photos/cat/2.png\n")
    found = scan(data, exclude=exclude)
    assert about_test(found, split_table(found, seed=0), exclude=exclude) == [f"out.txt leaves out 1 photo that was {GIVEN}"]
