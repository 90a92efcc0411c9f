import errno
import io
import os
import shutil
import stat
import tarfile
import zipfile
from pathlib import Path

import pytest

from headstart.data import archive
from headstart.data.archive import extract
from headstart.errors import DataError, HeadstartError


def tar(path: Path, *members: tuple[str, bytes | str | None], kind: bytes = tarfile.SYMTYPE, mode: str = "w") -> Path:
    """Files with their bytes, links with their target, folders with None."""
    with tarfile.open(path, mode) as packed:
        for name, content in members:
            info = tarfile.TarInfo(name)
            if content is None:
                info.type = tarfile.DIRTYPE
            elif isinstance(content, str):
                info.type, info.linkname = kind, content
            else:
                info.size = len(content)
            packed.addfile(info, io.BytesIO(content) if isinstance(content, bytes) else None)
    return path


def files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def leftovers(cache: Path) -> list[Path]:
    return list((cache / "datasets").glob("*")) if (cache / "datasets").exists() else []


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:xz", "w:bz2"])
def test_an_archive_is_unpacked_once_under_its_hash(tmp_path, mode):
    path = tar(tmp_path / "a.tar", ("cat/", None), ("cat/x y.png", b"1"), ("dog/ü.png", b"2"), (".DS_Store", b"3"), mode=mode)
    folder = extract(path, tmp_path / "cache")
    assert files(folder) == {"cat/x y.png": b"1", "dog/ü.png": b"2"}
    assert folder.parent == tmp_path / "cache" / "datasets"
    (folder / "mark").touch()
    assert extract(path.rename(tmp_path / "b.tar"), tmp_path / "cache") == folder
    assert (folder / "mark").exists()
    assert leftovers(tmp_path / "cache") == [folder]


@pytest.mark.parametrize("name", ["../evil.png", "cat/../../evil.png", "/tmp/evil.png", "..\\evil.png", "cat/.."])
def test_members_that_climb_out_are_refused_by_name_and_count(tmp_path, name):
    expected = r"refused .*: 2 members lead out of it, first '.*(evil|\.\.).*' climbs out\nhint: do not trust"
    with pytest.raises(DataError, match=expected):
        extract(tar(tmp_path / "a.tar", ("ok.png", b"1"), (name, b"2"), ("../two", b"3")), tmp_path / "cache")
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as packed:
        packed.writestr("ok.png", b"1")
        packed.writestr(name, b"2")
        packed.writestr("../two", b"3")
    with pytest.raises(DataError, match=expected):
        extract(tmp_path / "a.zip", tmp_path / "cache")
    assert leftovers(tmp_path / "cache") == []
    assert not (tmp_path / "evil.png").exists()


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE])
@pytest.mark.parametrize("target", ["/etc/passwd", "../../etc/passwd", "../outside"])
def test_links_that_lead_out_are_refused(tmp_path, kind, target):
    with pytest.raises(DataError, match=f"1 member leads out of it, first 'cat' links to '{target}'"):
        extract(tar(tmp_path / "a.tar", ("cat", target), kind=kind), tmp_path / "cache")
    assert leftovers(tmp_path / "cache") == []


def test_links_that_lead_out_only_together_are_refused(tmp_path):
    climbing = tar(tmp_path / "a.tar", ("x", "."), ("a", "x/.."), ("a/evil", "b"))
    with pytest.raises(DataError, match="leads out of it"):
        extract(climbing, tmp_path / "cache")
    with pytest.raises(DataError, match="leads out of it"):
        extract(tar(tmp_path / "b.tar", ("x", "."), ("a", "x/..")), tmp_path / "cache")
    assert leftovers(tmp_path / "cache") == []
    assert not (tmp_path / "cache" / "datasets" / "evil").exists()


def test_a_file_written_behind_a_link_stays_inside(tmp_path):
    path = tar(tmp_path / "a.tar", ("d", "sub"), ("sub/x.png", b"1"), ("d/y.png", b"2"))
    with pytest.raises(HeadstartError):  # `d` cannot be a link and a folder
        extract(path, tmp_path / "cache")
    assert leftovers(tmp_path / "cache") == []


def test_links_inside_the_archive_are_kept(tmp_path):
    path = tar(tmp_path / "a.tar", ("cat/0.png", b"1"), ("dog/0.png", "../cat/0.png"), ("all", "cat"))
    assert files(extract(path, tmp_path / "cache"))["dog/0.png"] == b"1"
    hard = tar(tmp_path / "b.tar", ("cat/0.png", b"1"), ("dog/0.png", "cat/0.png"), kind=tarfile.LNKTYPE)
    assert files(extract(hard, tmp_path / "cache")) == {"cat/0.png": b"1", "dog/0.png": b"1"}
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as packed:
        link = zipfile.ZipInfo("dog.png")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        packed.writestr("cat.png", b"1")
        packed.writestr(link, "cat.png")
    assert files(extract(tmp_path / "a.zip", tmp_path / "cache")) == {"cat.png": b"1", "dog.png": b"1"}


def test_devices_are_refused(tmp_path):
    with pytest.raises(DataError, match="first 'null' is a device or a pipe"):
        extract(tar(tmp_path / "a.tar", ("null", ""), kind=tarfile.CHRTYPE), tmp_path / "cache")


@pytest.mark.parametrize("suffix", [".zip", ".tar", ".tar.gz", ".tar.xz", ".tar.bz2"])
@pytest.mark.parametrize("keep", [0, 40, 0.3, 0.6])
def test_truncated_archives_are_refused(tmp_path, suffix, keep):
    whole = tmp_path / f"whole{suffix}"
    photos = [(f"cat/{i}.png", os.urandom(700)) for i in range(20)]
    if suffix == ".zip":
        with zipfile.ZipFile(whole, "w") as packed:
            for name, content in photos:
                packed.writestr(name, content)
    else:
        tar(whole, *photos, mode="w:" + suffix[5:])
    data = whole.read_bytes()
    cut = tmp_path / f"cut{suffix}"
    n_bytes = keep if isinstance(keep, int) else int(keep * len(data))
    for n in (n_bytes, n_bytes // 512 * 512):
        cut.write_bytes(data[:n])
        with pytest.raises(DataError, match=r"is (damaged|truncated)"):
            extract(cut, tmp_path / "cache")
    assert leftovers(tmp_path / "cache") == []


def test_garbled_bytes_are_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as packed:
        packed.writestr("cat/0.png", b"0123456789" * 100)
    data = bytearray((tmp_path / "a.zip").read_bytes())
    data[100] ^= 255
    (tmp_path / "a.zip").write_bytes(data)
    with pytest.raises(DataError, match=r"damaged.*Bad CRC-32.*\nhint: fetch or pack it again"):
        extract(tmp_path / "a.zip", tmp_path / "cache")
    tar(tmp_path / "a.tar", ("a.png", b"1"), ("b.png", b"2"))
    data = bytearray((tmp_path / "a.tar").read_bytes())
    data[1024 + 10] ^= 255  # the second header: tarfile alone would stop there in silence
    (tmp_path / "a.tar").write_bytes(data)
    with pytest.raises(DataError, match="no proper end"):
        extract(tmp_path / "a.tar", tmp_path / "cache")
    assert leftovers(tmp_path / "cache") == []


def test_encrypted_archives_are_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as packed:
        packed.writestr("cat/0.png", b"1")
    data = bytearray((tmp_path / "a.zip").read_bytes())
    data[6] |= 1
    data[data.index(b"PK\1\2") + 8] |= 1
    (tmp_path / "a.zip").write_bytes(data)
    with pytest.raises(DataError, match=r"a\.zip is encrypted\nhint: unpack it by hand"):
        extract(tmp_path / "a.zip", tmp_path / "cache")


def test_bombs_are_refused_before_anything_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr(archive, "BOMB_BYTES", 100_000)
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("cat/0.bmp", bytes(500_000))
    expected = r"looks like a decompression bomb: .* B would become more than 488\.3 KiB"
    with pytest.raises(DataError, match=expected):
        extract(tmp_path / "a.zip", tmp_path / "cache")
    with pytest.raises(DataError, match=expected):
        extract(tar(tmp_path / "a.tar.gz", ("cat/0.bmp", bytes(500_000)), mode="w:gz"), tmp_path / "cache")
    assert leftovers(tmp_path / "cache") == []


def test_archives_larger_than_the_free_disk_are_refused_with_both_sizes(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10_000, 9_000, 1_000))
    with pytest.raises(DataError, match=r"not enough room .*: at least 2\.0 KiB to unpack, 1000 B free"):
        extract(tar(tmp_path / "a.tar", ("cat/0.png", bytes(2048))), tmp_path / "cache")


def test_what_is_no_archive_is_refused(tmp_path):
    (tmp_path / "a.zip").write_text("hello")
    with pytest.raises(DataError, match=r"a\.zip is damaged, truncated or no archive"):
        extract(tmp_path / "a.zip", tmp_path / "cache")
    assert not archive.is_archive(tmp_path / "absent.jpg")
    assert archive.is_archive(tmp_path / "a.zip")


def test_a_cache_that_cannot_be_written_is_a_clear_error(tmp_path):
    (tmp_path / "cache").write_text("a file where a folder belongs")
    with pytest.raises(HeadstartError, match="cannot write"):
        extract(tar(tmp_path / "a.tar", ("cat/0.png", b"1")), tmp_path / "cache")


@pytest.mark.parametrize(
    ("members", "name", "reason"),
    [
        ([("cat/0.png", b"1"), ("cat", b"2")], "cat", "a file and a folder have that name"),
        ([("cat", b"2"), ("cat/0.png", b"1")], "cat/0.png", "a file and a folder have that name"),
        ([("cat/0.png", b"1"), ("cat/0.png/x/", None)], "cat/0.png", "a file and a folder have that name"),
        ([("cat/0.png", b"1"), ("cat", "dog")], "cat", "a file and a folder have that name"),
        ([("cat/" + "n" * 300, b"1")], "cat/" + "n" * 300, os.strerror(errno.ENAMETOOLONG)),
    ],
)
def test_a_member_that_cannot_be_written_is_named(tmp_path, members, name, reason):
    with pytest.raises(DataError, match=f"cannot unpack .*a.tar: '{name}': {reason}\nhint: rename"):
        extract(tar(tmp_path / "a.tar", *members), tmp_path / "cache")
    assert leftovers(tmp_path / "cache") == []


def test_a_disk_that_fills_is_a_clear_error_and_leaves_nothing(tmp_path, monkeypatch):
    def full(source: object, target: object, length: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(shutil, "copyfileobj", full)
    with pytest.raises(HeadstartError, match=r"disk full while writing .*free\)\nhint: free some space"):
        extract(tar(tmp_path / "a.tar", ("cat/0.png", b"1")), tmp_path / "cache")
    assert leftovers(tmp_path / "cache") == []


def test_leftovers_of_killed_processes_are_swept(tmp_path):
    old = tmp_path / "cache" / "datasets" / ".abc.x.part"
    new = old.with_name(".def.x.part")
    for folder in (old, new):
        folder.mkdir(parents=True)
    os.utime(old, (0, 0))
    extract(tar(tmp_path / "a.tar", ("cat/0.png", b"1")), tmp_path / "cache")
    assert (old.exists(), new.exists()) == (False, True)
