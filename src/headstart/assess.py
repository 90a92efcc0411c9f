"""How good a saved model is on labelled photos. Like predicting, it needs no PyTorch."""

import csv
import dataclasses
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from headstart.bundle import predict
from headstart.bundle.format import Bundle
from headstart.data.scan import scan
from headstart.data.table import Photo, Table, some
from headstart.errors import DataError, safe_text
from headstart.evaluate.metrics import evaluate as measure
from headstart.progress import progress
from headstart.runs import Run, read_record


@dataclass(frozen=True)
class Assessment:
    """Metrics as in metrics.json, which photos they are about, and what must be known to read them right."""

    metrics: dict[str, Any]
    about: str
    notices: tuple[str, ...] = ()


def assess(bundle: Bundle, data: str, *, run: Path | None = None) -> Assessment:
    """Metrics of a model on labelled photos: those of split `test` where the data has one, else all.

    Args:
        data: any form of DATA. Its classes are the model's labels, or their ids (ImageNet's synsets).
        run: the model's run folder, where it has one: photos that trained it are counted and told.

    Raises: DataError: a class of the data is not among the model's.
    """
    table = scan(data, least_classes=1)
    whole = not any(photo.split == "test" for photo in table.photos)
    table = in_the_models_words(table if whole else table.of("test"), bundle)
    metrics = measure(answers(bundle, table), table.labels, table.classes)
    about = f"{len(table)} photos of {safe_text(table.name)}" if whole else f"the {len(table)} test photos of {safe_text(table.name)}"
    notices = [f"{len(table.omitted)} files left out"] if table.omitted else []
    return Assessment(metrics, about, (*notices, *seen_in_training(bundle, run, table)))


def seen_in_training(bundle: Bundle, run: Path | None, table: Table) -> tuple[str, ...]:
    """A sentence, where some of these photos trained the model, or nobody can tell. `run`: the model's run folder, where it has one."""
    if run is None:
        if "seed" not in bundle.provenance:  # a network as published, not trained here
            return ()
        return ("this model is apart from its run, so whether it was trained on some of these photos cannot be checked",)
    seen = {photo.sha256 for photo in photos_of(run) if photo.split != "test"}
    n_seen = sum(photo.sha256 in seen for photo in table.photos)
    return (f"{n_seen} of these photos trained this model: it knows them, so the numbers are too good",) if n_seen else ()


def assess_again(folder: Path) -> Assessment:
    """Metrics of a finished run on its own test photos, read from their files once more.

    Raises: DataError: the photos are no longer where they were, or others.
    """
    run = Run(folder)
    table = photos_as_split(run, "test")
    metrics = measure(answers(run.bundle, table), table.labels, table.classes, seed=run.record["seed"])
    return Assessment(metrics, f"{len(table)} photos never used for training")


def photos_as_split(run: Run, split: str) -> Table:
    """A run's own photos of one split, still where they were. Raises: DataError: they are gone, or others."""
    data = run.record["data"]
    photos = [photo for photo in photos_of(run.folder) if photo.split == split]
    table = Table(Path(data["root"]), tuple(photos), tuple(data["classes"]), name=data["name"])
    _check_unchanged(table, split)
    return table


def answers(bundle: Bundle, table: Table) -> np.ndarray:
    """The bundle's probabilities for a table's photos, from their files: float32 [n, k]. Raises: as `predictions`."""
    return probabilities(predictions(bundle, table), len(bundle.labels))


def probabilities(found: Sequence[predict.Prediction], n_classes: int) -> np.ndarray:
    """Of every class, float32 [n, n_classes], from predictions that hold them."""
    return np.array([answer.probabilities for answer in found], np.float32).reshape(len(found), n_classes)


def predictions(bundle: Bundle, table: Table) -> list[predict.Prediction]:
    """The bundle's answers for a table's photos, from their files, with all probabilities.

    Raises: DataError: a photo cannot be read any more.
    """
    files = [table.file(i) for i in range(len(table))]
    with progress("Testing", len(files)) as advance:
        found = list(predict.counted(predict.stream(bundle, files, top=1, all_probabilities=True), advance))
    if unread := [f"{safe_text(answer.path)} ({answer.reason})" for answer in found if answer.probabilities is None]:
        raise DataError(f"{len(unread)} photos cannot be read any more: {some(unread)}", hint="run the same command again")
    return found


def in_the_models_words(table: Table, bundle: Bundle) -> Table:
    """The same photos under the model's labels and in their order. Raises: DataError: a class that the model does not know."""
    names = tuple(label.name for label in bundle.labels)
    called = {label.id: label.name for label in bundle.labels if label.id is not None} | {name: name for name in names}
    if unknown := sorted({photo.label for photo in table.photos} - set(called)):
        raise DataError(
            f"the model does not know {len(unknown)} of the data's classes: {some(map(safe_text, unknown))}",
            hint=f"it knows {some(map(safe_text, names), 10)}",
        )
    photos = [dataclasses.replace(photo, label=called[photo.label]) for photo in table.photos]
    return dataclasses.replace(table.with_photos(photos), classes=names)


def photos_of(folder: Path) -> list[Photo]:
    """The photos of a run, as its split.csv names them. Raises: DataError: it has none."""
    read_record(folder)
    try:
        with (folder / "split.csv").open(encoding="utf-8", errors="surrogateescape", newline="") as file:
            return [Photo(row["path"], row["label"], row["sha256"], row["split"], row["group"]) for row in csv.DictReader(file)]
    except (OSError, KeyError, csv.Error) as error:
        raise DataError(f"{folder / 'split.csv'} cannot be read: {error}", hint="the run folder is incomplete; train again") from error


def _check_unchanged(table: Table, split: str) -> None:
    """Raises: DataError: files of the table are gone, or hold other bytes than when they were split."""
    wrong = []
    for i, photo in enumerate(table.photos):
        try:
            with table.file(i).open("rb") as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            wrong.append(f"{safe_text(photo.path)} ({str(error.strerror).lower()})")
            continue
        if found != photo.sha256:
            wrong.append(f"{safe_text(photo.path)} (changed)")
    if wrong:
        raise DataError(
            f"{len(wrong)} of the run's {len(table)} {split} photos are not as they were in {safe_text(str(table.root))}: {some(wrong)}",
            hint="put them back, or name labelled photos: headstart evaluate RUN DATA",
        )
