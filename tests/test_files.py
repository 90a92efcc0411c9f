import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from headstart import files
from headstart.errors import HeadstartError, did_you_mean, safe_text


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.json"
    files.write_json(path, {"a": "ä"})
    assert json.loads(path.read_text(encoding="utf-8")) == {"a": "ä"}
    with pytest.raises(ZeroDivisionError), files.atomic_file(path) as file:
        file.write("half" if 1 / 0 else "")
    assert json.loads(path.read_text(encoding="utf-8")) == {"a": "ä"}
    assert os.listdir(path.parent) == ["a.json"]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows opens no folders")
def test_the_content_is_on_disk_before_its_name_and_its_name_when_it_returns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, synced = tmp_path / "a.json", []
    monkeypatch.setattr(os, "fsync", lambda handle: synced.append((stat.S_ISDIR(os.fstat(handle).st_mode), path.exists())))
    files.write_json(path, {})
    assert synced == [(False, False), (True, True)]


def test_a_name_that_is_not_text_can_be_written(tmp_path: Path) -> None:
    with files.atomic_file(tmp_path / "a.csv") as file:
        file.write(os.fsdecode(b"caf\xe9.jpg"))
    assert (tmp_path / "a.csv").read_bytes() == b"caf\xe9.jpg"


def test_json_with_a_name_that_is_not_text_is_utf8_and_comes_back(tmp_path: Path) -> None:
    value = {"root": os.fsdecode(b"dat\xff"), "grün": "🐈"}
    files.write_json(tmp_path / "a.json", value)
    assert json.loads((tmp_path / "a.json").read_bytes().decode("utf-8")) == value


@pytest.mark.skipif(sys.platform == "win32", reason="limits the file size by POSIX means")
def test_a_full_disk_is_a_clear_error(tmp_path: Path) -> None:
    """/dev/full refuses every byte, as a full disk does."""
    error = files.cannot_write(tmp_path / "a", OSError(28, "No space left on device"))
    assert "disk full while writing" in str(error)
    assert "free some space" in str(error)
    code = f"""
import resource, signal
from pathlib import Path
from headstart import files
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    files.write_json(Path({str(tmp_path / "big.json")!r}), "x" * 5000)
except files.HeadstartError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "cannot write" in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_is_a_file_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("")
    with pytest.raises(HeadstartError, match="cannot write"):
        files.write_json(tmp_path / "a" / "b.json", {})


def test_sizes_are_for_people() -> None:
    assert [files.human_bytes(n) for n in (0, 1023, 1536, 3 * 2**30, 5 * 2**40)] == ["0 B", "1023 B", "1.5 KiB", "3.0 GiB", "5.0 TiB"]


def test_the_cache_moves_with_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HEADSTART_CACHE", str(tmp_path / "a"))
    assert files.cache_folder() == tmp_path / "a"
    monkeypatch.delenv("HEADSTART_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "b"))
    assert files.cache_folder() == tmp_path / "b" / "headstart"


def test_names_are_safe_to_print() -> None:
    assert safe_text("a\nb\x1b[31m" + os.fsdecode(b"\xff")) == "a\\nb\\x1b[31m\\udcff"
    assert safe_text("grün 日本.jpg") == "grün 日本.jpg"


def test_only_a_near_name_is_suggested() -> None:
    assert did_you_mean("layer33", ["layer3", "conv1"]) == "did you mean 'layer3'?"
    assert did_you_mean("zebra", ["layer3", "conv1"]) is None
