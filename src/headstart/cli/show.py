"""What commands print of a result, on stdout."""

import heapq
import shlex
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from headstart.cli.tables import print_table
from headstart.errors import safe_text
from headstart.runs import Run

if TYPE_CHECKING:
    from headstart.report.tuning import Score

MOST_CLASSES = 30  # more rows than this are the report's business
MOST_MISTAKES = 3
UNBALANCED = 1.5  # times as many photos in the largest class as in the smallest: accuracy then speaks for the large ones


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
    """A table of each class, then accuracy with its interval and `about` which photos it is, and what it hides."""
    numbers = {"precision": "precision", "recall": "recall", "f1": "f1", "roc_auc": "AUC"}
    rows = list(test["per_class"].items())
    print()
    print_table(
        ("class", *numbers.values(), "photos"),
        [(label, *(_share(row[key]) for key in numbers), str(row["n"])) for label, row in rows[:MOST_CLASSES]],
        right=(*numbers.values(), "photos"),
    )
    if len(rows) > MOST_CLASSES:
        print(f"... and {len(rows) - MOST_CLASSES} more classes")
    print(f"\n{name} {test['accuracy']:.3f} ({_interval(test, 'accuracy')}; {about})")
    sizes = [row["n"] for _, row in rows if row["n"]]
    if max(sizes) >= UNBALANCED * min(sizes):
        balanced = f"{test['balanced_accuracy']:.3f} ({_interval(test, 'balanced_accuracy')}"
        print(f"Balanced accuracy {balanced}; every class counts the same, however few photos it has)")
    if mistakes := _mistakes(test["confusion"]):
        print("Most often mistaken: " + "; ".join(mistakes))


def _interval(test: Mapping[str, Any], key: str) -> str:
    low, high = test["ci95"][key]
    return f"95 % interval {low:.3f} to {high:.3f}"


def _mistakes(confusion: Mapping[str, Any]) -> list[str]:
    """The most frequent pairs of a class and what it is taken for, as counts and shares of the class's photos."""
    labels = [safe_text(label) for label in confusion["labels"]]
    pairs = ((n, i, j, sum(row)) for i, row in enumerate(confusion["counts"]) for j, n in enumerate(row) if n and i != j)
    most = heapq.nsmallest(MOST_MISTAKES, pairs, key=lambda pair: (-pair[0], pair[1:]))
    return [f"{labels[i]} for {labels[j]}, {n} of {of} ({100 * n / of:.0f} %)" for n, i, j, of in most]


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _count(n: int, one: str, many: str) -> str:
    return f"{n} {one if n == 1 else many}"
