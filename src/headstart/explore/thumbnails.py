"""Small pictures of many photos for a page that must stay small."""

import contextlib
import os
from collections.abc import Iterable, Mapping

from headstart.data.reading import read_ahead
from headstart.data.table import Table
from headstart.report.pictures import thumbnail


def thumbnails(table: Table, photos: Iterable[int], *, longer_px: int, most_bytes: int) -> Mapping[int, str]:
    """Data URIs of `photos` by index, in their order until they take `most_bytes` together.

    Photos that are gone or cannot be read any more are left out, as are those for which no room is left.
    """
    wanted = list(dict.fromkeys(photos))
    threads = os.cpu_count() or 1
    made: dict[int, str] = {}
    taken_bytes = 0
    waiting = read_ahead(lambda i: thumbnail(table.file(i), longer_px), wanted, threads=threads, ahead=4 * threads)
    with contextlib.closing(waiting) as pictures:  # type: ignore[type-var]
        for i, picture in zip(wanted, pictures, strict=True):
            if picture is None:
                continue
            taken_bytes += len(picture)
            if taken_bytes > most_bytes:
                break
            made[i] = picture
    return made
