"""Run folders to report on, made by hand, and a browser where there is one."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from report_tools import Browser, MakeRun, write_csv

from browser import chromium
from headstart.evaluate import metrics


@pytest.fixture
def make_run(tmp_path: Path) -> MakeRun:
    """A function that writes a plausible run folder: `make_run(classes, n_test, photos=True, epochs=3, run={...})`."""

    def make(
        classes: Sequence[str] = ("daisy", "roses", "tulips"),
        n_test: int = 60,
        *,
        photos: bool = False,
        epochs: int = 0,
        run: dict[str, Any] | None = None,
        skill: float = 2.0,
    ) -> Path:
        folder, root = tmp_path / "runs" / "a", tmp_path / "photos"
        folder.mkdir(parents=True)
        rng = np.random.default_rng(3)
        labels = rng.integers(0, len(classes), n_test)
        scores = np.exp(rng.normal(size=(n_test, len(classes))) + skill * (np.arange(len(classes)) == labels[:, None]))
        probs = scores / scores.sum(axis=1, keepdims=True)
        paths = [f"{i % 7}/photo {i}.jpg" for i in range(n_test)]
        if photos:
            for i, path in enumerate(paths):
                (root / path).parent.mkdir(parents=True, exist_ok=True)
                Image.new("RGB", (240, 180), (i * 37 % 256, i * 91 % 256, 120)).save(root / path)
        rows = [
            [path, classes[label], classes[row.argmax()], *(f"{value:.6f}" for value in row)]
            for path, label, row in zip(paths, labels, probs, strict=True)
        ]
        write_csv(folder / "predictions.csv", ["path", "label", "predicted", *classes], rows)
        split = [[path, classes[label], "test", "", ""] for path, label in zip(paths, labels, strict=True)]
        split += [[f"t{i}.jpg", classes[i % len(classes)], "train", "", ""] for i in range(3 * n_test)]
        write_csv(folder / "split.csv", ["path", "label", "split", "group", "sha256"], split)
        header = ["phase", "epoch", "rate", "train_loss", "train_accuracy", "val_loss", "val_accuracy", "seconds", "images_per_s"]
        history = [["head", i, 0.01, 1 / (i + 1), 1 - 0.5 / (i + 1), 1.1 / (i + 1), 1 - 0.6 / (i + 1), 2.5, 40] for i in range(epochs)]
        write_csv(folder / "history.csv", header, history)
        write_csv(folder / "omitted.csv", ["path", "reason"], [["broken.jpg", "truncated"]])
        record = {"headstart": "0.1.0", "status": "done", "name": "flowers-a", "seed": 0, "config": {"seed": 0, "px": 128}}
        record |= {"data": {"name": "flowers", "root": str(root), "n": 4 * n_test}, "head": {"kind": "linear", "strength": 0.1}}
        (folder / "run.json").write_text(json.dumps(record | (run if run is not None else {})), encoding="utf-8")
        scores_by_set = {"test": metrics.evaluate(probs, labels, list(classes)), "val": {}, "seconds": {}}
        (folder / "metrics.json").write_text(json.dumps(scores_by_set), encoding="utf-8")
        return folder

    return make


@pytest.fixture
def browser(tmp_path: Path) -> Browser:
    (folder := tmp_path / "browser").mkdir()
    return Browser(chromium(), folder)
