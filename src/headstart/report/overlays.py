"""Where the classifier looked in its surest mistakes: heat maps over the photos, as many as a few seconds allow."""

import time
from collections.abc import Sequence

from headstart.bundle.explain import heat_map, overlay, upright
from headstart.bundle.format import load_bundle
from headstart.errors import DataError, HeadstartError
from headstart.progress import progress
from headstart.report.folder import RunFolder
from headstart.report.pictures import THUMBNAIL_PX, small_jpeg

MOST = 8
SECONDS = 4.0  # a map asks the network `PASSES` times: about five maps of the embedded backbone, two or three of a large one


def overlays(folder: RunFolder, mistakes: Sequence[tuple[str, str]], seconds: float = SECONDS) -> dict[str, str]:
    """Pictures by path, for as many of the first 8 `mistakes` (path, predicted label) as `seconds` allow.

    Without a model, or with one that does not run here, there are none: the page has its photos all the same.
    """
    if folder.photos_root is None or not mistakes or not folder.bundle:
        return {}
    started, longest = time.monotonic(), 0.0
    drawn: dict[str, str] = {}
    try:
        bundle = load_bundle(folder.path)
        with progress("Explaining mistakes", len(mistakes[:MOST]), "photos") as advance:
            for path, label in mistakes[:MOST]:
                before = time.monotonic()
                if before - started + longest > seconds:
                    break
                try:
                    found = heat_map(bundle, folder.photos_root / path, label)
                    drawn[path] = small_jpeg(overlay(upright(folder.photos_root / path, THUMBNAIL_PX), found))
                except (DataError, OSError, ValueError):  # gone or unreadable; ValueError: a path with a null byte
                    continue
                longest = max(longest, time.monotonic() - before)
                advance(1)
    except HeadstartError:
        return drawn
    return drawn
