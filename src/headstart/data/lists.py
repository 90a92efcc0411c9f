"""Tables that people made: CSV files in any usual encoding and with any usual delimiter, and what they list."""

import csv
import io
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from headstart.data.table import SPLITS, Candidate, Omitted, Source, label_called, some, split_called
from headstart.errors import DataError, nearest, safe_text


@dataclass(frozen=True)
class Rows:
    """A CSV file's rows as text."""

    columns: tuple[str, ...]
    """as the first line names them, in lower case"""
    rows: tuple[tuple[int, tuple[str, ...]], ...]
    """line number and values; empty lines are left out"""
    notices: tuple[str, ...]

    def require(self, names: Sequence[str], path: Path) -> None:
        """Raises: DataError: columns are missing; the text names all of them and what was found instead."""
        missing = [name for name in names if name not in self.columns]
        if not missing:
            return
        near = {name: nearest(name, [c for c in self.columns if c not in names]) for name in missing}
        renames = [f"rename the column '{safe_text(found)}' to '{name}'" for name, found in near.items() if found is not None]
        hint = "; ".join(renames) if renames else f"the first line must name the columns: {','.join(names)}"
        found = some([f"'{safe_text(column)}'" for column in self.columns], 8) if self.columns else "an empty file"
        raise DataError(f"expected the columns {' and '.join(missing)} in {safe_text(str(path))}, found {found}", hint=hint)

    def records(self) -> Iterator[tuple[int, dict[str, str], bool]]:
        """Line number, values by column, and whether the line has more values than there are columns."""
        for line, values in self.rows:
            padded = [*values, *[""] * (len(self.columns) - len(values))]
            yield line, dict(zip(self.columns, padded, strict=False)), any(values[len(self.columns) :])


def read_rows(path: Path) -> Rows:
    """Read a CSV file: UTF-8 with or without a mark, UTF-16 or Windows' own encoding; comma, semicolon or tab.

    Raises: DataError: the file cannot be read, or is not a table.
    """
    text, notices = read_text(path)
    head = text.lstrip("\r\n").splitlines()[:1]
    delimiter = max(",;\t", key=head[0].count) if head else ","
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    try:
        lines = [(reader.line_num, tuple(values)) for values in reader if any(value.strip() for value in values)]
    except csv.Error as error:
        raise DataError(f"{safe_text(str(path))}, line {reader.line_num}: not a CSV table ({error})") from error
    columns = tuple(value.strip().casefold() for value in lines[0][1]) if lines else ()
    return Rows(columns, tuple(lines[1:]), tuple(notices))


def read_text(path: Path) -> tuple[str, list[str]]:
    """A text file's content, and a notice where its encoding had to be guessed. Raises: DataError."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise DataError(f"no file at {safe_text(str(path))}") from None
    except OSError as error:
        raise DataError(f"cannot read {safe_text(str(path))}: {error.strerror}") from error
    try:
        if data.startswith((b"\xff\xfe", b"\xfe\xff")):
            return data.decode("utf-16"), []
        if b"\0" in data[:200]:  # ASCII in UTF-16 without a mark: every other byte is zero
            return data.decode("utf-16-le" if data[1:2] == b"\0" else "utf-16-be"), []
    except UnicodeDecodeError:
        raise DataError(f"{safe_text(str(path))} is not text", hint="save it as a CSV file in UTF-8") from None
    try:
        return data.decode("utf-8-sig"), []
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        encoding = "cp1252"
        try:
            text = data.decode(encoding)
        except UnicodeDecodeError:  # five bytes mean nothing in cp1252; everything means something in Latin-1
            encoding = "latin-1"
            text = data.decode(encoding)
        return text, [f"{safe_text(path.name)} is not UTF-8 (line {line}); it was read as {encoding}"]


def list_csv(path: Path, name: str, *, inside: Path | None = None) -> Source:
    """List the photos of a CSV with the columns path, label and optionally split, group.

    Args: inside: refuse files outside this folder (tables that came in an archive).
    Raises: DataError: columns missing, words in the column split that are no splits, nothing listed, or no file exists.
    """
    rows = read_rows(path)
    rows.require(("path", "label"), path)
    _check_splits(rows, path)
    lines: dict[str, tuple[int, Candidate]] = {}
    labels: dict[str, set[str]] = {}
    omitted: list[Omitted] = []
    for line, record, overlong in rows.records():
        given, label = record["path"], label_called(record["label"].strip())
        file = _locate(path.parent, given)
        reason = f"line {line}: more values than columns" if overlong else _problem(line, given, label, path.parent / file, inside)
        if reason is not None:
            omitted.append(Omitted(given, reason))
            continue
        split = split_called(record.get("split", ""))
        candidate = Candidate(file, label, split if split is not None else "", record.get("group", "").strip())
        key = os.path.normpath(path.parent / file)
        labels.setdefault(key, set()).add(label)
        if key in lines:
            omitted.append(Omitted(given, _repeats(line, candidate, *lines[key])))
        else:
            lines[key] = line, candidate
    candidates = []
    for key, (_, candidate) in lines.items():
        if len(labels[key]) == 1:
            candidates.append(candidate)
        else:
            omitted.append(Omitted(candidate.path, f"two labels: {' and '.join(repr(label) for label in sorted(labels[key]))}"))
    if not candidates:
        raise _nothing(path, omitted)
    return Source(path.parent, tuple(candidates), tuple(omitted), rows.notices, name)


def _check_splits(rows: Rows, path: Path) -> None:
    words = [(line, record.get("split", "").strip()) for line, record, _ in rows.records()]
    if unknown := [f"'{safe_text(word)}' (line {line})" for line, word in words if word and split_called(word) is None]:
        raise DataError(f"expected {', '.join(SPLITS)} or nothing in the column split of {safe_text(str(path))}, found {some(unknown)}")


def _locate(folder: Path, given: str) -> str:
    """The spelling of `given` under which a file exists: as it is, without blanks around it, or with Windows' slashes turned."""
    spellings = (given, given.strip(), given.strip().replace("\\", "/"))
    return next((text for text in spellings if text and os.path.exists(folder / text)), given)


def _problem(line: int, given: str, label: str, file: Path, inside: Path | None) -> str | None:
    """Why a row cannot be used, or None."""
    if not given.strip():
        return f"line {line}: no path"
    if not label:
        return f"line {line}: no label"
    if not os.path.exists(file):
        return f"line {line}: no such file"
    if inside is not None and not file.resolve().is_relative_to(inside.resolve()):
        return f"line {line}: outside the archive"
    return None if os.path.isfile(file) else f"line {line}: not a file"


def _repeats(line: int, candidate: Candidate, first_line: int, first: Candidate) -> str:
    if candidate.label != first.label:
        return f"two labels: {' and '.join(repr(label) for label in sorted((candidate.label, first.label)))}"
    same = (candidate.split, candidate.group) == (first.split, first.group)
    return f"line {line} repeats line {first_line}" + ("" if same else " with another split or group")


def _nothing(path: Path, omitted: list[Omitted]) -> DataError:
    if not omitted:
        return DataError(f"{safe_text(str(path))} lists no photos")
    reasons = some([f"{safe_text(o.path)} ({o.reason})" for o in omitted], 3)
    return DataError(
        f"none of the {len(omitted)} rows of {safe_text(str(path))} can be used: {reasons}", hint="paths are relative to the CSV's folder"
    )
