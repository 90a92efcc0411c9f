"""Finished runs against each other, on the test photos that none of them was trained on. Like predicting, it needs no PyTorch."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from headstart.assess import photos_of
from headstart.errors import ConfigError, DataError, safe_text
from headstart.evaluate import comparison
from headstart.evaluate.comparison import Answers, Compared
from headstart.evaluate.intervals import Interval, wilson
from headstart.evaluate.metrics import macro_f1
from headstart.report.folder import Predictions, read_run
from headstart.runs import Run


@dataclass(frozen=True)
class ComparedRun:
    """One run on the common photos.

    n_test: its own test photos, of which the common ones are a part. log_loss: nats.
    """

    run: str
    backbone: str
    n_test: int
    accuracy: float
    accuracy_ci95: Interval
    f1_macro: float
    log_loss: float


@dataclass(frozen=True)
class RunComparison:
    """Runs on the `n` test photos they have in common.

    against_first: of every run but the first, how it compares with the first; with more than one, their p-values are corrected for
        that (Holm). words: the same in sentences. notices: which photos were left out, and why.
    """

    n: int
    runs: tuple[ComparedRun, ...]
    against_first: tuple[Compared, ...]
    words: tuple[str, ...]
    notices: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return dataclasses.asdict(self)


@dataclass(frozen=True)
class _Tested:
    """A run and its test photos: by sha256, the row of predictions.csv. trained: the sha256 of the others."""

    name: str
    run: Run
    predictions: Predictions
    rows: dict[str, int]
    trained: frozenset[str]


def compare(runs: Sequence[str | Path], *, seed: int = 0) -> RunComparison:
    """Compare finished runs on the photos that all of them were tested on, found by their content.

    Args:
        runs: two or more run folders. The others are compared with the first.
        seed: of the bootstrap.

    Raises:
        ConfigError: fewer than two different runs.
        DataError: no finished run, files that do not fit together, or no test photo in common.
    """
    folders = [Path(run) for run in runs]
    if len({folder.resolve() for folder in folders}) < max(2, len(folders)):
        raise ConfigError(
            f"expected two or more different runs to compare, found {', '.join(safe_text(str(folder)) for folder in folders) or 'none'}",
            hint="headstart compare RUN RUN",
        )
    tested = [_read(folder) for folder in folders]
    photos, notices = _common(tested)
    classes = list(dict.fromkeys(name for one in tested for name in one.predictions.classes))
    index = {name: i for i, name in enumerate(classes)}
    labels = np.array([index[tested[0].predictions.labels[tested[0].rows[photo]]] for photo in photos], np.int64)
    answers = [_answers(one, photos, index) for one in tested]
    pairs = [comparison.compare(answers[0], other, labels, classes, seed=seed) for other in answers[1:]]
    p_values = comparison.holm([pair.p for pair in pairs])
    pairs = [
        dataclasses.replace(pair, p=p, verdict=comparison.verdict(p, pair.accuracy.value)) for pair, p in zip(pairs, p_values, strict=True)
    ]
    sides = tuple(_side(one, answer, labels, len(classes)) for one, answer in zip(tested, answers, strict=True))
    words = tuple(_in_words(sides[0], side, pair) for side, pair in zip(sides[1:], pairs, strict=True))
    return RunComparison(len(photos), sides, tuple(pairs), words, tuple(notices))


def _read(folder: Path) -> _Tested:
    """Raises: DataError: no finished run, or its files do not fit together."""
    run = Run(folder)
    name = safe_text(str(folder))
    found = read_run(folder)
    if found.predictions is None or len(found.predictions) == 0:
        why = "; ".join(problem for problem in found.problems if "predictions.csv" in problem)
        raise DataError(f"the answers of {name} cannot be read: {why if why else 'predictions.csv is empty'}", hint="train again")
    photos = photos_of(folder)
    sha256 = {photo.path: photo.sha256 for photo in photos if photo.split == "test"}
    if set(sha256) != set(found.predictions.paths):
        raise DataError(f"split.csv and predictions.csv of {name} are of different test photos", hint="train again")
    rows: dict[str, int] = {}
    for row, path in enumerate(found.predictions.paths):
        rows.setdefault(sha256[path], row)
    return _Tested(name, run, found.predictions, rows, frozenset(photo.sha256 for photo in photos if photo.split != "test"))


def _common(tested: Sequence[_Tested]) -> tuple[list[str], list[str]]:
    """The photos that all were tested on under one label that all know, in the first run's order; what was left out, in sentences.

    Raises: DataError: there are none.
    """
    notices = []
    for one in tested:
        for other in tested:
            if n := sum(photo in other.trained for photo in one.rows):
                notices.append(_known(n, one, other))
    trained = frozenset[str]().union(*(one.trained for one in tested))
    shared = [photo for photo in tested[0].rows if photo not in trained and all(photo in one.rows for one in tested)]
    if any(one.rows.keys() != tested[0].rows.keys() for one in tested):
        of_each = ", ".join(f"{one.name} {len(one.rows)}" for one in tested)
        notices.append(f"the test photos differ ({of_each}): these figures are of the {len(shared)} that all have in common")
    labelled = [photo for photo in shared if len({one.predictions.labels[one.rows[photo]] for one in tested}) == 1]
    if n := len(shared) - len(labelled):
        what, are = ("1 photo has", "it is") if n == 1 else (f"{n} photos have", "they are")
        notices.append(f"{what} another label in another run: {are} left out")
    known = set[str].intersection(*(set(one.predictions.classes) for one in tested))
    photos = [photo for photo in labelled if tested[0].predictions.labels[tested[0].rows[photo]] in known]
    if n := len(labelled) - len(photos):
        what, are = ("1 photo is of a class", "it is") if n == 1 else (f"{n} photos are of classes", "they are")
        notices.append(f"{what} that not all runs know: {are} left out")
    if not photos:
        raise DataError(
            f"the runs have no test photo in common that could be compared: {'; '.join(notices)}",
            hint=f"train them on one split: headstart train DATA --split {tested[0].name}/split.csv",
        )
    return photos, notices


def _known(n: int, one: _Tested, other: _Tested) -> str:
    what, them, are = ("1 test photo", "it", "it is") if n == 1 else (f"{n} test photos", "them", "they are")
    if one is other:
        return f"{what} of {one.name} also trained it, as {'a copy' if n == 1 else 'copies'}: {are} left out"
    return f"{what} of {one.name} trained {other.name}, which knows {them}: {are} left out"


def _answers(tested: _Tested, photos: Sequence[str], index: dict[str, int]) -> Answers:
    """What a run says of `photos`, in columns that all runs share; a class it does not know has probability 0."""
    found = tested.predictions
    rows = [tested.rows[photo] for photo in photos]
    probs = np.zeros((len(photos), len(index)), np.float32)
    probs[:, [index[name] for name in found.classes]] = found.probs[rows]
    return Answers(np.array([index[found.predicted[row]] for row in rows], np.int64), probs)


def _side(tested: _Tested, answers: Answers, labels: np.ndarray, n_classes: int) -> ComparedRun:
    n_right = int((answers.predicted == labels).sum())
    return ComparedRun(
        run=tested.name,
        backbone=str(tested.run.record["backbone"]["name"]),
        n_test=len(tested.predictions),
        accuracy=n_right / len(labels),
        accuracy_ci95=wilson(n_right, len(labels)),
        f1_macro=float(macro_f1(np.ones((1, len(labels))), labels, answers.predicted, n_classes)[0]),
        log_loss=float(comparison.log_losses(answers, labels).mean()),
    )


def _in_words(first: ComparedRun, second: ComparedRun, pair: Compared) -> str:
    """One pair in a sentence or three."""
    if pair.only_first + pair.only_second == 0:
        return f"Cannot tell {second.run} from {first.run}: both are right on the same of {pair.n} photos."
    gap = pair.only_second - pair.only_first
    more = f"{abs(gap)} {'more' if gap > 0 else 'fewer'} of {pair.n} photos right" if gap else f"as many of {pair.n} photos right"
    low, high = (100 * end for end in pair.accuracy.ci95)
    seen = f"{more}, {100 * pair.accuracy.value:+.1f} points (95 % interval {low:+.1f} to {high:+.1f}, p = {pair.p:.2g})."
    if pair.verdict != "cannot tell":
        return f"{second.run} is {pair.verdict} than {first.run}: {seen}"
    size = "a difference as large as this one" if gap else "a difference of one point"
    needed = f"About {pair.photos_to_tell:,} test photos would tell {size}, four times in five."
    return f"Cannot tell {second.run} from {first.run}: {seen} {needed}"
