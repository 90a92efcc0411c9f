"""Every score on test photos with its interval, and how well probabilities rank: ROC and precision-recall curves."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from headstart.evaluate import curves
from headstart.report import plots, words
from headstart.report.charts import INK, PALETTE, Line
from headstart.report.folder import Predictions, RunFolder, number, pair, section

MOST_RANKED = 3  # classes with curves of their own: more lines cannot be told apart

_COLOURS = (PALETTE[0], PALETTE[1], PALETTE[5])
_GRID = np.linspace(0, 1, 201)  # of the mean curves
_SCORES = (
    ("accuracy", "Accuracy", "right, of all photos"),
    ("balanced_accuracy", "Balanced accuracy", "mean recall: every class counts the same"),
    ("top3", "Right class among the top 3", ""),
    ("top5", "Right class among the top 5", ""),
    ("precision_macro", "Precision, mean over classes", "right, of those given a name"),
    ("precision_weighted", "Precision, weighted by photos", ""),
    ("recall_macro", "Recall, mean over classes", "found, of those of a class"),
    ("recall_weighted", "Recall, weighted by photos", "the same as accuracy"),
    ("f1_macro", "F1, mean over classes", "precision and recall together"),
    ("f1_weighted", "F1, weighted by photos", ""),
    ("roc_auc_macro", "ROC area, mean over classes", "how often a photo of the class is ranked before another one"),
    ("average_precision_macro", "Average precision, mean over classes", "precision, averaged over all thresholds"),
    ("ece", "Calibration error", "gap between claimed and true chances"),
    ("log_loss", "Log loss", "mean of -ln(probability of the right class), in nats"),
)
_BARE = ("roc_auc_macro", "average_precision_macro", "log_loss")  # not said in percent


@dataclass(frozen=True)
class Score:
    """One line of the table of all scores."""

    name: str
    value: str
    interval: str
    meaning: str


@dataclass(frozen=True)
class Ranked:
    """One class with curves of its own: its number in their legends, and its areas as text."""

    number: int
    name: str
    roc_auc: str
    average_precision: str


@dataclass(frozen=True)
class Ranking:
    """Both charts and what their numbers mean."""

    roc: Markup
    precision_recall: Markup
    classes: list[Ranked]
    n_classes: int


def all_scores(test: dict[str, Any]) -> list[Score]:
    """The scores that metrics.json has for test photos, as text."""
    ci95, labels = section(test, "ci95"), words.matrix(test)[0]
    found = []
    for key, name, meaning in _SCORES:
        value, interval = number(test.get(key)), pair(ci95.get(key))
        if value is None or (key == "top5" and len(labels) <= 5) or (key == "top3" and len(labels) <= 3):  # 1 by definition
            continue
        if key in _BARE:
            found.append(Score(name, f"{value:.3f}", "" if interval is None else f"{interval[0]:.3f}–{interval[1]:.3f}", meaning))
        else:
            shown = f"{words.percent(value, words.decimals_for(interval))}\u00a0%"
            found.append(Score(name, shown, words.between(interval), meaning))
    return found


def ranking(folder: RunFolder) -> Ranking | None:
    """ROC and precision-recall curves: the mean over classes, and the classes that are hardest to rank; None without predictions."""
    found = folder.predictions
    labels = label_indices(found)
    if found is None or labels is None or len(np.unique(labels)) < 2:
        return None
    present = np.unique(labels).tolist()
    per_class = section(folder.test, "per_class")
    worst = _worst(present, found, per_class)
    shown = [
        Ranked(i, found.classes[c], *(_area(section(per_class, found.classes[c]), key) for key in ("roc_auc", "average_precision")))
        for i, c in enumerate(worst, start=1)
    ]
    charts = []
    for of_class, draw, kind in ((curves.roc, plots.roc, "roc"), (curves.precision_recall, plots.precision_recall, "recall")):
        own, mean = {}, np.zeros(len(_GRID))
        for c in present:  # one at a time: all curves of many classes would fill the memory
            curve = of_class(found.probs, labels, c)
            if curve is None:
                return None
            mean += np.interp(_GRID, curve.x, curve.y) / len(present)
            if c in worst:
                own[c] = curves.thin(curve)
        lines = [
            Line(str(i), [*own[c].x], [*own[c].y], colour) for i, (c, colour) in enumerate(zip(worst, _COLOURS, strict=False), start=1)
        ]
        lines.append(Line("mean of all classes", [*_GRID], [*mean], INK))
        charts.append(draw(lines, key=kind, alt=_alt(kind, folder.test, shown)))
    return Ranking(charts[0], charts[1], shown, len(present))


def label_indices(predictions: Predictions | None) -> NDArray[np.int64] | None:
    """The test photos' labels as columns of the probabilities, int64 [n]; None without usable predictions."""
    if predictions is None or not len(predictions):
        return None
    index = {name: i for i, name in enumerate(predictions.classes)}
    if any(label not in index for label in predictions.labels):
        return None
    return np.array([index[label] for label in predictions.labels], dtype=np.int64)


def _worst(present: list[int], predictions: Predictions, per_class: dict[str, Any]) -> list[int]:
    """The classes that are hardest to rank; of equals, and where no areas are on record, in the order of the labels."""

    def area(c: int) -> float:
        found = number(section(per_class, predictions.classes[c]).get("average_precision"))
        return 1.0 if found is None else found

    return sorted(present, key=area)[:MOST_RANKED]


def _area(scores: dict[str, Any], key: str) -> str:
    value, interval = number(scores.get(key)), pair(section(scores, "ci95").get(key))
    if value is None:
        return ""
    return f"{value:.3f}" + ("" if interval is None else f" ({interval[0]:.3f}–{interval[1]:.3f})")


def _alt(kind: str, test: dict[str, Any], shown: list[Ranked]) -> str:
    title, key = ("ROC curves", "roc_auc") if kind == "roc" else ("Precision-recall curves", "average_precision")
    mean = number(test.get(f"{key}_macro"))
    areas = [f"mean over classes {mean:.3f}"] if mean is not None else []
    areas += [f"{each.number}, {words.visible(each.name)[:60]}, {getattr(each, key)}" for each in shown if getattr(each, key)]
    return f"{title}, area under each: {'; '.join(areas)}." if areas else f"{title} of the mean over classes and of {len(shown)} classes."
