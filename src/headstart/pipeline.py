"""The whole story: a folder of photos becomes a tested classifier. One call a stage; each stage has its own room."""

import csv
import dataclasses
import datetime
import hashlib
import importlib.metadata
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from headstart import runs
from headstart.backbone import cut, networks, weights
from headstart.bundle import export, format, predict
from headstart.config import Config
from headstart.data.scan import scan
from headstart.data.split import read_split, split_table, write_split
from headstart.data.table import Table, some, write_omitted
from headstart.errors import DataError, safe_text
from headstart.evaluate.calibrate import temperature
from headstart.evaluate.metrics import evaluate as measure
from headstart.features import engine
from headstart.features.extract import Features, extract
from headstart.features.store import Store
from headstart.files import atomic_file, cache_folder, write_json
from headstart.progress import progress
from headstart.report.build import write_report
from headstart.runs import Run
from headstart.seeds import seed_everything
from headstart.train.learn import Learned, learn
from headstart.train.loop import Epoch


def fit(config: Config, folder: Path, *, command: str | None = None) -> Run:
    """Train on the photos that `config` names and write everything about it to `folder`.

    Raises: HeadstartError: whatever keeps the run from being done, in the user's words. What was computed so far stays
        in the store, so the same call continues.
    """
    runs.check(folder, config)
    clock = Clock()
    seeds = seed_everything(config.seed)
    with clock("weights"):
        file = weights.locate(config.backbone, _path(config.weights), download=True)
    with clock("scan"):
        table = _split(scan(config.data, exclude=_path(config.exclude)), config)
    with clock("weights"):
        network = networks.build(file, stop=config.stop, px=config.px)
    # From here on there is something to continue; a mistake before leaves nothing behind.
    runs.claim(folder, config, _digest(table), command=command)
    write_split(table, folder / "split.csv")
    write_omitted(table, folder / "omitted.csv")

    choice = engine.choose(config.engine, config.device, config.precision)
    store = Store(cache_folder() / "store")
    passes: list[Features] = []

    def rows_at(trunk: cut.Trunk, view: int, policy: str) -> Features:
        with clock("trunk"):
            passes.append(extract(trunk, table, store, view=view, policy=policy, choice=choice))
        return passes[-1]

    with clock("train"):
        learned = learn(
            network, table, rows_at, config.head, config.phases, seed=config.seed, device=choice.device, precision=choice.precision
        )
    clock.seconds["train"] -= clock.seconds["trunk"]  # the trunk passes ran inside it
    scale = temperature(*_logits_and_labels(learned, learned.calibrate_on, table))
    with clock("bundle"):
        facts = _facts(config, table, network, passes, learned, scale, seeds)
        bundle = _bundle(folder / "model", network, table, learned, scale, facts)
    with clock("test"):
        test = table.of("test")
        answers = _answers(bundle, test)
    _write_predictions(folder / "predictions.csv", test, answers)
    _write_history(folder / "history.csv", learned.history)
    write_json(
        folder / "metrics.json",
        {
            "test": measure(answers, test.labels, table.classes, seed=config.seed),
            "val": measure(*_val_answers(learned, table, scale), table.classes, seed=config.seed),
            "seconds": clock.rounded(),
        },
    )
    runs.finish(folder, {**facts, "seconds": clock.rounded()})
    write_report(folder)
    return Run(folder)


def evaluate(bundle: format.Bundle, data: str) -> dict[str, Any]:
    """Metrics of a trained model on labelled photos: those of split `test` where the data has one, else all.

    Raises: DataError: a class of the data is not among the model's.
    """
    table = scan(data, least_classes=1)
    if any(photo.split == "test" for photo in table.photos):
        table = table.of("test")
    names = tuple(label.name for label in bundle.labels)
    if unknown := sorted({photo.label for photo in table.photos} - set(names)):
        raise DataError(
            f"the model does not know {len(unknown)} of the data's classes: {some(map(safe_text, unknown))}",
            hint=f"it knows {some(map(safe_text, names), 10)}",
        )
    table = dataclasses.replace(table, classes=names)
    return measure(_answers(bundle, table), table.labels, names)


def evaluate_again(folder: Path) -> dict[str, Any]:
    """Metrics of a finished run on its own test photos, read from their files once more.

    Raises: DataError: the photos are no longer where they were, or others.
    """
    run = Run(folder)
    config = Config.from_json(run.record["config"])
    table = read_split(scan(config.data, exclude=_path(config.exclude)), folder / "split.csv").of("test")
    return measure(_answers(run.bundle, table), table.labels, table.classes, seed=config.seed)


class Clock:
    """Seconds of each stage."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        started = time.monotonic()
        try:
            yield
        finally:
            self.seconds[stage] = self.seconds.get(stage, 0.0) + time.monotonic() - started

    def rounded(self) -> dict[str, float]:
        return {stage: round(seconds, 3) for stage, seconds in self.seconds.items()}


def _answers(bundle: format.Bundle, table: Table) -> np.ndarray:
    """The bundle's probabilities for a table's photos, from their files: float32 [n, k]."""
    files = [table.file(i) for i in range(len(table))]
    with progress("Testing", len(files)) as advance:
        answers = list(predict.counted(predict.stream(bundle, files, top=1, all_probabilities=True), advance))
    if unread := [f"{safe_text(answer.path)} ({answer.reason})" for answer in answers if answer.probabilities is None]:
        raise DataError(f"{len(unread)} photos cannot be read any more: {some(unread)}", hint="run the same command again")
    return np.array([answer.probabilities for answer in answers], np.float32).reshape(len(files), len(bundle.labels))


def _path(text: str | None) -> Path | None:
    return None if text is None else Path(text)


def _split(table: Table, config: Config) -> Table:
    return split_table(table, seed=config.seed) if config.split is None else read_split(table, Path(config.split))


def _digest(table: Table) -> str:
    """What identifies the photos of a run: content, label and split of each, in any order."""
    lines = sorted(f"{photo.sha256} {photo.label} {photo.split}" for photo in table.photos)
    return hashlib.sha256("\n".join(lines).encode("utf-8", "surrogateescape")).hexdigest()


def _logits_and_labels(learned: Learned, wanted: np.ndarray, table: Table) -> tuple[np.ndarray, np.ndarray]:
    keep = np.isin(learned.held_out, wanted)
    return learned.logits[keep], table.labels[learned.held_out[keep]]


def _val_answers(learned: Learned, table: Table, scale: float) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities and labels of the val photos: out-of-fold for a solved head, the tail's own for a trained one."""
    val = np.flatnonzero([photo.split == "val" for photo in table.photos])
    logits, labels = _logits_and_labels(learned, val, table)
    return predict.softmax(logits / scale), labels


def _facts(
    config: Config, table: Table, network: networks.Network, passes: list[Features], learned: Learned, scale: float, seeds: dict[str, int]
) -> dict[str, Any]:
    """What run.json keeps of a run, beyond its configuration."""
    count = {split: sum(photo.split == split for photo in table.photos) for split in ("train", "val", "test")}
    libraries = ("torch", "timm", "openvino", "onnxruntime", "pillow", "numpy", "scikit-learn")
    return {
        "headstart": importlib.metadata.version("headstart"),
        "name": table.name,
        "finished": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "seed": config.seed,
        "seeds": seeds,
        "data": {
            "name": table.name,
            "root": str(table.root.absolute()),
            "n": len(table),
            "classes": list(table.classes),
            **{f"n_{split}": n for split, n in count.items()},
            "omitted": len(table.omitted),
        },
        "backbone": {
            "name": network.name,
            "weights_sha256": network.weights_sha256,
            "origin": network.origin,
            "licence": network.licence,
            "stop": network.stop,
            "px": network.preprocessing.input_px,
            "n_params": sum(parameter.numel() for parameter in network.module.parameters()),
        },
        "trunk": {
            "rows_computed": sum(one.n_computed for one in passes),
            "rows_reused": sum(one.n_reused for one in passes),
            "seconds": round(sum(one.seconds for one in passes), 3),
            "engine": passes[0].engine,
            "precision": passes[0].precision,
        },
        "head": {**learned.facts, "temperature": scale},
        "versions": {"python": platform.python_version(), **{name: _version(name) for name in libraries}},
        "notices": [*table.notices, *learned.notices],
    }


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _bundle(folder: Path, network: networks.Network, table: Table, learned: Learned, scale: float, facts: dict[str, Any]) -> format.Bundle:
    provenance = {key: facts[key] for key in ("headstart", "name", "finished", "seed", "backbone", "versions")}
    return export.build_bundle(
        folder,
        module=learned.module,
        labels=[format.Label(name) for name in table.classes],
        preprocessing=network.preprocessing,
        temperature=scale,
        provenance=provenance,
        licence=network.licence,
        tail_state=learned.tail_state,
    )


def _write_predictions(path: Path, test: Table, answers: np.ndarray) -> None:
    """predictions.csv: every test photo with its label, the answer, and the probability of each class."""
    with atomic_file(path) as file:
        writer = csv.writer(file)
        writer.writerow(["path", "label", "predicted", *test.classes])
        for photo, probs in zip(test.photos, answers, strict=True):
            writer.writerow([photo.path, photo.label, test.classes[int(probs.argmax())], *(f"{p:.6g}" for p in probs)])


def _write_history(path: Path, history: tuple[Epoch, ...]) -> None:
    with atomic_file(path) as file:
        writer = csv.writer(file)
        writer.writerow([field.name for field in dataclasses.fields(Epoch)])
        writer.writerows(dataclasses.astuple(epoch) for epoch in history)
