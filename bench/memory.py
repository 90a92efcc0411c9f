"""Peak memory of scan, trunk pass and head on the 60,000 photos of CIFAR-10, above what importing takes.

    python bench/memory.py [--photos FOLDER_OR_ARCHIVE] [--weights FILE --backbone NAME] [--px 96]

Photos: shared/data/cifar10.tar.xz by default. Prints resident megabytes after import and at the peak of each stage.
"""

import argparse
import resource
import sys
import tempfile
import threading
import time
from pathlib import Path

from machine import machine, shared


class Peak(threading.Thread):
    """Samples this process's resident memory ten times a second."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.mib = 0.0

    def run(self) -> None:
        while True:
            self.mib = max(self.mib, resident_mib())
            time.sleep(0.1)

    def take(self) -> float:
        """The peak since the last call."""
        peak, self.mib = self.mib, 0.0
        return peak


def resident_mib() -> float:
    """Resident memory now; /proc is Linux, elsewhere the peak so far."""
    status = Path("/proc/self/statm")
    if status.exists():
        return int(status.read_text().split()[1]) * resource.getpagesize() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", default=str(shared() / "data" / "cifar10.tar.xz"))
    parser.add_argument("--backbone", default="embedded")
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--px", type=int)
    arguments = parser.parse_args()

    import torch  # noqa: F401

    from headstart.backbone import cut, networks, weights
    from headstart.data.scan import scan
    from headstart.data.split import split_table
    from headstart.features import engine
    from headstart.features.extract import Extractor
    from headstart.features.store import Store
    from headstart.train.learn import Task, learn

    network = networks.build(weights.locate(arguments.backbone, arguments.weights, download=False), stop=None, px=arguments.px)
    choice = engine.choose()
    base = resident_mib()
    print(
        f"{machine()}\nafter import: {base:.0f} MiB; "
        f"{network.name} at {network.preprocessing.input_px} px, {choice.name}, {choice.precision}"
    )
    peak = Peak()
    peak.start()

    def say(stage: str, started: float) -> None:
        top = peak.take()
        print(f"{stage:<12} {time.monotonic() - started:7.1f} s   peak {top:6.0f} MiB, {top - base:6.0f} above the import", flush=True)

    started = time.monotonic()
    table = split_table(scan(arguments.photos), seed=0)
    say(f"scan {len(table)}", started)
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder))
        started = time.monotonic()
        rows = Extractor(table, store, choice)
        rows(cut.Trunk(network, "head"))
        say("trunk pass", started)
        n_files = sum(1 for path in Path(folder).rglob("*") if path.is_file())
        started = time.monotonic()
        learn(Task(network, rows))
        say("head", started)
        print(f"files in the store: {n_files}")


if __name__ == "__main__":
    main()
