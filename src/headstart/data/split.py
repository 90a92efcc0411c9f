"""Train, val and test: stratified, seeded, the same on every machine, and never with near-duplicates on both sides.

Groups of photos that belong together (the user's groups, equal files, near-duplicates, bursts) are put in an order that
depends on the seed and on their content alone. In that order each takes a place in test while its classes' quotas there
last, then in val, and else trains. So listing order does not matter, names only where their numbers tell a burst, and one more
photo moves few others.
"""

import csv
import hashlib
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from headstart.data.bursts import find_bursts
from headstart.data.duplicates import DOUBTFUL_EVIDENCE, DOUBTFUL_LIKENESS, Pair, clusters, find_pairs
from headstart.data.lists import read_rows
from headstart.data.table import SPLITS, Photo, Table, some, split_called
from headstart.errors import DataError, safe_text
from headstart.files import atomic_file

# Held-out splits in the order in which they are served: a class with two photos trains one and tests one.
_HELD_OUT = ("test", "val")


@dataclass(frozen=True)
class _Group:
    """Photos that must stay together."""

    members: tuple[int, ...]
    counts: Counter[str]
    """photos by label"""
    order: bytes
    chain: int
    """groups of one chain of look-alikes share it, which are parted only where quotas ask for it"""


def split_table(table: Table, *, seed: int, fractions: tuple[float, float, float] = (0.70, 0.15, 0.15)) -> Table:
    """Give every photo a split, and every photo that belongs to others its group's name.

    Given splits are kept. Photos without one, in a table that has some, are assigned like all others would be. Without
    test, val becomes test; without val, it is carved from train. Every class with three independent groups or more is in
    every split; one with two trains and tests; one with one trains.

    Args:
        seed: another seed, another split.
        fractions: of train, val and test; they sum to 1. 0 means no such split.

    Returns: the table with `split` and `group` filled in, and notices on what was decided.
    Raises: DataError: no photo trains, or fractions that are none.
    """
    if len(fractions) != 3 or min(fractions) < 0 or fractions[0] == 0 or not math.isclose(sum(fractions), 1, abs_tol=1e-6):
        raise DataError(f"expected fractions of train, val and test that sum to 1, train above 0; found {fractions}")
    shares = dict(zip(SPLITS, fractions, strict=True))
    groups, chains = group_photos(table.photos)
    splits, notices = _given(table, groups)
    if "test" not in splits and "val" in splits and shares["test"] > 0:
        splits = ["test" if split == "val" else split for split in splits]
        notices.append("no test photos are given: val is used as test, and a new val is carved from train")
    absent = [split for split in _HELD_OUT if split not in splits and shares[split] > 0]
    pool = [i for i, split in enumerate(splits) if not split or (split == "train" and absent)]
    wanted = {split: shares[split] for split in ("train", *(absent if absent else _HELD_OUT))}
    pieces = _groups_of(pool, table, groups, chains, seed)
    placed = _assign(pieces, {split: share / sum(wanted.values()) for split, share in wanted.items()})
    for split, some_groups in placed.items():
        for i in (i for group in some_groups for i in group.members):
            splits[i] = split
    if "train" not in splits:
        raise DataError(f"no photo of {safe_text(table.name)} is in train, found only {' and '.join(sorted(set(splits)))}")
    if table.given_splits and absent:
        made = " and ".join(f"{split} ({splits.count(split)} photos)" for split in absent)
        notices.append(f"not given, so carved from train: {made}")
    names = _group_names(table.photos, groups)
    photos = [replace(photo, split=split, group=name) for photo, split, name in zip(table.photos, splits, names, strict=True)]
    notices += [*_cut_chains(splits, groups, chains), *_untrained(photos)]
    if shares["test"] > 0 and ("test" in absent or not table.given_splits):
        notices += _untested(photos)
    return table.with_photos(photos, *notices)


def group_photos(photos: Sequence[Photo]) -> tuple[np.ndarray, np.ndarray]:
    """Photos that must share a split, and those that had better.

    Joined are photos of one given group, equal files, near-duplicates (doubtful ones, too) and photos of one burst; and whatever these
    have in common.

    Returns: int64 [n] each: photos of one group share a number in the first; in the second, groups do that form a chain of weak
        likenesses too long to be kept together (`duplicates.clusters`).
    """
    first: dict[str, int] = {}
    given = [
        Pair(first[photo.group], i, "group", 1.0) for i, photo in enumerate(photos) if photo.group and first.setdefault(photo.group, i) != i
    ]
    alike = find_pairs(photos, likeness=DOUBTFUL_LIKENESS, evidence=DOUBTFUL_EVIDENCE)
    groups, refused = clusters(len(photos), [*given, *alike, *find_bursts(photos)])
    if not refused:
        return groups, groups
    pieces = [Pair(int(first), i, "group", 1.0) for i, first in enumerate(groups) if first != i]
    return groups, clusters(len(photos), [*pieces, *(replace(pair, kind="group") for pair in refused)])[0]


def quotas(n: int, shares: dict[str, float]) -> dict[str, int]:
    """How many of a class's `n` photos each split gets: the rounded share, at least one in test, then val, while one is left to train.

    >>> quotas(10, {"train": 0.7, "val": 0.15, "test": 0.15})
    {'test': 2, 'val': 2, 'train': 6}
    """
    left = n - 1
    result: dict[str, int] = {}
    for split in _HELD_OUT:
        share = shares.get(split, 0.0)
        result[split] = min(left, max(1, math.floor(share * n + 0.5))) if share > 0 and left > 0 else 0
        left -= result[split]
    result["train"] = n - sum(result.values())
    return result


def _groups_of(indices: Iterable[int], table: Table, groups: np.ndarray, chains: np.ndarray, seed: int) -> list[_Group]:
    """The groups of some photos, in the seed's order."""
    members: dict[int, list[int]] = defaultdict(list)
    for i in indices:
        members[int(groups[i])].append(i)
    made = []
    for some_members in members.values():
        smallest = min(table.photos[i].sha256 for i in some_members)
        order = hashlib.sha256(f"{seed}:{smallest}".encode()).digest()
        counts = Counter(table.photos[i].label for i in some_members)
        made.append(_Group(tuple(some_members), counts, order, int(chains[some_members[0]])))
    return sorted(made, key=lambda group: group.order)


def _assign(groups: list[_Group], shares: dict[str, float]) -> dict[str, list[_Group]]:
    """Distribute `groups`, which come in their order, over the splits of `shares`."""
    totals: Counter[str] = Counter()
    for group in groups:
        totals.update(group.counts)
    room = {label: quotas(n, shares) for label, n in totals.items()}
    held_out = [split for split in _HELD_OUT if shares.get(split, 0.0) > 0]
    placed: dict[bytes, str] = {}
    of_label: dict[str, list[_Group]] = defaultdict(list)
    of_chain: dict[int, list[_Group]] = defaultdict(list)
    left: dict[int, Counter[str]] = defaultdict(Counter)  # of a chain
    for group in groups:
        of_chain[group.chain].append(group)
        left[group.chain].update(group.counts)
        for label in group.counts:
            of_label[label].append(group)

    def first_fit(counts: Counter[str]) -> str | None:
        fits = (split for split in (*held_out, "train") if all(room[label][split] >= n for label, n in counts.items() if n))
        return next(fits, None)

    for group in groups:
        if group.order in placed:
            continue
        split = first_fit(left[group.chain])
        rest = [group] if split is None else [piece for piece in of_chain[group.chain] if piece.order not in placed]
        split = split or first_fit(group.counts) or "train"
        for piece in rest:
            placed[piece.order] = split
            left[piece.chain].subtract(piece.counts)
            for label, n in piece.counts.items():
                room[label][split] -= n
    # Only groups larger than what is left of a quota leave some of it unused; with single photos this ends here.
    for split in held_out:
        for label in sorted(of_label):
            if room[label][split] > 0:
                _top_up(placed, room, of_label, split, label)
    result: dict[str, list[_Group]] = defaultdict(list)
    for group in groups:
        result[placed[group.order]].append(group)
    return result


def _top_up(placed: dict[bytes, str], room: dict[str, dict[str, int]], of_label: dict[str, list[_Group]], split: str, label: str) -> None:
    """Move one group with photos of `label` into `split`: where that brings it nearer to its quota, or it has none of them."""
    there = Counter(placed[group.order] for group in of_label[label])
    short = room[label][split]

    def is_last(group: _Group) -> bool:
        """Whether a class would vanish from where `group` is. Test may take val's last: a class is tested first."""
        donor = placed[group.order]
        if split == "test" and donor == "val":
            return False
        return any(not any(placed[g.order] == donor for g in of_label[name] if g is not group) for name in group.counts)

    choices: list[tuple[int, bool, bytes, _Group]] = []
    for group in of_label[label]:
        donor = placed[group.order]
        miss = abs(short - group.counts[label])
        helps = not there[split] or (donor == "train" and miss < short and len(group.counts) == 1)
        if donor != split and helps:
            choices.append((miss, donor != "train", group.order, group))
    for *_, group in sorted(choices, key=lambda choice: choice[:3]):
        if not is_last(group):
            donor = placed[group.order]
            placed[group.order] = split
            for name, n in group.counts.items():
                room[name][donor] += n
                room[name][split] -= n
            return


def _given(table: Table, groups: np.ndarray) -> tuple[list[str], list[str]]:
    """The given splits, extended to what belongs to a photo that has one; and notices. Photos without stay empty."""
    splits = [photo.split for photo in table.photos]
    if not table.given_splits:
        return splits, []
    notices = []
    of_group: dict[int, set[str]] = defaultdict(set)
    for group, split in zip(groups.tolist(), splits, strict=True):
        if split:
            of_group[group].add(split)
    if n_lacking := splits.count(""):
        notices.append(
            f"{n_lacking} photos come without a split, beside others with one: they were assigned like the rest of a new data set"
        )
        for i, group in enumerate(groups.tolist()):
            if not splits[i] and of_group[group]:
                splits[i] = min(of_group[group], key=SPLITS.index)
    return splits, notices + _straddling(splits, groups)


def _straddling(splits: Sequence[str], groups: np.ndarray) -> list[str]:
    """The notice that photos which belong together do not share a split; no notice where all do."""
    of_group: dict[int, set[str]] = defaultdict(set)
    for group, split in zip(groups.tolist(), splits, strict=True):
        if split:
            of_group[group].add(split)
    straddling = [group for group, found in of_group.items() if len(found) > 1]
    if not straddling:
        return []
    n = int(np.isin(groups, straddling).sum())
    return [
        f"{n} photos in {len(straddling)} groups (copies, near-duplicates, bursts or one given group) lie on both sides of the given"
        " splits; they were not moved, and scores may be too good"
    ]


def _cut_chains(splits: Sequence[str], groups: np.ndarray, chains: np.ndarray) -> list[str]:
    """The notice that chains of look-alikes which were too long to be kept together lie in different splits."""
    pieces: dict[int, set[int]] = defaultdict(set)
    found: dict[int, set[str]] = defaultdict(set)
    for group, chain, split in zip(groups.tolist(), chains.tolist(), splits, strict=True):
        pieces[chain].add(group)
        found[chain].add(split)
    parted = [chain for chain in pieces if len(pieces[chain]) > 1 and len(found[chain]) > 1]
    if not parted:
        return []
    n = int(np.isin(chains, parted).sum())
    return [
        f"{n} photos form chains of look-alikes too long to keep together, and lie in different splits: scores may be too good;"
        " give photos that show the same thing a `group` in a CSV"
    ]


def _group_names(photos: Sequence[Photo], groups: np.ndarray) -> list[str]:
    """A name for each photo's group: the user's own if there is one, else the start of the smallest hash; empty for single photos."""
    numbers = groups.tolist()
    sizes = Counter(numbers)
    given: dict[int, str] = {}
    smallest: dict[int, str] = {}
    for number, photo in zip(numbers, photos, strict=True):
        smallest[number] = min(photo.sha256, smallest.get(number, photo.sha256))
        if photo.group:
            given[number] = min(photo.group, given.get(number, photo.group))
    return [given.get(number, smallest[number][:16] if sizes[number] > 1 else "") for number in numbers]


def _untrained(photos: Sequence[Photo]) -> list[str]:
    trained = {photo.label for photo in photos if photo.split == "train"}
    absent = sorted({photo.label for photo in photos} - trained)
    return [f"no photo in train for {len(absent)} classes, which cannot be learned: {some(map(safe_text, absent))}"] if absent else []


def _untested(photos: Sequence[Photo]) -> list[str]:
    """The notice on classes without a test photo; a class of a single photo was told by the scan."""
    tested = {photo.label for photo in photos if photo.split == "test"}
    counts = Counter(photo.label for photo in photos)
    absent = sorted(label for label, n in counts.items() if n > 1 and label not in tested)
    if not absent:
        return []
    classes = "1 class" if len(absent) == 1 else f"{len(absent)} classes"
    return [
        f"no photo in test for {classes}, whose photos all belong together (copies, a burst or one given group), so that nothing tells"
        f" how well they are recognised: {some(map(safe_text, absent))}"
    ]


def write_split(table: Table, path: Path) -> None:
    """Write split.csv (path, label, split, group, sha256), atomically."""
    with atomic_file(path) as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(["path", "label", "split", "group", "sha256"])
        rows.writerows((photo.path, photo.label, photo.split, photo.group, photo.sha256) for photo in table.photos)


def read_split(table: Table, path: Path) -> Table:
    """Give the photos of `table` the splits that `path`, a split.csv, says.

    A row is found by path and content, else by content (the photo was moved or renamed), else by path (it was edited). Photos
    that belong together are given their group's name, as `split_table` does, and told where the file parts them.

    Raises: DataError: columns missing, words that are no splits, or photos that are not in the file; the first five and the count.
    """
    rows = read_rows(path)
    rows.require(("path", "split"), path)
    where = safe_text(str(path))
    by_path: dict[str, dict[str, str]] = {}
    by_sha256: dict[str, dict[str, str]] = {}
    unknown = []
    for line, record, _ in rows.records():
        split = split_called(record["split"])
        if split is None:
            unknown.append(f"'{safe_text(record['split'])}' (line {line})")
            continue
        record["split"] = split
        by_path.setdefault(record["path"], record)
        if sha256 := record.get("sha256", "").strip().casefold():
            by_sha256.setdefault(sha256, record)
    if unknown:
        raise DataError(f"expected {', '.join(SPLITS)} in the column split of {where}, found {some(unknown)}: {len(unknown)} rows")
    photos: list[Photo] = []
    missing: list[str] = []
    used: set[str] = set()
    for photo in table.photos:
        named = by_path.get(photo.path)
        same = named is not None and named.get("sha256", "").casefold() == photo.sha256
        found = named if same else by_sha256.get(photo.sha256, named)
        if found is None:
            missing.append(safe_text(photo.path))
            continue
        used.add(found["path"])
        group = found.get("group", "").strip()
        photos.append(replace(photo, split=found["split"], group=group if group else photo.group))
    if missing:
        hint = "leave them out with --exclude, or make a new split by leaving out --split"
        raise DataError(f"{len(missing)} of {len(table)} photos are not in {where}: {some(missing)}", hint=hint)
    unused = [safe_text(name) for name in by_path if name not in used]
    notices = [f"{len(unused)} photos of {path.name} are not in the data: {some(unused, 3)}"] if unused else []
    groups, chains = group_photos(photos)
    splits = [photo.split for photo in photos]
    notices += [*_straddling(splits, groups), *_cut_chains(splits, groups, chains)]
    photos = [replace(photo, group=name) for photo, name in zip(photos, _group_names(photos, groups), strict=True)]
    return table.with_photos(photos, *rows.notices, *notices, *_untrained(photos))
