"""`classic` and `two-phase-inception` on 1,000 photos of flowers, beside the tutorials they are named after in plain PyTorch + timm.

    python bench/tutorials.py --out FOLDER [--seeds 0 1 2] [RECIPE ...]

Each tutorial as it is published and pasted: a frozen base in inference mode, global average pooling, a dense layer, fresh augmentation in
each epoch; then the top of the base unfrozen at a low rate; the last epoch's network is what one has. `classic` is the "Transfer learning
and fine-tuning" shape (dense layer of 256 with dropout 0.5, Adam 1e-3 for ten epochs, then the top 20 layers at 1e-5 for ten more),
`two-phase-inception` the "Fine-tune InceptionV3 on a new set of classes" example of the Keras documentation of applications (dense layer of
1,024, RMSprop 1e-3 for five epochs, then the top two blocks with SGD 1e-4 and momentum 0.9 for five more; shear, zoom and flip).
Both sides train, validate and test on the same photos; bf16 autocast on both. The tutorials' time is that of training alone, without tests
and imports; the recipes' is the whole run's. A killed benchmark goes on where it was: finished runs in FOLDER are only read.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from torch.utils.data import DataLoader
from torchvision import transforms

from headstart.data.pixels import Preprocessing
from headstart.data.scan import scan
from headstart.data.split import split_table
from headstart.evaluate.intervals import mcnemar, wilson
from headstart.files import write_json
from machine import machine, shared
from recipes import BACKBONES, recipe_run
from time_to_accuracy import Photos, Row, frozen, views
from tuning import Answers, answers_of, turned

BATCH = 32


@dataclass(frozen=True)
class Tutorial:
    """What a tutorial says: its dense layer, its two optimisers and epochs, what it unfreezes, how it augments."""

    units: int
    dropout: float
    first: Callable[[list[nn.Parameter]], torch.optim.Optimizer]
    second: Callable[[list[nn.Parameter]], torch.optim.Optimizer]
    epochs: tuple[int, int]
    top: Callable[[nn.Module], list[nn.Module]]
    augmentation: tuple[nn.Module, ...]


TUTORIALS = {
    "classic": Tutorial(
        units=256,
        dropout=0.5,
        first=lambda parameters: torch.optim.Adam(parameters, lr=1e-3),
        second=lambda parameters: torch.optim.Adam(parameters, lr=1e-5),
        epochs=(10, 10),
        top=lambda model: list(model.layer3[-2:]),  # two blocks of three convolutions, three norms, three activations and an addition each
        augmentation=(transforms.RandomHorizontalFlip(), transforms.RandomAffine(15, scale=(0.8, 1.2))),
    ),
    "two-phase-inception": Tutorial(
        units=1024,
        dropout=0.0,
        first=lambda parameters: torch.optim.RMSprop(parameters, lr=1e-3, alpha=0.9),
        second=lambda parameters: torch.optim.SGD(parameters, lr=1e-4, momentum=0.9),
        epochs=(5, 5),
        top=lambda model: [model.Mixed_6e, model.Mixed_7a],
        augmentation=(transforms.RandomHorizontalFlip(), transforms.RandomAffine(0, scale=(0.8, 1.2), shear=10)),
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipes", nargs="*", default=list(TUTORIALS))
    parser.add_argument("--out", type=Path, required=True, help="runs are kept here")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    print(machine())
    print(
        f"{'recipe':<22}{'tutorial, test accuracy':<26}{'minutes':>8}  {'recipe, test accuracy':<26}{'minutes':>8}  recipe against tutorial"
    )
    for recipe in given.recipes:
        compare(recipe, given.out, given.seeds)


def compare(recipe: str, out: Path, seeds: list[int]) -> None:
    """A line of the table."""
    name = BACKBONES[recipe]
    theirs, ours = Answers(), Answers()
    their_minutes = our_minutes = 0.0
    for seed in seeds:
        found = kept_tutorial(out / f"{recipe}-tutorial-{seed}.json", recipe, name, seed)
        theirs |= {(seed, path): right for path, right in found["answers"]}
        their_minutes += found["seconds"] / 60
        run, minutes = recipe_run(recipe, out, seed)
        ours |= answers_of(run, seed)
        our_minutes += minutes
    better, worse = turned(ours, theirs)
    beside = f"{(better - worse) / len(ours):+.3f}, p {mcnemar(better, worse):.2f}"
    print(f"{recipe:<22}{told(theirs):<26}{their_minutes:>8.1f}  {told(ours):<26}{our_minutes:>8.1f}  {beside}", flush=True)


def told(answers: Answers) -> str:
    n_right = sum(answers.values())
    low, high = wilson(n_right, len(answers))
    return f"{n_right / len(answers):.3f} ({low:.3f} to {high:.3f})"


def kept_tutorial(file: Path, recipe: str, name: str, seed: int) -> dict:
    """A tutorial's answers to the test photos and its seconds, from `file` where it was done before."""
    if not file.exists():
        table = split_table(scan(str(shared() / "data" / "flowers")), seed=seed)
        rows = {split: [i for i, photo in enumerate(table.photos) if photo.split == split] for split in ("train", "test")}
        photos = {split: [(str(table.file(i)), int(table.labels[i])) for i in mine] for split, mine in rows.items()}
        model, preprocessing, seconds = follow(TUTORIALS[recipe], name, photos["train"], len(table.classes), seed)
        right = right_answers(model, preprocessing, photos["test"])
        answers = [(table.photos[i].path, fine) for i, fine in zip(rows["test"], right, strict=True)]
        write_json(file, {"answers": answers, "seconds": seconds})
    return json.loads(file.read_text("utf-8"))


def follow(tutorial: Tutorial, name: str, rows: list[Row], n_classes: int, seed: int) -> tuple[nn.Module, Preprocessing, float]:
    """Train as the tutorial says. Returns: the network, what it expects of a picture, seconds."""
    torch.manual_seed(seed)
    model, preprocessing = frozen(name, n_classes)
    n_features = model.get_classifier().in_features
    head = nn.Sequential(
        nn.Linear(n_features, tutorial.units), nn.ReLU(), nn.Dropout(tutorial.dropout), nn.Linear(tutorial.units, n_classes)
    )
    network = Network(model, head)
    model.requires_grad_(False)
    _, centre = views(preprocessing)
    augmented = transforms.Compose([*centre.transforms[:2], *tutorial.augmentation, *centre.transforms[2:]])
    loader = DataLoader(Photos(rows, augmented), batch_size=BATCH, shuffle=True, num_workers=2, persistent_workers=True)
    started = time.monotonic()
    train(network, loader, tutorial.first(list(head.parameters())), tutorial.epochs[0])
    for module in tutorial.top(model):
        module.requires_grad_(True)
    train(network, loader, tutorial.second([p for p in network.parameters() if p.requires_grad]), tutorial.epochs[1])
    return network, preprocessing, time.monotonic() - started


class Network(nn.Module):
    """A base in inference mode, as the tutorials have it, and a head."""

    def __init__(self, base: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.base, self.head = base, head

    def train(self, mode: bool = True) -> "Network":
        super().train(mode)
        self.base.eval()
        return self

    def forward(self, x_nchw: torch.Tensor) -> torch.Tensor:
        maps = self.base.forward_features(x_nchw.to(memory_format=torch.channels_last))
        return self.head(self.base.forward_head(maps, pre_logits=True)).float()


def train(network: Network, loader: DataLoader, optimiser: torch.optim.Optimizer, n_epochs: int) -> None:
    network.train()
    for _ in range(n_epochs):
        for x_nchw, labels in loader:
            with torch.autocast("cpu", torch.bfloat16):
                loss = nn.functional.cross_entropy(network(x_nchw), labels)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()


@torch.inference_mode()
def right_answers(network: nn.Module, preprocessing: Preprocessing, rows: list[Row]) -> list[bool]:
    network.eval()
    _, centre = views(preprocessing)
    with torch.autocast("cpu", torch.bfloat16):
        return [
            fine
            for x_nchw, labels in DataLoader(Photos(rows, centre), batch_size=BATCH)
            for fine in (network(x_nchw).argmax(1) == labels).tolist()
        ]


if __name__ == "__main__":
    sys.exit(main())
