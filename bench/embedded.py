"""What the embedded backbone is worth: a linear head on frozen features of photos that had no part in its training.

    python bench/embedded.py [--out FOLDER] [NETWORK ...]

`headstart train --recipe quick`: the default head on frozen features, on flowers and digits in five folds (every photo is tested once, by
a head that never saw it), on CIFAR-10 with 1,000 training photos a class and all 10,000 test photos. Beside it, as the scale: two networks
with ImageNet weights, and a ResNet-18 with random weights. Photos and weights: shared/. Nothing may be chosen by what this prints.
"""

import argparse
import csv
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import numpy as np
import timm
import torch
from PIL import Image
from safetensors.torch import save_file
from sklearn.datasets import load_digits

import headstart
from headstart.evaluate.intervals import wilson
from machine import machine, shared

FOLDS = 5
CIFAR_TRAIN = 1_000  # of each class
NETWORKS = ("embedded", "mobilenetv2_100", "vit_tiny_patch16_224", "resnet18, random weights")
FILES = {
    "mobilenetv2_100": "mobilenetv2_100.imagenet1001.safetensors",
    "vit_tiny_patch16_224": "vit_tiny_patch16_224.imagenet1000.safetensors",
}

Row = tuple[str, str]
"""Path of a photo, its label."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", nargs="*", default=list(NETWORKS))
    parser.add_argument("--out", type=Path, help="photos and runs are kept here")
    parser.add_argument("--embedded", type=Path, help="another file in the place of the embedded one")
    arguments = parser.parse_args()
    out = Path(tempfile.mkdtemp()) if arguments.out is None else arguments.out
    out.mkdir(parents=True, exist_ok=True)
    print(machine())
    sets = {
        "flowers": list(five_folds(out / "lists" / "flowers", flowers())),
        "CIFAR-10": [cifar(out / "cifar10", out / "lists" / "cifar10.csv")],
        "digits": list(five_folds(out / "lists" / "digits", digits(out / "digits"))),
    }
    print(f"{'network':<26}" + "".join(f"{name:<40}" for name in sets))
    for name in arguments.networks:
        backbone, weights, px = network(name, out, arguments.embedded)
        cells = []
        for data, lists in sets.items():
            started, right, n = time.monotonic(), 0, 0
            for list_file in lists:
                run = headstart.fit(
                    list_file,
                    backbone=backbone,
                    weights=weights,
                    recipe="quick",
                    set={} if px is None else {"px": px},
                    out=Path(tempfile.mkdtemp(prefix=f"{data}-{list_file.stem}-", dir=out)) / "run",
                )
                n += run.metrics["test"]["n"]
                right += round(run.accuracy * run.metrics["test"]["n"])
            low, high = wilson(right, n)
            cells.append(f"{right / n:.3f} ({low:.3f} to {high:.3f}), {time.monotonic() - started:.0f} s")
        print(f"{name:<26}" + "".join(f"{cell:<40}" for cell in cells), flush=True)


def network(name: str, out: Path, embedded: Path | None) -> tuple[str | None, Path | None, int | None]:
    """Backbone, weights file and input side of a row of the table."""
    if name in FILES:
        return name, shared() / "weights" / FILES[name], None
    if name == "embedded":
        return None, embedded, None
    torch.manual_seed(0)
    file = out / "resnet18-random.safetensors"
    save_file(timm.create_model("resnet18", pretrained=False).state_dict(), file)
    return "resnet18", file, 128


def flowers() -> list[Row]:
    return [(str(file), file.parent.name) for file in sorted((shared() / "data" / "flowers").glob("*/*.jpg"))]


def digits(folder: Path) -> list[Row]:
    """scikit-learn's 1,797 digits of 8 x 8 px as PNG files."""
    folder.mkdir(parents=True, exist_ok=True)
    given, rows = load_digits(), []
    for i, (image, label) in enumerate(zip(given.images, given.target, strict=True)):
        file = folder / f"{i:04}.png"
        Image.fromarray((image * (255 / 16)).round().astype(np.uint8)).save(file)
        rows.append((str(file), str(label)))
    return rows


def five_folds(folder: Path, rows: list[Row]) -> Iterator[Path]:
    """Five lists of all rows; in each, another fifth of every class is the test."""
    folder.mkdir(parents=True, exist_ok=True)
    fold = np.empty(len(rows), int)
    for label in {label for _, label in rows}:
        own = np.flatnonzero([row[1] == label for row in rows])
        fold[np.random.default_rng(0).permutation(own)] = np.arange(len(own)) % FOLDS
    for k in range(FOLDS):
        yield write(folder / f"fold{k}.csv", rows, ["test" if of == k else "train" for of in fold])


def cifar(folder: Path, target: Path) -> Path:
    """The first 1,000 training photos of each class in the order of a seeded draw, and all test photos."""
    rows, splits = [], []
    for split, most in (("train", CIFAR_TRAIN), ("test", None)):
        for label, files in cifar_files(folder, split):
            for i in np.random.default_rng(0).permutation(len(files))[:most]:
                rows.append((str(files[i]), label))
                splits.append(split)
    return write(target, rows, splits)


def cifar_train(folder: Path) -> list[Row]:
    """All 50,000 training photos of CIFAR-10."""
    return [(str(file), label) for label, files in cifar_files(folder, "train") for file in files]


def cifar_files(folder: Path, split: str) -> Iterator[tuple[str, list[Path]]]:
    """Each class of CIFAR-10 and its files, unpacked into `folder`."""
    if not folder.exists():
        with tarfile.open(shared() / "data" / "cifar10.tar.xz") as tar:
            tar.extractall(folder.with_suffix(".part"), filter="data")
        folder.with_suffix(".part").rename(folder)
    for label in sorted(path.name for path in (folder / "cifar10" / split).iterdir()):
        yield label, sorted((folder / "cifar10" / split / label).iterdir(), key=lambda file: PurePosixPath(file.name))


def write(target: Path, rows: list[Row], splits: list[str]) -> Path:
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "label", "split"])
        writer.writerows([*row, split] for row, split in zip(rows, splits, strict=True))
    return target


if __name__ == "__main__":
    sys.exit(main())
