"""Run folders as `headstart compare` reads them, written by hand."""

import csv
import json
from collections.abc import Mapping
from pathlib import Path


def make_run(
    folder: Path,
    labels: Mapping[str, str],
    right: Mapping[str, bool],
    *,
    trained: tuple[str, ...] = (),
    classes: tuple[str, ...] = ("cat", "dog"),
    at: str = "photos",
    status: str = "finished",
) -> Path:
    """A run that was tested on the photos of `labels`: content to label; `right` says which it recognised.

    trained: contents of photos that it learned from. at: folder that the photos were in.
    """
    folder.mkdir(parents=True)
    record = {"status": status, "backbone": {"name": "embedded"}, "data": {"root": "/nowhere"}}
    (folder / "run.json").write_text(json.dumps(record), encoding="utf-8")
    with (folder / "split.csv").open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(["path", "label", "split", "group", "sha256"])
        rows.writerows((f"{at}/{sha256}.jpg", labels.get(sha256, "cat"), "train", "", sha256) for sha256 in trained)
        rows.writerows((f"{at}/{sha256}.jpg", label, "test", "", sha256) for sha256, label in labels.items())
    with (folder / "predictions.csv").open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(["path", "label", "predicted", *classes])
        for sha256, label in labels.items():
            answer = label if right[sha256] else classes[(classes.index(label) + 1) % len(classes)]
            rest = 0.3 / (len(classes) - 1)
            rows.writerow([f"{at}/{sha256}.jpg", label, answer, *(0.7 if name == answer else rest for name in classes)])
    return folder
