"""What commands print of a result, on stdout."""

import shlex
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from headstart.cli.tables import print_table
from headstart.errors import safe_text
from headstart.runs import Run

if TYPE_CHECKING:
    from headstart.report.tuning import Score

MOST_CLASSES = 30  # more rows than this are the report's business


def show_run(run: Run) -> None:
    """The numbers of a finished run, and where its files are."""
    record, metrics = run.record, run.metrics
    data, trunk = record["data"], record["trunk"]
    splits = ", ".join(f"{data[f'n_{split}']} {split}" for split in ("train", "val", "test"))
    photos, classes = _count(data["n"], "photo", "photos"), _count(len(data["classes"]), "class", "classes")
    print(f"\n{photos} of {classes}: {splits}, {data['omitted']} left out")
    rows = f"{_count(trunk['rows_computed'], 'row', 'rows')} computed, {trunk['rows_reused']} reused"
    print(f"backbone {record['backbone']['name']}: {rows}, {trunk['seconds']:.1f} s")
    for notice in record["notices"]:
        print(f"note: {safe_text(notice)}")
    show_tuning(record)
    show_metrics(metrics["test"], f"{_count(data['n_test'], 'photo', 'photos')} never used for training", "Test accuracy")
    print(f"\nReport  {run.report}\nModel   {run.folder / 'model'}\nNext    headstart predict {shlex.quote(str(run.folder))} PHOTO --top 3")


def show_tuning(record: Mapping[str, Any]) -> None:
    """What became of fine-tuning, in a few lines; nothing where run.json has no word on it."""
    from headstart.report.tuning import story  # the page's words need libraries that `evaluate` does without

    told = story(record)
    if told is None:
        return
    print(f"\n{told.title}. {told.summary}".replace("\u00a0", " "))
    if told.scores:
        print("  right on val: " + "; ".join(map(_candidate, told.scores)))
    for sentence in told.why:
        print(f"  {safe_text(sentence)}")
    if told.option:
        print(f"  {told.advice} {told.option}")


def _candidate(score: "Score") -> str:
    interval = f"95 %: {score.interval.replace('–', ' to ')}, " if score.interval else ""
    return f"{score.name} {score.accuracy} % ({interval}loss {score.loss}){', kept' if score.kept else ''}"


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


def _count(n: int, one: str, many: str) -> str:
    return f"{n} {one if n == 1 else many}"
