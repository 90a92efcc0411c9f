"""The whole story: a folder of photos becomes a tested classifier. One call a stage; each stage has its own room."""

import contextlib
import functools
import hashlib
import logging
import os
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from accelerate import PartialState

from headstart import runs
from headstart.assess import predictions, probabilities
from headstart.backbone import networks, weights
from headstart.bundle import export, format, predict
from headstart.config import Config, seconds_of
from headstart.data.corrections import about_test
from headstart.data.scan import scan
from headstart.data.split import read_split, split_table, write_split
from headstart.data.table import Table, write_omitted
from headstart.errors import DataError
from headstart.evaluate.calibrate import temperature
from headstart.evaluate.metrics import evaluate as measure
from headstart.explore.checks import checks
from headstart.facts import run_facts, write_history, write_predictions
from headstart.features import engine
from headstart.features.extract import Extractor
from headstart.features.store import Store
from headstart.files import cache_folder, write_json
from headstart.progress import quiet, waiting
from headstart.report.build import write_report
from headstart.report.card import write_card
from headstart.runs import Run
from headstart.seeds import seed_everything
from headstart.train import certainty
from headstart.train.learn import Asked, Learned, Memory, Task, learn
from headstart.train.logs import open_log
from headstart.train.plan import Plan
from headstart.train.tune import check_cuts

PATIENCE = timedelta(days=7)

log = logging.getLogger("headstart")

T = TypeVar("T")


def fit(config: Config, folder: Path, *, command: str | None = None, log: str = "none") -> Run:
    """Train on the photos that `config` names and write everything about it to `folder`.

    Started several times at once by `accelerate launch`, the first process claims the folder, fills the store and writes; all train.

    Args: log: where else epochs are shown while it trains: `tensorboard`, `mlflow` or `none`.
    Raises: HeadstartError: whatever keeps the run from being done, in the user's words. What was computed so far stays
        in the store and in the folder, so the same call continues.
    """
    runs.check(folder, config)
    clock = Clock()
    seeds = seed_everything(config.seed)
    choice = engine.choose(config.engine, config.device, config.precision)
    team = Team(choice.device)
    with team.in_turn(), clock("weights"):
        file = weights.locate(config.backbone, _path(config.weights), download=True)
    with clock("weights"):  # before the photos, which take longer: what the network cannot do is told at once
        network = networks.build(file, stop=config.stop, px=config.px)
        check_cuts(network, config.phases)
    with team.in_turn(), clock("scan"):
        found = scan(config.data, exclude=_path(config.exclude), corrections=_path(config.corrections))
        table = _split(found, config)
        check_enough(table)

    # From here on there is something to continue; a mistake before leaves nothing behind.
    with team.alone(runs.claimed(folder, config, _digest(table), command=command)), team.alone(open_log(log, folder, config)) as on_epoch:
        if team.is_first:
            write_split(table, folder / "split.csv")
            write_omitted(table, folder / "omitted.csv")
        seen = table.subset(_may_train(found, table, config))
        store = Store(cache_folder() / "store")
        task = Task(
            network,
            Extractor(seen, store, choice, in_turn=team.in_turn),
            _asked(config, choice),
            network_at=functools.cache(lambda px: networks.build(file, stop=config.stop, px=px)),
            memory=_memory(folder),
            on_epoch=on_epoch,
        )
        with clock("train"):
            learned = learn(task)
        clock.move("trunk", sum(one.seconds for one in task.extract.passes), out_of="train")
        if team.is_first:
            _write(config, folder, table, task, learned, seeds, clock)
    team.wait()
    return Run(folder)


def _write(config: Config, folder: Path, table: Table, task: Task, learned: Learned, seeds: dict[str, int], clock: "Clock") -> None:
    """Everything about a trained classifier: the model, what it answers for the test photos, the record, the report."""
    scale = _temperature(learned, task.table)
    with clock("certainty"):
        sure = _certainty(learned, task.table, scale, config.seed)
    with clock("bundle"):
        facts = run_facts(config, table, task.network, task.extract, learned, scale, seeds)
        bundle = _bundle(folder / "model", table, learned, scale, sure, facts)
    test = table.of("test")
    with clock("test"):
        found = predictions(bundle, test)
    probs = probabilities(found, len(bundle.labels))
    with clock("checks"):
        lost = _write_checks(folder / "checks.json", learned, table, task.table, config.seed)
    write_predictions(folder / "predictions.csv", test, probs)
    write_history(folder / "history.csv", learned.history)
    metrics = {
        "test": measure(probs, test.labels, table.classes, seed=config.seed),
        "val": measure(*_val_answers(learned, task.table, scale), table.classes, seed=config.seed),
        **sure.measured(probs, [answer.known for answer in found], test.labels, seed=config.seed),
        "seconds": clock.rounded(),
    }
    write_json(folder / "metrics.json", metrics)
    runs.note(folder, {**facts, "notices": [*facts["notices"], *lost], "seconds": clock.rounded(), "status": runs.TESTED})
    write_report(folder)
    write_card(folder)
    runs.finish(folder)


class Team:
    """This process, and those that `accelerate launch` started beside it."""

    def __init__(self, device: str) -> None:
        # The others wait while the first one computes: the usual half hour would not do.
        options = {"timeout": PATIENCE} if int(os.environ.get("WORLD_SIZE", "1")) > 1 else {}
        self._state = PartialState(cpu=device == "cpu", **options)
        self.is_first: bool = self._state.is_main_process

    @contextmanager
    def in_turn(self) -> Iterator[None]:
        """The first process goes through the block, then the others, who find what it left; these show no progress."""
        with contextlib.nullcontext() if self.is_first else quiet(), self._state.main_process_first():
            yield

    @contextmanager
    def alone(self, place: AbstractContextManager[T]) -> Iterator[T | None]:
        """`place` for the first process, which lasts until all have left the block; nothing for the others."""
        if not self.is_first:
            yield None
            return
        with place as value:
            yield value

    def wait(self) -> None:
        """Until all are here."""
        self._state.wait_for_everyone()


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

    def move(self, stage: str, seconds: float, *, out_of: str) -> None:
        """Count seconds of one stage, inside which they passed, for another."""
        self.seconds[stage] = self.seconds.get(stage, 0.0) + seconds
        self.seconds[out_of] -= seconds

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
        raise DataError(
            f"no photos are left to test on: {photos}",
            hint="3 photos of each class are the least, no two of one group or burst; 30 and more are better",
        )
    if len(trained) < 2:
        raise DataError(f"expected at least 2 classes to train on, found {len(trained)}: {photos}", hint="add photos of the other classes")


def _split(table: Table, config: Config) -> Table:
    split = split_table(table, seed=config.seed) if config.split is None else read_split(table, Path(config.split))
    return split.with_photos(split.photos, *about_test(table, split, exclude=_path(config.exclude), split=_path(config.split)))


def _may_train(found: Table, table: Table, config: Config) -> list[int]:
    """The photos that the trunk looks at: all but test photos that someone else chose as such, which can never be of use to training.

    Where the seed chose them, another seed's run will need their rows.
    """
    given = {photo.path for photo in found.photos if photo.split or config.split is not None}
    return [i for i, photo in enumerate(table.photos) if photo.split != "test" or photo.path not in given]


def _asked(config: Config, choice: engine.Choice) -> Asked:
    return Asked(
        px=config.px,
        head=config.head,
        phases=config.phases,
        tune=config.tune,
        budget_s=seconds_of(config.budget),
        average=config.average,
        test_views=config.test_views,
        seed=config.seed,
        device=choice.device,
        precision=choice.precision,
    )


def _memory(folder: Path) -> Memory:
    """What an interrupted run left in its folder, and where this one leaves more."""

    def recall() -> Plan | None:
        plan = runs.read_record(folder).get("plan")
        return None if plan is None else Plan.from_json(plan)

    return Memory(folder / runs.CHECKPOINTS, recall, lambda plan: runs.note(folder, {"plan": plan.to_json()}))


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


def _certainty(learned: Learned, table: Table, scale: float, seed: int) -> certainty.Certainty:
    """The thresholds of "none of these" and of the sets of labels, fixed on the photos that fix the temperature."""
    logits, labels = _logits_and_labels(learned, learned.calibrate_on, table)
    fit = np.flatnonzero([photo.split != "test" for photo in table.photos])
    return certainty.fit(
        certainty.Held(logits, predict.softmax(logits / scale), labels),
        learned.seen.features[fit],
        table.labels[fit],
        table.classes,
        groups=table.groups[fit],
        seed=seed,
        strength=learned.facts.get("strength"),
        balanced=learned.facts.get("class_weights") == "balanced",
    )


def _write_checks(path: Path, learned: Learned, table: Table, seen: Table, seed: int) -> list[str]:
    """Write checks.json, the abridged exploration; `seen`: the photos of `table` that the network looked at while it was trained.

    Returns: what could not be checked, in a sentence. The classifier is worth keeping without it, so nothing here may lose it.
    """
    path.unlink(missing_ok=True)  # of an earlier, unfinished try
    try:
        with waiting("Checking the photos"):
            found = checks(seen, learned.seen.features, learned.seen.logits, learned.seen.photos, seed=seed, whole=table)
    except Exception as error:
        log.warning("the photos could not be checked", exc_info=True)
        return [f"duplicates, labels and shortcuts were not checked: {type(error).__name__}: {str(error)[:200]}"]
    write_json(path, found)
    return []


def _val_answers(learned: Learned, table: Table, scale: float) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities and labels of the val photos: out-of-fold for a solved head, the tail's own for a trained one."""
    val = np.flatnonzero([photo.split == "val" for photo in table.photos])
    logits, labels = _logits_and_labels(learned, val, table)
    return predict.softmax(logits / scale), labels


def _bundle(folder: Path, table: Table, learned: Learned, scale: float, sure: certainty.Certainty, facts: dict[str, Any]) -> format.Bundle:
    provenance = {key: facts[key] for key in ("headstart", "name", "finished", "seed", "backbone", "versions")}
    return export.build_bundle(
        folder,
        module=learned.module,
        labels=[format.Label(name) for name in table.classes],
        preprocessing=learned.network.preprocessing,
        temperature=scale,
        provenance=provenance,
        licence=learned.network.licence,
        tail_state=learned.tail_state,
        **sure.for_bundle(),
    )
