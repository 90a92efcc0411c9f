import itertools
import os
import sys
import tracemalloc
from pathlib import Path

import pytest
from PIL import Image

from headstart.bundle import listing
from headstart.bundle.listing import Paths, expand, natural_key
from headstart.errors import DataError


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """2.png, 10.png, damaged.jpg (text), noextension (a PNG), notes.txt, .hidden.png, sub/3.png, .git/4.png"""
    for name in ("2.png", "10.png", ".hidden.png", "noextension", "sub/3.png", ".git/4.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (4, 4)).save(tmp_path / name, "PNG")
    (tmp_path / "damaged.jpg").write_text("oops")
    (tmp_path / "notes.txt").write_text("notes")
    return tmp_path


def names(found: list[str], folder: Path) -> list[str]:
    return [os.path.relpath(path, folder).replace(os.sep, "/") for path in found]


def test_a_folder_means_its_pictures_in_natural_order(photos: Path) -> None:
    assert names(expand([photos]), photos) == ["2.png", "10.png", "damaged.jpg", "noextension", "sub/3.png"]


def test_a_named_file_is_itself_whatever_it_holds(photos: Path) -> None:
    asked = [str(photos / name) for name in ("notes.txt", ".hidden.png", "2.png", "notes.txt")]
    assert expand(asked) == asked


def test_globs_are_expanded_here(photos: Path) -> None:
    assert names(expand([str(photos / "*.png")]), photos) == ["2.png", "10.png"]
    assert names(expand([str(photos / "**" / "[0-9].png")]), photos) == ["2.png", "sub/3.png"]
    assert names(expand([str(photos / "s*")]), photos) == ["sub/3.png"]
    assert names(expand([str(photos / "**")]), photos).count("sub/3.png") == 1


def test_a_file_whose_name_looks_like_a_glob_is_a_file(photos: Path) -> None:
    os.rename(photos / "2.png", photos / "a[1].png")
    assert expand([str(photos / "a[1].png")]) == [str(photos / "a[1].png")]


def test_what_is_not_there_is_named_with_the_nearest_that_is(photos: Path) -> None:
    with pytest.raises(DataError, match=r"no such file or folder: .*damged\.jpg") as caught:
        expand([photos / "damged.jpg"])
    assert caught.value.hint == "did you mean 'damaged.jpg'?"
    with pytest.raises(DataError, match=r"no such file or folder: .*nowhere"):
        expand([photos / "nowhere" / "a.jpg"])
    with pytest.raises(DataError, match=r"no file matches .*\*\.gif"):
        expand([str(photos / "*.gif")])
    (photos / "none").mkdir()
    with pytest.raises(DataError, match=r"no photos in .*none"):
        expand([photos / "none"])


@pytest.mark.skipif(sys.platform == "win32", reason="links and such names are a matter of POSIX")
def test_loops_pipes_and_odd_names_do_no_harm(photos: Path) -> None:
    (photos / "sub" / "loop").symlink_to(photos, target_is_directory=True)
    (photos / "sub" / "gone").symlink_to(photos / "gone")
    os.mkfifo(photos / "sub" / "pipe")
    (photos / "sub" / "a\nb.jpg").touch()
    Path(os.fsdecode(os.fsencode(photos) + b"/sub/\xff.jpg")).touch()
    assert names(expand([photos / "sub"]), photos / "sub")[:2] == ["3.png", "a\nb.jpg"]
    assert len(expand([photos / "sub"])) == 3 + 4  # the loop leads once around: to the folder above, without sub
    with pytest.raises(DataError, match=r"a\\nc.jpg"):
        expand([photos / "sub" / "a\nc.jpg"])


def test_natural_order_is_total() -> None:
    ordered = ["", "9a", "10", "a", "a02", "a2", "a10", "b"]
    for start in itertools.permutations(ordered, 4):
        assert sorted(start, key=natural_key) == [name for name in ordered if name in start]
    assert sorted(["img10", "img9", "img"], key=natural_key) == ["img", "img9", "img10"]


def test_a_list_of_paths_gives_them_back_in_order_from_memory_and_from_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    given = [f"folder {i % 7}/é{i}\n.jpg" for i in range(3000)]
    in_memory = Paths(given)
    monkeypatch.setattr(listing, "_IN_MEMORY_BYTES", 1000)
    monkeypatch.setattr(listing, "_CHUNK_BYTES", 77)
    on_disk = Paths(iter(given))
    assert (len(on_disk), on_disk.sha256) == (3000, in_memory.sha256)
    both = zip(in_memory, on_disk, on_disk, strict=True)  # two iterations of one list at a time
    assert [(a, b, c) for a, b, c in both] == [(path, path, path) for path in given]
    assert Paths(given[::-1]).sha256 != in_memory.sha256
    assert list(Paths([])) == []
    with pytest.raises(DataError, match=r"null byte in its name: a\\x00b"):
        Paths(["a\0b"])


def test_a_long_list_takes_no_memory() -> None:
    def peak(n: int) -> int:
        tracemalloc.start()
        for _ in Paths(f"photos/{i}.jpg" for i in range(n)):
            pass
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    assert peak(200_000) < peak(100_000) + 100_000
