"""What the user says of single photos: leave these out (`--exclude`), these are of another class (`--corrections`). No file is touched."""

import os
import unicodedata
from collections.abc import Collection, Iterable
from dataclasses import replace
from pathlib import Path

from headstart.data import lists
from headstart.data.table import Candidate, Omitted, Source, Table, label_called, some, split_called
from headstart.errors import DataError, nearest, safe_text

_SEARCHED = 10_000  # paths that are compared with a misspelled one: enough to find what was meant, and quick


def without(source: Source, exclude: Path) -> Source:
    """`source` without the photos that the file `exclude` names: a CSV with a column path, or a text file with a path on each line.

    Raises: DataError: the file cannot be read.
    """
    by_key = {_key(source.root, path): path for path in _excluded_paths(exclude)}
    kept, omitted, matched = [], list(source.omitted), set()
    for candidate in source.candidates:
        key = _key(source.root, candidate.path)
        if key in by_key:
            matched.add(key)
            omitted.append(Omitted(candidate.path, _reason(exclude), candidate.split))
        else:
            kept.append(candidate)
    unmatched = [path for key, path in by_key.items() if key not in matched]
    return replace(
        source,
        candidates=tuple(kept),
        omitted=tuple(omitted),
        notices=(*source.notices, *_about_unmatched(unmatched, exclude, source.candidates)),
    )


def corrected(source: Source, corrections: Path) -> Source:
    """`source` with the labels that the file `corrections` gives: a CSV with the columns path and label; others are ignored.

    A row without a label leaves its photo as it is. Photos that the data does not have are named in a notice.

    Raises: DataError: the file cannot be read, lacks a column, names a class that the data does not have, or gives a photo two labels.
    """
    rows = lists.read_rows(corrections)
    rows.require(("path", "label"), corrections)
    given: dict[str, tuple[str, str]] = {}
    problems: list[str] = []
    classes = {candidate.label for candidate in source.candidates}
    for line, record, _ in rows.records():
        path, label = record["path"].strip(), label_called(record["label"].strip())
        if not path or not label:
            continue
        _, earlier = given.setdefault(_key(source.root, path), (path, label))
        if label not in classes:
            problems.append(f"line {line}: '{safe_text(label)}' is no class of the data{_meant(label, classes)}")
        elif earlier != label:
            problems.append(f"line {line}: {safe_text(path)} is '{safe_text(label)}', and '{safe_text(earlier)}' in a line before")
    if problems:
        hint = "a correction names a class that the data has, and each photo once"
        raise DataError(f"cannot use {safe_text(str(corrections))}: {some(problems, 3)}", hint=hint)
    return _relabelled(source, given, corrections, rows.notices)


def about_test(found: Table, table: Table, *, exclude: Path | None = None, split: Path | None = None) -> list[str]:
    """Notices on a test set that corrections and exclusions had a say in: whoever chooses what is tested chooses the score.

    Args: found: as scanned; table: the same, split. exclude, split: the files that photos were left out by and were split by.
    Raises: DataError: a file cannot be read.
    """
    notices = []
    if n := sum(photo.relabelled and photo.split == "test" for photo in table.photos):
        are = "is a test photo" if n == 1 else "are test photos"
        notices.append(f"{n} of the relabelled photos {are}: the score is of a test set that was chosen")
    if exclude is None:
        return notices
    left_out = [omitted for omitted in found.omitted if omitted.reason == _reason(exclude)]
    if split is not None:
        rows = lists.read_rows(split).records()
        of = {record["path"]: split_called(record["split"]) for _, record, _ in rows}
        splits = [of.get(omitted.path) or "" for omitted in left_out]
        given = {"test"}
    else:
        splits = [omitted.split for omitted in left_out]
        given = {*splits, *(photo.split for photo in found.photos)}
    tested = "val" if "test" not in given and "val" in given else "test"  # as `split_table` has it
    name = safe_text(exclude.name)
    if n := splits.count(tested):
        were = "photo that was" if n == 1 else "photos that were"
        notices.append(f"{name} leaves out {n} {were} given as test: the score is of a test set that was chosen")
    # Photos that nobody put in a split, and all where nobody put one in test: the seed might have chosen them.
    elif n := splits.count("") if tested in given else len(splits):
        were, chosen = ("photo was", "it was chosen by how a model answered it")
        if n > 1:
            were, chosen = ("photos were", "they were chosen by how a model answered them")
        notices.append(f"{n} {were} left out by {name}; if {chosen}, the score is too good")
    return notices


def _reason(exclude: Path) -> str:
    return f"excluded by {exclude.name}"


def _relabelled(source: Source, given: dict[str, tuple[str, str]], file: Path, notices: Iterable[str]) -> Source:
    """`given`: path and label by key."""
    candidates, matched, n_changed = [], set(), 0
    for candidate in source.candidates:
        key = _key(source.root, candidate.path)
        label = candidate.label
        if key in given:
            matched.add(key)
            label = given[key][1]
        n_changed += label != candidate.label
        candidates.append(replace(candidate, label=label, relabelled=label != candidate.label))
    said = [f"{safe_text(file.name)} gives {n_changed} {'photo' if n_changed == 1 else 'photos'} another label"]
    if gone := sorted({old.label for old in source.candidates} - {new.label for new in candidates}):
        said.append(f"after {safe_text(file.name)} no photo is left of {some([f'class {safe_text(label)}' for label in gone])}")
    said += _about_unmatched([path for key, (path, _) in given.items() if key not in matched], file, source.candidates)
    return replace(source, candidates=tuple(candidates), notices=(*source.notices, *notices, *said))


def _meant(label: str, classes: Collection[str]) -> str:
    """The class that was meant, for a message; nothing where none comes close. Another case is closer than any other spelling."""
    folded = {name.casefold(): name for name in sorted(classes)}
    near = folded.get(label.casefold(), nearest(label, sorted(classes)))
    return "" if near is None else f" (did you mean '{safe_text(near)}'?)"


def _about_unmatched(paths: list[str], file: Path, candidates: tuple[Candidate, ...]) -> list[str]:
    """The notice on paths of `file` that the data does not have; none where it has all."""
    if not paths:
        return []
    shown = [safe_text(path) for path in paths]
    near = nearest(shown[0], (candidate.path for candidate in candidates[:_SEARCHED]))
    hint = f" (did you mean {safe_text(near)}?)" if near is not None else ""
    return [f"{safe_text(file.name)} names {len(paths)} photos that are not in the data: {some(shown, 3)}{hint}"]


def _excluded_paths(exclude: Path) -> list[str]:
    rows = lists.read_rows(exclude)
    if "path" in rows.columns:
        return [record["path"].strip() for _, record, _ in rows.records() if record["path"].strip()]
    text, _ = lists.read_text(exclude)
    return [line.strip() for line in text.splitlines() if line.strip()]


def _key(root: Path, path: str) -> str:
    """One spelling for all ways to write a path below `root`, absolute ones included."""
    return unicodedata.normalize("NFC", os.path.normpath(os.path.join(os.path.abspath(root), path)))
