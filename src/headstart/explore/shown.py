"""What the parts of the page show, worked out of an `Exploration`: classes, sizes, pixels, pictures, files left out."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup

from headstart.data.table import SPLITS
from headstart.explore.exploration import Exploration
from headstart.explore.overview import FEW
from headstart.explore.thumbnails import thumbnails
from headstart.files import human_bytes
from headstart.report import plots
from headstart.report.words import count, percent, visible

MOST_ROWS_SHOWN = 25  # of the table of classes; the rest folds away
MOST_OMITTED = 100
MOST_SAMPLED_CLASSES = 300
MANY_CLASSES = 40  # of more, photos are shown in squares of four beside each other
_MOST_DOTS = 1500  # of the chart of sizes
_CLOSE = 0.04  # sizes that differ by less are one dot where there are too many
_SAMPLE_PX, _MANY_SAMPLES_PX, _EXTREME_PX = 128, 72, 128
_MANY = 240  # samples; of more, each is shown smaller
_SAMPLE_BYTES, _EXTREME_BYTES = 1_700_000, 400_000  # of data URIs on the page
_MODES = {
    "RGB": "colour",
    "L": "grey",
    "P": "palette",
    "RGBA": "colour with transparency",
    "LA": "grey with transparency",
    "1": "black and white",
}
_CHANNELS = ("Red", "Green", "Blue")
_UNITS = {"sharp": "variance of edges", "contrast": "standard deviation", "": "mean"}


@dataclass(frozen=True)
class ClassRow:
    """One line of the table of classes. counts: photos of each split that is shown; widths: of the bar's parts, percent of the longest."""

    name: str
    n: int
    counts: list[int]
    widths: list[float]
    small: bool


@dataclass(frozen=True)
class Shot:
    """One photo as a picture, with words for those who do not see it, and a line below it."""

    picture: str
    alt: str
    caption: str


@dataclass(frozen=True)
class Strip:
    """Photos that belong side by side."""

    title: str
    note: str
    shots: list[Shot]


def splits_of(found: Exploration) -> list[str]:
    """The splits that have photos."""
    return [split for split in SPLITS if found.overview.splits.get(split)]


def class_rows(found: Exploration) -> list[ClassRow]:
    """The table of classes, most photos first."""
    splits = splits_of(found)
    most = max(counts["all"] for counts in found.overview.classes.values())
    rows = []
    for name, counts in found.overview.classes.items():
        parts = [counts[split] for split in splits]
        widths = [100 * part / most for part in (parts if splits else [counts["all"]])]
        rows.append(ClassRow(name, counts["all"], parts, widths, counts["all"] < FEW))
    return sorted(rows, key=lambda row: (-row.n, row.name))


def facts(found: Exploration) -> list[tuple[str, str]]:
    """The files in a few lines."""
    data = found.overview
    splits = ", ".join(f"{data.splits[split]:,} {split}" for split in splits_of(found))
    width, height = data.width, data.height
    sizes = (
        f"{width.median:,.0f} x {height.median:,.0f} px in the middle"
        if data.n_sizes > 1
        else f"all {width.most:,.0f} x {height.most:,.0f} px"
    )
    return [
        (title, text)
        for title, text in (
            ("Photos", splits or f"{len(found.table):,}, not split"),
            ("Classes", f"{len(data.classes):,}"),
            ("Sizes", sizes),
            ("Formats", _listed(data.formats.items())),
            ("Modes", _listed((f"{mode} ({_MODES[mode]})" if mode in _MODES else mode, n) for mode, n in data.modes.items())),
            ("On disk", human_bytes(data.n_bytes) if data.n_bytes else ""),
            ("Not finite", count(len(found.looks.not_finite), "photo", "photos") if len(found.looks.not_finite) else ""),
        )
        if text
    ]


def _listed(counts: Iterable[tuple[str, int]]) -> str:
    found = [(name, n) for name, n in counts if name]
    return found[0][0] if len(found) == 1 else ", ".join(f"{n:,} {visible(name)}" for name, n in found)


def size_charts(found: Exploration) -> list[tuple[Markup, str]]:
    """Widths and heights, and how wide for their height photos are, each with its caption; nothing where all have one size."""
    if found.overview.n_sizes < 2:
        return []
    size = np.array([(photo.width, photo.height) for photo in found.table.photos], dtype=np.float64)
    size = np.maximum(size, 1)
    if found.overview.n_sizes > _MOST_DOTS:
        size = np.exp(np.round(np.log(size) / _CLOSE) * _CLOSE)
    counts = Counter(map(tuple, size.tolist()))
    places = np.array(list(counts))
    width, height, aspect = found.overview.width, found.overview.height, found.overview.aspect
    wide = max(width.most / max(width.least, 1), height.most / max(height.least, 1)) > 4
    alt = (
        f"Height over width of {len(size):,} photos: widths {width.least:,.0f} to {width.most:,.0f} px, "
        f"heights {height.least:,.0f} to {height.most:,.0f} px, half of all widths up to {width.median:,.0f} px."
    )
    scatter = plots.scatter(
        places[:, 0], places[:, 1], n=list(counts.values()), key="sizes", alt=alt, x_label="Width, px", y_label="Height, px", log=wide
    )
    ratio = size[:, 0] / size[:, 1]
    low, high = (float(edge) for edge in np.quantile(ratio, [0.002, 0.998]))
    edges = np.linspace(low - 0.02, high + 0.02, 31)
    n_photos, _ = np.histogram(ratio.clip(low, high), edges)
    alt = f"Width over height: {aspect.low:.2f} to {aspect.high:.2f} for nine photos in ten, in the middle {aspect.median:.2f}."
    histogram = plots.histogram(edges, n_photos, key="aspect", alt=alt, x_label="Width / height; 1 is square", y_label="Photos")
    n_beyond = int(((ratio < low) | (ratio > high)).sum())
    beyond = count(n_beyond, "photo", "photos")
    ends = f"The outermost bars also count {beyond} beyond them: all lie between {aspect.least:.2f} and {aspect.most:.2f}."
    return [(scatter, "A larger dot stands for more photos."), (histogram, ends if n_beyond else "")]


def pixel_rows(found: Exploration) -> list[tuple[str, float, float]]:
    """Mean and standard deviation of each channel and of all, 0 to 255."""
    looks = found.looks
    rows = [(name, float(m), float(s)) for name, m, s in zip(_CHANNELS, looks.pixel_mean, looks.pixel_std, strict=True)]
    return [*rows, ("All", float(looks.mean_all), float(looks.std_all))]


def pixel_charts(found: Exploration) -> list[Markup]:
    """How often each intensity comes, for each channel; once where all photos are grey."""
    charts = []
    total = found.looks.histogram.sum(axis=1)
    rows = pixel_rows(found)[:3]
    if (found.looks.histogram == found.looks.histogram[:1]).all():
        rows = [("Grey", *rows[0][1:])]
    for channel, (name, mean, std) in enumerate(rows):
        shares = 100 * found.looks.histogram[channel].reshape(64, 4).sum(axis=1) / max(1, total[channel])
        ends = [percent(float(found.looks.histogram[channel, level] / max(1, total[channel])), 1) for level in (0, 255)]
        alt = f"{name}: intensities 0 to 255, mean {mean:.1f}, standard deviation {std:.1f}; {ends[0]} % are 0 and {ends[1]} % are 255."
        label = f"{name}: {mean:.1f} ± {std:.1f}"
        edges = np.arange(0, 257, 4)
        drawn = plots.histogram(
            edges,
            shares,
            key=name.lower(),
            alt=alt,
            x_label="Intensity",
            y_label=f"{label}; % of pixels",
            mean=mean,
            std=std,
            size_inches=(3.7, 2.6),
        )
        charts.append(drawn)
    return charts


def sample_strips(found: Exploration) -> list[Strip]:
    """A few photos of each class; of very many classes, the first ones in the table's order that there is room for."""
    most = 4 if len(found.samples) > MANY_CLASSES else None
    chosen = {name: photos[:most] for name, photos in list(found.samples.items())[:MOST_SAMPLED_CLASSES] if photos}
    wanted = _in_turn(list(chosen.values()))  # so that room that runs out costs every class its last photo, not the last class all of them
    longer_px = _MANY_SAMPLES_PX if len(wanted) > _MANY else _SAMPLE_PX
    pictures = thumbnails(found.table, wanted, longer_px=longer_px, most_bytes=_SAMPLE_BYTES)
    strips = []
    for name, photos in chosen.items():
        shots = [Shot(pictures[i], f"Photo of class {visible(name)[:60]}", "") for i in photos if i in pictures]
        strips.append(Strip(name, count(found.overview.classes[name]["all"], "photo", "photos"), shots))
    return [strip for strip in strips if strip.shots]


def _in_turn(lists: Sequence[Sequence[int]]) -> list[int]:
    """The first of each list, then the second of each, and so on."""
    return [one[i] for i in range(max(map(len, lists), default=0)) for one in lists if i < len(one)]


def extreme_strips(found: Exploration) -> list[Strip]:
    """The photos at both ends of brightness, contrast and sharpness."""
    wanted = [i for extreme in found.overview.extremes for i in extreme.photos]
    pictures = thumbnails(found.table, wanted, longer_px=_EXTREME_PX, most_bytes=_EXTREME_BYTES)
    strips = []
    for extreme in found.overview.extremes:
        unit = next(text for word, text in _UNITS.items() if word in extreme.name)
        shots = []
        for i, value in zip(extreme.photos, extreme.values, strict=True):
            photo = found.table.photos[i]
            if i in pictures:
                alt = f"{extreme.name.capitalize()}: photo of class {visible(photo.label)[:60]}, {visible(photo.path)[-60:]}"
                shots.append(Shot(pictures[i], alt, f"{value:,.0f}" if value >= 10 else f"{value:.1f}"))
        strips.append(Strip(extreme.name.capitalize(), unit, shots))
    return [strip for strip in strips if strip.shots]
