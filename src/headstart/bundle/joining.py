"""Several files of predictions, one behind the other, become one: the same bytes as if all rows had been written at once."""

import contextlib
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

from headstart.bundle.writers import JSON_ENDS, PARQUET_ROWS, parquet_writer
from headstart.files import atomic_file


def join(parts: Sequence[Path], out: Path, format: str) -> None:
    """Write the rows of `parts` (at least one), in their order, to `out`, which appears once it is complete.

    Raises: HeadstartError: the file cannot be written.
    """
    with atomic_file(out, "wb") as file:
        {"csv": _join_csv, "json": _join_json, "parquet": _join_parquet}[format](parts, file)


def _join_csv(parts: Sequence[Path], file: IO[bytes]) -> None:
    for i, path in enumerate(parts):
        with path.open("rb") as part:
            header = part.readline()
            if i == 0:
                file.write(header)
            shutil.copyfileobj(part, file)


def _join_json(parts: Sequence[Path], file: IO[bytes]) -> None:
    opening, comma, closing = (text.encode() for text in JSON_ENDS)
    between = opening
    for path in parts:
        file.write(between + path.read_bytes().removeprefix(opening).removesuffix(closing))
        between = comma
    file.write(closing)


def _join_parquet(parts: Sequence[Path], file: IO[bytes]) -> None:
    """In row groups of their usual size, whatever the parts' sizes."""
    import pyarrow

    with parquet_writer(file) as writer:
        waiting: list[Any] = []
        for table in _tables(parts):
            waiting.append(table)
            while sum(map(len, waiting)) >= PARQUET_ROWS:
                joined = pyarrow.concat_tables(waiting)
                writer.write_table(joined.slice(0, PARQUET_ROWS).combine_chunks())
                waiting = [joined.slice(PARQUET_ROWS)]
        if rest := [table for table in waiting if len(table)]:
            writer.write_table(pyarrow.concat_tables(rest).combine_chunks())


def _tables(parts: Sequence[Path]) -> Iterator[Any]:
    import pyarrow.parquet

    for path in parts:
        with contextlib.closing(pyarrow.parquet.ParquetFile(path)) as part:
            yield part.read()
