"""Frozen networks on 1,000 photos of flowers: test accuracy of `headstart train --recipe quick`, seeds 0, 1, 2.

    python bench/flowers.py [--out FOLDER]

Weights and photos: shared/. The trunk pass runs once for each network; the second and third seed reuse its rows. Beside
each mean stands the plain logistic regression of shared/README.md (five folds, centre crops) as the scale.
"""

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path

import headstart
from machine import machine, shared

NETWORKS = {
    "embedded": (None, None, None),
    "resnet50_keras_v1": ("resnet50_keras_v1.to_layer3.safetensors", "layer3", 0.898),
    "inception_v3": ("inception_v3.to_mixed_7a.safetensors", "Mixed_7a", 0.909),
    "mobilenetv2_100": ("mobilenetv2_100.imagenet1001.safetensors", None, 0.895),
    "vit_tiny_patch16_224": ("vit_tiny_patch16_224.imagenet1000.safetensors", None, 0.931),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", nargs="*", default=list(NETWORKS))
    parser.add_argument("--out", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    arguments = parser.parse_args()
    out = Path(tempfile.mkdtemp()) if arguments.out is None else arguments.out
    print(machine())
    print(f"{'network':<24}{'mean':>7}  {'each seed':<24}{'plain':>7}  seconds of each run; rows computed")
    for name in arguments.networks:
        file, stop, plain = NETWORKS[name]
        weights = None if file is None else shared() / "weights" / file
        runs, seconds = [], []
        for seed in arguments.seeds:
            started = time.monotonic()
            folder = out / f"{name}-{seed}"
            photos = shared() / "data" / "flowers"
            runs.append(headstart.fit(photos, backbone=name, weights=weights, stop=stop, seed=seed, recipe="quick", out=folder))
            seconds.append(f"{time.monotonic() - started:.1f}")
        scores = [run.accuracy for run in runs]
        computed = [run.record["trunk"]["rows_computed"] for run in runs]
        beside = "" if plain is None else f"{plain:.3f}"
        each = " ".join(f"{score:.3f}" for score in scores)
        print(f"{name:<24}{statistics.mean(scores):>7.3f}  {each:<24}{beside:>7}  {' '.join(seconds)}; {computed}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
