"""Tables on stdout: aligned for people, and as wide as their content when piped."""

import sys
from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.table import Table

from headstart.errors import safe_text

PIPED_WIDTH = 10_000  # a pipe has no width: nothing is wrapped or cut there


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str]], *, right: Sequence[str] = ()) -> None:
    """Print `rows` under `columns`; those named in `right` are aligned to the right."""
    table = Table(box=None, pad_edge=False)
    for name in columns:
        table.add_column(name, justify="right" if name in right else "left", overflow="fold")
    for row in rows:
        table.add_row(*map(safe_text, row))
    Console(highlight=False, markup=False, width=None if sys.stdout.isatty() else PIPED_WIDTH).print(table)
