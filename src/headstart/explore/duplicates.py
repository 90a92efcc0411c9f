"""Photos that are there twice, in clusters: within and across splits and classes; the stored features have a say in what is alike."""

import csv
import math
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from headstart.data.duplicates import DOUBTFUL_EVIDENCE, DOUBTFUL_LIKENESS, EVIDENCE, LIKENESS, Pair, clusters, find_pairs
from headstart.data.table import Table
from headstart.files import atomic_file

# Of pairs of strangers of one class, the share that must be less alike in features: for pixels' own finds, and for doubtful ones.
_LEAST_SHARE, _DOUBTFUL_SHARE = 0.75, 0.999
_STRANGERS = 20_000  # pairs drawn to know how alike strangers are

_COMPARED = 2048  # pairs in memory at once

Floats = npt.NDArray[np.floating[Any]]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Cluster:
    """Photos of one picture.

    kind: exact: equal files, all of them; near: copies that were changed a little, perhaps beside equal files.
    photos: indices into the table, in its order. labels, splits: of each.
    """

    kind: str
    photos: tuple[int, ...]
    paths: tuple[str, ...]
    labels: tuple[str, ...]
    splits: tuple[str, ...]

    @property
    def across_splits(self) -> bool:
        return len(set(self.splits) - {""}) > 1

    @property
    def across_test(self) -> bool:
        """Whether a classifier that learns from this split knows some of these test photos."""
        return "test" in self.splits and not {"train", "val"}.isdisjoint(self.splits)

    @property
    def across_classes(self) -> bool:
        return len(set(self.labels)) > 1

    def to_json(self) -> dict[str, Any]:
        return {"kind": self.kind, "photos": list(self.paths), "labels": list(self.labels), "splits": list(self.splits)}


@dataclass(frozen=True)
class Duplicates:
    """All clusters: those that mislead first (test against the rest, then other splits, then classes), larger ones before smaller ones."""

    clusters: tuple[Cluster, ...]

    def to_json(self, most: int = 50) -> dict[str, Any]:
        """Counts of all clusters, and the first `most` of them."""
        kinds = [cluster.kind for cluster in self.clusters]
        return {
            "n_exact": kinds.count("exact"),
            "n_near": kinds.count("near"),
            "n_photos": sum(len(cluster.photos) for cluster in self.clusters),
            "across_splits": sum(cluster.across_splits for cluster in self.clusters),
            "across_test": sum(cluster.across_test for cluster in self.clusters),
            "across_classes": sum(cluster.across_classes for cluster in self.clusters),
            "clusters": [cluster.to_json() for cluster in self.clusters[:most]],
        }


def find_duplicates(table: Table, features: np.ndarray | None, at: Ints | None = None) -> Duplicates:
    """Clusters of equal files and near-duplicates.

    Args:
        features: float [m, d], rows of photos. With them, a pair that looks the same and is no more alike to the network than strangers
            of one class is none; and a doubtful one is one if the network finds it more alike than nearly all strangers.
        at: int64 [n], where each photo's row is; -1 for a photo without one, about whose pairs pixels alone decide. Default: row i is
            of photo i.
    """
    if features is None:
        return Duplicates(_clusters(table, find_pairs(table.photos)))
    pairs = find_pairs(table.photos, likeness=DOUBTFUL_LIKENESS, evidence=DOUBTFUL_EVIDENCE)
    return Duplicates(_clusters(table, _confirmed(pairs, table.labels, features, np.arange(len(table)) if at is None else at)))


def write_duplicates(path: Path, duplicates: Duplicates, table: Table) -> None:
    """Write duplicates.csv (cluster, kind, path, label, split), atomically: a row for each photo in a cluster; clusters count from 1."""
    with atomic_file(path) as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(["cluster", "kind", "path", "label", "split"])
        for number, cluster in enumerate(duplicates.clusters, start=1):
            photos = (table.photos[i] for i in cluster.photos)
            rows.writerows((number, cluster.kind, photo.path, photo.label, photo.split) for photo in photos)


def _confirmed(pairs: list[Pair], labels: Ints, features: Floats, at: Ints) -> list[Pair]:
    """The pairs that stay once the features were asked."""
    near = np.array([(pair.first, pair.second) for pair in pairs if pair.kind == "near"], np.int64).reshape(-1, 2)
    if not len(near):
        return pairs
    seen = np.flatnonzero(at >= 0)
    asked = (at[near] >= 0).all(axis=1)
    of_row = np.zeros(len(features), np.int64)
    of_row[at[seen]] = labels[seen]
    middle = features.mean(0, dtype=np.float64)
    strangers = _cosines(features, middle, _strangers(of_row, at[near[asked]]))
    least, doubtful = np.quantile(strangers, [_LEAST_SHARE, _DOUBTFUL_SHARE]) if len(strangers) else (0.0, 0.0)
    alike = np.full(len(near), np.nan)
    alike[asked] = _cosines(features, middle, at[near[asked]])
    likeness = iter(alike.tolist())

    def stays(pair: Pair) -> bool:
        if pair.kind != "near":
            return True
        sure, found = pair.likeness >= LIKENESS and pair.evidence >= EVIDENCE, next(likeness)
        return sure if math.isnan(found) else found >= (least if sure else doubtful)

    return [pair for pair in pairs if stays(pair)]


def _strangers(labels: Ints, near: Ints) -> Ints:
    """int64 [m, 2]: drawn pairs of photos of one class, none of them among the pairs `near` [.., 2]."""
    n = len(labels)
    order = np.lexsort((np.random.default_rng(0).random(n), labels))  # by class, shuffled within
    steps = range(1, min(n, 1 + max(1, _STRANGERS // n)))
    drawn = np.concatenate([np.stack([order[:-step], order[step:]], axis=1) for step in steps])
    drawn = np.sort(drawn[labels[drawn[:, 0]] == labels[drawn[:, 1]]], axis=1)
    return np.asarray(drawn[~np.isin(drawn @ [n, 1], near @ [n, 1])])


def _cosines(features: Floats, middle: Floats, pairs: Ints) -> Floats:
    """[m]: cosine similarity of both rows of each pair, seen from `middle`; few rows in memory at once."""
    found = np.empty(len(pairs))
    for begin in range(0, len(pairs), _COMPARED):
        some = pairs[begin : begin + _COMPARED]
        first, second = (features[some[:, side]] - middle for side in (0, 1))
        norms = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
        found[begin : begin + _COMPARED] = np.einsum("md,md->m", first, second) / np.maximum(norms, 1e-12)
    return found


def _clusters(table: Table, pairs: list[Pair]) -> tuple[Cluster, ...]:
    members: dict[int, list[int]] = defaultdict(list)
    for i, number in enumerate(clusters(len(table), pairs)[0].tolist()):
        members[number].append(i)
    found = [_cluster(table, some) for some in members.values() if len(some) > 1]
    return tuple(sorted(found, key=lambda c: (not c.across_test, not c.across_splits, not c.across_classes, -len(c.photos), c.photos)))


def _cluster(table: Table, members: list[int]) -> Cluster:
    photos = [table.photos[i] for i in members]
    kind = "exact" if len({photo.sha256 for photo in photos}) == 1 else "near"
    paths, labels, splits = (tuple(getattr(photo, name) for photo in photos) for name in ("path", "label", "split"))
    return Cluster(kind, tuple(members), paths, labels, splits)
