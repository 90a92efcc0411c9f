"""CIFAR-10 from 10,000 training photos (1,000 a class): test accuracy on all 10,000 test photos after fine-tuning everything.

    python bench/cifar10.py --out FOLDER [--px 96] [--epochs 20] [--seeds 0 1 2] [NETWORK ...]

resnet50_keras_v1 (to layer3) runs the recipe `cifar10-resnet50`; inception_v3 (to Mixed_7a) and vit_tiny_patch16_224 start from the
solved head and train everything with it. The training photos are the first of each class in the order of a seeded draw, the same for
every seed of a run; val photos are taken out of them. Photos and weights: shared/. The bar is a published tutorial's 0.8882.

A killed benchmark goes on where it was: finished runs in FOLDER are only read, an unfinished one is continued after its last
complete epoch. Minutes count all attempts, from the list of files to the tested model.
"""

import argparse
import csv
import sys
import tarfile
from pathlib import Path
from typing import Any

import numpy as np

from flowers import NETWORKS
from machine import machine, shared
from tuning import kept_run

BAR = 0.8882

Keys = dict[str, Any]

# Small steps for stages far from the head, light augmentation that keeps 32 px photos readable, little mixing: as the package's recipe.
EVERYTHING: Keys = {
    "cut": "input",
    "schedule": "cosine",
    "warm_up": 0.1,
    "weight_decay": 0.05,
    "batch_size": 64,
    "clip": 1.0,
    "label_smoothing": 0.1,
    "augment": "flip, shift 0.1",
    "mixup": 0.2,
    "ema": 0.99,
    "patience": 5,
}

# Network: (recipe, other keys, its phases). The first phase of inception_v3 is at a smaller size: most of what is to be learned is
# learned there, at half the cost. A vision transformer's position embeddings are trained at one size.
NETWORK_RUNS: dict[str, tuple[str | None, Keys, list[Keys]]] = {
    "resnet50_keras_v1": ("cifar10-resnet50", {}, []),
    "inception_v3": (
        None,
        {"px": 160, "test_views": 2},
        [
            {**EVERYTHING, "px": 112, "epochs": 8, "rate": 3e-4, "rate_decay": 0.9},
            {**EVERYTHING, "epochs": 5, "rate": 1e-4, "rate_decay": 0.9},
        ],
    ),
    "vit_tiny_patch16_224": (None, {"px": 160, "test_views": 2}, [{**EVERYTHING, "epochs": 12, "rate": 3e-4, "rate_decay": 0.85}]),
}
LAST_PHASE = {"resnet50_keras_v1": 1, "inception_v3": 1, "vit_tiny_patch16_224": 0}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", nargs="*", default=list(NETWORK_RUNS))
    parser.add_argument("--out", type=Path, required=True, help="photos and runs are kept here")
    parser.add_argument("--px", type=int, help="side of the input instead of the recipe's")
    parser.add_argument("--epochs", type=int, help="of each phase but a head's, instead of the recipe's")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--train", type=int, default=1_000, help="training photos of each class, at most 5,000")
    parser.add_argument("--test", type=int, default=1_000, help="test photos of each class, at most 1,000")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    print(machine())
    photos = listed(given.out.resolve(), given.train, given.test)
    print(f"{'network':<22}{'px':>4}{'seed':>5}  {'test accuracy':<26}{'probe, val':>10}  {'kept':<8}{'epochs':>7}{'minutes':>9}")
    for name in given.networks:
        for seed in given.seeds:
            report(name, photos, seed, given)


def report(name: str, photos: Path, seed: int, given: argparse.Namespace) -> None:
    """Do, continue or read one run, and print its line."""
    file, stop, _ = NETWORKS[name]
    recipe, keys = keys_of(name, given.px, given.epochs)
    label = "-".join([name, photos.stem, *(f"{key}{value}" for key, value in (("px", given.px), ("e", given.epochs)) if value), f"s{seed}"])
    weights = str(shared() / "weights" / file)
    run, minutes = kept_run(
        given.out / label, recipe=recipe, keys=keys, data=str(photos), backbone=name, weights=weights, stop=stop, seed=seed
    )
    test, tuning = run.metrics["test"], run.record["tuning"]
    low, high = test["accuracy_ci95"]
    n_epochs = len((run.folder / "history.csv").read_text(encoding="utf-8").splitlines()) - 1
    probe = "" if tuning["probe"] is None else f"{tuning['probe']['val_accuracy']:.3f}"  # on val; the test photos were asked once
    accuracy = f"{test['accuracy']:.4f} ({low:.4f} to {high:.4f}){'' if test['accuracy'] > BAR else ' <'}"
    px = run.record["backbone"]["px"]
    print(f"{name:<22}{px:>4}{seed:>5}  {accuracy:<26}{probe:>10}  {tuning['kept']:<8}{n_epochs:>7}{minutes:>9.1f}", flush=True)


def keys_of(name: str, px: int | None, n_epochs: int | None) -> tuple[str | None, Keys]:
    """The recipe of a network and the keys that are set beyond it."""
    recipe, own, phases = NETWORK_RUNS[name]
    keys = {**own, **{f"phases.{number}.{key}": value for number, phase in enumerate(phases) for key, value in phase.items()}}
    if px is not None:
        keys = {key: value for key, value in keys.items() if not key.endswith(".px")} | {"px": px}
    if n_epochs is not None:
        first = 0 if phases else LAST_PHASE[name]
        keys |= {f"phases.{number}.epochs": n_epochs for number in range(first, LAST_PHASE[name] + 1)}
    return recipe, keys


def listed(out: Path, n_train: int, n_test: int) -> Path:
    """A list of the first photos of each class, of both parts, in the order of a seeded draw."""
    target = out / f"{n_train}-{n_test}.csv"
    if target.exists():
        return target
    folder = out / "photos"
    if not folder.exists():
        with tarfile.open(shared() / "data" / "cifar10.tar.xz") as tar:
            tar.extractall(folder.with_suffix(".part"), filter="data")
        folder.with_suffix(".part").rename(folder)
    partial = target.with_suffix(".part")
    with partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "label", "split"])
        for split, n in (("train", n_train), ("test", n_test)):
            for label in sorted(path.name for path in (folder / "cifar10" / split).iterdir()):
                photos = sorted((folder / "cifar10" / split / label).iterdir())
                some = np.random.default_rng(0).permutation(len(photos))[:n]
                writer.writerows([photos[i], label, split] for i in some)
    partial.rename(target)
    return target


if __name__ == "__main__":
    sys.exit(main())
