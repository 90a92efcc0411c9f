"""`write_page`: an exploration becomes one HTML file that explains itself.

Like the report of a run, it makes no request to any host: pictures are data URIs, charts inline SVG, and there is no script in it. It
stays below about 6 MB whatever the number of photos and classes: every kind of picture has a share of that.
"""

from pathlib import Path
from typing import Any

from markupsafe import Markup

from headstart.data.table import Photo
from headstart.explore import shown, verdict
from headstart.explore.drawn_map import DrawnMap, Peek, draw
from headstart.explore.exploration import Exploration
from headstart.explore.look import MOST_NOT_FINITE
from headstart.explore.thumbnails import thumbnails
from headstart.explore.words import ONE_CLASS_HELD_OUT
from headstart.files import atomic_file
from headstart.report import checks, words
from headstart.report.folder import RunFolder
from headstart.report.templates import environment, style

_HERE = Path(__file__).parent
_PEEK_PX = 96
_PEEK_BYTES = 1_000_000  # of data URIs on the page


def write_page(exploration: Exploration, folder: Path) -> Path:
    """Write report.html into `folder`. Photos that are gone by now are named without their picture.

    Returns: the path of the report.

    Raises: HeadstartError: the file cannot be written.
    """
    page = environment(_HERE).get_template("page.html").render(_context(exploration))
    target = folder / "report.html"
    with atomic_file(target) as file:
        file.write(page)
    return target


def _context(found: Exploration) -> dict[str, Any]:
    """Everything the page shows, by the names that page.html uses."""
    rows = shown.class_rows(found)
    drawn = None if found.map is None else draw(found.map, found.table, _in_question(found))
    return {
        "css": style(_HERE / "page.css"),
        "title": found.table.name or found.table.root.absolute().name,
        "n": len(found.table),
        "n_classes": len(found.overview.classes),
        "lead": verdict.lead(found),
        "checks": verdict.looked_for(found),
        "next_steps": verdict.next_steps(found),
        "facts": shown.facts(found),
        "notices": found.notices,
        "splits": shown.splits_of(found),
        "rows_shown": rows[: shown.MOST_ROWS_SHOWN],
        "rows_folded": rows[shown.MOST_ROWS_SHOWN :],
        "size_charts": shown.size_charts(found),
        "sizes": found.overview.sizes[:8],
        "n_sizes": found.overview.n_sizes,
        "samples": shown.sample_strips(found),
        "many_classes": shown.MANY_CLASSES,
        "pixels": shown.pixel_rows(found),
        "not_finite": [found.table.photos[i].path for i in found.looks.not_finite[:MOST_NOT_FINITE]],
        "n_not_finite": len(found.looks.not_finite),
        "pixel_charts": shown.pixel_charts(found),
        "extremes": shown.extreme_strips(found),
        "reasons": found.overview.omitted,
        "omitted": [(each.path, each.reason) for each in found.table.omitted[: shown.MOST_OMITTED]],
        "n_omitted": len(found.table.omitted),
        "score": _score(found),
        "no_score": _no_score(found),
        **_checked(found),
        "map": drawn,
        "peeks": [] if drawn is None else _peeks(found, drawn),
        "map_method": "" if found.map is None else found.map.method,
        "backbone": found.backbone,
        "seed": found.seed,
        "seconds": found.seconds,
    }


def _checked(found: Exploration) -> dict[str, Any]:
    """Duplicates, labels, shortcuts and growth as the report of a run shows them: explore.json has them as checks.json does."""
    folder = RunFolder(
        path=found.folder,
        photos_root=found.table.root,
        run={},
        metrics={},
        predictions=None,
        history=[],
        split={split: {} for split in shown.splits_of(found)},
        train_photos=[],
        omitted=[],
        bundle={},
        checks=found.to_json(),
    )
    parts = ("suspects", "duplicates", "naive", "shortcuts", "growth")
    return {"data": None, "most_rows": shown.MOST_ROWS_SHOWN, **{part: getattr(checks, part)(folder) for part in parts}}


def _score(found: Exploration) -> dict[str, Any] | None:
    """What a head on the features gets right, of photos left out in turn; None where that says nothing."""
    if found.oof is None or found.oof.only_class(found.table) is not None:
        return None
    accuracy, interval = found.oof.accuracy, found.oof.accuracy_ci95
    decimals = words.decimals_for(interval)
    return {
        "accuracy": accuracy,
        "text": words.percent(accuracy, decimals),
        "interval": interval,
        "range": words.between(interval, " to "),
        "majority": found.oof.majority(found.table),
    }


def _no_score(found: Exploration) -> Markup:
    """Why there is no score."""
    only = None if found.oof is None else found.oof.only_class(found.table)
    if only is None:
        return Markup("There are too few photos to say how well a classifier would do.")
    return Markup(ONE_CLASS_HELD_OUT).format(words.name(only))


def _in_question(found: Exploration) -> list[int]:
    """Photos with a suspect label, the worst first, then duplicates: what one wants to see on the map."""
    suspects = [] if found.suspects is None else [one.photo for one in found.suspects.photos]
    return [*suspects, *(photo for cluster in found.duplicates.clusters for photo in cluster.photos)]


def _peeks(found: Exploration, drawn: DrawnMap) -> list[tuple[Peek, str, Photo]]:
    """The photos that the map can show, each with its picture."""
    first = sorted(drawn.peeks, key=lambda peek: not peek.asked)  # where room runs out, those in question have theirs
    pictures = thumbnails(found.table, [peek.photo for peek in first], longer_px=_PEEK_PX, most_bytes=_PEEK_BYTES)
    return [(peek, pictures[peek.photo], found.table.photos[peek.photo]) for peek in drawn.peeks if peek.photo in pictures]
