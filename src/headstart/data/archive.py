"""Archives of photos, unpacked once into the cache, with nothing in them trusted.

Members are checked by name before anything is written, files are written by this module alone, and links are made last
and checked where they lead: whatever a member is called, no byte lands outside the archive's own folder.
"""

import contextlib
import errno
import hashlib
import lzma
import os
import shutil
import stat
import tarfile
import tempfile
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal

from headstart.data.folders import is_junk
from headstart.errors import DataError, safe_text
from headstart.files import cannot_write, existing_parent, human_bytes
from headstart.progress import progress

SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.xz", ".txz", ".tar.bz2", ".tbz2")

# Photos hardly compress. An archive that grows a hundredfold, to more than this, holds something else.
BOMB_RATIO = 100
BOMB_BYTES = 2**30

_DAMAGE = (tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError)

_CLASHES = (errno.EEXIST, errno.ENOTDIR, errno.EISDIR)
_NAME_ERRORS = (*_CLASHES, errno.ENAMETOOLONG, errno.EILSEQ, errno.EINVAL)


@dataclass(frozen=True, slots=True)
class Member:
    """One entry of an archive."""

    name: str
    kind: Literal["file", "folder", "symlink", "hardlink", "device"]
    n_bytes: int = 0
    target: str = ""
    """of links, as written in the archive"""


def is_archive(path: Path) -> bool:
    """Whether a file is named like an archive, or is one by content."""
    if path.name.casefold().endswith(SUFFIXES):
        return True
    try:
        return zipfile.is_zipfile(path) or tarfile.is_tarfile(path)
    except (OSError, *_DAMAGE):
        return False


def extract(path: Path, cache: Path) -> Path:
    """Unpack the archive at `path`, or find it unpacked already.

    Returns: `cache`/datasets/<sha256 of the archive>, complete.
    Raises:
        DataError: not an archive, damaged, truncated, encrypted, too large once unpacked, or with members that lead
            out of it (the first is named, all are counted; nothing of such an archive is kept).
        HeadstartError: the disk is full or the cache cannot be written.
    """
    folder = cache / "datasets" / _sha256(path)
    if os.path.isdir(folder):
        return folder
    with _reading(path), _opened(path) as archive:
        members = _checked(archive.members, path, folder)
        with new_folder(folder) as temporary, progress(f"Unpacking {safe_text(path.name)}", len(members), "files") as advance:
            _write(archive, members, temporary, path, advance)
            _link([member for member in members if member.kind in ("symlink", "hardlink")], temporary, path)
    return folder


@contextlib.contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """A temporary folder that becomes `folder` on success and is removed otherwise.

    Where another process was faster, its folder stays.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        _sweep(folder.parent)
        temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name[:40]}.", suffix=".part"))
    except OSError as error:
        raise cannot_write(folder, error) from error
    try:
        yield temporary
        temporary.chmod(0o755)
        try:
            temporary.rename(folder)
        except OSError:
            if not os.path.isdir(folder):
                raise
    except OSError as error:
        raise cannot_write(folder, error) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _sweep(parent: Path) -> None:
    """Remove what killed processes left behind more than a day ago."""
    for left in parent.glob(".*.part"):
        with contextlib.suppress(OSError):
            if time.time() - left.stat().st_mtime > 86400:
                shutil.rmtree(left, ignore_errors=True)


@dataclass(frozen=True)
class _Archive:
    members: Iterator[Member]
    """to be read through once, before `contents`"""
    contents: Callable[[], Iterator[tuple[str, IO[bytes]]]]
    """names and contents of all regular files"""


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Turn what goes wrong inside an archive into words."""
    try:
        yield
    except _DAMAGE as error:
        reason = f" ({error})" if str(error) else ""
        raise DataError(f"{safe_text(str(path))} is damaged, truncated or no archive{reason}", hint="fetch or pack it again") from error
    except OSError as error:
        if error.errno is not None:
            raise DataError(f"cannot read {safe_text(str(path))}: {error.strerror}") from error
        raise DataError(f"{safe_text(str(path))} is damaged ({error})", hint="fetch or pack it again") from error  # gzip and bz2
    except NotImplementedError as error:
        raise DataError(
            f"{safe_text(str(path))} is packed in a way that cannot be read here ({error})", hint="unpack it by hand"
        ) from error


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[_Archive]:
    is_zip = path.suffix.casefold() == ".zip" or (zipfile.is_zipfile(path) and not tarfile.is_tarfile(path))
    with zipfile.ZipFile(path) if is_zip else tarfile.open(path) as archive:
        yield _of_zip(archive, path) if isinstance(archive, zipfile.ZipFile) else _of_tar(archive)


def _of_zip(archive: zipfile.ZipFile, path: Path) -> _Archive:
    def members() -> Iterator[Member]:
        for info in archive.infolist():
            if info.flag_bits & 1:
                raise DataError(f"{safe_text(str(path))} is encrypted", hint="unpack it by hand and give the folder")
            mode = info.external_attr >> 16
            if stat.S_ISLNK(mode):
                yield Member(info.filename, "symlink", 0, os.fsdecode(archive.read(info)[:4096]))
            else:
                yield Member(info.filename, "folder" if info.is_dir() else "file", info.file_size)

    def contents() -> Iterator[tuple[str, IO[bytes]]]:
        for info in archive.infolist():
            if not info.is_dir() and not stat.S_ISLNK(info.external_attr >> 16):
                with archive.open(info) as file:
                    yield info.filename, file

    return _Archive(members(), contents)


def _of_tar(archive: tarfile.TarFile) -> _Archive:
    def members() -> Iterator[Member]:
        for info in archive:
            if info.issym() or info.islnk():
                yield Member(info.name, "symlink" if info.issym() else "hardlink", 0, info.linkname)
            elif info.isdir() or info.isreg():
                yield Member(info.name, "folder" if info.isdir() else "file", info.size)
            else:
                yield Member(info.name, "device")
        # tarfile takes a cut or garbled header for the end; a real end is a block of zeros.
        file = archive.fileobj
        if file is not None:
            file.seek(archive.offset)
            if file.read(tarfile.BLOCKSIZE) != tarfile.NUL * tarfile.BLOCKSIZE:
                raise tarfile.ReadError("it has no proper end")

    def contents() -> Iterator[tuple[str, IO[bytes]]]:
        for info in archive:
            file = archive.extractfile(info) if info.isreg() else None
            if file is not None:
                yield info.name, file

    return _Archive(members(), contents)


def _checked(members: Iterator[Member], path: Path, folder: Path) -> list[Member]:
    """All members worth unpacking. Raises: DataError: the archive is hostile, or larger than what there is room for."""
    kept: list[Member] = []
    hostile: list[str] = []
    n_bytes = 0
    packed_bytes = path.stat().st_size
    free_bytes = shutil.disk_usage(existing_parent(folder)).free
    for member in members:
        n_bytes += member.n_bytes
        if n_bytes > max(BOMB_BYTES, BOMB_RATIO * packed_bytes):
            sizes = f"{human_bytes(packed_bytes)} would become more than {human_bytes(n_bytes)}"
            raise DataError(f"{safe_text(str(path))} looks like a decompression bomb: {sizes}", hint="unpack it by hand if you trust it")
        if n_bytes > free_bytes:
            sizes = f"at least {human_bytes(n_bytes)} to unpack, {human_bytes(free_bytes)} free at {existing_parent(folder)}"
            raise DataError(
                f"not enough room for {safe_text(str(path))}: {sizes}", hint="free some space, or set HEADSTART_CACHE to another disk"
            )
        if (reason := _hostile(member)) is not None:
            hostile.append(f"'{safe_text(member.name)}' {reason}")
        elif not any(is_junk(part) for part in _parts(member.name)):
            kept.append(member)
    if hostile:
        count = f"{len(hostile)} members lead" if len(hostile) > 1 else "1 member leads"
        raise DataError(f"refused {safe_text(str(path))}: {count} out of it, first {hostile[0]}", hint="do not trust this archive")
    return kept


def _hostile(member: Member) -> str | None:
    """Why a member must not be unpacked, or None."""
    if member.kind == "device":
        return "is a device or a pipe"
    if _is_absolute(member.name) or ".." in _parts(member.name):
        return "climbs out"
    if not member.target:
        return None
    depth = len(_parts(member.name)) - 1 if member.kind == "symlink" else 0  # hard links name their target from the root
    for part in _parts(member.target):
        depth += -1 if part == ".." else 1
        if depth < 0:
            break
    return f"links to '{safe_text(member.target)}'" if depth < 0 or _is_absolute(member.target) else None


def _is_absolute(name: str) -> bool:
    return name.startswith(("/", "\\")) or (os.name == "nt" and name[1:2] == ":")


def _parts(name: str) -> list[str]:
    return [part for part in name.replace("\\", "/").split("/") if part not in ("", ".")]


def _write(archive: _Archive, members: list[Member], folder: Path, path: Path, advance: Callable[[int], None]) -> None:
    wanted = {member.name for member in members if member.kind == "file"}
    for member in members:
        if member.kind == "folder":
            with _naming(member.name, path):
                folder.joinpath(*_parts(member.name)).mkdir(parents=True, exist_ok=True)
            advance(1)
    for name, content in archive.contents():
        if name not in wanted:
            continue
        place = folder.joinpath(*_parts(name))
        with _naming(name, path):
            place.parent.mkdir(parents=True, exist_ok=True)
            file = place.open("wb")
        with file:
            shutil.copyfileobj(content, file, 2**20)  # never more than the size in the member's header
        advance(1)


@contextlib.contextmanager
def _naming(name: str, path: Path) -> Iterator[None]:
    """Name the member where its name is what cannot be written: too long for this disk, or a file and a folder at once."""
    try:
        yield
    except OSError as error:
        if error.errno not in _NAME_ERRORS:
            raise
        reason = "a file and a folder have that name" if error.errno in _CLASHES else error.strerror
        text = f"cannot unpack {safe_text(str(path))}: '{safe_text(name)}': {reason}"
        raise DataError(text, hint="rename that file and pack the archive again, or unpack it by hand and give the folder") from error


def _link(links: list[Member], folder: Path, path: Path) -> None:
    """Make the links, when nothing more is written, and keep none that leads out by way of another."""
    inside = os.path.realpath(folder)

    def check(place: Path, member: Member) -> None:
        if not Path(os.path.realpath(place)).is_relative_to(inside):
            raise DataError(f"refused {safe_text(str(path))}: '{safe_text(member.name)}' leads out of it", hint="do not trust this archive")

    for member in links:
        place = folder.joinpath(*_parts(member.name))
        check(place.parent, member)
        with _naming(member.name, path):
            place.parent.mkdir(parents=True, exist_ok=True)
            place.unlink(missing_ok=True)
            if member.kind == "symlink":
                place.symlink_to(member.target.replace("\\", "/"))
                continue
            target = folder.joinpath(*_parts(member.target))
            check(target, member)
            if os.path.isfile(target):
                os.link(target, place)
    for member in links:
        check(folder.joinpath(*_parts(member.name)), member)


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DataError(f"cannot read {safe_text(str(path))}: {error.strerror}") from error
