"""DATA -> Table: every file is read once, hashed, and checked by decoding it."""

import contextlib
import hashlib
import os
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from headstart.data import folders, pixels, sources
from headstart.data.corrections import corrected, without
from headstart.data.facts import Facts, FactsCache
from headstart.data.opening import FILE_LIMIT_BYTES
from headstart.data.reading import read_ahead
from headstart.data.sniff import image_format
from headstart.data.table import Candidate, Omitted, Photo, Source, Table, some
from headstart.data.views import GLANCE_PX, thumbnail
from headstart.errors import DataError, safe_text
from headstart.files import cache_folder, human_bytes
from headstart.progress import progress

# What a format's first bytes need to be known by; files that are named like no picture are judged by these before they are read.
HEAD_BYTES = 4096


def scan(
    data: str | Path,
    *,
    exclude: Path | None = None,
    corrections: Path | None = None,
    cache: Path | None = None,
    least_classes: int = 2,
) -> Table:
    """Find, read and check all photos of `data`, in any of its forms.

    What cannot be read as a photo is left out and named in `Table.omitted` with the reason. The classes are the sorted
    union over all splits of those that have at least one readable photo.

    Args:
        exclude: a CSV with a column path, or a text file with a path on each line: photos to leave out.
        corrections: a CSV with the columns path and label: the classes that photos are of, in place of the given ones.
        cache: the folder for facts, unpacked archives and data sets; by default headstart's own.
        least_classes: fewer are an error (count; 2 to train, 1 to evaluate).

    Returns: photos sorted by path, or in the CSV's order; `photo.split` and `photo.group` as given.
    Raises: DataError: nothing there, no form of DATA, no photos, too few classes; all with what was found.
    """
    cache = cache_folder() if cache is None else cache
    source = sources.find(data, cache)
    if corrections is not None:
        source = corrected(source, corrections)
    if exclude is not None:
        source = without(source, exclude)
    _check_classes({candidate.label for candidate in source.candidates}, source, least_classes)
    photos, unread, notices = _read_all(source, cache)
    classes = tuple(sorted({photo.label for photo in photos}))
    omitted = tuple(sorted((*source.omitted, *unread), key=lambda o: (os.fsencode(o.path), o.reason)))
    notices = [*source.notices, *notices, *_remarks(photos, source.candidates)]
    table = Table(source.root, tuple(photos), classes, omitted, tuple(notices), source.name)
    if not photos:
        first = some((f"{safe_text(o.path)} ({o.reason})" for o in unread), 3)
        raise DataError(f"none of the {len(unread)} files of {safe_text(source.name)} can be read as a photo: {first}")
    _check_classes(classes, source, least_classes)
    return table


def _read_all(source: Source, cache: Path) -> tuple[list[Photo], list[Omitted], list[str]]:
    photos: list[Photo] = []
    omitted: list[Omitted] = []
    threads = os.cpu_count()
    threads = 1 if threads is None else threads
    with FactsCache(cache / "facts.sqlite") as known:

        def read(candidate: Candidate) -> Photo | Omitted:
            return _read(source.root, candidate, known)

        with (
            progress("Reading photos", len(source.candidates)) as advance,
            contextlib.closing(read_ahead(read, source.candidates, threads=threads, ahead=16 * threads)) as results,  # type: ignore[type-var]
        ):
            for result in results:
                if isinstance(result, Photo):
                    photos.append(result)
                else:
                    omitted.append(result)
                advance(1)
    return photos, omitted, known.notices


def _read(root: Path, candidate: Candidate, known: FactsCache) -> Photo | Omitted:
    """Read one file whole and look at it. Nothing of it stays in memory but the facts."""
    try:
        with (root / candidate.path).open("rb") as file:
            source = file.read(HEAD_BYTES)
            if not folders.is_picture_name(candidate.path) and image_format(source) is None:
                return Omitted(candidate.path, "not a photo")
            if (n_bytes := os.fstat(file.fileno()).st_size) > FILE_LIMIT_BYTES:
                return Omitted(candidate.path, f"too large for a photo ({human_bytes(n_bytes)})")
            source += file.read()
    except PermissionError:
        return Omitted(candidate.path, "no permission to read it")
    except OSError as error:
        return Omitted(candidate.path, f"cannot be read: {error.strerror}")
    digest = hashlib.sha256(source)
    facts = known.find(digest.digest())
    if facts is None:
        facts, lasting = glance(source)
        if lasting:
            known.add(digest.digest(), facts)
    if facts.reason is not None:
        return Omitted(candidate.path, facts.reason)
    return Photo(
        path=candidate.path,
        label=candidate.label,
        sha256=digest.hexdigest(),
        split=candidate.split,
        group=candidate.group,
        relabelled=candidate.relabelled,
        width=facts.width,
        height=facts.height,
        format=facts.format,
        mode=facts.mode,
        n_bytes=len(source),
        taken=facts.taken,
        camera=facts.camera,
        tables=facts.tables,
        glance=facts.glance,
    )


def glance(source: bytes) -> tuple[Facts, bool]:
    """Decode a photo's bytes to their end, as small as the decoder can, for what the scan needs to know.

    Returns: the facts, and whether they depend on the bytes alone: too little memory or a missing library may pass.
    """
    try:
        header = pixels.probe(source)
        seen = thumbnail(pixels.decode(source, shorter_px=GLANCE_PX))  # big JPEGs are decoded at an eighth of their size
    except pixels.UnreadableImage as error:
        cause: BaseException | None = error
        while cause is not None and not isinstance(cause, ImportError | MemoryError):
            cause = cause.__cause__
        return Facts(reason=error.reason), cause is None
    facts = Facts(header.format, header.width, header.height, header.mode, header.taken, header.camera, header.tables, seen)
    return facts, True


def _check_classes(labels: Iterable[str], source: Source, least: int) -> None:
    found = sorted(set(labels))
    if len(found) >= least:
        return
    which = f"one: '{safe_text(found[0])}'" if found else "none"
    hint = "each class needs a folder of its own"
    if len(found) == 1 and os.path.isdir(source.root):
        only = [name for name in folders.subfolders(source.root) if folders.subfolders(source.root / name)]
        if len(only) == 1:
            hint = f"if the classes are the folders in it, give {safe_text(str(source.root / only[0]))}"
    raise DataError(f"expected at least {least} classes in {safe_text(source.name)}, found {which}", hint=hint)


def _remarks(photos: list[Photo], candidates: Iterable[Candidate]) -> list[str]:
    """What a user should know of the photos that were read."""
    notices = []
    listed = Counter(candidate.label for candidate in candidates)
    read = Counter(photo.label for photo in photos)
    for label in sorted(listed):
        name = safe_text(label)
        if read[label] == 0:
            notices.append(f"class '{name}' is left out: none of its files ({listed[label]}) can be read")
        elif read[label] == 1:
            notices.append(f"class '{name}' has one photo: it trains, and cannot be tested")
        elif read[label] == 2:
            notices.append(f"class '{name}' has two photos: too few for train, val and test")
    first: dict[str, Photo] = {}
    clashes = [
        f"{safe_text(other.path)} ({safe_text(other.label)}) and {safe_text(photo.path)} ({safe_text(photo.label)})"
        for photo in photos
        if (other := first.setdefault(photo.sha256, photo)).label != photo.label
    ]
    if clashes:
        notices.append(f"the same file under two labels, {len(clashes)} times: {some(clashes, 3)}")
    return notices
