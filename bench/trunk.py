"""The trunk pass, files on disk to stored features, against what the machine could give at best.

    python bench/trunk.py [--runs 3] [--photos 2000] [NETWORK ...]

In each run, in turn and on the same photos: bare forward (batches already in memory), bare decode (no network), and the
whole pass into an empty store. The best that one machine can give is 1 / (1/forward + 1/decode): both need all cores.
Photos are those of shared/data/flowers, repeated with trailing bytes that change their hash and not their pixels.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np

from headstart import progress
from headstart.backbone import cut, networks, weights
from headstart.data import pixels
from headstart.data.reading import read_ahead
from headstart.data.scan import scan
from headstart.data.table import Table
from headstart.features import engine
from headstart.features.extract import extract
from headstart.features.store import Store
from machine import machine, shared

NETWORKS = {
    "resnet50_keras_v1": ("resnet50_keras_v1.to_layer3.safetensors", "layer3"),
    "inception_v3": ("inception_v3.to_mixed_7a.safetensors", "Mixed_7a"),
    "mobilenetv2_100": ("mobilenetv2_100.imagenet1001.safetensors", None),
    "vit_tiny_patch16_224": ("vit_tiny_patch16_224.imagenet1000.safetensors", None),
}


def photos(folder: Path, n: int) -> Table:
    """`n` photos with hashes of their own."""
    originals = sorted((shared() / "data" / "flowers").rglob("*.jpg"))
    for i in range(n):
        place = folder / originals[i % len(originals)].parent.name / f"{i}.jpg"
        place.parent.mkdir(exist_ok=True, parents=True)
        place.write_bytes(originals[i % len(originals)].read_bytes() + i.to_bytes(4))
    return scan(str(folder))


def bare_forward(trunk: cut.Trunk, choice: engine.Choice, n: int) -> float:
    """Photos/s of the opened engine on batches that are already in memory."""
    session = engine.open_trunk(trunk, choice)
    px = trunk.network.preprocessing.input_px
    batch = np.random.default_rng(0).integers(0, 255, (session.batch_size, px, px, 3), np.uint8)
    for _ in session.map(batch for _ in range(3)):
        pass
    n_batches = max(4, n // session.batch_size)
    started = time.perf_counter()
    for _ in session.map(batch for _ in range(n_batches)):
        pass
    return n_batches * session.batch_size / (time.perf_counter() - started)


def bare_decode(table: Table, preprocessing: pixels.Preprocessing) -> float:
    """Photos/s of reading and decoding on all cores, no network."""
    started = time.perf_counter()
    for _ in read_ahead(lambda i: pixels.load(table.file(i), preprocessing), range(len(table)), threads=2, ahead=64):
        pass
    return len(table) / (time.perf_counter() - started)


def whole_pass(trunk: cut.Trunk, table: Table, choice: engine.Choice) -> float:
    """Photos/s from files to a store that was empty; opening the engine included."""
    with tempfile.TemporaryDirectory() as folder:
        features = extract(trunk, table, Store(Path(folder)), choice=choice)
        assert features.n_computed == len(table)
        return len(table) / features.seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", nargs="*", default=list(NETWORKS))
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--photos", type=int, default=2000)
    parser.add_argument("--engine", default="auto")
    arguments = parser.parse_args()
    print(machine())
    choice = engine.choose(arguments.engine)
    print(f"{choice.name}, {choice.precision}, {arguments.photos} photos, median (min to max) of {arguments.runs} runs, photos/s\n")
    print(f"{'network':<24}{'forward':>20}{'decode':>22}{'whole pass':>20}  of the best")
    with tempfile.TemporaryDirectory() as folder, progress.quiet():
        table = photos(Path(folder), arguments.photos)
        for name in arguments.networks:
            file, stop = NETWORKS[name]
            network = networks.build(weights.locate(name, shared() / "weights" / file, download=False), stop=stop, px=None)
            trunk, _ = cut.split(network, "head")
            whole_pass(trunk, table.subset(range(64)), choice)  # exports the graph, once for all runs
            rows = []
            for _ in range(arguments.runs):
                forward, decode = bare_forward(trunk, choice, arguments.photos // 2), bare_decode(table, network.preprocessing)
                rows.append((forward, decode, whole_pass(trunk, table, choice), 0.0))
                rows[-1] = (*rows[-1][:3], rows[-1][2] * (1 / forward + 1 / decode))
            columns = [f"{statistics.median(c):.1f} ({min(c):.1f} to {max(c):.1f})" for c in list(zip(*rows, strict=True))[:3]]
            ratios = [row[3] for row in rows]
            print(
                f"{name:<24}{columns[0]:>20}{columns[1]:>22}{columns[2]:>20}  "
                f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
            )


if __name__ == "__main__":
    main()
