"""One command: `python -m pretrain --data <shared>/data/tiny-imagenet-200 --out pretrain/work` trains, or continues, and exports."""

import argparse
import dataclasses
import hashlib
import os
from pathlib import Path

import torch

from pretrain.export import export
from pretrain.photos import read_photos
from pretrain.recipe import AGAIN, Recipe
from pretrain.sources import detailed_photos, small_photos
from pretrain.teacher import classifier_of, read_teacher, teach
from pretrain.train import Course, train


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
        "--detailed", type=Path, default=shared / "data" / "imagenet-samples", help="folder of larger JPEG photos, without labels"
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
    parser.add_argument("--epochs", type=float, help="passes over the photos, where no --minutes are given (default: the recipe's)")
    parser.add_argument("--seed", type=int, help="of the weights, the photos' order and the views (default: the recipe's)")
    parser.add_argument(
        "--start", type=Path, help="begin with the averaged weights of this checkpoint, at lower rates; needs an --out of its own"
    )
    parser.add_argument("--export-only", action="store_true", help="write the file from the last checkpoint, train no further")
    given = parser.parse_args()

    torch.set_num_threads(1)  # the parts of a batch are the threads; see parts.py
    recipe = Recipe()
    if given.start is not None:
        recipe = dataclasses.replace(recipe, **AGAIN, start=hashlib.sha256(given.start.read_bytes()).hexdigest())
    options = {"minutes": given.minutes, "epochs": given.epochs, "seed": given.seed}
    recipe = dataclasses.replace(recipe, **{name: value for name, value in options.items() if value is not None})
    kept = given.out if given.start is None else given.start.parent  # cached photos and lessons serve the second training too
    photos = read_photos(given.data, kept)
    sources = {"small": small_photos(photos, recipe.smallest_crop), "detailed": detailed_photos(given.detailed)}
    if not given.export_only:
        lessons = tuple(teach(source, name, given.teacher, kept, n_views=recipe.views) for name, source in sources.items())
        train(photos, Course(lessons, classifier_of(read_teacher(given.teacher))), given.out, recipe, start=given.start)
    torch.set_num_threads(recipe.parts)
    target = given.weights if given.weights is not None else given.out / "embedded.safetensors"
    export(given.out / "checkpoint.safetensors", target, photos, sources["detailed"].pixels)


if __name__ == "__main__":
    main()
