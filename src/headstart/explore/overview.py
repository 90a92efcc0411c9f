"""What a data set holds, in counts: photos of each class and split, sizes, formats, extremes, what was left out and why."""

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from headstart.data.table import SPLITS, Table
from headstart.explore.look import Looks

FEW = 30  # photos of a class; of fewer, five at most are tested
EXTREMES = 6  # photos shown at either end of a scale
MOST_SIZES = 20


@dataclass(frozen=True)
class Spread:
    """How a figure is spread over the photos."""

    least: float
    low: float
    "a twentieth of the photos lie below"
    median: float
    high: float
    "a twentieth lie above"
    most: float


@dataclass(frozen=True)
class Extreme:
    """The photos at one end of a scale, the most extreme first."""

    name: str
    "darkest, brightest, least contrast, most contrast, least sharp, sharpest"
    photos: tuple[int, ...]
    values: tuple[float, ...]


@dataclass(frozen=True)
class Overview:
    """Counts are photos."""

    classes: Mapping[str, Mapping[str, int]]
    'per class, in the table\'s order: {"train", "val", "test", "all"}'
    splits: Mapping[str, int]
    width: Spread
    "px"
    height: Spread
    "px"
    aspect: Spread
    "width / height"
    sizes: tuple[tuple[int, int, int], ...]
    "(width, height, photos), the most frequent first, at most 20"
    n_sizes: int
    "how many different sizes there are"
    formats: Mapping[str, int]
    modes: Mapping[str, int]
    "Pillow's names: RGB, L (grey), P (palette), CMYK, ..."
    n_bytes: int
    "of all files"
    omitted: Mapping[str, int]
    "files left out, by reason, the most frequent first"
    extremes: tuple[Extreme, ...]
    small: tuple[str, ...]
    "classes of fewer than 30 photos"
    imbalance: float
    "photos of the largest class to photos of the smallest"
    majority: float
    "share of the largest class: what always answering it would get right, 0 to 1"

    def to_json(self, table: Table) -> dict[str, Any]:
        """Plain values, photos by path. `table`: the one it was made of."""
        return {
            "n": len(table),
            "splits": dict(self.splits),
            "classes": {name: dict(counts) for name, counts in self.classes.items()},
            "small_classes": list(self.small),
            "imbalance": round(self.imbalance, 3),
            "majority": round(self.majority, 5),
            **{name: asdict(getattr(self, name)) for name in ("width", "height", "aspect")},
            "n_sizes": self.n_sizes,
            "sizes": [{"width": width, "height": height, "n": n} for width, height, n in self.sizes],
            "formats": dict(self.formats),
            "modes": dict(self.modes),
            "bytes": self.n_bytes,
            "omitted": dict(self.omitted),
            "extremes": {
                extreme.name: [
                    {"path": table.photos[i].path, "value": round(value, 3)}
                    for i, value in zip(extreme.photos, extreme.values, strict=True)
                ]
                for extreme in self.extremes
            },
        }


def overview(table: Table, looks: Looks) -> Overview:
    """Count what a split table with at least one photo holds; `looks` of the same photos."""
    photos = table.photos
    width, height = (np.array([getattr(photo, side) for photo in photos], np.float64) for side in ("width", "height"))
    sizes = Counter((photo.width, photo.height) for photo in photos)
    classes = _per_class(table)
    n_each = [counts["all"] for counts in classes.values()]
    return Overview(
        classes=classes,
        splits={split: sum(counts[split] for counts in classes.values()) for split in SPLITS},
        width=_spread(width),
        height=_spread(height),
        aspect=_spread(width / np.maximum(height, 1)),
        sizes=tuple((w, h, n) for (w, h), n in sorted(sizes.items(), key=lambda item: (-item[1], item[0]))[:MOST_SIZES]),
        n_sizes=len(sizes),
        formats=_frequent(photo.format for photo in photos),
        modes=_frequent(photo.mode for photo in photos),
        n_bytes=sum(photo.n_bytes for photo in photos),
        omitted=_frequent(_kind(omitted.reason) for omitted in table.omitted),
        extremes=_extremes(looks),
        small=tuple(name for name, counts in classes.items() if counts["all"] < FEW),
        imbalance=max(n_each) / max(1, min(n_each)),
        majority=max(n_each) / len(photos),
    )


def samples(table: Table, *, seed: int, most: int = 8, in_all: int = 400) -> dict[str, tuple[int, ...]]:
    """A few photos of each class, the same for the same photos and seed whatever they are called, and none that look alike.

    Args: most: of a class. in_all: of all classes; at least one of each is kept.
    """
    per_class = max(1, min(most, in_all // len(table.classes)))
    order = [hashlib.sha256(f"{seed}:{photo.sha256}".encode()).digest() for photo in table.photos]
    chosen: dict[str, list[int]] = {name: [] for name in table.classes}
    groups: set[tuple[str, int]] = set()
    for i in sorted(range(len(table)), key=order.__getitem__):
        label, group = table.photos[i].label, int(table.groups[i])
        if len(chosen[label]) < per_class and (label, group) not in groups:
            chosen[label].append(i)
            groups.add((label, group))
    return {name: tuple(photos) for name, photos in chosen.items()}


def _per_class(table: Table) -> dict[str, dict[str, int]]:
    counts = Counter((photo.label, photo.split) for photo in table.photos)
    return {
        name: {**{split: counts[name, split] for split in SPLITS}, "all": sum(counts[name, split] for split in ("", *SPLITS))}
        for name in table.classes
    }


def _spread(values: np.ndarray) -> Spread:
    return Spread(*(round(float(value), 4) for value in np.percentile(values, [0, 5, 50, 95, 100])))


def _frequent(names: Iterable[str]) -> dict[str, int]:
    """Counts, the most frequent first; equals by name."""
    return dict(sorted(Counter(names).items(), key=lambda item: (-item[1], item[0])))


def _kind(reason: str) -> str:
    """A reason without what differs from file to file: `line 7: no such file` -> `no such file`.

    >>> _kind("line 7 repeats line 3"), _kind("damaged PNG (bad checksum)"), _kind("two labels: 'cat' and 'dog'")
    ('repeats another line', 'damaged PNG', 'two labels')
    """
    reason = re.sub(r"^line \d+: ", "", reason)
    reason = re.sub(r"^line \d+ repeats line \d+", "repeats another line", reason)
    reason = re.sub(r"^\d+ x \d+ pixels, ", "", reason)
    return re.sub(r"^(damaged [^(]*|too large for a photo|two labels)[ :].*", r"\1", reason).strip()


def _extremes(looks: Looks) -> tuple[Extreme, ...]:
    """Both ends of each scale, no photo at both ends of one; equal values in the table's order."""
    scales = (
        ("darkest", "brightest", looks.brightness),
        ("least contrast", "most contrast", looks.contrast),
        ("least sharp", "sharpest", looks.sharpness),
    )
    found = []
    for low, high, values in scales:
        n = min(EXTREMES, max(1, len(values) // 2))
        ends = ((low, np.argsort(values, kind="stable")[:n]), (high, np.argsort(-values, kind="stable")[:n]))
        found += [Extreme(name, tuple(order.tolist()), tuple(float(values[i]) for i in order)) for name, order in ends]
    return tuple(found)
