"""Seconds from photo files to the same val accuracy: `headstart train --recipe quick` against a plain PyTorch + timm loop.

    python bench/time_to_accuracy.py [--runs 3] [NETWORK ...]

The plain loop is what a good tutorial teaches: torchvision transforms with fresh augmentation in each of ten epochs, a DataLoader with
two workers, bf16 autocast, channels last, the frozen trunk in eval mode without gradients, AdamW with a cosine on a new linear head.
The photos of train and val are the same ones. Each side of each run has a process of its own and an empty cache; imports are not counted.

The accuracy both must reach is the plain loop's after its last epoch, or headstart's (out of fold, on the same val photos) where that is
lower. The plain loop's time is taken at the end of the first epoch that is as good, and also after all ten, which is when its user knows.
headstart's is that of scan, trunk pass and solved head; the whole run beside it also tests, writes the model and the report.
"""

import argparse
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import torch
from PIL import Image
from safetensors.torch import load_file
from torch import nn
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from flowers import NETWORKS
from headstart import config, pipeline
from headstart.backbone import networks, weights
from headstart.data.pixels import Preprocessing
from headstart.data.scan import scan
from headstart.data.split import split_table
from machine import machine, shared

BAR = 5.0
TO_SOLVED_HEAD = ("weights", "scan", "trunk", "train")  # headstart's stages until then
MISSING = {"layer3": (("layer4",), 1024), "Mixed_7a": (("Mixed_7b", "Mixed_7c"), 1280)}
"""Last stage in a weights file: the stages that are not in it, channels of the last one."""

Row = tuple[str, int]
"""Path of a photo, index of its class."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", nargs="*", default=["vit_tiny_patch16_224", "resnet50_keras_v1"])
    parser.add_argument("--data", type=Path, default=shared() / "data" / "flowers")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=10)
    given = parser.parse_args()
    print(f"{machine()}; {given.data.name}, seeds 0 to {given.runs - 1}, seconds")
    for name in given.networks:
        ratios = [compare(name, given.data, given.epochs, seed) for seed in range(given.runs)]
        ratio = statistics.median(ratios)
        verdict = "passed" if ratio >= BAR else "MISSED"
        print(f"{name}: ratio {ratio:.1f} ({min(ratios):.1f} to {max(ratios):.1f}), the bar is {BAR}: {verdict}\n", flush=True)


def compare(name: str, data: Path, n_epochs: int, seed: int) -> float:
    """One run of both sides. Returns the plain loop's seconds as a multiple of headstart's."""
    table = split_table(scan(str(data)), seed=seed)
    rows = {split: [(str(table.file(i)), int(table.labels[i])) for i in indices(table, split)] for split in ("train", "val")}
    workers = multiprocessing.get_start_method()  # the platform's, as in a plain script; in the process below the default is another
    history = alone(plain, name, rows["train"], rows["val"], len(table.classes), n_epochs, seed, workers)
    solved_s, whole_s, accuracy = alone(quick, name, data, seed)
    target = min(accuracy, history[-1][1])
    reached_s = next(seconds for seconds, reached in history if reached >= target)
    print(f"{name}, seed {seed}: val accuracy to reach {target:.3f} of {len(rows['val'])} photos")
    print(f"  headstart  {accuracy:.3f}: head solved after {solved_s:.1f}, whole run with tests, model and report {whole_s:.1f}")
    print(f"  plain loop {history[-1][1]:.3f}: reached after {reached_s:.1f}, {n_epochs} epochs {history[-1][0]:.1f}")
    print(f"    each epoch: {', '.join(f'{reached:.3f} at {seconds:.0f}' for seconds, reached in history)}")
    print(
        f"  ratio {reached_s / solved_s:.1f} to the solved head ({reached_s / whole_s:.1f} to the whole run); "
        f"of all {n_epochs} epochs {history[-1][0] / solved_s:.1f} ({history[-1][0] / whole_s:.1f})",
        flush=True,
    )
    return reached_s / solved_s


def indices(table, split):
    return [i for i, photo in enumerate(table.photos) if photo.split == split]


def alone(work, *arguments):
    """Call `work` in a process of its own, after its imports."""
    with ProcessPoolExecutor(max_workers=1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(work, *arguments).result()


def quick(name: str, data: Path, seed: int) -> tuple[float, float, float]:
    """headstart from nothing: seconds to the solved head, of the whole run, and val accuracy."""
    file, stop, _ = NETWORKS[name]
    with tempfile.TemporaryDirectory() as folder:
        os.environ["HEADSTART_CACHE"] = f"{folder}/cache"
        started = time.monotonic()
        asked = config.load("quick", data=str(data), backbone=name, weights=str(shared() / "weights" / file), stop=stop, seed=seed)
        run = pipeline.fit(asked, Path(folder) / "run")
        whole_s = time.monotonic() - started
        assert run.record["trunk"]["rows_reused"] == 0
        return sum(run.metrics["seconds"][stage] for stage in TO_SOLVED_HEAD), whole_s, run.metrics["val"]["accuracy"]


def plain(name: str, train: list[Row], val: list[Row], n_classes: int, n_epochs: int, seed: int, workers: str) -> list[tuple[float, float]]:
    """The plain loop: seconds since its start, and val accuracy, after each epoch; `workers`: how its loaders start theirs."""
    started = time.monotonic()
    torch.manual_seed(seed)
    model, preprocessing = frozen(name, n_classes)
    augmented, centre = views(preprocessing)
    loading = {"batch_size": 32, "num_workers": 2, "persistent_workers": True, "multiprocessing_context": workers}
    loader = DataLoader(Photos(train, augmented), shuffle=True, **loading)
    val_loader = DataLoader(Photos(val, centre), **loading)
    head = model.get_classifier()
    optimiser = torch.optim.AdamW(head.parameters(), lr=1e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, n_epochs * len(loader))
    history = []
    for _ in range(n_epochs):
        for x, labels in loader:
            loss = nn.functional.cross_entropy(head(features(model, x)), labels)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
        with torch.no_grad():
            n_right = sum(int((head(features(model, x)).argmax(1) == labels).sum()) for x, labels in val_loader)
        history.append((time.monotonic() - started, n_right / len(val)))
    return history


def frozen(name: str, n_classes: int) -> tuple[nn.Module, Preprocessing]:
    """timm's network with its pretrained weights, frozen but for a new head, and what it expects of a picture."""
    file, stop, _ = NETWORKS[name]
    path = shared() / "weights" / file
    record = weights.locate(name, path).record
    model = networks.create(record, n_classes=n_classes, px=record.preprocessing.input_px)  # timm.create_model, with Keras's strides
    missing, n_features = MISSING.get(stop, ((), 0))
    for stage in missing:
        setattr(model, stage, nn.Identity())
    if missing:
        model.fc = nn.Linear(n_features, n_classes)
    head = tuple(f"{part}." for part, module in model.named_modules() if module is model.get_classifier())
    state = {key: tensor for key, tensor in load_file(path).items() if not key.startswith(head)}
    found = model.load_state_dict(state, strict=False)
    assert not found.unexpected_keys
    assert all(key.startswith(head) for key in found.missing_keys), found.missing_keys
    return model.eval().to(memory_format=torch.channels_last), record.preprocessing


def features(model: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """What the frozen trunk sees, float32 [n, d]."""
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        return model.forward_head(model.forward_features(x.to(memory_format=torch.channels_last)), pre_logits=True).float()


def views(preprocessing: Preprocessing) -> tuple[transforms.Compose, transforms.Compose]:
    """Transforms for training and for val."""
    px, how = preprocessing.input_px, transforms.InterpolationMode(preprocessing.interpolation)
    to_input = [transforms.ToTensor(), transforms.Normalize(preprocessing.mean, preprocessing.std)]
    augmented = [transforms.RandomResizedCrop(px, scale=(0.35, 1.0), interpolation=how), transforms.RandomHorizontalFlip()]
    centre = [transforms.Resize(preprocessing.resize_px, interpolation=how), transforms.CenterCrop(px)]
    return transforms.Compose([*augmented, *to_input]), transforms.Compose([*centre, *to_input])


class Photos(Dataset):
    """Photos of a list, through a transform."""

    def __init__(self, rows: list[Row], transform: transforms.Compose) -> None:
        self.rows, self.transform = rows, transform

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, i: int) -> tuple[torch.Tensor, int]:
        path, label = self.rows[i]
        return self.transform(Image.open(path).convert("RGB")), label


if __name__ == "__main__":
    sys.exit(main())
