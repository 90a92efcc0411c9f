"""Predictions as a table for people, or as JSON, CSV or Parquet for programs.

All stream: a million rows need no more memory than a thousand. Paths and labels are whatever a file system holds; here
they become one printable line in the table, and valid UTF-8 elsewhere: a byte that is not is written as an escape (`\\udcff`).
"""

import csv
import io
import itertools
import json
import sys
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import IO, Any

from headstart.bundle.predict import Prediction
from headstart.data.table import some
from headstart.errors import ConfigError, did_you_mean, safe_text
from headstart.files import atomic_file

FORMATS = ("table", "json", "csv", "parquet")
JSON_ENDS = ("[\n", ",\n", "\n]\n")
"""before the first object of a JSON file, between two, and behind the last"""
PARQUET_ROWS = 10_000
"""rows a group of a Parquet file, held in memory until written: about 8 MB"""

_ROWS_TO_FIT = 100  # whose widths a table's columns take
_WIDEST = 60  # characters; longer paths and labels stick out
_LABELS_SHOWN = 5  # of a set
_NONE = "none of these"


def write(predictions: Iterable[Prediction], *, format: str, out: Path | None = None, top: int = 5) -> None:
    """Write predictions as they come, to a file or to stdout.

    Args:
        format: `table`, `json` (a list of objects), `csv` or `parquet`.
        out: the file; it appears once it is complete. None: stdout.
        top: answers a photo, so that a CSV knows its columns before its first row.

    Raises:
        ConfigError: an unknown format; Parquet without pyarrow, or to a terminal.
        HeadstartError: the file cannot be written.
    """
    check_format(format, FORMATS)
    if format == "parquet":
        _write_parquet(predictions, out)
        return
    lines: dict[str, Callable[[Iterable[Prediction], int], Iterator[str]]] = {"table": _table, "json": _json, "csv": _csv}
    if format == "table" and out is None:
        encoding = sys.stdout.encoding
        for line in _table(predictions, top):  # a terminal may know fewer characters than a label has
            sys.stdout.write(line if encoding is None else line.encode(encoding, "backslashreplace").decode(encoding))
        return
    with _opened(out) as file:
        for text in lines[format](predictions, top):
            file.write(text.encode("utf-8"))


def check_format(format: str, formats: Sequence[str]) -> str:
    """`format`, if it is one of `formats`. Raises: ConfigError: it is not, or what it needs is not installed."""
    if format not in formats:
        raise ConfigError(f"expected a format of {', '.join(formats)}, found {format!r}", hint=did_you_mean(format, formats))
    if format == "parquet":
        _import_parquet()
    return format


@contextmanager
def _opened(out: Path | None) -> Iterator[IO[bytes]]:
    if out is not None:
        with atomic_file(out, "wb") as file:
            yield file
        return
    sys.stdout.flush()
    yield sys.stdout.buffer
    sys.stdout.buffer.flush()


def _utf8(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _table(predictions: Iterable[Prediction], top: int) -> Iterator[str]:
    """One photo: an answer a line, `1: tabby (n02123045) 0.85`. Several: a photo a line."""
    predictions = iter(predictions)
    first = list(itertools.islice(predictions, _ROWS_TO_FIT))
    if len(first) == 1:
        yield from _alone(first[0])
        return
    path_width = min(_WIDEST, max((columns(safe_text(one.path)) for one in first), default=0))
    best_width = min(_WIDEST, max((columns(cells[0]) for cells in map(_answers, first) if cells), default=0))
    width = min(_WIDEST, max((columns(cell) for one in first for cell in _answers(one)[1:]), default=0))
    for one in itertools.chain(first, predictions):
        if one.reason is None:
            best, *others = _answers(one)
            cells = [_padded(best, best_width), *(_padded(cell, width) for cell in others), _set(one)]
        else:
            cells = [f"could not be read: {safe_text(one.reason)}"]
        yield "  ".join([_padded(safe_text(one.path), path_width), *cells]).rstrip() + "\n"


def columns(text: str) -> int:
    """How many columns of a terminal a line takes: two for a Chinese, Japanese or Korean letter, none for an accent on its own.

    >>> columns("猫 cafe\u0301")
    7
    """
    if text.isascii():
        return len(text)
    return sum(2 if unicodedata.east_asian_width(letter) in "WF" else not unicodedata.combining(letter) for letter in text)


def _padded(text: str, width: int) -> str:
    return text + " " * (width - columns(text))


def _alone(prediction: Prediction) -> Iterator[str]:
    if prediction.reason is not None:
        yield f"{safe_text(prediction.path)} could not be read: {safe_text(prediction.reason)}\n"
    if prediction.known is False:
        yield f"{_NONE}: it looks like no class that the model knows; the nearest are\n"
    for rank, ((label, probability), id_) in enumerate(zip(prediction.top, prediction.top_ids, strict=True), start=1):
        yield f"{rank}: {_answer(label, id_, probability)}\n"
    if words := _set(prediction):
        yield f"{words}\n"


def _answers(prediction: Prediction) -> list[str]:
    """The most probable labels, a cell each; the first says so where the photo looks like none of them."""
    cells = [_answer(label, id_, p) for (label, p), id_ in zip(prediction.top, prediction.top_ids, strict=True)]
    return [f"{_NONE} ({cells[0]})", *cells[1:]] if cells and prediction.known is False else cells


def _set(prediction: Prediction) -> str:
    """The labels that the photo may have, where that is more than one, and it looks like one of them at all."""
    if len(prediction.labels) < 2 or prediction.known is False:
        return ""
    return "one of " + some(map(safe_text, prediction.labels), _LABELS_SHOWN)


def _answer(label: str, id_: str | None, probability: float) -> str:
    name = safe_text(label) if id_ is None else f"{safe_text(label)} ({safe_text(id_)})"
    return f"{name} {probability:.2f}"


def _json(predictions: Iterable[Prediction], top: int) -> Iterator[str]:
    opening, comma, closing = JSON_ENDS
    before = opening
    for one in predictions:
        values = one.to_json()
        yield before + "  " + json.dumps({**values, "path": _utf8(one.path)}, ensure_ascii=False)
        before = comma
    yield "[]\n" if before == opening else closing


def _csv(predictions: Iterable[Prediction], top: int) -> Iterator[str]:
    """path, index, label, id, probability, reason; label_2, id_2, probability_2, ... up to `top`; known (true or false), labels (JSON)."""
    buffer = io.StringIO()
    rows = csv.writer(buffer, lineterminator="\n")

    def line(cells: list[Any]) -> str:
        rows.writerow(cells)
        text = buffer.getvalue()
        buffer.seek(0)
        buffer.truncate()
        return text

    further = range(2, top + 1)
    names = (f"{what}_{rank}" for rank in further for what in ("label", "id", "probability"))
    yield line(["path", "index", "label", "id", "probability", "reason", *names, "known", "labels"])
    for one in predictions:
        cells: list[Any] = [_utf8(one.path), one.index, one.label, one.id, _digits(one.probability), one.reason]
        for rank in further:
            there = rank <= len(one.top)
            cells += [one.top[rank - 1][0], one.top_ids[rank - 1], _digits(one.top[rank - 1][1])] if there else [None] * 3
        known = None if one.known is None else str(one.known).lower()
        cells += [known, json.dumps(one.labels, ensure_ascii=False) if one.labels else None]
        yield line(cells)


def _digits(probability: float | None) -> str | None:
    return None if probability is None else f"{probability:.6g}"


def _write_parquet(predictions: Iterable[Prediction], out: Path | None) -> None:
    pyarrow = _import_parquet()
    if out is None and sys.stdout.isatty():
        raise ConfigError("format 'parquet' is not for a terminal", hint="give --out FILE")
    predictions = iter(predictions)
    with _opened(out) as file, parquet_writer(file) as writer:
        while rows := [{**one.to_json(), "path": _utf8(one.path)} for one in itertools.islice(predictions, PARQUET_ROWS)]:
            writer.write_table(pyarrow.Table.from_pylist(rows, schema=writer.schema))


def parquet_writer(file: IO[bytes]) -> Any:
    """pyarrow's writer of a file of predictions; its `schema` says their columns. Raises: ConfigError: no pyarrow."""
    pyarrow = _import_parquet()
    text, share = pyarrow.string(), pyarrow.float32()
    answer = pyarrow.struct([("label", text), ("id", text), ("probability", share)])
    fields = [("path", text), ("index", pyarrow.int32()), ("label", text), ("id", text), ("probability", share)]
    more = [("known", pyarrow.bool_()), ("labels", pyarrow.list_(text))]
    schema = pyarrow.schema([*fields, ("top", pyarrow.list_(answer)), ("reason", text), *more])
    return pyarrow.parquet.ParquetWriter(file, schema, compression="zstd")


def _import_parquet() -> ModuleType:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise ConfigError("format 'parquet' needs pyarrow, which is not installed", hint="pip install 'headstart[parquet]'") from error
    return pyarrow  # type: ignore[no-any-return]
