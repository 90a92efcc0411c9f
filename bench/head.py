"""How long choosing and fitting a linear head takes, beside scikit-learn's LogisticRegression with the strength already chosen.

    python bench/head.py                       # 50,000 x 2,048, 10 classes: the bar is 60 s
    python bench/head.py --rows 850 --features 1024 --classes 5 --repeats 5
    python bench/head.py --rows 100000 --features 512 --classes 200 --no-peer

The features are made up, in the 16 bits that the store keeps, and behave like pooled ones: not negative, skewed, correlated, with a
spectrum that falls slowly. scikit-learn gets the same data, scaled alike, in float32, and one fit only.
"""

import argparse
import os
import resource
import statistics
import sys
import time
from importlib.metadata import version

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression

from headstart import progress
from headstart.train.head import LinearHead, solve_linear
from headstart.train.softmax import Scaling, row_blocks
from machine import machine


def features(n: int, d: int, k: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """float16 [n, d] and labels int64 [n]."""
    rng = np.random.default_rng(seed)
    y = rng.integers(k, size=n)
    spread = (1 + np.arange(d)) ** -0.2
    centres = rng.normal(size=(k, d)) * spread * (12 / d) ** 0.5
    mixing = rng.normal(size=(d, d)).astype(np.float32) / d**0.5
    x = np.empty((n, d), dtype=np.float16)
    for rows in row_blocks(n, d):
        hidden = (rng.normal(size=(rows.stop - rows.start, d)) * spread + centres[y[rows]]).astype(np.float32)
        x[rows] = np.maximum(hidden @ mixing * d**0.5, 0)
    return x, y


def peer(x: np.ndarray, y: np.ndarray, head: LinearHead) -> None:
    scaling = Scaling.fit(x, np.ones(len(x)))
    z = ((x.astype(np.float32) - scaling.mean.astype(np.float32)) * scaling.factor.astype(np.float32)).astype(np.float32)
    started = time.perf_counter()
    model = LogisticRegression(C=1 / (head.strength * len(x)), max_iter=1000).fit(z, y)
    taken = time.perf_counter() - started
    same = np.mean(model.predict(z) == head.logits(x).argmax(1))
    print(f"scikit-learn, one fit of this strength: {taken:.1f} s, {model.n_iter_[0]} iterations; {same:.4f} of its labels are ours")


def peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024 if sys.platform == "linux" else 1024**2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=50_000)
    parser.add_argument("--features", type=int, default=2_048)
    parser.add_argument("--classes", type=int, default=10)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--folds", type=int, default=None)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--no-peer", action="store_true")
    given = parser.parse_args()
    print("command:", "python", *sys.argv)
    versions = ", ".join(f"{name} {version(name)}" for name in ("torch", "numpy", "scikit-learn"))
    print(f"machine: {machine()}, {torch.get_num_threads()} threads, load {os.getloadavg()[0]:.1f}; {versions}")
    before = peak_mib()
    x, y = features(given.rows, given.features, given.classes, given.seed)
    walls, cpus = [], []
    for _ in range(given.repeats):
        cpu = time.process_time()
        with progress.quiet():
            head = solve_linear(x, y, given.classes, folds=given.folds, device=given.device)
        walls.append(head.seconds)
        cpus.append(time.process_time() - cpu)
    print(f"headstart, choice and fit: median {statistics.median(walls):.1f} s of {[round(w, 1) for w in walls]}", end="; ")
    print(f"processor time {statistics.median(cpus):.1f} s; {peak_mib() - before:.0f} MiB above the import, features included")
    print(f"  strength {head.strength:.4g}, {head.folds} folds; tried:")
    for row in head.oof_table:
        print("   ", ", ".join(f"{name} {value:.4g}" for name, value in row.items()))
    if not given.no_peer:
        peer(x, y, head)


if __name__ == "__main__":
    main()
