import os
import subprocess
import sys
import textwrap
import unicodedata
from pathlib import Path

import pytest

from headstart.data.folders import list_folder
from headstart.errors import DataError


def listed(root: Path) -> dict[str, tuple[str, str]]:
    return {c.path: (c.label, c.split) for c in list_folder(root, root.name).candidates}


def omitted(root: Path) -> dict[str, str]:
    return {o.path: o.reason for o in list_folder(root, root.name).omitted}


def test_folders_are_classes_and_deeper_photos_count_for_their_class(tmp_path, make_folder):
    make_folder(tmp_path, {"cat": 1, "cat/indoors/night": 1, "big dog": 1})
    assert listed(tmp_path) == {"big dog/0.png": ("big dog", ""), "cat/0.png": ("cat", ""), "cat/indoors/night/0.png": ("cat", "")}


@pytest.mark.parametrize(
    ("name", "split"),
    [("train", "train"), ("Training", "train"), ("VAL", "val"), ("valid", "val"), ("Validation", "val"), ("Test", "test")],
)
def test_split_folders_are_known_in_any_spelling(tmp_path, make_folder, name, split):
    other = "test" if split != "test" else "train"
    make_folder(tmp_path, {f"{name}/cat": 1, f"{other}/dog": 1})
    assert listed(tmp_path) == {f"{name}/cat/0.png": ("cat", split), f"{other}/dog/0.png": ("dog", other)}


def test_a_lone_train_folder_of_class_folders_is_a_split(tmp_path, make_folder):
    make_folder(tmp_path, {"train/cat": 1, "train/dog": 1})
    assert set(listed(tmp_path).values()) == {("cat", "train"), ("dog", "train")}


def test_a_train_beside_buses_is_a_class(tmp_path, make_folder):
    make_folder(tmp_path, {"train": 1, "bus": 1, "car": 1})
    assert {label for label, _ in listed(tmp_path).values()} == {"train", "bus", "car"}
    make_folder(tmp_path / "deep", {"train/steam": 1, "bus/red": 1})
    assert {label for label, _ in listed(tmp_path / "deep").values()} == {"train", "bus"}


def test_unlabelled_test_photos_are_named_and_left_out(tmp_path, make_folder):
    make_folder(tmp_path, {"train/cat": 1, "train/dog": 1, "test": 2})
    assert set(listed(tmp_path).values()) == {("cat", "train"), ("dog", "train")}
    assert omitted(tmp_path) == {"test/0.png": "not in a class folder", "test/1.png": "not in a class folder"}


def test_folders_beside_the_splits_are_told(tmp_path, make_folder):
    make_folder(tmp_path, {"train/cat": 1, "test/cat": 1, "extra/cat": 1})
    assert list_folder(tmp_path, "x").notices == ("not read, because they lie beside test and train: extra",)


def test_hidden_and_system_files_are_ignored_and_others_named(tmp_path, make_folder, write_photo):
    make_folder(tmp_path, {"cat": 1, "dog": 1, ".git": 1, "cat/__MACOSX": 1})
    for junk in (".DS_Store", "Thumbs.db", "desktop.ini", "._0.png"):
        (tmp_path / "cat" / junk).write_bytes(b"x")
    (tmp_path / "README.txt").write_text("about")
    write_photo(tmp_path / "loose.png")
    assert set(listed(tmp_path)) == {"cat/0.png", "dog/0.png"}
    assert omitted(tmp_path) == {"README.txt": "not a photo", "loose.png": "not in a class folder"}


def test_an_empty_folder_is_no_class_but_told(tmp_path, make_folder):
    make_folder(tmp_path, {"cat": 1, "dog": 0})
    assert list_folder(tmp_path, "x").notices == ("folder 'dog' holds no photos",)


def test_links_are_followed_and_loops_are_cut(tmp_path, make_folder):
    make_folder(tmp_path / "data", {"cat/a": 1, "dog": 1})
    make_folder(tmp_path, {"elsewhere": 1})
    data = tmp_path / "data"
    (data / "cat" / "more").symlink_to(tmp_path / "elsewhere")
    (data / "cat" / "a" / "up").symlink_to(data)
    (data / "cat" / "self").symlink_to(data / "cat")
    (data / "dog" / "gone.jpg").symlink_to(tmp_path / "gone")
    (data / "dog" / "me.jpg").symlink_to("me.jpg")
    os.mkfifo(data / "dog" / "pipe.jpg")
    assert set(listed(data)) == {"cat/a/0.png", "cat/more/0.png", "dog/0.png"}
    loop = "a link to a folder that is read already"
    assert omitted(data) == {
        "cat/a/up": loop,
        "cat/self": loop,
        "dog/gone.jpg": "a broken link",
        "dog/me.jpg": "a broken link",
        "dog/pipe.jpg": "not a regular file",
    }


def test_labels_are_composed_unicode_and_paths_are_as_on_disk(tmp_path, write_photo):
    apart, whole = unicodedata.normalize("NFD", "café"), unicodedata.normalize("NFC", "café")
    write_photo(tmp_path / "a" / apart / "0.png")
    write_photo(tmp_path / "a" / whole / "1.png")
    write_photo(tmp_path / "a" / "x\ny z" / "ü\n.png")
    found = listed(tmp_path / "a")
    assert found[f"{apart}/0.png"] == found[f"{whole}/1.png"] == (whole, "")
    assert found["x\ny z/ü\n.png"] == ("x\ny z", "")


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such names")
def test_undecodable_names_keep_their_bytes_and_labels_are_valid_text(tmp_path, write_photo):
    folder = os.fsdecode(b"caf\xe9")
    write_photo(tmp_path / folder / os.fsdecode(b"\xff.png"))
    write_photo(tmp_path / "dog" / "0.png")
    (path,) = (path for path in listed(tmp_path) if path.startswith("caf"))
    assert (tmp_path / path).is_file()
    assert listed(tmp_path)[path][0] == "caf\\xe9"


def test_a_folder_without_permission_is_named(tmp_path, make_folder):
    make_folder(tmp_path, {"cat": 1, "cat/locked": 1, "dog": 1})
    for folder in [tmp_path, *tmp_path.parents][:3]:
        folder.chmod(0o755)
    (tmp_path / "cat" / "locked").chmod(0)
    script = """
        import os, sys
        from pathlib import Path
        from headstart.data.folders import list_folder
        if os.getuid() == 0:
            os.setuid(65534)
        print([(o.path, o.reason) for o in list_folder(Path(sys.argv[1]), "x").omitted])
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script), tmp_path], capture_output=True, text=True, check=False)
    (tmp_path / "cat" / "locked").chmod(0o755)
    if "Permission denied" in done.stderr:
        pytest.skip("another user cannot reach the temporary folder or the interpreter here")
    assert done.stdout.strip() == "[('cat/locked', 'no permission to read the folder')]", done.stderr


def test_photos_without_class_folders_are_an_error_with_a_way_out(tmp_path, make_folder):
    make_folder(tmp_path, {".": 3})
    with pytest.raises(DataError, match="found 3 photos and no class folder with photos\nhint: put each class's photos into a folder"):
        list_folder(tmp_path, "x")
    (tmp_path / "labels.csv").write_text("path,label\n")
    with pytest.raises(DataError, match=r"or give the CSV: .*labels\.csv"):
        list_folder(tmp_path, "x")


def test_a_folder_without_photos_is_an_error_that_names_what_is_there(tmp_path):
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(DataError, match=r"no photos in .* \(1 other files: notes\.txt\)"):
        list_folder(tmp_path, "x")
