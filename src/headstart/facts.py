"""What a run leaves on record: the facts of run.json, every test photo's answer, every epoch."""

import csv
import dataclasses
import datetime
import importlib.metadata
import platform
from pathlib import Path
from typing import Any

import numpy as np

from headstart.backbone import IMAGENET_BRINGS
from headstart.backbone.catalog import find
from headstart.backbone.networks import Network
from headstart.backbone.weights import local_file
from headstart.config import Config
from headstart.data.table import Table
from headstart.features.extract import Extractor
from headstart.files import atomic_file
from headstart.train.learn import Learned
from headstart.train.loop import Epoch

BETTER_BACKBONE = "resnet50"  # what the first run's summary points to


def run_facts(
    config: Config,
    table: Table,
    network: Network,
    rows: Extractor,
    learned: Learned,
    scale: float,
    seeds: dict[str, int],
) -> dict[str, Any]:
    """What run.json keeps of a run, beyond its configuration."""
    choice, passes = rows.choice, rows.passes
    count = {split: sum(photo.split == split for photo in table.photos) for split in ("train", "val", "test")}
    libraries = ("torch", "timm", "openvino", "onnxruntime", "pillow", "numpy", "scikit-learn")
    resolved = {
        **config.to_json(),
        "backbone": network.name,
        "px": network.preprocessing.input_px,
        "device": choice.device,
        "precision": choice.precision,
        "engine": choice.provider,
        # Without what was not given: TOML, in which phases are given again, has no null.
        "phases": [{key: value for key, value in dataclasses.asdict(phase).items() if value is not None} for phase in learned.phases],
    }
    return {
        "config": resolved,
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
            "record_source": network.record.record_source,
            "licence": network.licence,
            "hub_id": network.hub_id,
            "stop": network.stop,
            "px": learned.network.preprocessing.input_px,
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
        "tuning": learned.tuning,
        "versions": {"python": platform.python_version(), **{name: _version(name) for name in libraries}},
        "notices": [*table.notices, *learned.notices, *_about_weights(network), *dict.fromkeys(one.notice for one in passes if one.notice)],
    }


def _about_weights(network: Network) -> list[str]:
    """What whoever reads the numbers should know of the weights behind them."""
    notices = []
    if network.origin == "embedded":
        better = find(BETTER_BACKBONE)
        at_hand = local_file((BETTER_BACKBONE, better.name), better.hub_id) is not None
        where = "its weights are on this machine" if at_hand else "its weights, about 100 MB, would be downloaded"
        notices.append(f"this run used the small embedded backbone. {IMAGENET_BRINGS} For example --backbone {BETTER_BACKBONE} ({where})")
    if network.record.record_source == "timm":
        notices.append(f"the weights file says nothing about its preprocessing, so timm's record of {network.record.name} was used")
    return notices


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def write_predictions(path: Path, test: Table, answers: np.ndarray) -> None:
    """predictions.csv: every test photo with its label, the answer, and the probability of each class."""
    with atomic_file(path) as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["path", "label", "predicted", *test.classes])
        for photo, probs in zip(test.photos, answers, strict=True):
            writer.writerow([photo.path, photo.label, test.classes[int(probs.argmax())], *(f"{p:.6g}" for p in probs)])


def write_history(path: Path, history: tuple[Epoch, ...]) -> None:
    with atomic_file(path) as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([field.name for field in dataclasses.fields(Epoch)])
        writer.writerows(dataclasses.astuple(epoch) for epoch in history)
