import csv
import hashlib
import os
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from headstart.data import scan as scanning
from headstart.data.scan import scan
from headstart.data.table import write_omitted
from headstart.data.views import GLANCE_PX
from headstart.errors import DataError


@pytest.fixture
def folder(tmp_path, make_folder) -> Path:
    return make_folder(tmp_path / "photos", {"cat": 3, "big dog": 3})


def reasons(data: Path) -> dict[str, str]:
    return {o.path: o.reason for o in scan(data).omitted}


def test_every_photo_is_hashed_and_described(folder, write_photo):
    write_photo(folder / "cat" / "no-suffix", "x", px=30)
    write_photo(folder / "cat" / "really a png.jpg.bin", "y")
    table = scan(folder)
    assert table.classes == ("big dog", "cat")
    assert [photo.path for photo in table.photos] == sorted(photo.path for photo in table.photos)
    assert table.labels.tolist() == [0] * 3 + [1] * 5
    assert (table.name, table.root, table.given_splits) == ("photos", folder, False)
    for i, photo in enumerate(table.photos):
        assert photo.sha256 == hashlib.sha256(table.file(i).read_bytes()).hexdigest()
        assert (photo.format, photo.split, photo.group) == ("PNG", "", "")
        assert (photo.width, photo.height) == ((30, 30) if photo.path.endswith("no-suffix") else (24, 24))
        assert (photo.mode, photo.n_bytes, photo.taken, photo.camera, photo.tables) == ("RGB", table.file(i).stat().st_size, "", "", "")
        assert len(photo.glance) == GLANCE_PX**2


def test_what_is_no_photo_is_named_with_the_reason(folder):
    whole = (folder / "cat" / "0.png").read_bytes()
    bad = {"empty.jpg": b"", "text.jpg": b"hello world", "cut.png": whole[: len(whole) // 2], "notes.txt": b"hello", "table.csv": b"a,b"}
    for name, content in bad.items():
        (folder / "cat" / name).write_bytes(content)
    with (folder / "cat" / "film.mp4").open("wb") as film:
        film.truncate(2**33)  # 8 GiB that must not be read
    with (folder / "cat" / "huge.png").open("wb") as huge:
        huge.write(whole)
        huge.truncate(2**33)
    found = reasons(folder)
    assert found == {
        "cat/cut.png": "truncated",
        "cat/empty.jpg": "empty file",
        "cat/film.mp4": "not a photo",
        "cat/huge.png": "too large for a photo (8.0 GiB)",
        "cat/notes.txt": "not a photo",
        "cat/table.csv": "not a photo",
        "cat/text.jpg": found["cat/text.jpg"],
    }
    assert "text" in found["cat/text.jpg"]
    assert reasons(folder) == found  # the second time from what is remembered
    assert len(scan(folder)) == 6


def test_a_decompression_bomb_is_named_and_not_decoded(folder):
    header = b"\x89PNG\r\n\x1a\n" + bytes.fromhex("0000000d49484452000186a0000186a00802000000")
    (folder / "cat" / "bomb.png").write_bytes(header + (0).to_bytes(4, "big") + bytes(100))
    assert list(reasons(folder)) == ["cat/bomb.png"]


def test_a_photo_without_permission_is_named(folder):
    locked = folder / "cat" / "0.png"
    for parent in folder.parents:
        if parent.is_relative_to(tempfile.gettempdir()) and parent != Path(tempfile.gettempdir()):
            parent.chmod(0o755)
    locked.chmod(0)
    script = """
        import os, sys
        from headstart.data.scan import scan
        if os.getuid() == 0:
            os.setuid(65534)
        print([(o.path, o.reason) for o in scan(sys.argv[1]).omitted])
    """
    environment = {**os.environ, "HEADSTART_CACHE": str(folder.parent / "no-cache")}
    command = [sys.executable, "-c", textwrap.dedent(script), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if "Permission denied" in done.stderr:
        pytest.skip("another user cannot reach the temporary folder or the interpreter here")
    assert done.stdout.strip() == "[('cat/0.png', 'no permission to read it')]", done.stderr


def test_classes_are_the_union_over_splits_whatever_a_split_lacks(tmp_path, make_folder):
    make_folder(tmp_path, {"train/cat": 2, "train/eel": 2, "test/cat": 1, "test/dog": 1})
    table = scan(tmp_path)
    assert table.classes == table.of("test").classes == table.subset([0]).classes == ("cat", "dog", "eel")
    assert table.of("test").labels.tolist() == [0, 1]


def test_a_second_scan_decodes_nothing(folder, monkeypatch):
    first = scan(folder)
    monkeypatch.setattr(scanning, "glance", lambda source: pytest.fail("decoded again"))
    (folder / "cat" / "0.png").rename(folder / "cat" / "renamed.png")
    second = scan(folder)
    assert sorted(second.sha256s) == sorted(first.sha256s)
    assert {photo.sha256: replace(photo, path="") for photo in second.photos} == {
        photo.sha256: replace(photo, path="") for photo in first.photos
    }


def test_where_and_when_a_photo_was_taken_is_known_and_remembered(folder):
    exif = Image.Exif()
    exif[0x0110] = "X100V"
    exif.get_ifd(0x8769)[0x9003] = "2024:05:31 16:20:07"
    Image.new("L", (40, 30), 7).save(folder / "cat" / "grey.jpg", exif=exif)
    for _ in range(2):
        grey = next(photo for photo in scan(folder).photos if photo.path == "cat/grey.jpg")
        assert (grey.mode, grey.taken, grey.camera, len(grey.tables)) == ("L", "2024-05-31T16:20:07", "X100V", 16)
        assert grey.glance == b"", "a plain picture"


def test_failures_that_may_pass_are_not_remembered(folder, monkeypatch):
    def short_of_memory(source: bytes, **options: object) -> None:
        raise scanning.pixels.UnreadableImage("needs more memory than there is") from MemoryError()

    with monkeypatch.context() as patch:
        patch.setattr(scanning.pixels, "decode", short_of_memory)
        with pytest.raises(DataError, match=r"none of the 6 files of photos can be read as a photo: .*needs more memory"):
            scan(folder)
    assert len(scan(folder)) == 6


def test_too_few_classes_are_an_error(tmp_path, make_folder):
    make_folder(tmp_path / "photos", {"flowers/rose": 2, "flowers/tulip": 2})
    with pytest.raises(DataError, match=r"expected at least 2 classes in photos, found one: 'flowers'\nhint: .* give .*photos/flowers"):
        scan(tmp_path / "photos")
    assert len(scan(tmp_path / "photos", least_classes=1)) == 4


def test_classes_that_vanish_are_told_and_too_few_left_are_an_error(folder, make_folder):
    for path in (folder / "cat").iterdir():
        path.write_bytes(b"")
    with pytest.raises(DataError, match="expected at least 2 classes in photos, found one: 'big dog'"):
        scan(folder)
    make_folder(folder, {"eel": 1, "fox": 2})
    table = scan(folder)
    assert table.classes == ("big dog", "eel", "fox")
    assert table.notices == (
        "class 'cat' is left out: none of its files (3) can be read",
        "class 'eel' has one photo: it trains, and cannot be tested",
        "class 'fox' has two photos: too few for train, val and test",
    )


def test_the_same_file_under_two_labels_is_told(folder):
    (folder / "big dog" / "copy.png").write_bytes((folder / "cat" / "0.png").read_bytes())
    assert scan(folder).notices == ("the same file under two labels, 1 times: big dog/copy.png (big dog) and cat/0.png (cat)",)


@pytest.mark.parametrize("form", ["lines", "csv", "absolute", "semicolons"])
def test_excluded_photos_are_left_out_by_name(tmp_path, make_folder, form):
    folder = make_folder(tmp_path / "photos", {"cat": 4, "big dog": 4})
    names = ["cat/0.png", "big dog/1.png", "cat/9.png"]
    text = {
        "lines": "\n".join(names),
        "csv": "path,why\n" + "\n".join(f"{name},blurred" for name in names),
        "absolute": "\n".join(str(folder / name) for name in names),
        "semicolons": "\ufeffWhy;Path\n" + "\n".join(f"x;{name}" for name in names),
    }[form]
    (tmp_path / "bad.txt").write_text(text)
    table = scan(folder, exclude=tmp_path / "bad.txt")
    assert len(table) == 6
    assert [(o.path, o.reason) for o in table.omitted] == [("big dog/1.png", "excluded by bad.txt"), ("cat/0.png", "excluded by bad.txt")]
    (notice,) = table.notices
    assert notice.startswith("bad.txt names 1 photos that are not in the data: ")
    assert "did you mean cat/" in notice or form == "absolute"


def test_omitted_files_are_written_as_a_table_whatever_their_names(folder, tmp_path):
    (folder / "cat" / 'a,\n"b".jpg').write_bytes(b"")
    write_omitted(scan(folder), tmp_path / "omitted.csv")
    with (tmp_path / "omitted.csv").open(newline="") as file:
        assert list(csv.reader(file)) == [["path", "reason"], ['cat/a,\n"b".jpg', "empty file"]]


def test_ctrl_c_stops_at_once_and_what_was_read_stays_known(tmp_path, make_folder):
    make_folder(tmp_path / "photos", {"cat": 150, "dog": 150})
    script = """
        import sys, time
        from headstart.data import scan
        glance = scan.glance
        def slow(source):
            time.sleep(0.02)
            return glance(source)
        scan.glance = slow
        print("started", flush=True)
        try:
            scan.scan(sys.argv[1])
        except KeyboardInterrupt:
            sys.exit(7)
    """
    command = [sys.executable, "-c", textwrap.dedent(script), str(tmp_path / "photos")]
    environment = {**os.environ, "HEADSTART_CACHE": str(tmp_path / "cache")}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment) as running:
        assert running.stdout is not None
        running.stdout.readline()
        time.sleep(0.6)
        running.send_signal(signal.SIGINT)
        stopped = time.monotonic()
        assert running.wait(30) == 7
    assert time.monotonic() - stopped < 5
    with scanning.FactsCache(tmp_path / "cache" / "facts.sqlite") as known:
        digests = [hashlib.sha256(path.read_bytes()).digest() for path in (tmp_path / "photos").rglob("*.png")]
        n_known = sum(known.find(digest) is not None for digest in digests)
    assert 0 < n_known < 300
    assert known.notices == []
    assert len(scan(tmp_path / "photos", cache=tmp_path / "cache")) == 300


@pytest.mark.slow
def test_real_photos_are_all_read(shared):
    table = scan(shared / "data" / "flowers")
    assert (len(table), len(table.classes), table.omitted, table.notices) == (1000, 5, (), ())
    assert {photo.format for photo in table.photos} == {"JPEG"}
