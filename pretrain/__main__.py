"""One command: `python -m pretrain --data <shared>/data/tiny-imagenet-200 --out pretrain/work` trains, or continues, and exports."""

import argparse
import os
from pathlib import Path

import torch

from pretrain.export import export
from pretrain.photos import read_photos
from pretrain.recipe import Recipe
from pretrain.teacher import teach
from pretrain.train import train


def main() -> None:
    root = Path(__file__).resolve().parents[1]
    shared = Path(os.environ.get("HEADSTART_SHARED", root.parent / "shared"))
    parser = argparse.ArgumentParser(
        prog="python -m pretrain", description="Train the embedded backbone, or go on with it, then export it."
    )
    parser.add_argument(
        "--data", type=Path, default=shared / "data" / "tiny-imagenet-200", help="folder with train/<synset>.avif and classes.tsv"
    )
    parser.add_argument(
        "--teacher",
        type=Path,
        default=shared / "weights" / "vit_tiny_patch16_224.imagenet1000.safetensors",
        help="weights of the network to learn from (safetensors, timm's names)",
    )
    parser.add_argument("--out", type=Path, default=root / "pretrain" / "work", help="checkpoint, log.csv and the cached photos")
    parser.add_argument("--weights", type=Path, help="where the exported file goes (default: OUT/embedded.safetensors)")
    parser.add_argument("--minutes", type=float, help="fit the schedule into this much training time (default: a fixed number of epochs)")
    parser.add_argument("--epochs", type=float, default=Recipe.epochs, help="passes over the photos, where no --minutes are given")
    parser.add_argument("--seed", type=int, default=Recipe.seed)
    parser.add_argument("--export-only", action="store_true", help="write the file from the last checkpoint, train no further")
    given = parser.parse_args()

    torch.set_num_threads(1)  # the parts of a batch are the threads; see parts.py
    recipe = Recipe(minutes=given.minutes, epochs=given.epochs, seed=given.seed)
    photos = read_photos(given.data, given.out)
    if not given.export_only:
        lessons = teach(photos, given.teacher, given.out, views=recipe.views, smallest_crop=recipe.smallest_crop, seed=recipe.seed)
        train(photos, lessons, given.out, recipe)
    export(given.out / "checkpoint.safetensors", given.weights if given.weights is not None else given.out / "embedded.safetensors", photos)


if __name__ == "__main__":
    main()
