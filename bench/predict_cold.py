"""One photo, cold: `headstart predict` as a whole process against the same answer through torch + timm.

    python bench/predict_cold.py [--repeats 7]

Weights and photo: shared/. Both start a fresh interpreter, load the network, read the photo and print its top 3; they take
turns, so that a busy machine slows both. Wall-clock seconds, and CPU seconds, which a busy machine hardly changes.
"""

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import timm
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from headstart.bundle.export import build_bundle
from headstart.bundle.format import Label
from headstart.data.pixels import Preprocessing
from machine import machine, shared

PEER = """
import sys, timm, torch
from PIL import Image
from safetensors.torch import load_file
from timm.data import create_transform
name, arguments, weights, photo = sys.argv[1], eval(sys.argv[2]), sys.argv[3], sys.argv[4]
network = timm.create_model(name, **arguments).eval()
network.load_state_dict(load_file(weights))
transform = create_transform((3, 224, 224), crop_pct=0.875, interpolation='bilinear', mean=(0.5,) * 3, std=(0.5,) * 3)
with torch.inference_mode():
    probs = network(transform(Image.open(photo).convert('RGB'))[None]).softmax(1)[0]
for rank, i in enumerate(probs.topk(3).indices.tolist(), 1):
    print(f'{rank}: {i} {probs[i]:.2f}')
"""
OURS = "from headstart.cli.main import main; main()"


class Normalised(nn.Module):
    """uint8 [n, px, px, 3] -> logits, with mean and std of 0.5."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.network(images.permute(0, 3, 1, 2).float() / 127.5 - 1)


def networks(folder: Path) -> dict[str, str]:
    """Name -> arguments for timm; writes the weights in fp32. ResNet-50 gets random ones: only its size matters here."""
    mobilenet = load_file(shared() / "weights" / "mobilenetv2_100.imagenet1001.safetensors")
    save_file({name: tensor.float() for name, tensor in mobilenet.items()}, folder / "mobilenetv2_100.safetensors")
    save_file(timm.create_model("resnet50").state_dict(), folder / "resnet50.safetensors")
    return {"mobilenetv2_100": "dict(pad_type='same', num_classes=1001)", "resnet50": "dict()"}


def bundle(name: str, arguments: str, folder: Path) -> Path:
    network = timm.create_model(name, **eval(arguments)).eval()
    network.load_state_dict(load_file(folder / f"{name}.safetensors"))
    started = time.monotonic()
    build_bundle(
        folder / name,
        module=Normalised(network).eval(),
        labels=[Label(str(i)) for i in range(network.num_classes)],
        preprocessing=Preprocessing(224, 0.875, "bilinear", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
        temperature=1.0,
        provenance={},
        licence=None,
    )
    print(f"{name}: exported and checked in {time.monotonic() - started:.1f} s")
    return folder / name


def seconds(command: list[str]) -> tuple[float, float, str]:
    """Wall-clock seconds, CPU seconds and output of a process."""
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    done = subprocess.run(command, capture_output=True, text=True, check=True, env={**os.environ, "PYTHONWARNINGS": "ignore"})
    wall, after = time.monotonic() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, done.stdout


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=7, help="processes of each kind (>= 5 for a median worth printing)")
    repeats = parser.parse_args().repeats
    photo = str(sorted((shared() / "data" / "imagenet-samples").glob("*.jpg"))[0])
    print(machine())
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for name, arguments in networks(folder).items():
            ours = [sys.executable, "-c", OURS, "predict", str(bundle(name, arguments, folder)), photo, "--top", "3"]
            peer = [sys.executable, "-c", PEER, name, arguments, str(folder / f"{name}.safetensors"), photo]
            runs = [(seconds(ours), seconds(peer)) for _ in range(repeats + 1)][1:]  # the first fills the disk's cache
            print("\n".join(f"  {a:<24}{b}" for a, b in zip(*(run[2].splitlines() for run in runs[0]), strict=True)))
            for what, i in (("wall", 0), ("CPU", 1)):
                mine, theirs = (statistics.median(run[who][i] for run in runs) for who in (0, 1))
                print(f"{name}: {what} headstart {mine:.2f} s, torch + timm {theirs:.2f} s, ratio {theirs / mine:.1f}", flush=True)


if __name__ == "__main__":
    main()
