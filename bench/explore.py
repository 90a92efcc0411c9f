"""What `headstart explore` measures on CIFAR-10 beside its known figures, and its time and memory on all 60,000 photos.

    python bench/explore.py figures
    python bench/explore.py time [--photos N] [--backbone NAME] [--weights FILE] [--out FOLDER]

figures: mean and standard deviation of the first 1,000 training photos of each class, which compare with a tutorial's 10,000 (the
first of the original order, which shared/'s copy does not have), and of all 50,000, which compare without any choice. shared/'s copy
is re-encoded as JPEG; what is left after sampling is what re-encoding changes.

time: seconds of each stage and the peak of resident memory, above what importing takes. Bars, on two cores: 10 minutes beside the
trunk pass, 3 GiB. `--photos` takes every so-many-th photo, for a smoke test. The feature store is empty at the start.
"""

import argparse
import csv
import os
import sys
import tarfile
import tempfile
import time
from pathlib import Path

import numpy as np

from machine import machine, shared
from memory import Peak, resident_mib

TUTORIAL = {"mean": 121.04, "std": 64.39}  # of the first 10,000 training photos, 937 to 1,032 of each class
PUBLISHED = {"mean": (0.4914, 0.4822, 0.4465), "std": (0.2470, 0.2435, 0.2616)}  # of all 50,000, as most recipes quote them
BAR_MINUTES, BAR_GIB = 10, 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("figures", "time"))
    parser.add_argument("--photos", type=int, default=60_000)
    parser.add_argument("--backbone")
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--out", type=Path, help="keep the exploration here")
    given = parser.parse_args()
    print(machine())
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["HEADSTART_CACHE"] = str(folder / "cache")
        with tarfile.open(shared() / "data" / "cifar10.tar.xz") as tar:
            tar.extractall(folder, filter="data")
        if given.what == "figures":
            figures(folder / "cifar10")
        else:
            explored(folder, given)


def figures(photos: Path) -> None:
    """Ours beside theirs, and by how much they differ."""
    from headstart.data.scan import scan
    from headstart.explore.look import look

    table = scan(photos / "train")
    looks = look(table)
    order = np.argsort(table.labels, kind="stable")  # paths are sorted within a class
    first = np.concatenate([order[table.labels[order] == k][:1_000] for k in range(len(table.classes))])
    counts = np.bincount(table.labels, minlength=len(table.classes))
    print(f"photos of each class: {counts.min():,} to {counts.max():,}; {len(table.omitted)} left out")
    means, squares = looks.mean[first].astype(np.float64), looks.std[first].astype(np.float64) ** 2 + looks.mean[first] ** 2.0
    mean, std = means.mean(), np.sqrt(squares.mean() - means.mean() ** 2)
    by_chance = 1.96 * means.mean(1).std() * np.sqrt(2 / len(first))  # of two draws of as many photos
    print(f"first 1,000 of each class: mean {mean:.2f}, std {std:.2f}")
    print(f"  tutorial's 10,000:       mean {TUTORIAL['mean']:.2f}, std {TUTORIAL['std']:.2f}")
    differences = f"{mean - TUTORIAL['mean']:+.2f} and {std - TUTORIAL['std']:+.2f}"
    print(f"  difference {differences}; of the mean, other photos alone make up to {by_chance:.2f} in 95 of 100")
    for name, ours in (("mean", looks.pixel_mean / 255), ("std", looks.pixel_std / 255)):
        said = ", ".join(f"{value:.4f}" for value in ours)
        differences = ", ".join(f"{255 * value:+.2f}" for value in ours - PUBLISHED[name])
        print(f"all 50,000: {name} {said}; published {PUBLISHED[name]}; difference of 255: {differences}")
    print(f"all 50,000, all channels: mean {looks.mean_all:.2f}, std {looks.std_all:.2f}")


def explored(folder: Path, given: argparse.Namespace) -> None:
    """One exploration, timed."""
    from headstart.explore.explore import explore

    data = listed(folder, given.photos)
    base = resident_mib()
    peak = Peak()
    peak.start()
    started = time.monotonic()
    found = explore(data, out=folder / "out" if given.out is None else given.out, backbone=given.backbone, weights=given.weights)
    seconds = time.monotonic() - started
    beside = seconds - found.seconds["trunk"]
    top = peak.take()
    print(f"{len(found.table):,} photos, {found.backbone}: {seconds:.0f} s, of which the trunk pass {found.seconds['trunk']:.0f} s")
    print(
        "  "
        + ", ".join(f"{name} {value:.1f}" for name, value in found.seconds.items())
        + f"; files {seconds - sum(found.seconds.values()):.1f}"
    )
    print(f"  beside the trunk pass {beside / 60:.1f} minutes (bar {BAR_MINUTES}): {'held' if beside <= 60 * BAR_MINUTES else 'MISSED'}")
    print(f"  peak {top:.0f} MiB, {top - base:.0f} above the import (bar {BAR_GIB} GiB): {'held' if top <= 1024 * BAR_GIB else 'MISSED'}")
    page = found.folder / "report.html"
    print(f"  report {page.stat().st_size / 2**20:.1f} MiB, {len(found.duplicates.to_json()['clusters'])} duplicate clusters listed")


def listed(folder: Path, n: int) -> Path:
    """A list of `n` of the photos, evenly spaced, with their given splits; the folder itself where all are wanted."""
    root = folder / "cifar10"
    photos = sorted(path.relative_to(folder) for path in root.rglob("*.jpg"))
    if n >= len(photos):
        return root
    target = folder / "some.csv"
    with target.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "label", "split"])
        some = (photos[i] for i in np.linspace(0, len(photos) - 1, n).astype(int))
        writer.writerows([path.as_posix(), path.parts[2], path.parts[1]] for path in some)
    return target


if __name__ == "__main__":
    sys.exit(main())
