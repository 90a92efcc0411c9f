"""Does fine-tuning pay, and did `headstart train` know? Probe, top stage, everything, and the default run.

    python bench/tuning.py --out FOLDER [--seeds 0 1 2] [--per-class N] [--ways probe default] [--data flowers] [NETWORK ...]

For each network with real weights (shared/): the head alone; the last stage trained too, over four stored views; everything trained,
augmented afresh in each epoch; and a run without any settings, whose advice (`tuning.verdict`) is held against what happened. As in any
run, the tuned network is kept only where val prefers it to the probe. Test accuracy with its 95 % interval; p is of McNemar's test
against the probe on the same test photos, pooled over the seeds; over all networks together, signs of each photo's sum are drawn at
random. `--per-class`: so many photos of each class, other ones for each seed, train and select; all others (`--tests` of each class at
most) are tests, so small gains are seen. Each run starts with an empty store, so its minutes are all there is.

A killed benchmark goes on where it was: finished runs in FOLDER are only read, an unfinished one is continued.
"""

import argparse
import contextlib
import csv
import json
import os
import shutil
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import embedded
from flowers import NETWORKS
from headstart import config, pipeline
from headstart.evaluate.intervals import mcnemar, wilson
from headstart.files import write_json
from headstart.runs import FINISHED, Run, read_record
from headstart.train.plan import BATCH, PATIENCE, RATE, RATE_DECAY
from machine import machine, shared

NOISE = 0.05  # a difference that chance makes this often, or more often, is noise
SAVE_S = 10.0  # between two notes of the time spent
WAYS = ("probe", "top stage", "everything", "default")

DRAWS = 20_000  # of signs, for the p-value of all networks together

DATA: dict[str, Callable[[Path], list[embedded.Row]]] = {
    "flowers": lambda out: embedded.flowers(),
    "digits": lambda out: embedded.digits(out / "digits"),
    "cifar10": lambda out: embedded.cifar_train(out / "cifar10"),
}
"""Photos and their labels, in a fixed order."""

Answers = dict[tuple[int, str], bool]
"""Of each test photo, by seed and path, whether the answer was right."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", nargs="*", default=[name for name, (file, _, _) in NETWORKS.items() if file is not None])
    parser.add_argument("--out", type=Path, required=True, help="runs are kept here")
    parser.add_argument("--data", choices=sorted(DATA), default="flowers")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--top", type=int, default=1, help="stages of `top stage`")
    parser.add_argument("--epochs", type=int, nargs=2, default=[12, 8], help="of `top stage` and `everything`, at most")
    parser.add_argument("--px", type=int)
    parser.add_argument("--per-class", type=int, help="photos of each class that train and select; without it, `train` divides the flowers")
    parser.add_argument("--tests", type=int, help="photos of each class that test, at most")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS), help="which to run; the probe is always run")
    given = parser.parse_args()
    if given.per_class is not None:
        given.out = given.out / "-".join(map(str, [given.data, given.per_class, *([] if given.tests is None else [given.tests])]))
    elif given.data != "flowers" or given.tests is not None:
        parser.error("--data and --tests need --per-class")
    print(machine())
    print(f"{'network':<22}{'way':<12}{'test accuracy':<24}{'against the probe':<26}{'minutes':>8}  kept")
    networks = [compare(name, given) for name in given.networks]
    for way in [way for way in given.ways if way != "probe"]:
        print(f"{'all together':<22}{way:<12}{in_all([(of_ways[way], of_ways['probe']) for of_ways in networks])}")


def compare(name: str, given: argparse.Namespace) -> dict[str, Answers]:
    """A network's rows of the table, and the advice."""
    file, stop, _ = NETWORKS[name]
    common = {"backbone": name, "weights": str(shared() / "weights" / file), "stop": stop}
    found: dict[str, Answers] = {}
    paid, was_tried, tunings = False, False, list[dict[str, Any]]()
    for way in [way for way in WAYS if way == "probe" or way in given.ways]:
        answers, minutes, tunings = Answers(), 0.0, list[dict[str, Any]]()
        for seed in given.seeds:
            folder = given.out / f"{name}-{way.replace(' ', '-')}-{seed}"
            data = str(photos(given, seed).resolve())
            run, run_minutes = kept_run(folder, keys=keys_of(way, name, given), data=data, **common, seed=seed, px=given.px)
            answers |= answers_of(run, seed)
            minutes += run_minutes
            tunings.append(run.record["tuning"])
        found[way] = answers
        better, worse = turned(answers, found["probe"])
        n_right, p = sum(answers.values()), mcnemar(better, worse)
        low, high = wilson(n_right, len(answers))
        accuracy = f"{n_right / len(answers):.3f} ({low:.3f} to {high:.3f})"
        word = "" if p >= NOISE else ", better" if better > worse else ", WORSE"
        beside = "" if way == "probe" else f"{(better - worse) / len(answers):+.3f}, p {p:.3f}{word}"
        kept = ", ".join(tuning["kept"] for tuning in tunings)
        print(f"{name:<22}{way:<12}{accuracy:<24}{beside:<26}{minutes:>8.1f}  {kept}", flush=True)
        paid = paid or (better > worse and p < NOISE)
        was_tried = was_tried or any(tuning["phases"] for tuning in tunings)
    if "default" in found:
        for seed, tuning in zip(given.seeds, tunings, strict=True):  # of the default runs, the last of WAYS
            print_advice(seed, tuning, paid if was_tried else None)
    return found


def print_advice(seed: int, tuning: dict[str, Any], paid: bool | None) -> None:
    """What a default run advised, beside what happened; None: no way tuned anything."""
    right = {"pays": paid, "does not pay": not paid}.get(tuning["verdict"])
    judged = "no advice" if right is None else "right" if right else "not borne out by these test photos"
    judged = "not judged" if paid is None else judged
    on_val = "" if tuning["hindsight"] is None else f"; on val of the default run it {tuning['hindsight']}"
    estimate = (
        "" if tuning["estimate_minutes"] is None else f", about {tuning['estimate_minutes']:.1f} minutes ({tuning['minutes']:.1f} taken)"
    )
    print(f"  advice, seed {seed}: {tuning['verdict']}{estimate}: {'; '.join(tuning['why'])}")
    happened = "fine-tuning beat the probe" if paid else "no fine-tuning beat the probe beyond noise"
    happened = "nothing was tuned" if paid is None else happened
    print(f"    on test {happened}{on_val}: {judged}", flush=True)


def keys_of(way: str, name: str, given: argparse.Namespace) -> dict[str, Any]:
    """The configuration of a way; phases as `plan` would set them, but for where they cut and how long they take."""
    if way == "default":
        return {}
    if way == "probe":
        return {"tune": "never"}
    phase = {"rate": RATE["layer" if name.startswith("vit") else "batch"], "rate_decay": RATE_DECAY, "batch_size": BATCH}
    n_top, n_all = given.epochs
    depth = {"cut": f"top {given.top}", "epochs": n_top, "views": 4} if way == "top stage" else {"cut": "input", "epochs": n_all}
    return {f"phases.0.{key}": value for key, value in {**phase, **depth, "patience": PATIENCE}.items()}


def photos(given: argparse.Namespace, seed: int) -> Path:
    """The flowers' folder; with `--per-class`, a list in which so many photos of each class train and others are tests."""
    if given.per_class is None:
        return shared() / "data" / "flowers"
    of_class: dict[str, list[str]] = {}
    for path, label in DATA[given.data](given.out):
        of_class.setdefault(label, []).append(str(Path(path).resolve()))
    rng, rows = np.random.default_rng(seed), []
    most = None if given.tests is None else given.per_class + given.tests
    for label, paths in of_class.items():
        for i, path in enumerate(rng.permutation(paths)[:most]):
            rows.append((path, label, "train" if i < given.per_class else "test"))
    return embedded.write(given.out / f"photos-{seed}.csv", [row[:2] for row in rows], [row[2] for row in rows])


def answers_of(run: Run, seed: int) -> Answers:
    """Whether each test photo was answered right."""
    with (run.folder / "predictions.csv").open(newline="", encoding="utf-8") as file:
        return {(seed, row["path"]): row["label"] == row["predicted"] for row in csv.DictReader(file)}


def turned(answers: Answers, probe: Answers) -> tuple[int, int]:
    """How many wrong answers of the probe became right, and right ones wrong."""
    assert answers.keys() == probe.keys(), "not the same test photos"
    return sum(now and not probe[key] for key, now in answers.items()), sum(not now and probe[key] for key, now in answers.items())


def in_all(networks: Sequence[tuple[Answers, Answers]]) -> str:
    """What became of the probes' answers in all networks. Answers to the same photo are alike, so chance has one sign for each photo."""
    better, worse = np.sum([turned(*pair) for pair in networks], axis=0).tolist()
    of_photo: Counter[str] = Counter()
    for answers, probe in networks:
        for (seed, path), now in answers.items():
            of_photo[path] += int(now) - int(probe[seed, path])
    sums = np.array([change for change in of_photo.values() if change])
    rng = np.random.default_rng(0)
    drawn = np.array([abs(int(rng.choice([-1, 1], len(sums)) @ sums)) for _ in range(DRAWS)])
    return f"{better} wrong answers became right, {worse} right ones wrong; p {(drawn >= abs(sums.sum())).mean():.3f}"


def kept_run(folder: Path, *, recipe: str | None = None, keys: Mapping[str, Any], **given: Any) -> tuple[Run, float]:
    """The run of a configuration in `folder`, done, continued or only read; and its minutes, all attempts counted.

    Raises: ConfigError: the folder holds an unfinished run of another configuration. ValueError: a finished one.
    """
    asked = config.load(recipe, [f"{key}={json.dumps(value)}" for key, value in keys.items()], **given)
    spent = folder.with_name(f"{folder.name}.seconds")
    record = read_record(folder) if (folder / "run.json").exists() else {}
    if record.get("status") != FINISHED:
        cache = folder.with_name(f"{folder.name}.cache")
        os.environ["HEADSTART_CACHE"] = str(cache)  # of its own: no rows of earlier runs
        with counted(spent):
            pipeline.fit(asked, folder)
        shutil.rmtree(cache, ignore_errors=True)
    elif record["asked"] != json.loads(json.dumps(asked.to_json())):
        raise ValueError(f"{folder} holds a run of another configuration: remove it, or choose another --out")
    return Run(folder), json.loads(spent.read_text()) / 60


@contextlib.contextmanager
def counted(file: Path) -> Iterator[None]:
    """Add the seconds of the block to those in `file`, kept up to date so that a kill loses SAVE_S at most."""
    before, started, ended = json.loads(file.read_text()) if file.exists() else 0.0, time.monotonic(), threading.Event()

    def keep() -> None:
        is_over = False
        while not is_over:
            is_over = ended.wait(SAVE_S)
            write_json(file, round(before + time.monotonic() - started, 1))

    keeper = threading.Thread(target=keep, daemon=True)
    keeper.start()
    try:
        yield
    finally:
        ended.set()
        keeper.join()


if __name__ == "__main__":
    sys.exit(main())
