"""Which score tells photos of unknown classes, and which sets of labels are the smallest: measured on stored features.

    python bench/novelty.py --out FOLDER [--photos flowers cifar10] [--networks vit_tiny_patch16_224 embedded]

Unknown: each class is left out in turn and the linear head solved again (strength chosen once, on all classes; 5 folds, 1 for more than
2,000 photos). Found are its photos above the threshold at which 5 % of the other classes' held-out photos lie. Then photos of quite
another kind, put to the head of all classes: the other folder's, and shared/'s ImageNet samples (a few of which do show flowers).

Sets: thresholds from out-of-fold answers, tried on CIFAR-10's test photos; sizes at equal coverage have their threshold from the test
photos themselves, which is good for comparing rules and nothing else. Exit status 1 where the coverage of 90 % sets is more than 2 points
off there, or the calibration error above 0.03.

Photos and weights: shared/. Rows come from the feature store.
"""

import argparse
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from embedded import cifar, write
from flowers import NETWORKS
from headstart import progress
from headstart.backbone import cut, networks
from headstart.backbone.weights import locate
from headstart.data.scan import scan
from headstart.data.split import split_table
from headstart.data.table import Table
from headstart.evaluate import conformal, novelty
from headstart.evaluate.calibrate import ece, temperature
from headstart.features.extract import extract
from headstart.features.store import Store
from headstart.files import cache_folder
from headstart.train.folds import assign_folds
from headstart.train.head import FOLDS, LinearHead, solve_linear
from headstart.train.leave_out import leave_one_class_out
from headstart.train.softmax import Scaling
from machine import machine, shared

NEIGHBOURS = (1, 5, 10, 50)
ECE_BAR = 0.03  # on CIFAR-10's test photos, after temperature
COVERAGE_BAR = 0.02  # how far the coverage of 90 % sets may be off there
FACTORS = (0.25, 1.0, 4.0)  # of the calibrated temperature

Array = np.ndarray
Rule = Callable[[Array], Array]
"""Probabilities [n, k] -> how strange each label is for the photo [n, k]: a set holds the labels up to a threshold, and the top one."""


@dataclass(frozen=True)
class Stored:
    """Photos and their features: rows [n, d] of a table's photos."""

    name: str
    table: Table
    rows: Array

    @cached_property
    def fit(self) -> Array:
        """Indices of photos that are not for testing."""
        return np.flatnonzero([photo.split != "test" for photo in self.table.photos])

    @cached_property
    def test(self) -> Array:
        return np.flatnonzero([photo.split == "test" for photo in self.table.photos])

    @cached_property
    def folds(self) -> int:
        return FOLDS if len(self.fit) <= 2_000 else 1

    @cached_property
    def head(self) -> LinearHead:
        table = self.table
        return solve_linear(
            self.rows[self.fit], table.labels[self.fit], len(table.classes), groups=table.groups[self.fit], folds=self.folds
        )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="lists of photos are kept here")
    parser.add_argument("--photos", nargs="+", default=["flowers", "cifar10"], choices=["flowers", "cifar10"])
    parser.add_argument("--networks", nargs="+", default=["vit_tiny_patch16_224", "embedded"], choices=list(NETWORKS))
    parser.add_argument("--sets", action="store_true", help="only the sets of labels and the calibration error")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    print(machine())
    tables = {name: listed(name, given.out) for name in given.photos}
    kept = True
    for network in given.networks:
        stored = [features(network, name, table) for name, table in tables.items()]
        for one in stored:
            if one.name == "cifar10":
                kept &= sets(network, one)
        if given.sets:
            continue
        samples = features(network, "ImageNet", listed("ImageNet", given.out))
        for one in stored:
            left_out(network, one)
            for other in [*stored, samples]:
                if other is not one:
                    elsewhere(network, one, other)
    return int(not kept)


def listed(name: str, out: Path) -> Table:
    """Flowers and ImageNet's samples, none of them for testing; CIFAR-10 as bench/embedded.py draws it, less copies of test photos."""
    if name == "ImageNet":
        files = sorted((shared() / "data" / "imagenet-samples").glob("*.jpg"))
        return scan(str(write(out / "lists" / "imagenet.csv", [(str(file), "any") for file in files], [""] * len(files))), least_classes=1)
    if name == "flowers":
        return scan(str(shared() / "data" / "flowers"))
    return split_table(scan(str(cifar(out / "cifar10", out / "lists" / "cifar10.csv"))), seed=0)


def features(network: str, name: str, table: Table) -> Stored:
    file, stop, _ = NETWORKS[network]
    built = networks.build(locate(network, None if file is None else shared() / "weights" / file), stop=stop)
    passed = extract(cut.split(built, "head")[0], table, Store(cache_folder() / "store"))
    return Stored(name, table, passed.rows[:])


def left_out(network: str, stored: Stored) -> None:
    """One line a score: mean detection and AUROC over the classes left out."""
    x, y, groups = stored.rows[stored.fit], stored.table.labels[stored.fit], stored.table.groups[stored.fit]
    started = time.perf_counter()
    found = leave_one_class_out(x, y, stored.table.classes, groups=groups, strength=stored.head.strength)
    seconds = time.perf_counter() - started
    print(f"\n{network}, {stored.name}: {len(x)} photos; leave_one_class_out took {seconds:.1f} s on at most about 1,000 of them:")
    for score, one in found["scores"].items():
        low, high = one["detection_ci95"]
        print(f"  {score:<24}detection {one['detection']:.3f} ({low:.3f} to {high:.3f}), AUROC {one['auroc']:.3f}")
    per_score: dict[str, list[tuple[float, float]]] = {}
    for c in range(len(stored.table.classes)):
        known, unknown = scored(x, y, groups, c, stored.head.strength, stored.folds)
        for score in known:
            threshold = novelty.threshold(known[score])
            assert threshold is not None
            better = (unknown[score][:, None] > known[score]).mean()
            per_score.setdefault(score, []).append((float((unknown[score] > threshold).mean()), float(better)))
    print("  all photos, other scores:")
    for score, values in per_score.items():
        each = " ".join(f"{detection:.2f}" for detection, _ in values)
        print(
            f"  {score:<24}detection {np.mean([v[0] for v in values]):.3f}, AUROC {np.mean([v[1] for v in values]):.3f}; each class: {each}"
        )
    sys.stdout.flush()


def scored(x: Array, y: Array, groups: Array, c: int, strength: float, folds: int) -> tuple[dict[str, Array], dict[str, Array]]:
    """Every score of held-out photos of the known classes, and of the photos of class c, which the head has never seen."""
    rows, unknown = x[y != c], x[y == c]
    labels, g = np.unique(y[y != c], return_inverse=True)[1], groups[y != c]
    head = solve_linear(rows, labels, int(labels.max()) + 1, groups=g, strengths=[strength], folds=folds)
    fold_of = assign_folds(rows, labels, FOLDS, groups=g, seed=0)
    scale = temperature(head.oof_logits, labels[head.oof_index])
    of_known, of_unknown = by_logits(head.oof_logits, scale), by_logits(head.logits(unknown), scale)
    scaling = Scaling.fit(rows, np.ones(len(rows)))
    for name, prepare in (("", unit), (", scaled", lambda some: unit((some.astype(np.float32) - scaling.mean) * scaling.factor))):
        stored, asked = prepare(rows), prepare(unknown)
        held = np.zeros((len(rows), len(NEIGHBOURS)))
        for fold in np.unique(fold_of[head.oof_index]):
            held[fold_of == fold] = distances(stored[fold_of == fold], stored[fold_of != fold])
        far = distances(asked, stored)
        for i, k in enumerate(NEIGHBOURS):
            of_known[f"nearest, k = {k}{name}"] = held[head.oof_index, i]
            of_unknown[f"nearest, k = {k}{name}"] = far[:, i]
    return of_known, of_unknown


def by_logits(logits: Array, scale: float) -> dict[str, Array]:
    found = {f"energy, {factor:g} x calibrated": novelty.energy(logits, factor * scale) for factor in FACTORS}
    z = logits.astype(np.float64)
    return {"energy, T = 1": novelty.energy(z), **found, "top logit": -z.max(1), "top probability": -probabilities(z, scale).max(1)}


def probabilities(logits: Array, scale: float) -> Array:
    weights = np.exp((logits.astype(np.float64) - logits.max(1, keepdims=True)) / scale)
    return np.asarray(weights / weights.sum(1, keepdims=True))


def unit(rows: Array) -> Array:
    values = rows.astype(np.float32)
    return np.asarray(values / np.linalg.norm(values, axis=1, keepdims=True))


def distances(asked: Array, stored: Array) -> Array:
    """Cosine distances to the k-th nearest stored row, for each k of NEIGHBOURS: [n, 4]."""
    found = []
    for start in range(0, len(asked), 500):
        likeness = -np.partition(-(asked[start : start + 500] @ stored.T), [k - 1 for k in NEIGHBOURS], axis=1)
        found.append(1 - likeness[:, [k - 1 for k in NEIGHBOURS]])
    return np.concatenate(found)


def elsewhere(network: str, stored: Stored, other: Stored) -> None:
    """Photos of quite another kind, put to the head of all classes and to the stored features of its photos."""
    fixed = novelty.fit(stored.head.oof_logits)
    some = other.rows[np.random.default_rng(0).permutation(len(other.rows))[:2_000]]
    far = novelty.energy(stored.head.logits(some)) > fixed.threshold
    kept = np.sort(np.random.default_rng(0).permutation(stored.fit)[:4_000])
    known, groups = unit(stored.rows[kept]), stored.table.groups[kept]
    fold_of = assign_folds(stored.rows[kept], stored.table.labels[kept], FOLDS, groups=groups, seed=0)
    held = np.concatenate([distances(known[fold_of == fold], known[fold_of != fold]) for fold in range(FOLDS)])[:, 0]
    nearest = distances(unit(some), known)[:, 0] > novelty.threshold(held)
    print(f"  {network}: of {len(far)} photos of {other.name}, none of {stored.name}'s classes: ", end="")
    print(f"{far.mean():.3f} by energy, {nearest.mean():.3f} by the nearest, {(far | nearest).mean():.3f} by either", end="")
    if len(stored.test):
        called = novelty.energy(stored.head.logits(stored.rows[stored.test])) > fixed.threshold
        print(f"; by energy also {called.mean():.4f} of its own {len(called)} test photos", end="")
    print(flush=True)


def ranks(probs: Array) -> tuple[Array, Array]:
    """Of each label, its place (0 is the most probable), and the probability of all labels before it: [n, k] both."""
    order = np.argsort(-probs, axis=1, kind="stable")
    place = np.argsort(order, axis=1, kind="stable")
    sorted_probs = np.take_along_axis(probs, order, axis=1)
    return place, np.take_along_axis(sorted_probs.cumsum(1) - sorted_probs, place, axis=1)


def raps(penalty: float) -> Rule:
    def rule(probs: Array) -> Array:
        place, before = ranks(probs)
        return before + penalty * place

    return rule


RULES: dict[str, Rule] = {
    "LAC (in use)": lambda probs: 1 - probs,
    "APS": raps(0.0),
    "RAPS, 0.01": raps(0.01),
    "RAPS, 0.05": raps(0.05),
    "RAPS, 0.1": raps(0.1),
    "the first few": lambda probs: ranks(probs)[0].astype(float),
}


def sets(network: str, stored: Stored) -> bool:
    """Coverage and size of 90 % sets on test photos, for each rule; and of those that bundles make, class by class.

    Returns: whether coverage and calibration error are within their bars.
    """
    head, y, y_test = stored.head, stored.table.labels[stored.fit], stored.table.labels[stored.test]
    held, test = head.oof_logits, head.logits(stored.rows[stored.test])
    labels = y[head.oof_index]
    scale = temperature(held, labels)
    probs, probs_test = probabilities(held, scale), probabilities(test, scale)
    right = (test.argmax(1) == y_test).mean()
    print(f"\n{network}, {stored.name}: {len(labels)} photos fix the threshold, {len(y_test)} test", end="; ")
    error = ece(probs_test, y_test)
    print(f"{right:.4f} right, ece {error:.4f}; the bar is {ECE_BAR}: {'reached' if error <= ECE_BAR else 'MISSED'}")
    for name, rule in RULES.items():
        fixed = inside(rule, probs_test, quantile(rule, probs, labels, 0.9))
        equal = inside(rule, probs_test, quantile(rule, probs_test, y_test, 0.9))
        covered, covered_equally = (some[np.arange(len(y_test)), y_test] for some in (fixed, equal))
        each = [covered[y_test == c].mean() for c in range(len(stored.table.classes))]
        print(
            f"  {name:<16}coverage {covered.mean():.4f} (classes {min(each):.3f} to {max(each):.3f}), {fixed.sum(1).mean():.3f} labels",
            end="; ",
        )
        print(f"at coverage {covered_equally.mean():.4f}: {equal.sum(1).mean():.3f} labels")
    for coverage in (0.8, 0.9, 0.95, 0.99):
        found = conformal.measure(conformal.fit(probs, labels, coverage), probs_test, y_test, stored.table.classes)
        low, high = found["coverage_ci95"]
        print(f"  asked {coverage}: {found['coverage']:.4f} ({low:.4f} to {high:.4f}), {found['mean_size']:.2f} labels")
    off = abs(conformal.measure(conformal.fit(probs, labels, 0.9), probs_test, y_test, stored.table.classes)["coverage"] - 0.9)
    verdict = "reached" if off <= COVERAGE_BAR else "MISSED"
    print(f"  asked 0.9: {off:.4f} off; the bar is {COVERAGE_BAR}: {verdict}", flush=True)
    return error <= ECE_BAR and off <= COVERAGE_BAR


def quantile(rule: Rule, probs: Array, labels: Array, coverage: float) -> float:
    """The threshold of a rule whose sets always hold the top label."""
    own = np.arange(len(labels))
    strange = np.where(probs.argmax(1) == labels, -1.0, rule(probs)[own, labels])
    return float(np.sort(strange)[conformal.rank_of(len(labels), coverage) - 1])


def inside(rule: Rule, probs: Array, threshold: float) -> Array:
    found = rule(probs) <= threshold
    found[np.arange(len(probs)), probs.argmax(1)] = True
    return found


if __name__ == "__main__":
    with progress.quiet():
        sys.exit(main())
