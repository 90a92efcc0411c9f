"""The recipes in the package on 1,000 photos of 5 flowers: what each header says it measured.

    python bench/recipes.py --out FOLDER [--seed 0] [RECIPE ...]

resnet50_keras_v1 (weights to layer3), inception_v3 (to Mixed_7a) where the recipe names it, and vit_tiny for `photos`.
`cifar10-resnet50` has a benchmark of its own, bench/cifar10.py. Each run starts with an empty store, so its minutes are all there is.
Photos and weights: shared/.

A killed benchmark goes on where it was: finished runs in FOLDER are only read, an unfinished one is continued.
"""

import argparse
import sys
from pathlib import Path

from flowers import NETWORKS
from headstart.runs import Run
from machine import machine, shared
from tuning import kept_run

BACKBONES = {
    "quick": "resnet50_keras_v1",
    "photos": "vit_tiny_patch16_224",
    "classic": "resnet50_keras_v1",
    "two-phase-inception": "inception_v3",
    "best": "resnet50_keras_v1",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipes", nargs="*", default=list(BACKBONES))
    parser.add_argument("--out", type=Path, required=True, help="runs are kept here")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    print(machine())
    print(
        f"{'recipe':<22}{'network':<20}{'test accuracy':<24}{'macro F1':<10}{'probe, val':>10}{'kept, val':>11}  {'kept':<9}{'minutes':>8}"
    )
    for recipe in given.recipes:
        report(recipe, given.out, given.seed)


def report(recipe: str, out: Path, seed: int) -> None:
    """Do, continue or read one run, and print its line."""
    name = BACKBONES[recipe]
    run, minutes = recipe_run(recipe, out, seed)
    test, val, tuning = run.metrics["test"], run.metrics["val"], run.record["tuning"]
    low, high = test["accuracy_ci95"]
    probe = "" if tuning["probe"] is None else f"{tuning['probe']['val_accuracy']:.3f}"
    accuracy = f"{test['accuracy']:.3f} ({low:.3f} to {high:.3f})"
    print(
        f"{recipe:<22}{name:<20}{accuracy:<24}{test['f1_macro']:<10.3f}{probe:>10}{val['accuracy']:>11.3f}  "
        f"{tuning['kept']:<9}{minutes:>8.1f}",
        flush=True,
    )


def recipe_run(recipe: str, out: Path, seed: int) -> tuple[Run, float]:
    """A recipe's run on the flowers, done, continued or only read; and its minutes."""
    name = BACKBONES[recipe]
    file, stop, _ = NETWORKS[name]
    return kept_run(
        out / f"{recipe}-{seed}",
        recipe=recipe,
        keys={},
        data=str(shared() / "data" / "flowers"),
        backbone=name,
        weights=str(shared() / "weights" / file),
        stop=stop,
        seed=seed,
    )


if __name__ == "__main__":
    sys.exit(main())
