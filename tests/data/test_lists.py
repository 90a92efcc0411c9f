from pathlib import Path

import pytest

from headstart.data.lists import list_csv, read_rows
from headstart.errors import DataError


@pytest.fixture
def folder(tmp_path, make_folder) -> Path:
    return make_folder(tmp_path, {"a": 2, "b": 2})


def write(folder: Path, text: str, encoding: str = "utf-8") -> Path:
    path = folder / "photos.csv"
    path.write_bytes(text.encode(encoding))
    return path


def listed(path: Path) -> list[tuple[str, str, str, str]]:
    return [(c.path, c.label, c.split, c.group) for c in list_csv(path, "x").candidates]


def omitted(path: Path) -> dict[str, str]:
    return {o.path: o.reason for o in list_csv(path, "x").omitted}


def test_rows_become_candidates_in_their_order(folder):
    path = write(folder, f"label,path,group,split\ncat,b/1.png,p1,Validation\ndog,{folder}/a/0.png,,\n\n")
    assert listed(path) == [("b/1.png", "cat", "val", "p1"), (f"{folder}/a/0.png", "dog", "", "")]


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "cp1252"])
def test_encodings_and_delimiters_are_recognised(folder, encoding, delimiter):
    path = write(folder, "Path,Label\r\na/0.png,café\r\nb/0.png,thé\r\n".replace(",", delimiter), encoding)
    source = list_csv(path, "x")
    assert [(c.path, c.label) for c in source.candidates] == [("a/0.png", "café"), ("b/0.png", "thé")]
    guessed = ("photos.csv is not UTF-8 (line 2); it was read as cp1252",) if encoding == "cp1252" else ()
    assert source.notices == guessed


def test_bytes_that_cp1252_lacks_are_read_as_latin_1(folder):
    path = folder / "photos.csv"
    path.write_bytes(b"path,label\na/0.png,\xe9\x81\n")
    assert list_csv(path, "x").notices == ("photos.csv is not UTF-8 (line 2); it was read as latin-1",)


def test_missing_columns_are_all_named_with_the_nearest(folder):
    path = write(folder, "paths,labels,x\na/0.png,cat,1\n")
    with pytest.raises(
        DataError, match=r"expected the columns path and label in .*, found 'paths', 'labels', 'x'\nhint: rename the column 'paths' to"
    ):
        list_csv(path, "x")
    with pytest.raises(DataError, match="found an empty file\nhint: the first line must name the columns: path,label"):
        list_csv(write(folder, ""), "x")


def test_unusable_rows_are_named_with_their_line(folder):
    path = write(folder, "path,label\na/0.png,cat\n,cat\na/1.png,\ngone.png,cat\nb,cat\nb/0.png,cat,dog\nb/1.png,dog\n")
    assert listed(path) == [("a/0.png", "cat", "", ""), ("b/1.png", "dog", "", "")]
    assert omitted(path) == {
        "": "line 3: no path",
        "a/1.png": "line 4: no label",
        "gone.png": "line 5: no such file",
        "b": "line 6: not a file",
        "b/0.png": "line 7: more values than columns",
    }


def test_repeated_rows_are_counted_and_contradicting_ones_left_out(folder):
    path = write(folder, "path,label,split\na/0.png,cat,\na/./0.png,cat,\na/0.png,cat,test\nb/0.png,cat,\nb/0.png,dog,\nb/1.png,dog,\n")
    assert [c[0] for c in listed(path)] == ["a/0.png", "b/1.png"]
    reasons = sorted(o.reason for o in list_csv(path, "x").omitted)
    assert reasons == ["line 3 repeats line 2", "line 4 repeats line 2 with another split or group", *["two labels: 'cat' and 'dog'"] * 2]


def test_words_that_are_no_splits_are_an_error_that_lists_them(folder):
    path = write(folder, "path,label,split\na/0.png,cat,holdout\nb/0.png,dog,train\nb/1.png,dog,dev\n")
    with pytest.raises(DataError, match=r"expected train, val, test or nothing .* found 'holdout' \(line 2\), 'dev' \(line 4\)"):
        list_csv(path, "x")


def test_windows_paths_and_blanks_around_paths_are_understood(folder):
    assert [c[0] for c in listed(write(folder, "path,label\na\\0.png,cat\n b/1.png ,dog\n"))] == ["a/0.png", "b/1.png"]


def test_names_with_newlines_and_quotes_survive(folder, write_photo):
    write_photo(folder / 'x\n"y", z.png')
    assert listed(write(folder, 'path,label\n"x\n""y"", z.png",a "big" cat\n')) == [('x\n"y", z.png', 'a "big" cat', "", "")]


def test_a_list_of_which_nothing_exists_is_an_error_with_examples(folder):
    with pytest.raises(DataError, match=r"none of the 2 rows .* can be used: x\.png \(line 2: no such file\).*\nhint: paths are relative"):
        list_csv(write(folder, "path,label\nx.png,cat\ny.png,dog\n"), "x")
    with pytest.raises(DataError, match="lists no photos"):
        list_csv(write(folder, "path,label\n"), "x")


def test_a_list_from_an_archive_may_not_name_files_elsewhere(folder, tmp_path_factory, write_photo):
    outside = write_photo(tmp_path_factory.mktemp("outside") / "secret.png")
    path = write(folder, f"path,label\na/0.png,cat\n{outside},dog\n")
    assert [o.reason for o in list_csv(path, "x", inside=folder).omitted] == ["line 3: outside the archive"]


def test_files_that_are_no_text_are_refused(folder):
    path = folder / "photos.csv"
    path.write_bytes(b"\xff\xfe\x00\xd8\x00")
    with pytest.raises(DataError, match="is not text"):
        read_rows(path)
    with pytest.raises(DataError, match="no file at"):
        read_rows(folder / "gone.csv")
