"""Does fine-tuning pay on 1,000 photos of flowers, and did `headstart train` know? Probe, top stage, everything, and the default run.

    python bench/tuning.py --out FOLDER [--seeds 0 1 2] [NETWORK ...]

For each network with real weights (shared/): the head alone; the last stage trained too, over four stored views; everything trained,
augmented afresh in each epoch; and a run without any settings, whose advice (`tuning.verdict`) is held against what happened. As in any
run, the tuned network is kept only where val prefers it to the probe. Test accuracy with its 95 % interval; p is of McNemar's test
against the probe on the same test photos, pooled over the seeds. Each run starts with an empty store, so its minutes are all there is.

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
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

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

Answers = list[tuple[str, bool]]
"""Test photos in order, with their seed, and whether the answer was right."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", nargs="*", default=[name for name, (file, _, _) in NETWORKS.items() if file is not None])
    parser.add_argument("--out", type=Path, required=True, help="runs are kept here")
    parser.add_argument("--data", type=Path, default=shared() / "data" / "flowers")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--top", type=int, default=1, help="stages of `top stage`")
    parser.add_argument("--epochs", type=int, nargs=2, default=[12, 8], help="of `top stage` and `everything`, at most")
    parser.add_argument("--px", type=int)
    given = parser.parse_args()
    print(machine())
    print(f"{'network':<22}{'way':<12}{'test accuracy':<24}{'against the probe':<26}{'minutes':>8}  kept")
    for name in given.networks:
        compare(name, given)


def compare(name: str, given: argparse.Namespace) -> None:
    """A network's rows of the table, and the advice."""
    file, stop, _ = NETWORKS[name]
    common = {"data": str(given.data.resolve()), "backbone": name, "weights": str(shared() / "weights" / file), "stop": stop}
    probe: Answers = []
    differences: dict[str, tuple[float, float]] = {}
    for way in WAYS:
        answers, minutes, tunings = Answers(), 0.0, []
        for seed in given.seeds:
            folder = given.out / f"{name}-{way.replace(' ', '-')}-{seed}"
            run, run_minutes = kept_run(folder, keys=keys_of(way, name, given), **common, seed=seed, px=given.px)
            answers += answers_of(run, seed)
            minutes += run_minutes
            tunings.append(run.record["tuning"])
        probe = answers if way == "probe" else probe
        gain, p = differences[way] = against(answers, probe)
        n_right = sum(right for _, right in answers)
        low, high = wilson(n_right, len(answers))
        accuracy = f"{n_right / len(answers):.3f} ({low:.3f} to {high:.3f})"
        word = "" if p >= NOISE else ", better" if gain > 0 else ", WORSE"
        beside = "" if way == "probe" else f"{gain:+.3f}, p {p:.2f}{word}"
        kept = ", ".join(tuning["kept"] for tuning in tunings)
        print(f"{name:<22}{way:<12}{accuracy:<24}{beside:<26}{minutes:>8.1f}  {kept}", flush=True)
    paid = any(gain > 0 and p < NOISE for gain, p in (differences["top stage"], differences["everything"]))
    for seed, tuning in zip(given.seeds, tunings, strict=True):  # of the default runs, the last of WAYS
        print_advice(seed, tuning, paid)


def print_advice(seed: int, tuning: dict[str, Any], paid: bool) -> None:
    """What a default run advised, beside what happened."""
    right = {"pays": paid, "does not pay": not paid}.get(tuning["verdict"])
    judged = "no advice" if right is None else "right" if right else "not borne out by these test photos"
    on_val = "" if tuning["hindsight"] is None else f"; on val of the default run it {tuning['hindsight']}"
    estimate = (
        "" if tuning["estimate_minutes"] is None else f", about {tuning['estimate_minutes']:.1f} minutes ({tuning['minutes']:.1f} taken)"
    )
    print(f"  advice, seed {seed}: {tuning['verdict']}{estimate}: {'; '.join(tuning['why'])}")
    happened = "fine-tuning beat the probe" if paid else "no fine-tuning beat the probe beyond noise"
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


def answers_of(run: Run, seed: int) -> Answers:
    """Whether each test photo was answered right."""
    with (run.folder / "predictions.csv").open(newline="", encoding="utf-8") as file:
        return [(f"{seed} {row['path']}", row["label"] == row["predicted"]) for row in csv.DictReader(file)]


def against(answers: Answers, probe: Answers) -> tuple[float, float]:
    """Gain over the probe in accuracy, and how often chance alone makes a difference like it."""
    assert [photo for photo, _ in answers] == [photo for photo, _ in probe], "not the same test photos"
    better = sum(now and not before for (_, now), (_, before) in zip(answers, probe, strict=True))
    worse = sum(before and not now for (_, now), (_, before) in zip(answers, probe, strict=True))
    return (better - worse) / len(answers), mcnemar(better, worse)


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
