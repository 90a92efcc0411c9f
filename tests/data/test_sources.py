import errno
import shutil
import zipfile
from pathlib import Path

import pytest

from headstart.data.sources import find
from headstart.errors import DataError


def listed(data: str | Path, cache: Path) -> dict[str, tuple[str, str]]:
    return {c.path: (c.label, c.split) for c in find(data, cache).candidates}


@pytest.fixture
def folder(tmp_path, make_folder) -> Path:
    return make_folder(tmp_path / "photos", {"cat": 2, "dog": 2})


def pack(folder: Path, kind: str, *, wrapped: bool = False) -> Path:
    base = folder.parent / f"{folder.name}-packed"
    top = folder.parent if wrapped else folder
    return Path(shutil.make_archive(str(base), kind, top, folder.name if wrapped else "."))


@pytest.mark.parametrize("wrapped", [False, True])
@pytest.mark.parametrize("kind", ["zip", "tar", "gztar", "xztar"])
def test_archives_of_class_folders_are_read_like_the_folder(folder, own_cache, kind, wrapped):
    assert listed(pack(folder, kind, wrapped=wrapped), own_cache) == listed(folder, own_cache)


@pytest.mark.parametrize("wrapped", [False, True])
def test_archives_of_split_folders_keep_their_splits(tmp_path, make_folder, own_cache, wrapped):
    make_folder(tmp_path / "cifar", {"train/cat": 1, "train/dog": 1, "test/cat": 1})
    found = listed(pack(tmp_path / "cifar", "zip", wrapped=wrapped), own_cache)
    assert found == {"train/cat/0.png": ("cat", "train"), "train/dog/0.png": ("dog", "train"), "test/cat/0.png": ("cat", "test")}


@pytest.mark.parametrize("wrapped", [False, True])
def test_a_list_in_an_archive_is_the_csv_form(tmp_path, make_folder, own_cache, wrapped):
    make_folder(tmp_path / "x", {"images": 2})
    (tmp_path / "x" / "labels.csv").write_text("path,label\nimages/0.png,cat\nimages/1.png,dog\n")
    assert listed(pack(tmp_path / "x", "zip", wrapped=wrapped), own_cache) == {"images/0.png": ("cat", ""), "images/1.png": ("dog", "")}


def test_another_table_beside_class_folders_is_only_a_file(folder, own_cache):
    (folder / "about.csv").write_text("author,year\nme,2020\n")
    source = find(pack(folder, "zip"), own_cache)
    assert len(source.candidates) == 4
    assert [(o.path, o.reason) for o in source.omitted] == [("about.csv", "not a photo")]


def test_files_beside_a_wrapping_folder_are_named(folder, own_cache):
    path = pack(folder, "zip", wrapped=True)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("README.md", "about")
        archive.writestr("__MACOSX/photos/._x", "")
    source = find(path, own_cache)
    assert len(source.candidates) == 4
    assert [o.path for o in source.omitted] == ["README.md"]


def test_a_data_set_is_known_by_name(tmp_path, own_cache, monkeypatch):
    monkeypatch.chdir(tmp_path)
    source = find("digits", own_cache)
    assert (len(source.candidates), source.name, source.notices) == (1797, "digits", ())


def test_a_folder_of_that_name_wins_and_says_so(tmp_path, make_folder, own_cache, monkeypatch):
    make_folder(tmp_path / "digits", {"cat": 1, "dog": 1})
    monkeypatch.chdir(tmp_path)
    source = find("digits", own_cache)
    assert len(source.candidates) == 2
    assert source.notices == (f"reading the folder {tmp_path / 'digits'}, not the data set 'digits'",)
    assert find("./digits", own_cache).notices == ()


def test_a_missing_folder_is_an_error_with_the_nearest_name(folder, own_cache, monkeypatch):
    with pytest.raises(DataError, match=f"no folder or file at {folder}s\nhint: did you mean '{folder}'"):
        find(f"{folder}s", own_cache)
    with pytest.raises(DataError, match=f"no folder or file at .*photo/train\nhint: did you mean '{folder}'"):
        find(folder.parent / "photo" / "train", own_cache)
    monkeypatch.chdir(folder.parent)
    with pytest.raises(DataError, match="hint: did you mean 'photos'"):
        find("photo", own_cache)
    with pytest.raises(DataError, match="did you mean the data set 'digits'"):
        find("digit", own_cache)
    with pytest.raises(DataError, match="hint: expected a folder of class folders"):
        find("/nowhere/at/all", own_cache)


@pytest.mark.parametrize("name", ["n" * 300, f"photos/{'n' * 300}/x", "a\0b"])
def test_names_that_no_file_can_have_are_missing_files(name, own_cache):
    with pytest.raises(DataError, match="no folder or file at"):
        find(name, own_cache)


def test_a_folder_that_may_not_be_entered_is_a_missing_file(tmp_path, own_cache, monkeypatch):
    """As root one may enter any folder, hence the stand-in."""

    def refuse(path, **_):
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(Path, "stat", refuse)
    with pytest.raises(DataError, match="no folder or file at"):
        find(tmp_path / "absent", own_cache)


def test_a_file_of_another_kind_is_an_error(folder, own_cache):
    with pytest.raises(DataError, match=r"expected a folder of class folders.*found the file .*0\.png\nhint: give the folder"):
        find(folder / "cat" / "0.png", own_cache)
    (folder / "notes.txt").write_text("x")
    with pytest.raises(DataError, match="found the file"):
        find(folder / "notes.txt", own_cache)
