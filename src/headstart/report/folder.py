"""A run folder as the report needs it. Every file and every key may be missing: what cannot be read becomes a notice, never a crash."""

import csv
import json
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.data.pixels import Preprocessing
from headstart.errors import ConfigError, DataError


@dataclass(frozen=True)
class Predictions:
    """predictions.csv: row i is one test photo."""

    paths: list[str]
    labels: list[str]
    predicted: list[str]
    classes: list[str]
    probs: NDArray[np.float32]  # [n, k], columns in the order of `classes`

    def __len__(self) -> int:
        return len(self.paths)


@dataclass(frozen=True)
class RunFolder:
    """What was found in one run folder."""

    path: Path
    photos_root: Path | None
    run: dict[str, Any]
    metrics: dict[str, Any]
    predictions: Predictions | None
    history: list[dict[str, str]]
    split: dict[str, dict[str, int]]  # split -> label -> photos
    train_photos: list[tuple[str, str]]  # sha256 and path
    omitted: list[tuple[str, str]]
    bundle: dict[str, Any]  # bundle.json of the model, not verified; empty where there is none
    checks: dict[str, Any]  # checks.json; empty where the photos were not looked at
    problems: list[str] = field(default_factory=list)

    @property
    def test(self) -> dict[str, Any]:
        return section(self.metrics, "test")

    @property
    def preprocessing(self) -> Preprocessing | None:
        """What the model's own record says is done to a photo, where there is one."""
        try:
            return Preprocessing.from_json(section(self.bundle, "preprocessing"))
        except ConfigError:
            return None

    def of(self, *keys: str) -> Any:
        """The value at `keys` of run.json, or None."""
        value: Any = self.run
        for key in keys:
            value = value.get(key) if isinstance(value, dict) else None
        return value


def read_run(path: Path, photos_root: Path | None = None) -> RunFolder:
    """Read what a run folder holds.

    Args:
        path: the run folder.
        photos_root: where the photos of predictions.csv lie now; None takes `data.root` of run.json.

    Raises: DataError: the folder does not exist, or holds neither run.json nor metrics.json.
    """
    hint = "give the folder that `headstart train --out` wrote"
    if not path.is_dir():
        raise DataError(f"expected a run folder, found nothing at {path}", hint=hint)
    if not any((path / name).is_file() for name in ("run.json", "metrics.json")):
        raise DataError(f"{path} is no run folder: it has neither run.json nor metrics.json", hint=hint)
    problems: list[str] = []
    run = _read_json(path / "run.json", problems)
    root = section(run, "data").get("root")
    split = list(_records(path / "split.csv", problems))
    return RunFolder(
        path=path,
        photos_root=photos_root if photos_root is not None else Path(root) if isinstance(root, str) and root else None,
        run=run,
        metrics=_read_json(path / "metrics.json", problems),
        predictions=_read_predictions(path / "predictions.csv", problems),
        history=list(_records(path / "history.csv", problems)),
        split=_count_split(split),
        train_photos=[(row.get("sha256", ""), row.get("path", "")) for row in split if row.get("split") == "train"],
        omitted=[(row.get("path", ""), row.get("reason", "")) for row in _records(path / "omitted.csv", problems)],
        bundle=_read_json(path / "model" / "bundle.json", []),  # the page does without
        checks=_read_json(path / "checks.json", problems, required=False),
        problems=problems,
    )


def section(record: Any, key: str) -> dict[str, Any]:
    """The object at `key`, or an empty one where there is none."""
    value = record.get(key) if isinstance(record, dict) else None
    return value if isinstance(value, dict) else {}


def number(value: Any) -> float | None:
    """`value` as a finite number, or None: cells of a CSV may be empty, and "nan" is no number to draw."""
    try:
        found = float(value)
    except (TypeError, ValueError):
        return None
    return found if math.isfinite(found) and not isinstance(value, bool) else None


def whole(value: Any) -> int:
    """`value` as a count; 0 where it is none."""
    found = number(value)
    return 0 if found is None else int(found)


def pair(value: Any) -> tuple[float, float] | None:
    """`value` as lower and upper end of an interval, or None."""
    if not isinstance(value, list | tuple) or len(value) != 2:
        return None
    low, high = number(value[0]), number(value[1])
    return None if low is None or high is None else (low, high)


def items(record: Any, key: str) -> list[dict[str, Any]]:
    """The objects in the list at `key`; whatever else is there is passed over."""
    value = record.get(key) if isinstance(record, dict) else None
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def texts(value: Any) -> list[str]:
    """`value` as a list of names; an empty one where it is none."""
    return [str(item) for item in value] if isinstance(value, list) else []


def _read_json(path: Path, problems: list[str], *, required: bool = True) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        if required:
            problems.append(f"{path.name} is missing")
        return {}
    except (OSError, ValueError) as error:
        problems.append(f"{path.name} cannot be read: {error}")
        return {}
    if not isinstance(value, dict):
        problems.append(f"{path.name} holds no object but {type(value).__name__}")
        return {}
    return value


def _rows(path: Path, problems: list[str], *, required: bool = False) -> Iterator[list[str]]:
    try:
        with path.open(encoding="utf-8", errors="surrogateescape", newline="") as file:
            yield from (row for row in csv.reader(file) if row)
    except FileNotFoundError:
        if required:
            problems.append(f"{path.name} is missing")
    except (OSError, csv.Error) as error:
        problems.append(f"{path.name} cannot be read: {error}")


def _records(path: Path, problems: list[str]) -> Iterator[dict[str, str]]:
    rows = _rows(path, problems)
    header = next(rows, [])
    for row in rows:
        yield dict(zip(header, row, strict=False))


def _count_split(rows: Iterable[dict[str, str]]) -> dict[str, dict[str, int]]:
    counts: dict[str, dict[str, int]] = {}
    for row in rows:
        labels = counts.setdefault(row.get("split", ""), {})
        labels[row.get("label", "")] = labels.get(row.get("label", ""), 0) + 1
    return counts


def _read_predictions(path: Path, problems: list[str]) -> Predictions | None:
    # By position, not by name: a class may be called "path" or "label".
    rows = _rows(path, problems, required=True)
    header = next(rows, [])
    classes = header[3:]
    if header[:3] != ["path", "label", "predicted"]:
        if header:
            problems.append(f"predictions.csv should begin with path, label, predicted; it begins with {', '.join(header[:3])}")
        return None
    names: list[list[str]] = []
    probs: list[NDArray[np.float32]] = []
    n_bad = 0
    for row in rows:
        try:
            values = np.array(row[3:], dtype=np.float32)
        except ValueError:
            values = np.empty(0, dtype=np.float32)
        if len(row) != len(header) or not np.isfinite(values).all():
            n_bad += 1
            continue
        names.append(row[:3])
        probs.append(values)
    if n_bad:
        problems.append(f"{n_bad} rows of predictions.csv are incomplete and were passed over")
    table = np.stack(probs) if probs else np.empty((0, len(classes)), dtype=np.float32)
    paths, labels, predicted = ([row[i] for row in names] for i in range(3))
    return Predictions(paths, labels, predicted, classes, table)
