"""What each section of the page shows, worked out of a run folder: tables, matrix, charts, pictures."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from headstart.evaluate import calibrate
from headstart.report import charts, words
from headstart.report.checks import Naive
from headstart.report.folder import Predictions, RunFolder, number, pair, section, whole
from headstart.report.overlays import overlays
from headstart.report.pictures import heat_map, thumbnail
from headstart.report.scores import label_indices
from headstart.report.tuning import story

MOST_MATRIX_CLASSES = 30
MOST_MISTAKES = 24
MOST_OMITTED = 100
MOST_ROWS_SHOWN = 25  # of the per-class table; the rest folds away
MOST_RATE_CLASSES = 12  # up to so many, a cell of the matrix has room for count and rate

_LEVELS_RIGHT = (0.15, 0.35, 0.55, 0.75, 0.9)
_LEVELS_WRONG = (0.03, 0.07, 0.15, 0.3, 0.5)  # mistakes are rare: their colour starts early


@dataclass(frozen=True)
class ClassRow:
    """One line of the per-class table; shares as ready text, `f1` also as a number for its bar."""

    name: str
    n_test: int
    n_train: int | None
    texts: dict[str, str]
    ranges: dict[str, str]
    f1: float | None
    f1_range: tuple[float, float] | None


@dataclass(frozen=True)
class Cell:
    """One cell of the confusion matrix. `level` 0..6 is its shade."""

    n: int
    rate: str
    right: bool
    level: int
    title: str


@dataclass(frozen=True)
class Mistake:
    """One wrongly classified photo, its picture where it could still be read, and where the classifier looked."""

    path: str
    label: str
    predicted: str
    probability: str
    picture: str | None
    overlay: str | None


@dataclass(frozen=True)
class Probabilities:
    """The reliability diagram and what it says; `before` is about the probabilities without the temperature."""

    chart: Markup
    sentence: str
    before: str


@dataclass(frozen=True)
class Tile:
    """One number beside the headline, with its interval and what it means."""

    title: str
    value: str
    interval: str
    meaning: str


def tiles(test: dict[str, Any], scored: Naive | None = None) -> list[Tile]:
    """The figures beside accuracy; the score that duplicates would have given among them, where it differs."""
    ci95 = section(test, "ci95")
    labels, _ = words.matrix(test)
    wanted = [
        ("balanced_accuracy", "Balanced accuracy", "as if every class had the same number of photos"),
        ("f1_macro", "Mean F1 over classes", "precision and recall together, every class counts the same"),
    ]
    if len(labels) > 5:  # else it is 1 by definition
        wanted.append(("top5", "Right class among the top 5", "for lists of suggestions"))
    wanted.append(("baseline_majority", "Baseline", "by always answering the most frequent class"))
    wanted.append(("ece", "Calibration error", "how far claimed and true chances lie apart"))
    found = []
    for key, title, meaning in wanted:
        value, interval = number(test.get(key)), pair(ci95.get(key))
        if value is not None:
            # A baseline is known, not estimated: it says what a rule reaches on these very photos.
            shown = "" if interval is None or key == "baseline_majority" else words.between(interval)
            found.append(Tile(title, words.percent(value, words.decimals_for(interval)), shown, meaning))
    if scored is not None and scored.differ:
        meaning = (
            f"with look-alikes on both sides of the split, where the same head honestly has {scored.honest.text}\u00a0%: not to be quoted"
        )
        found.append(Tile("Naive score", scored.naive.text, scored.naive.interval_text, meaning))
    return found


def class_rows(folder: RunFolder) -> list[ClassRow]:
    """The per-class table, weakest F1 first; classes without a test photo last."""
    train = folder.split.get("train", {})
    rows = []
    for name, scores in section(folder.test, "per_class").items():
        if not isinstance(scores, dict):
            continue
        values = {key: number(scores.get(key)) for key in ("precision", "recall", "f1")}
        intervals = {key: pair(section(scores, "ci95").get(key)) for key in values}
        texts = {key: words.percent(value) for key, value in values.items()}
        ranges = {key: words.between(interval) for key, interval in intervals.items()}
        rows.append(ClassRow(name, whole(scores.get("n")), train.get(name), texts, ranges, values["f1"], intervals["f1"]))
    return sorted(rows, key=lambda row: (row.f1 is None, row.f1, -row.n_test, row.name))


def matrix_cells(test: dict[str, Any]) -> list[list[Cell]]:
    """The confusion matrix as rows of cells; empty with more classes than a table can show."""
    labels, counts = words.matrix(test)
    if not 0 < len(labels) <= MOST_MATRIX_CLASSES:
        return []
    return [[_cell(labels, counts, i, j) for j in range(len(labels))] for i in range(len(labels))]


def _cell(labels: list[str], counts: Any, i: int, j: int) -> Cell:
    n, n_row = int(counts[i, j]), int(counts[i].sum())
    rate = n / n_row if n_row else 0.0
    steps = _LEVELS_RIGHT if i == j else _LEVELS_WRONG
    level = 0 if n == 0 else 1 + sum(rate > step for step in steps)
    label, predicted = words.visible(labels[i])[:80], words.visible(labels[j])[:80]
    title = f"{n} of {n_row} {label} recognised" if i == j else f"{n} of {n_row} {label} taken for {predicted}"
    return Cell(n, f"{words.percent(rate)}\u00a0%" if n else "", i == j, level, title)


def matrix_picture(test: dict[str, Any]) -> str | None:
    """The confusion matrix as a heat map, where it has too many classes for a table."""
    labels, counts = words.matrix(test)
    return heat_map(counts) if len(labels) > MOST_MATRIX_CLASSES else None


def probabilities(folder: RunFolder) -> Probabilities | None:
    """How far the probabilities can be believed; None where there are no usable predictions."""
    predictions, labels = folder.predictions, label_indices(folder.predictions)
    if predictions is None or labels is None:
        return None
    bins = calibrate.reliability(predictions.probs, labels)
    parts = ", ".join(f"{words.percent(each.confidence)} % claimed, {words.percent(each.accuracy)} % right ({each.n})" for each in bins)
    drawn = charts.reliability(bins, key="reliability", alt=f"Claimed probability and share right, with photos: {parts}.")
    mean = float(predictions.probs.max(axis=1).mean())
    return Probabilities(drawn, words.calibration(folder, mean), _before_temperature(folder, predictions, labels))


def _before_temperature(folder: RunFolder, predictions: Predictions, labels: NDArray[np.int64]) -> str:
    """What the temperature has done, in a sentence: probabilities to its power are those that it was not applied to."""
    temperature = number(folder.of("head", "temperature"))
    if temperature is None or temperature <= 0 or temperature == 1 or folder.of("config", "test_views") == 2:  # a mean is not undone
        return ""
    logs = temperature * np.log(np.maximum(predictions.probs.astype(np.float64), np.finfo(np.float32).tiny))
    raised = np.exp(logs - logs.max(axis=1, keepdims=True))
    before = calibrate.ece(raised / raised.sum(axis=1, keepdims=True), labels)
    change = "less" if temperature > 1 else "more"
    return (
        f"A temperature of {temperature:.2f}, chosen on other photos than these, has made it {change} sure; "
        f"without it the error here would be {words.percent(before, 1)} points."
    )


def mistakes(folder: RunFolder) -> list[Mistake]:
    """The wrongly classified test photos that the classifier was surest of, with their pictures; the first ones with a heat map each."""
    predictions = folder.predictions
    if predictions is None or not predictions.classes:
        return []
    sure = predictions.probs.max(axis=1)
    wrong = [i for i in range(len(predictions)) if predictions.labels[i] != predictions.predicted[i]]
    chosen = sorted(wrong, key=lambda i: (-sure[i], predictions.paths[i]))[:MOST_MISTAKES]
    drawn = overlays(folder, [(predictions.paths[i], predictions.predicted[i]) for i in chosen])
    found = []
    for i in chosen:
        path = predictions.paths[i]
        picture = None if folder.photos_root is None else thumbnail(folder.photos_root / path)
        said = words.percent(float(sure[i]))
        found.append(Mistake(path, predictions.labels[i], predictions.predicted[i], said, picture, drawn.get(path)))
    return found


def n_mistakes(folder: RunFolder) -> int:
    """Wrongly classified test photos (count)."""
    return words.test_n(folder) - words.n_right(folder.test)


def facts(folder: RunFolder) -> list[tuple[str, str]]:
    """The run in a few lines: photos, backbone, trunk pass, head."""
    data, backbone, trunk, head = (section(folder.run, key) for key in ("data", "backbone", "trunk", "head"))
    counts = {split: sum(labels.values()) for split, labels in folder.split.items()}
    splits = {split: number(data.get(f"n_{split}")) for split in ("train", "val", "test")}
    sizes = [f"{int(n):,} {split}" for split in splits if (n := counts.get(split, splits[split]))]
    n_photos = number(data.get("n"))
    n_photos = sum(counts.values()) if n_photos is None else n_photos
    found = [("Photos", _joined(words.count(int(n_photos), "photo", "photos"), ", ".join(sizes)) if n_photos else "")]
    stop, px = backbone.get("stop"), number(backbone.get("px"))
    parts = [str(backbone.get("name", "")), f"stopped at {stop}" if stop else "", f"{px:.0f} px" if px else ""]
    if (n_parameters := number(backbone.get("n_params"))) is not None:
        parts.append(f"{n_parameters / 1e6:.2g} million parameters")
    found.append(("Backbone", _joined(*parts)))
    found.append(("Weights", _joined(str(backbone.get("origin", "")), str(backbone.get("licence", "")))))
    computed, reused, seconds = (number(trunk.get(key)) for key in ("rows_computed", "rows_reused", "seconds"))
    if computed is not None:
        took = f"in {seconds:.1f} s" if seconds is not None and computed else ""
        rows = words.count(int(computed), "row", "rows")
        found.append(("Trunk pass", _joined(f"{rows} computed {took}".strip(), f"{reused:,.0f} from the store" if reused else "")))
    strength, warmth = number(head.get("strength")), number(head.get("temperature"))
    parts = [
        str(head.get("kind", "")),
        f"L2 penalty {strength:.3g}" if strength is not None else "",
        f"temperature {warmth:.2f}" if warmth is not None else "",
    ]
    found.append(("Head", _joined(*parts)))
    if folder.of("config", "test_views") == 2:
        found.append(("Answers", "mean over the photo and its mirror image"))
    if (told := story(folder.run)) is not None:
        found.append(("Fine-tuning", _joined(told.short, *(f"kept: {each.name}" for each in told.scores if each.kept))))
    return [(title, text) for title, text in found if text]


def _joined(*parts: str) -> str:
    return " · ".join(part for part in parts if part)


def flat(record: Any, prefix: str = "") -> list[tuple[str, str]]:
    """A nested record as lines of dotted key and value."""
    if isinstance(record, dict) and record:
        return [line for key, value in record.items() for line in flat(value, f"{prefix}.{key}" if prefix else str(key))]
    if isinstance(record, list) and any(isinstance(item, dict) for item in record):
        return [line for i, item in enumerate(record) for line in flat(item, f"{prefix}[{i}]")]
    if isinstance(record, list) and record:
        return [(prefix, ", ".join(_plain(item) for item in record))]
    return [(prefix, _plain(record))] if prefix else []


def _plain(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return "not given" if value is None else f"{value:g}" if isinstance(value, float) else "none" if value in ({}, []) else str(value)
