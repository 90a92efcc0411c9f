"""What was found in the photos themselves, as the page shows it: suspect labels, duplicates, shortcuts, what more photos would bring.

All of it is read from checks.json, whose keys docs/formats.md lists.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup

from headstart.report import plots, words
from headstart.report.folder import RunFolder, items, number, pair, section, texts, whole
from headstart.report.pictures import thumbnail

MOST_SUSPECTS = 24
MOST_CLUSTERS = 12

_MOST_TWINS = 4  # pictures of one group of duplicates
_VERDICTS = ("more photos help", "cannot tell", "saturated")


@dataclass(frozen=True)
class Suspect:
    """One photo whose label may be wrong; shares as ready text."""

    path: str
    label: str
    likely: str
    probability_label: str
    probability_likely: str
    picture: str | None


@dataclass(frozen=True)
class Suspects:
    """The photos to look at, most suspect first.

    n: labels that may be wrong. n_checked: photos that were asked about.
    """

    n: int
    n_checked: int
    shown: list[Suspect]


@dataclass(frozen=True)
class Twin:
    """One photo of a group of duplicates."""

    path: str
    label: str
    split: str
    picture: str | None


@dataclass(frozen=True)
class Cluster:
    """Photos that show the same, and what is wrong with that."""

    kind: str
    trouble: list[str]
    twins: list[Twin]
    n_more: int


@dataclass(frozen=True)
class Duplicates:
    """Groups of duplicates in words, and those that matter most in pictures."""

    sentences: list[str]
    n_across_splits: int
    n_across_test: int
    """in test and in train or val"""
    is_split_given: bool
    """known to be: splits that came with the photos are not on record"""
    n_across_classes: int
    n_clusters: int
    shown: list[Cluster]


@dataclass(frozen=True)
class Score:
    """A share right with its 95 % interval, as numbers for its bar and as text."""

    value: float
    text: str
    interval: tuple[float, float] | None
    interval_text: str


@dataclass(frozen=True)
class Naive:
    """The score that duplicates on both sides of a split would have given, beside the honest one."""

    naive: Score
    honest: Score
    differ: bool


@dataclass(frozen=True)
class Shortcut:
    """What one clue that is not in the picture's content reaches alone."""

    words: str
    score: Score
    baseline: float | None
    warning: str
    note: str
    """what is worth knowing of a clue that does no harm"""


@dataclass(frozen=True)
class GrowthRow:
    """One class of the learning curve; shares as ready text."""

    name: str
    first: str
    last: str
    gain: str
    """what the last doubling of the photos brought, in points"""
    gain_range: str
    verdict: str


@dataclass(frozen=True)
class Growth:
    """The learning curve, and each class's part in it, those that gain most first."""

    chart: Markup
    first_size: str
    last_size: str
    rows: list[GrowthRow]


def suspects(folder: RunFolder) -> Suspects | None:
    """The suspect labels, None where none was looked for; photos that are gone keep their path."""
    record = section(folder.checks, "suspects")
    if not whole(record.get("n_checked")):
        return None
    shown = []
    for each in items(record, "photos")[:MOST_SUSPECTS]:
        path = str(each.get("path", ""))
        given, likely = (words.percent(number(each.get(f"probability_{which}"))) for which in ("label", "likely"))
        shown.append(Suspect(path, str(each.get("label", "")), str(each.get("likely", "")), given, likely, _picture(folder, path)))
    n = max(whole(record.get("n")), len(shown))
    return Suspects(n, whole(record.get("n_checked")), shown)


def duplicates(folder: RunFolder) -> Duplicates | None:
    """The duplicates, None where none were looked for; groups in their order on record, in which those that mislead come first."""
    record = section(folder.checks, "duplicates")
    if not record:
        return None
    shown = [_cluster(folder, each) for each in items(record, "clusters")[:MOST_CLUSTERS]]
    exact, near, photos, splits, test, classes = (
        whole(record.get(key)) for key in ("n_exact", "n_near", "n_photos", "across_splits", "across_test", "across_classes")
    )
    is_given = bool(folder.of("config", "split"))
    sentences = _duplicate_sentences(exact, near, photos, classes)
    sentences[1:1] = _split_sentences(folder, splits, test, is_given=is_given) if exact + near else []
    return Duplicates(sentences, splits, test, is_given, classes, exact + near, shown)


def _duplicate_sentences(exact: int, near: int, photos: int, classes: int) -> list[str]:
    if not exact + near:
        return ["No photo comes more than once, not even re-encoded, resized, slightly cropped or mirrored."]
    kinds = [words.count(exact, "group", "groups") + " of identical files"] if exact else []
    kinds += [words.count(near, "group", "groups") + " of near-duplicates: re-encoded, resized, cropped or mirrored"] if near else []
    sentences = [f"{photos:,} photos show what another one shows: {' and '.join(kinds)}."]
    if classes:
        carries = "group carries" if classes == 1 else "groups carry"
        sentences.append(f"{classes:,} {carries} more than one label, of which at most one is right.")
    return sentences


def _split_sentences(folder: RunFolder, splits: int, test: int, *, is_given: bool) -> list[str]:
    """Where groups of duplicates lie; on the page of explore, which has no run, no classifier has seen anything yet."""
    split = "given split" if is_given else "split"
    sentences = []
    if test:
        seen = "the classifier has seen those test photos, so its score flatters"
        if not folder.run:
            seen = "a classifier trained on this split would have seen those test photos, so its score would flatter"
        sentences.append(f"{words.count(test, 'group lies', 'groups lie')} on both sides of the {split}: {seen}.")
    if splits > test:
        lie = words.count(splits - test, "group lies", "groups lie")
        sentences.append(f"{lie} in train and val of the {split}, but not in test: what val selects may be misled, the test score is not.")
    if folder.split and not splits:
        seen = "the classifier has seen" if folder.run else "a classifier trained on it would have seen"
        sentences.append(f"Each group was kept on one side of the split, so no test photo is one that {seen}.")
    return sentences


def _cluster(folder: RunFolder, record: dict[str, Any]) -> Cluster:
    """A group of duplicates with what is wrong with it, and pictures of the first of its photos."""
    paths, labels, splits = (texts(record.get(key)) for key in ("photos", "labels", "splits"))
    labels, splits = ([*values, *[""] * (len(paths) - len(values))] for values in (labels, splits))
    twins = [
        Twin(path, label, split, _picture(folder, path))
        for path, label, split in list(zip(paths, labels, splits, strict=False))[:_MOST_TWINS]
    ]
    trouble = ["both sides of the split"] if len(set(splits) - {""}) > 1 else []
    trouble += ["more than one label"] if len(set(labels)) > 1 else []
    kind = {"exact": "the same file", "near": "near-duplicates"}.get(str(record.get("kind")), "duplicates")
    return Cluster(kind, trouble, twins, len(paths) - len(twins))


def naive(folder: RunFolder) -> Naive | None:
    """Both scores; None where no duplicates could have made a difference."""
    record = section(folder.checks, "naive")
    flattering, honest = (_score(section(record, key)) for key in ("naive", "honest"))
    return None if flattering is None or honest is None else Naive(flattering, honest, record.get("differ") is True)


def shortcuts(folder: RunFolder) -> list[Shortcut]:
    """What clues beside the picture's content reach, those with a warning first, then the best."""
    found = []
    for each in items(folder.checks, "shortcuts"):
        score = _score(each)
        if score is not None:
            shown = str(each.get("words") or each.get("name") or "")
            warning, note = (text if isinstance(text := each.get(key), str) else "" for key in ("warning", "note"))
            found.append(Shortcut(shown, score, number(each.get("baseline")), warning, note))
    return sorted(found, key=lambda each: (not each.warning, -each.score.value))


def growth(folder: RunFolder) -> Growth | None:
    """The learning curve, None where there is none to draw."""
    record = section(folder.checks, "learning_curve")
    sizes, accuracy = ([number(value) for value in _list(record.get(key))] for key in ("sizes", "accuracy"))
    intervals = [pair(each) for each in _list(record.get("accuracy_ci95"))]
    if not 2 <= len(sizes) == len(accuracy) == len(intervals) or None in sizes or None in accuracy or None in intervals:
        return None
    at, values = [size for size in sizes if size is not None], [value for value in accuracy if value is not None]
    if min(at) <= 0:
        return None
    parts = ", ".join(f"{words.percent(value)} % from {size:,.0f}" for size, value in zip(at, values, strict=True))
    bands = [each for each in intervals if each is not None]
    alt = f"Share right over the number of photos to learn from: {parts}."
    chart = plots.learning_curve(at, values, bands, key="growth", alt=alt)
    return Growth(chart, f"{at[0]:,.0f}", f"{at[-1]:,.0f}", _growth_rows(section(record, "per_class")))


def _growth_rows(record: dict[str, Any]) -> list[GrowthRow]:
    rows = []
    for name, each in record.items():
        recall = [number(value) for value in _list(section(record, name).get("recall"))]
        if not isinstance(each, dict) or not recall:
            continue
        gain, verdict = number(each.get("gain")), str(each.get("verdict", ""))
        points = "–" if gain is None else f"{100 * gain:+.0f}"
        rank = _VERDICTS.index(verdict) if verdict in _VERDICTS else len(_VERDICTS)
        span = pair(each.get("gain_ci95"))
        gain_range = "" if span is None else f"{100 * span[0]:+.0f} to {100 * span[1]:+.0f}"
        row = GrowthRow(name, words.percent(recall[0]), words.percent(recall[-1]), points, gain_range, verdict)
        rows.append((rank, -(gain or 0.0), row))
    return [row for *_, row in sorted(rows, key=lambda each: each[:2])]


def _score(record: dict[str, Any]) -> Score | None:
    value, interval = number(record.get("accuracy")), pair(record.get("accuracy_ci95"))
    if value is None or not 0 <= value <= 1:
        return None
    return Score(value, words.percent(value, words.decimals_for(interval)), interval, words.between(interval))


def _list(value: Any) -> Sequence[Any]:
    return value if isinstance(value, list) else []


def _picture(folder: RunFolder, path: str) -> str | None:
    return None if folder.photos_root is None else thumbnail(Path(folder.photos_root) / path)
