"""The map of the features as inline SVG, with a photo wherever there is room for one."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup, escape

from headstart.data.table import Table
from headstart.explore.map import FeatureMap
from headstart.report.words import name as shown_name
from headstart.report.words import visible

SIDE = 1000  # of the drawing, in its own units
MOST_LABELLED = 12  # classes named on the map itself
_COLOURS = 10  # of page.css
_MARKS = 3  # circle, square, triangle: past ten classes, colours come again on another mark
_MARGIN = 26
_PEEK_CELLS = 18  # a side: at most one photo is shown for each cell of this grid
_TITLE_LENGTH = 60


@dataclass(frozen=True)
class Kind:
    """One line of the legend. `style`: class names of its mark; `mark`: circle, square or triangle; `n`: photos on the map."""

    name: Markup
    style: str
    mark: str
    n: int


@dataclass(frozen=True)
class Peek:
    """A photo to be seen on the map: place in percent of its side, to which sides the picture opens, and whether it was asked for."""

    photo: int
    left: float
    top: float
    opens: str
    asked: bool


@dataclass(frozen=True)
class DrawnMap:
    """svg: n points, each with its class and file as its title. names: of the classes, to lie over it. kinds: the legend.

    peeks: photos to be seen on it, row by row."""

    svg: Markup
    names: Markup
    kinds: list[Kind]
    n: int
    peeks: list[Peek]


def draw(found: FeatureMap, table: Table, asked: Sequence[int] = ()) -> DrawnMap:
    """Points coloured by class: up to 30 classes by colour and mark; of more, the ten with most photos, and all others grey.

    Args: asked: photos that should be seen before others, the first of them most.
    """
    labels = table.labels[found.photos]
    styles = _styles(labels)
    xy = _MARGIN + found.xy.astype(np.float64) * (SIDE - 2 * _MARGIN)
    radius = float(np.clip(9.5 - 1.6 * np.log10(max(len(xy), 1)), 3.4, 8.0))
    # Drawn in an order that has nothing to do with the classes, so that none lies on top of the others.
    order = np.random.default_rng(0).permutation(len(xy))
    dots = []
    for i in order:
        photo = table.photos[found.photos[i]]
        title = escape(visible(f"{photo.label[:_TITLE_LENGTH]} · {photo.path[-_TITLE_LENGTH:]}"))
        dots.append(_dot(xy[i, 0], xy[i, 1], radius, *styles[int(labels[i])], title))
    n_classes = len(np.unique(labels))
    alt = f"Map of {len(xy):,} photos of {n_classes:,} classes: photos whose features are alike lie together."
    named = _class_names(xy, labels, table.classes) if n_classes <= MOST_LABELLED else ""
    opening = f'<svg class="map" role="img" aria-label="{escape(alt)}" viewBox="0 0 {SIDE} {SIDE}">'
    svg = Markup(f"{opening}{''.join(dots)}</svg>")
    names = Markup(f'<svg class="names" aria-hidden="true" viewBox="0 0 {SIDE} {SIDE}">{named}</svg>') if named else Markup("")
    return DrawnMap(svg, names, _legend(labels, styles, table.classes), len(xy), _peeks(found, xy, asked))


def _styles(labels: np.ndarray) -> dict[int, tuple[str, str]]:
    """By class, the CSS class of its colour and its mark; the classes of most photos come first."""
    counts = Counter(labels.tolist())
    order = sorted(counts, key=lambda label: (-counts[label], label))
    if len(order) > _COLOURS * _MARKS:
        return {label: (f"c{i}", "circle") if i < _COLOURS else ("rest", "circle") for i, label in enumerate(order)}
    marks = ("circle", "square", "triangle")
    return {label: (f"c{i % _COLOURS}", marks[i // _COLOURS]) for i, label in enumerate(sorted(order))}


def _dot(x: float, y: float, radius: float, style: str, mark: str, title: Markup) -> str:
    if mark == "circle":
        shape = f'circle class="{style}" cx="{x:.1f}" cy="{y:.1f}" r="{radius:.1f}"'
    elif mark == "square":
        side = 1.8 * radius
        shape = f'rect class="{style}" x="{x - side / 2:.1f}" y="{y - side / 2:.1f}" width="{side:.1f}" height="{side:.1f}"'
    else:
        half = 1.25 * radius
        shape = f'path class="{style}" d="M{x:.1f} {y - half:.1f}l{half:.1f} {1.8 * half:.1f}h{-2 * half:.1f}z"'
    return f"<{shape}><title>{title}</title></{shape.partition(' ')[0]}>"


def _legend(labels: np.ndarray, styles: dict[int, tuple[str, str]], classes: tuple[str, ...]) -> list[Kind]:
    counts = Counter(labels.tolist())
    coloured = [label for label in sorted(counts) if styles[label][0] != "rest"]
    kinds = [Kind(shown_name(classes[label]), *styles[label], counts[label]) for label in coloured]
    rest = [label for label in counts if styles[label][0] == "rest"]
    if rest:
        kinds.append(Kind(Markup("the other {:,} classes").format(len(rest)), "rest", "circle", sum(counts[label] for label in rest)))
    return kinds


def _class_names(xy: np.ndarray, labels: np.ndarray, classes: tuple[str, ...]) -> str:
    """The name of each class at the middle of its photos; names that would cover each other move down."""
    placed: list[tuple[float, float]] = []
    texts = []
    for label in sorted(np.unique(labels).tolist(), key=lambda label: float(np.median(xy[labels == label, 1]))):
        x, y = np.median(xy[labels == label], axis=0)
        text = visible(classes[label])
        text = text if len(text) <= 20 else f"{text[:19]}…"
        x = float(np.clip(x, 100, SIDE - 100))
        for other_x, other_y in placed:
            if abs(other_x - x) < 200 and abs(other_y - y) < 44:
                y = other_y + 44
        placed.append((x, float(y)))
        texts.append(f'<text x="{x:.0f}" y="{y:.0f}">{escape(text)}</text>')
    return "".join(texts)


def _peeks(found: FeatureMap, xy: np.ndarray, asked: Sequence[int]) -> list[Peek]:
    """Of each cell of a grid over the map, the first photo that was asked for; where none was, the one nearest to the middle."""
    rank = {photo: i for i, photo in reversed(list(enumerate(asked)))}
    ranks = np.array([rank.get(photo, len(asked)) for photo in found.photos.tolist()])
    cells = np.minimum((xy / SIDE * _PEEK_CELLS).astype(int), _PEEK_CELLS - 1)
    middle = (cells + 0.5) * SIDE / _PEEK_CELLS
    nearest: dict[tuple[int, int], int] = {}
    for i in np.lexsort((((xy - middle) ** 2).sum(axis=1), ranks)):
        nearest.setdefault((int(cells[i, 1]), int(cells[i, 0])), int(i))
    return [
        _peek(int(found.photos[i]), *(100 * xy[i] / SIDE).tolist(), asked=int(found.photos[i]) in rank) for _, i in sorted(nearest.items())
    ]


def _peek(photo: int, left: float, top: float, *, asked: bool) -> Peek:
    return Peek(photo, left, top, f"{'w' if left > 50 else 'e'} {'n' if top > 50 else 's'}", asked)
