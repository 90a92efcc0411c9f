"""The whole story: a folder of photos becomes a tested classifier. One call a stage; each stage has its own room."""

import hashlib
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from headstart import runs
from headstart.assess import answers
from headstart.backbone import cut, networks, weights
from headstart.bundle import export, format, predict
from headstart.config import Config
from headstart.data.scan import scan
from headstart.data.split import read_split, split_table, write_split
from headstart.data.table import Table, write_omitted
from headstart.errors import DataError
from headstart.evaluate.calibrate import temperature
from headstart.evaluate.metrics import evaluate as measure
from headstart.facts import run_facts, write_history, write_predictions
from headstart.features import engine
from headstart.features.extract import Features, extract
from headstart.features.store import Store
from headstart.files import cache_folder, write_json
from headstart.report.build import write_report
from headstart.runs import Run
from headstart.seeds import seed_everything
from headstart.train.learn import Learned, check_cuts, learn


def fit(config: Config, folder: Path, *, command: str | None = None) -> Run:
    """Train on the photos that `config` names and write everything about it to `folder`.

    Raises: HeadstartError: whatever keeps the run from being done, in the user's words. What was computed so far stays
        in the store, so the same call continues.
    """
    runs.check(folder, config)
    clock = Clock()
    seeds = seed_everything(config.seed)
    choice = engine.choose(config.engine, config.device, config.precision)
    with clock("weights"):
        file = weights.locate(config.backbone, _path(config.weights), download=True)
    with clock("scan"):
        table = _split(scan(config.data, exclude=_path(config.exclude)), config)
        check_enough(table)
    with clock("weights"):
        network = networks.build(file, stop=config.stop, px=config.px)
        check_cuts(network, config.phases)

    # From here on there is something to continue; a mistake before leaves nothing behind.
    with runs.claimed(folder, config, _digest(table), command=command):
        write_split(table, folder / "split.csv")
        write_omitted(table, folder / "omitted.csv")
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
        scale = _temperature(learned, table)
        with clock("bundle"):
            facts = run_facts(config, table, network, choice, passes, learned, scale, seeds)
            bundle = _bundle(folder / "model", network, table, learned, scale, facts)
        test = table.of("test")
        with clock("test"):
            probs = answers(bundle, test)
        write_predictions(folder / "predictions.csv", test, probs)
        write_history(folder / "history.csv", learned.history)
        metrics = {
            "test": measure(probs, test.labels, table.classes, seed=config.seed),
            "val": measure(*_val_answers(learned, table, scale), table.classes, seed=config.seed),
            "seconds": clock.rounded(),
        }
        write_json(folder / "metrics.json", metrics)
        runs.note(folder, {**facts, "seconds": clock.rounded(), "status": runs.TESTED})
        write_report(folder)
        runs.finish(folder)
    return Run(folder)


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


def _path(text: str | None) -> Path | None:
    return None if text is None else Path(text)


def check_enough(table: Table) -> None:
    """Whether a split table has what training and testing need. Raises: DataError: no test photo, or one class to train on."""
    counts = Counter(photo.split for photo in table.photos)
    trained = {photo.label for photo in table.photos if photo.split == "train"}
    photos = ", ".join(f"{counts[split]} {split}" for split in ("train", "val", "test"))
    if counts["test"] == 0:
        raise DataError(f"no photos are left to test on: {photos}", hint="3 photos of each class are the least; 30 and more are better")
    if len(trained) < 2:
        raise DataError(f"expected at least 2 classes to train on, found {len(trained)}: {photos}", hint="add photos of the other classes")


def _split(table: Table, config: Config) -> Table:
    return split_table(table, seed=config.seed) if config.split is None else read_split(table, Path(config.split))


def _digest(table: Table) -> str:
    """What identifies the photos of a run: content, label and split of each, in any order."""
    lines = sorted(f"{photo.sha256} {photo.label} {photo.split}" for photo in table.photos)
    return hashlib.sha256("\n".join(lines).encode("utf-8", "surrogateescape")).hexdigest()


def _logits_and_labels(learned: Learned, wanted: np.ndarray, table: Table) -> tuple[np.ndarray, np.ndarray]:
    keep = np.isin(learned.held_out, wanted)
    return learned.logits[keep], table.labels[learned.held_out[keep]]


def _temperature(learned: Learned, table: Table) -> float:
    """What makes the probabilities honest, from photos the weights were not fitted to; 1, which changes nothing, without any."""
    logits, labels = _logits_and_labels(learned, learned.calibrate_on, table)
    return temperature(logits, labels) if len(labels) else 1.0


def _val_answers(learned: Learned, table: Table, scale: float) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities and labels of the val photos: out-of-fold for a solved head, the tail's own for a trained one."""
    val = np.flatnonzero([photo.split == "val" for photo in table.photos])
    logits, labels = _logits_and_labels(learned, val, table)
    return predict.softmax(logits / scale), labels


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
