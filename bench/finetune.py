"""Fine-tuning ResNet-50's last stage over stored activations, against the same with the layers before it computed again in every epoch.

    python bench/finetune.py [--runs 3] [--epochs 3] [--precision fp32 --engine torch]

Both sides train layer4 and a new head on the same photos (shared/data/flowers, 700 to train, 150 to validate) in the same order and in
one view, with the same loop; a run takes them in turn. The bar: stored at least 2 times faster per epoch, losses equal within
TOLERANCE. What is stored went through the engine of the trunk pass and float16, what is recomputed through PyTorch: in bf16 the two
round differently, `--precision fp32 --engine torch` shows what remains without that. The trunk pass is paid once and printed beside.

Layers up to layer3 have Keras's weights (shared/weights), layer4 has random ones: this is a timing.
"""

import argparse
import os
import statistics
import sys
import tempfile
from pathlib import Path

import numpy as np
from safetensors.torch import load_file

from headstart.backbone import cut, networks
from headstart.backbone.networks import Network
from headstart.config import Phase
from headstart.data.scan import scan
from headstart.data.split import split_table
from headstart.features import engine
from headstart.features.extract import Extractor
from headstart.features.store import Store
from headstart.seeds import seed_everything
from headstart.train.loop import Epoch, train
from headstart.train.task import Task
from machine import machine, shared

BAR = 2.0
TOLERANCE = 0.02  # largest relative difference of an epoch's training or val loss
CUT = "layer3"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=shared() / "data" / "flowers")
    parser.add_argument("--px", type=int, default=224)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--engine", default="auto")
    parser.add_argument("--precision", default="auto")
    given = parser.parse_args()
    print(machine())
    choice = engine.choose(given.engine, precision=given.precision)
    table = split_table(scan(str(given.data)), seed=0)
    table = table.subset([i for i, photo in enumerate(table.photos) if photo.split != "test"])
    with tempfile.TemporaryDirectory() as folder:
        os.environ["HEADSTART_CACHE"] = folder  # nothing is there already
        task = Task(resnet50(given.px), Extractor(table, Store(Path(folder) / "store"), choice))
        print(f"{choice.name}, {choice.precision}, {given.px} px, {len(task.fit)} training and {len(task.val)} val photos, batches of 32")
        compare(task, Phase(cut=CUT, epochs=given.epochs, rate=1e-4, batch_size=32, augment="none", patience=given.epochs), given.runs)


def resnet50(px: int) -> Network:
    """Keras's ResNet-50 with random weights from layer4 on."""
    seed_everything(0)
    network = networks.untrained("resnet50_keras_v1", px=px)
    weights = load_file(shared() / "weights" / "resnet50_keras_v1.to_layer3.safetensors")
    assert not network.module.load_state_dict(weights, strict=False).unexpected_keys
    return network


def compare(task: Task, phase: Phase, n_runs: int) -> None:
    """Run both sides in turn and print their medians."""
    trunk, tail = cut.split(task.network, phase.cut)
    tail = tail.with_head(task.n_classes)
    rows = task.extract(trunk)
    pixels = task.extract(cut.Trunk(task.network, "input"))
    stored_mb = task.extract.bytes_of(trunk) / 1e6
    print(f"once: trunk pass {rows.seconds:.1f} s ({stored_mb:.0f} MB); stored pixels {pixels.seconds:.1f} s\n")

    def run(*, recompute: bool) -> tuple[Epoch, ...]:
        found = (pixels if recompute else rows).rows
        return train(
            tail,
            task.examples((found,), task.fit),
            task.examples((found,), task.val),
            phase,
            precision=task.extract.choice.precision,
            preprocessing=task.network.preprocessing if recompute else None,
            front=trunk if recompute else None,
        ).history

    pairs = [(run(recompute=False), run(recompute=True)) for _ in range(n_runs)]
    print("\nseconds per epoch, median (min to max) of all epochs, validation included")
    for name, side in (("stored activations", 0), ("trunk recomputed", 1)):
        seconds = [epoch.seconds for pair in pairs for epoch in pair[side]]
        print(f"{name:<20}{statistics.median(seconds):8.2f} ({min(seconds):.2f} to {max(seconds):.2f})")
    ratios = [statistics.median(b.seconds for b in again) / statistics.median(a.seconds for a in stored) for stored, again in pairs]
    verdict = "passed" if statistics.median(ratios) >= BAR else "MISSED"
    print(f"ratio {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f}); the bar is {BAR}: {verdict}\n")

    stored, again = (losses(history) for history in pairs[0])
    largest = float(np.max(np.abs(stored - again) / np.abs(again)))
    print("train and val loss of each epoch")
    for name, values in (("stored activations", stored), ("trunk recomputed", again)):
        print(f"{name:<20}{', '.join(f'{train_loss:.4f} {val_loss:.4f}' for train_loss, val_loss in values)}")
    print(f"largest relative difference {largest:.2g}, tolerated {TOLERANCE}: {'equal' if largest <= TOLERANCE else 'NOT EQUAL'}")


def losses(history: tuple[Epoch, ...]) -> np.ndarray:
    """float64 [epochs, 2], of training and val."""
    return np.array([(epoch.train_loss, epoch.val_loss) for epoch in history], np.float64)


if __name__ == "__main__":
    sys.exit(main())
