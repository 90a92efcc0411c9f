"""Steps of training everything on this CPU: headstart's against plain PyTorch + timm's, same network, photos, batch and optimiser, in bf16.

    python bench/train_step.py [--turns 5] [--beside 0] [NETWORK:PX:BATCH ...]

Both compute forward, backward, clipping and AdamW over random pixels (it is a timing; weights are random, too). Headstart writes
attention out where gradients are wanted, divides the batch between threads that meet twice a step, and goes over a parameter's memory
once. The two take turns. `--beside N` keeps N other processes busy meanwhile, as other programs on the same machine would.
"""

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import timm
import torch
from torch import nn

from headstart.backbone import cut
from headstart.backbone.networks import untrained
from headstart.config import Phase
from headstart.train.optim import optimiser, take_step
from headstart.train.parts import in_parts
from machine import machine

RUNS = ("vit_tiny_patch16_224:160:64", "resnet50:96:64", "inception_v3:160:32", "mobilenetv2_100:224:32")
BUSY = "while True: pass"
STEPS = 3  # of a turn
CLASSES = 10

Step = Callable[[], None]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="*", default=list(RUNS), metavar="NETWORK:PX:BATCH")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--beside", type=int, default=0, help="busy processes on the same cores")
    given = parser.parse_args()
    print(f"{machine()}, {torch.get_num_threads()} threads, {given.beside} busy processes beside")
    print(f"{'network':<24}{'px':>5}{'batch':>6}{'PyTorch + timm':>17}{'headstart':>11}  images/s{'ratio':>8}")
    with busy(given.beside):
        for run in given.runs:
            name, px, size = run.split(":")
            compare(name, int(px), int(size), given.turns)


def compare(name: str, px: int, size: int, n_turns: int) -> None:
    """One row: both in turns; medians, and the ratio with its range over the turns."""
    torch.manual_seed(0)
    images = torch.randint(0, 256, (size, px, px, 3), dtype=torch.uint8)
    labels = torch.randint(0, CLASSES, (size,))
    steps = plain(name, px, images, labels), own(name, px, images, labels)
    for step in steps:
        step()
        step()
    turns = [tuple(size * STEPS / seconds(step) for step in steps) for _ in range(n_turns)]
    theirs, ours = (statistics.median(rates) for rates in zip(*turns, strict=True))
    ratios = sorted(b / a for a, b in turns)
    spread = f"{statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})"
    print(f"{name:<24}{px:>5}{size:>6}{theirs:>17.1f}{ours:>11.1f}{spread:>28}", flush=True)


def plain(name: str, px: int, images: torch.Tensor, labels: torch.Tensor) -> Step:
    """As a PyTorch script does it."""
    size = {"img_size": px} if name.startswith("vit") else {}
    network = timm.create_model(name, num_classes=CLASSES, **size).to(memory_format=torch.channels_last).train()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    adam = torch.optim.AdamW(network.parameters(), lr=1e-4, weight_decay=0.05)
    mean, std = torch.tensor((0.485, 0.456, 0.406)), torch.tensor((0.229, 0.224, 0.225))

    def step() -> None:
        x = ((images.float() / 255 - mean) / std).permute(0, 3, 1, 2)
        with torch.autocast("cpu", torch.bfloat16):
            loss = nn.functional.cross_entropy(network(x), labels)
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        adam.step()
        adam.zero_grad()

    return step


def own(name: str, px: int, images: torch.Tensor, labels: torch.Tensor) -> Step:
    """As `headstart train` does it."""
    tail = cut.split(untrained(name, px=px), cut.INPUT)[1].with_head(CLASSES).to(memory_format=torch.channels_last).train()
    adam = optimiser(tail, Phase(cut=cut.INPUT, rate=1e-4, weight_decay=0.05))
    forward = in_parts(tail)

    def step() -> None:
        with torch.autocast("cpu", torch.bfloat16):
            logits = forward(images)
        nn.functional.cross_entropy(logits.float(), labels).backward()
        nn.utils.clip_grad_norm_(tail.parameters(), 1.0)
        take_step(adam)
        adam.zero_grad()

    return step


def seconds(step: Step) -> float:
    started = time.perf_counter()
    for _ in range(STEPS):
        step()
    return time.perf_counter() - started


@contextmanager
def busy(n: int) -> Iterator[None]:
    processes = [subprocess.Popen([sys.executable, "-c", BUSY]) for _ in range(n)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


if __name__ == "__main__":
    sys.exit(main())
