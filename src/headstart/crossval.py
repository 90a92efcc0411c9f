"""How well a run's recipe does on its photos when every photo is held out once: heads on stored features, in seconds."""

import dataclasses
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from headstart.assess import photos_of
from headstart.backbone import cut, networks
from headstart.backbone.weights import locate
from headstart.bundle.predict import softmax
from headstart.data.table import Table
from headstart.errors import ConfigError, DataError, WeightsError
from headstart.evaluate.calibrate import temperature
from headstart.evaluate.intervals import folds_reach, stretched, together
from headstart.evaluate.metrics import evaluate as measure
from headstart.features import engine
from headstart.features.extract import Features, extract
from headstart.features.store import Store
from headstart.files import cache_folder
from headstart.progress import progress
from headstart.runs import Run
from headstart.train.folds import ALWAYS_TRAINING, assign_folds
from headstart.train.head import balanced_weights, solve_linear


@dataclass(frozen=True)
class Fold:
    """Photos that were held out together: how many, the share that is right, and the L2 strength of the head that answered them."""

    n: int
    accuracy: float
    strength: float


@dataclass(frozen=True)
class CrossValidated:
    """Figures of all photos, each answered by a head that had not seen it.

    metrics: as in metrics.json, with intervals that allow for the folds (docs/concepts/honest-numbers.md).
    folds: one by one. seconds: in all; rows_computed: features that the store did not have.
    """

    metrics: dict[str, Any]
    folds: tuple[Fold, ...]
    seconds: float
    rows_computed: int
    notices: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """The metrics, and beside them `cross_validation`."""
        about = {"folds": [dataclasses.asdict(fold) for fold in self.folds], "seconds": self.seconds, "rows_computed": self.rows_computed}
        return {**self.metrics, "cross_validation": about}


def cross_validate(folder: Path, *, folds: int = 5, weights: Path | None = None) -> CrossValidated:
    """Hold out every photo of a finished run once, its former test photos too, and answer it with a head that had not seen it.

    What is judged is the procedure on photos like these, not the run's model: that one's honest score is of its test photos. Photos of
    one group are held out together; regularisation and temperature are chosen anew in each fold, on the photos that are not held out.

    Args:
        folds: parts, >= 2.
        weights: where the backbone's weights lie now, if not where they were.

    Raises: HeadstartError: no finished run, other weights than the run's, photos that cannot be read and are not in the store.
    """
    if folds < 2:
        raise ConfigError(f"expected 2 folds or more, found {folds}")
    started = time.monotonic()
    record = Run(folder).record
    data = record["data"]
    table = Table(Path(data["root"]), tuple(photos_of(folder)), tuple(data["classes"]), name=data["name"])
    features = _features(record, table, weights)
    rows, labels, groups = features.rows[:], table.labels, table.groups
    fold_of = assign_folds(rows, labels, folds, groups=groups, seed=record["seed"])
    held_out = np.flatnonzero(fold_of != ALWAYS_TRAINING)
    parts = [np.flatnonzero(fold_of == fold) for fold in np.unique(fold_of[held_out])]
    if len(parts) < 2:
        raise DataError(
            f"the {len(table)} photos cannot be held out in turn", hint="each class needs two photos that do not belong together"
        )
    probs = np.zeros((len(table), len(table.classes)), np.float32)
    done = []
    with progress("Cross-validating", len(parts), "folds") as advance:
        for part in parts:
            probs[part], strength = _held_out(part, rows, labels, groups, len(table.classes), record)
            done.append(Fold(len(part), float((probs[part].argmax(1) == labels[part]).mean()), strength))
            advance(1)
    metrics = measure(probs[held_out], labels[held_out], table.classes, seed=record["seed"])
    right = probs[held_out].argmax(1) == labels[held_out]
    metrics = _widened(metrics, folds_reach(len(parts)) * float(np.sqrt(together(right, groups[held_out]))))
    notices = [*_notices(record), *([] if len(held_out) == len(table) else [_never_held_out(len(table) - len(held_out))])]
    return CrossValidated(metrics, tuple(done), round(time.monotonic() - started, 3), features.n_computed, tuple(notices))


def _features(record: dict[str, Any], table: Table, weights: Path | None) -> Features:
    """What the run's frozen network sees of all its photos, from the store where it holds them. Raises: WeightsError: other weights."""
    asked, config = record.get("asked", record["config"]), record["config"]
    given = weights if weights is not None else None if asked["weights"] is None else Path(asked["weights"])
    if given is not None and not given.exists():
        raise WeightsError(f"the weights of this run are no longer at {given}", hint="say where they are with --weights FILE")
    file = locate(asked["backbone"], given, download=True)
    if file.sha256 != record["backbone"]["weights_sha256"]:
        raise WeightsError(f"{file.path} holds other weights than this run used", hint="give the file that it used with --weights FILE")
    network = networks.build(file, stop=config["stop"], px=config["px"])
    try:
        choice = engine.choose(config["engine"], config["device"], config["precision"])
    except ConfigError:  # trained on another machine
        choice = engine.choose()
    return extract(cut.split(network, "head")[0], table, Store(cache_folder() / "store"), choice=choice)


def _held_out(
    part: np.ndarray, rows: np.ndarray, labels: np.ndarray, groups: np.ndarray, n_classes: int, record: dict[str, Any]
) -> tuple[np.ndarray, float]:
    """Probabilities [m, k] of the photos `part` by a head that learned, and was calibrated, on the others; and its strength."""
    others = np.ones(len(rows), bool)
    others[part] = False
    x, y = rows[others], labels[others]
    balanced = record["config"]["head"]["class_weights"] == "balanced"
    head = solve_linear(
        x, y, n_classes, groups=groups[others], class_weights=balanced_weights(y, n_classes) if balanced else None, seed=record["seed"]
    )
    scale = temperature(head.oof_logits, y[head.oof_index]) if len(head.oof_index) else 1.0
    return softmax(head.logits(rows[part]) / scale), head.strength


def _widened(metrics: dict[str, Any], factor: float) -> dict[str, Any]:
    """The same metrics with every interval stretched about its value."""

    def wider(scores: dict[str, Any]) -> dict[str, Any]:
        return {
            name: None if ends is None else list(stretched(scores[name], ends, factor, most=None if name == "log_loss" else 1.0))
            for name, ends in scores["ci95"].items()
        }

    ci95 = wider(metrics)
    per_class = {name: {**row, "ci95": wider(row)} for name, row in metrics["per_class"].items()}
    return {**metrics, "accuracy_ci95": ci95["accuracy"], "per_class": per_class, "ci95": ci95}


def _notices(record: dict[str, Any]) -> list[str]:
    """What the run has that these figures have not."""
    told = []
    if record["config"]["head"]["kind"] != "linear":
        told.append("this run has a dense head: these figures are of a linear one on the same features")
    if record.get("tuning", {}).get("kept") in ("tuned", "average"):
        told.append("this run was fine-tuned: these figures are of its probe, the head on frozen features, not of the fine-tuned network")
    if record["config"].get("test_views") == 2:
        told.append("this run answers with the mean over photo and mirror image: these figures are of the photos alone, centre views")
    return told


def _never_held_out(n: int) -> str:
    return f"{n} photos were never held out, because their class has no others that could have been learned from"
