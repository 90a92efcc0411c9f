"""What commands print of a result, on stdout."""

import shlex
from collections.abc import Mapping
from typing import Any

from headstart.cli.tables import print_table
from headstart.errors import safe_text
from headstart.runs import Run

MOST_CLASSES = 30  # more rows than this are the report's business


def show_run(run: Run) -> None:
    """The numbers of a finished run, and where its files are."""
    record, metrics = run.record, run.metrics
    data, trunk = record["data"], record["trunk"]
    splits = ", ".join(f"{data[f'n_{split}']} {split}" for split in ("train", "val", "test"))
    print(f"\n{data['n']} photos of {len(data['classes'])} classes: {splits}, {data['omitted']} left out")
    rows = f"{trunk['rows_computed']} rows computed, {trunk['rows_reused']} reused"
    print(f"backbone {record['backbone']['name']}: {rows}, {trunk['seconds']:.1f} s")
    for notice in record["notices"]:
        print(f"note: {safe_text(notice)}")
    show_metrics(metrics["test"], f"{data['n_test']} photos never used for training", "Test accuracy")
    print(f"\nReport  {run.report}\nModel   {run.folder / 'model'}\nNext    headstart predict {shlex.quote(str(run.folder))} PHOTO --top 3")


def show_metrics(test: Mapping[str, Any], about: str, name: str = "Accuracy") -> None:
    """A table of each class, then accuracy with its interval and `about` which photos it is."""
    numbers = ("precision", "recall", "f1")
    rows = list(test["per_class"].items())
    print()
    print_table(
        ("class", *numbers, "photos"),
        [(name, *(_share(row[key]) for key in numbers), str(row["n"])) for name, row in rows[:MOST_CLASSES]],
        right=(*numbers, "photos"),
    )
    if len(rows) > MOST_CLASSES:
        print(f"... and {len(rows) - MOST_CLASSES} more classes")
    low, high = test["accuracy_ci95"]
    print(f"\n{name} {test['accuracy']:.3f} (95 % interval {low:.3f} to {high:.3f}; {about})")


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
